"""The reader of optimized HLO, against texts written by hand and programs in closed form."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ssm_jax.accelerators import hlo, program
from ssm_jax.kernels.devices import compiling_for
from ssm_jax.models.gate import gelu

# A loop over six layers that keeps a sum of each, as XLA writes modules for GPUs
LOOP = (Path(__file__).parent / "loop.hlo").read_text()
X, W = 4 * 8 * 16, 4 * 16 * 16  # bytes of f32[8,16] and f32[16,16]


@pytest.mark.parametrize("noted", [True, False])
def test_a_loop_counts_as_often_as_it_turns_and_slices_as_slices(noted):
    """Of the stack of six each turn reads and writes one; TPUs leave the count to the condition."""
    note = ', backend_config={"known_trip_count":{"n":"6"}}'
    found = program.read(LOOP if noted else LOOP.replace(note, ""))
    product, kept = found.kernels
    assert (product.times, product.read, product.written) == (6, X + W, X)
    assert (kept.times, kept.read, kept.written) == (6, X + X + 4, X)  # and the counter
    assert found.moved == 6 * (X + W + X + X + X + 4 + X)
    assert (found.launches, found.loops, found.unknown_loops) == (12, [6], 0)
    assert found.flops == {"products": 6 * 2 * 8 * 16 * 16, "elements": 6 * 8 * 16}


def test_a_loop_of_unknown_length_counts_once_and_is_said():
    note = ', backend_config={"known_trip_count":{"n":"6"}}'
    text = LOOP.replace(note, "").replace("constant(6)", "parameter(1)")
    found = program.read(text)
    assert (found.launches, found.loops, found.unknown_loops) == (2, [1], 1)


def test_products_have_their_precision_and_the_line_that_asked_for_them():
    (product,) = program.read(LOOP).products
    assert (product.dtype, product.precision, product.times) == ("f32", "highest", 6)
    assert product.source == "ssm_jax/kernels/scan.py:42"
    assert hlo.parse(LOOP).sources[1] == "flax/linear.py:7"
    plain = LOOP.replace(", operand_precision={highest,highest}", "")
    assert program.read(plain).products[0].precision == "default"
    chosen = LOOP.replace("operand_precision={highest,highest}", "algorithm=dot_bf16_bf16_f32_x3")
    assert program.read(chosen).products[0].precision == "dot_bf16_bf16_f32_x3"


def test_what_goes_through_a_rule_is_named_by_its_caller():
    """Which is the caller's caller where rules run rules; a rule without one keeps its own name."""
    files = (
        "ssm_jax/models/gate.py",
        "/tree/ssm_jax/kernels/rules.py",
        "/tree/ssm_jax/kernels/devices.py",
    )
    lines = [
        "FileNames",
        *(f'{i} "{name}"' for i, name in enumerate(files, 1)),
        "FileLocations",
        *(f"{i} {{file_name_id={file} line={10 * i}}}" for i, file in enumerate((1, 3, 2), 1)),
        "StackFrames",
        "1 {file_location_id=1 parent_frame_id=1}",
        "2 {file_location_id=2 parent_frame_id=2}",  # called by frame 1
        "3 {file_location_id=3 parent_frame_id=3}",  # by frame 2
        "4 {file_location_id=3 parent_frame_id=1}",  # by nobody
        "",
        "ENTRY %main (x: f32[8]) -> f32[8] {",
    ]
    sources = hlo.parse("\n".join(lines)).sources
    assert [sources[i] for i in (1, 2, 3)] == ["ssm_jax/models/gate.py:10"] * 3
    assert sources[4] == "ssm_jax/kernels/rules.py:30"


def test_a_compiled_rule_is_named_by_the_line_that_asked_for_it():
    noted = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 100)  # as users have it
    with compiling_for("gpu"):
        text = compiled(gelu, (64,)).as_text()
    jax.config.update("jax_traceback_in_locations_limit", noted)
    assert {kernel.source.partition(":")[0] for kernel in program.read(text).kernels} == {
        "ssm_jax/models/gate.py"
    }


