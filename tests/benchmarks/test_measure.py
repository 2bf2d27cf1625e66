"""Benchmarks: rounds alternate, memory is seen, floors are what they say."""

import re
import time

import jax
import numpy as np
import pytest

from benchmarks.layers import (
    GATE_PRODUCT,
    PRODUCT,
    copy_pass,
    fft_passes,
    kernel_fft_passes,
    matrix_product,
    passes,
)
from benchmarks.measure import (
    PeakMemory,
    in_fresh_process,
    processor_seconds,
    ratio,
    rounds,
    summary,
)


def test_functions_take_turns_and_warmup_does_not_count():
    calls = []
    times = rounds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert [len(seconds) for seconds in times.values()] == [3, 3]


def test_times_are_those_of_the_calls():
    times = rounds({"nap": lambda: time.sleep(0.02)}, 3)
    assert all(0.02 <= seconds < 0.2 for seconds in times["nap"])
    shown = summary(times["nap"])
    assert 20 <= shown["min"] <= shown["median"] <= shown["max"]


def test_ratio_is_the_median_of_the_ratios_of_each_round():
    """A round that something else disturbed counts once, whichever function it hit."""
    times = {"a": [2.0, 20.0, 6.0], "b": [1.0, 1.0, 2.0]}
    assert ratio(times, "a", "b") == 3.0


def test_processor_time_counts_work_and_no_waiting():
    def half_asleep():
        time.sleep(0.1)
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    assert all(0.05 <= seconds < 0.13 for seconds in processor_seconds(half_asleep, 3))


def test_peak_memory_sees_what_is_held_and_given_back():
    held = np.ones(2**20)  # what came before does not count
    with PeakMemory() as memory:
        block = np.ones(64 * 2**17)  # 64 MiB
        del block
    assert held.size and 60 <= memory.mib <= 80 and memory.by == "resident set"


def test_on_accelerators_memory_is_what_is_planned_for_the_program(monkeypatch):
    """Not the allocator's peak, which may be older: results and temporaries, without arguments."""
    x = np.ones((512, 512), np.float32)  # 1 MiB
    product = jax.jit(lambda x: (x @ x) @ (x @ x)).lower(x).compile()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with PeakMemory(product) as memory:
        pass
    assert 2 <= memory.mib <= 5 and memory.by == "XLA's plan"


def _double(x):
    return 2 * x


def test_a_fresh_process_gives_its_result():
    assert in_fresh_process(_double, 21) == 42


def test_a_fresh_process_passes_its_error_on():
    with pytest.raises(TypeError, match="unsupported operand"):
        in_fresh_process(_double, None)


def test_fft_floor_is_a_chain_of_four_transforms_at_twice_the_length():
    four = fft_passes(2, 8, 3)
    assert four().shape == (2, 3, 16)
    program = four.func.lower(*four.args).compile().as_text()
    kinds = re.findall(r"fft_type=(I?RFFT)", program)
    assert sorted(kinds) == ["IRFFT", "IRFFT", "RFFT", "RFFT"], "none may be simplified away"
    assert copy_pass(2, 8, 3)().shape == (2, 3, 9)


def test_kernels_take_one_transform_each_way():
    two = kernel_fft_passes(8, 3)
    assert two().shape == (3, 16)
    program = two.func.lower(*two.args).compile().as_text()
    assert sorted(re.findall(r"fft_type=(I?RFFT)", program)) == ["IRFFT", "RFFT"]


def test_the_large_product_is_of_the_size_that_flops_are_counted_for():
    assert matrix_product("highest")().shape == (2048, 2048)


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_the_gate_is_charged_at_the_precision_of_the_model(precision):
    """An accelerator multiplies at TF32 or bfloat16 faster; the kernels stay at float32."""
    found = passes(1, 8, 2, precision)
    for name, expected in ((GATE_PRODUCT, precision), (PRODUCT, "highest")):
        product = found[name]
        text = product.func.lower(*product.args).as_text()
        stated = re.findall(r"precision = \[(\w+), (\w+)\]", text) or [("DEFAULT", "DEFAULT")]
        assert stated == [(expected.upper(),) * 2]
    assert GATE_PRODUCT not in passes(1, 8, 2)