def entry(*lines: str) -> str:
    """A module of one computation."""
    body = "\n".join(f"  {line}" for line in lines)
    return f"HloModule jit_f\n\nENTRY %main (x: f32[8,16]) -> f32[8,16] {{\n{body}\n}}\n"


def test_an_update_counts_as_a_slice_where_it_is_in_place_alone():
    """Where others in the kernel read the updated array, the kernel reads all of it."""
    fused = """%fused (p0: f32[8,16], p1: f32[1,16]) -> f32[8,16] {
  %p0 = f32[8,16]{1,0} parameter(0)
  %p1 = f32[1,16]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %new = f32[8,16]{1,0} dynamic-update-slice(%p0, %p1, %zero, %zero)
  ROOT %out = f32[8,16]{1,0} add(%new, %new)
}

"""
    call = entry(
        "%x = f32[8,16]{1,0} parameter(0)",
        "%row = f32[1,16]{1,0} parameter(1)",
        "ROOT %y = f32[8,16]{1,0} fusion(%x, %row), kind=kLoop, calls=%fused",
    ).split("\n\n", 1)
    (used,) = program.read(f"{call[0]}\n\n{fused}{call[1]}").kernels
    assert (used.read, used.written) == (X + 64, X)
    in_place = fused.replace("  ROOT %out = f32[8,16]{1,0} add(%new, %new)\n", "")
    in_place = in_place.replace("%new =", "ROOT %new =")
    (kept,) = program.read(f"{call[0]}\n\n{in_place}{call[1]}").kernels
    assert (kept.read, kept.written) == (64, 64)


def test_a_product_of_a_library_is_one():
    config = (
        '{"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],'
        '"rhs_contracting_dimensions":["0"]},"precision_config":{"operand_precision":'
        '["DEFAULT","DEFAULT"],"algorithm":"ALG_UNSET"}}}'
    )
    found = program.read(
        entry(
            "%x = f32[8,16]{1,0} parameter(0)",
            "%w = f32[16,32]{1,0} parameter(1)",
            "ROOT %y = (f32[8,32]{1,0}, s8[64]{0}) custom-call(%x, %w), "
            f'custom_call_target="__cublas$gemm", backend_config={config}',
        )
    )
    assert found.flops["products"] == 2 * 8 * 16 * 32
    assert [product.precision for product in found.products] == ["default"]
    assert found.kernels[0].opcode == "__cublas$gemm"


def test_messages_between_devices_are_counted_however_they_are_spelled():
    """GPUs write a start and a done; one message is one, and is a gather by either name."""
    x = "%x = f32[8,16]{1,0} parameter(0)"
    one = program.read(
        entry(x, "ROOT %g = f32[32,16]{1,0} all-gather(%x), replica_groups={}, dimensions={0}")
    )
    two = program.read(
        entry(
            x,
            "%g = (f32[8,16]{1,0}, f32[32,16]{1,0}) all-gather-start(%x), dimensions={0}",
            "%d = f32[32,16]{1,0} all-gather-done(%g)",
            "%r = (f32[8,16]{1,0}, f32[8,16]{1,0}) all-reduce-start(%x, %x), to_apply=%sum",
            "ROOT %e = (f32[8,16]{1,0}, f32[8,16]{1,0}) all-reduce-done(%r)",
        )
    )
    assert [(m.opcode, m.times, m.nbytes) for m in one.collectives] == [("all-gather", 1, X)]
    expected = [("all-gather", 1, X), ("all-reduce", 1, 2 * X)]
    assert [(m.opcode, m.times, m.nbytes) for m in two.collectives] == expected
    assert one.moved == X + 4 * X
    assert two.moved == one.moved + 2 * X + 2 * X


def test_what_is_on_the_chip_moves_no_bytes():
    text = entry(
        "%x = f32[8,16]{1,0:T(8,128)} parameter(0)",
        "%c = (f32[8,16]{1,0:T(8,128)S(1)}, f32[8,16]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)",
        "%d = f32[8,16]{1,0:T(8,128)S(1)} copy-done(%c)",
        "ROOT %y = f32[8,16]{1,0:T(8,128)} add(%d, %d)",
    )
    assert program.read(text, on_chip=(1, 2)).moved == X + X
    assert program.read(text).moved == X + X + 3 * X


def test_what_is_no_module_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo.parse("HloModule jit_f")
    with pytest.raises(ValueError, match="an instruction without an end"):
        hlo.instruction("  %x = f32[2]{0} add(%a, %b")


def compiled(function, *shapes, dtype=jnp.float32):
    args = (jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
    return jax.jit(function).lower(*args).compile()


def test_a_product_and_a_sum_move_and_compute_what_they_must():
    """On a CPU, beside what XLA counts itself where nothing is in a loop."""
    m, k, n = 24, 40, 56
    step = compiled(jnp.dot, (m, k), (k, n))
    found = program.read(step.as_text())
    assert found.flops["products"] == 2 * m * k * n == step.cost_analysis()["flops"]
    assert found.moved == 4 * (m * k + k * n + m * n) == step.cost_analysis()["bytes accessed"]

    step = compiled(lambda a, b: a * b + a, (1000,), (1000,))
    found = program.read(step.as_text())
    assert found.flops["elements"] == 2000
    assert found.moved == 4 * 3000


def test_complex_products_are_four_real_ones():
    found = program.read(compiled(jnp.dot, (8, 4), (4, 2), dtype=jnp.complex64).as_text())
    assert found.flops["products"] == 8 * 8 * 4 * 2


@pytest.mark.parametrize("real", [True, False])
def test_an_fft_is_counted_by_its_length(real):
    n, batch = 64, 10
    fft, dtype = (jnp.fft.rfft, jnp.float32) if real else (jnp.fft.fft, jnp.complex64)
    found = program.read(compiled(fft, (batch, n), dtype=dtype).as_text())
    assert found.ffts == 1
    assert found.flops["ffts"] == (2.5 if real else 5) * batch * n * 6


def test_a_scan_over_layers_is_its_body_times_their_number():
    def layers(x, w):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), x), x, w)

    x, w = (8, 16), (16, 16)
    once = program.read(compiled(lambda x, w: jnp.tanh(x @ w), x, w).as_text())
    found = program.read(compiled(layers, x, (5, *w)).as_text())
    assert found.flops["products"] == 5 * once.flops["products"]
    assert 5 in found.loops and not found.unknown_loops
    assert found.moved >= 5 * once.moved


@pytest.mark.parametrize(
    ("window", "labels", "shapes", "expected"),
    [
        # a matrix product as TPUs write it
        ("", "bf_io->bf", ("8,16", "16,32", "8,32"), 2 * 8 * 16 * 32),
        # three taps over ten steps: nothing is computed of the padding
        ("window={size=3 pad=1_1}, ", "b0f_0io->b0f", ("2,10,4", "3,4,5", "2,10,5"),
         2 * 2 * 5 * 4 * (3 * 10 - 2)),
        # a batch of six products, whose other pairs are holes of the dilation
        ("window={size=6 stride=5 pad=0_0 lhs_dilate=6}, ", "0bf_0io->0bf",
         ("6,8,16", "6,16,32", "6,8,32"), 2 * 8 * 16 * 32 * 6),
    ],
)  # fmt: skip
def test_a_convolution_computes_what_is_there(window, labels, shapes, expected):
    left, right, result = shapes
    text = entry(
        f"%x = f32[{left}] parameter(0)",
        f"%w = f32[{right}] parameter(1)",
        f"ROOT %y = f32[{result}] convolution(%x, %w), {window}dim_labels={labels}",
    )
    assert program.read(text).flops["products"] == expected
