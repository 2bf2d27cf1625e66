"""The configs of the tasks of docs/autocorrelation.md: what they sweep, and what arms differ in."""

from __future__ import annotations

import itertools

import pytest

from ssm_jax import config
from ssm_jax.config.load import load_config, load_sweep
from ssm_jax.lra.variants import ARMS


@pytest.mark.parametrize(
    ("spec", "lengths"),
    [
        ("copying", (120, 520, 1_020)),
        ("copying:rtf", (512, 1_024, 2_048)),
        ("copying:reduced", (128, 256, 512)),
        ("copying:rtf,reduced", (128, 256, 512)),
        ("delay", (1_000, 2_000, 4_000)),
        ("delay:reduced", (256, 512, 1_024)),
    ],
)
def test_a_sweep_has_four_rules_for_dt_by_two_real_parts_by_three_lengths(spec, lengths):
    cfg = load_config(spec)
    assert cfg.data.padded_length in lengths
    cells = load_sweep(spec, cfg)  # which checks every cell
    assert {(c["data.padded_length"], c["model.alpha_real"]) for c in cells} == set(
        itertools.product(lengths, (0.0, 1.0))
    )
    for L in lengths:
        found = [
            (c["model.dt_rule"], c["model.dt_min"])
            for c in cells
            if c["data.padded_length"] == L and c["model.alpha_real"] == 0
        ]
        assert found == [
            ("fixed", pytest.approx(1 / L)),
            ("autocorrelation", 0.001),
            ("fixed", pytest.approx(L**-0.5)),
            ("log_uniform", 0.001),
        ]
        if "rtf" in spec:
            same = {c["data.copying.memorize"] for c in cells if c["data.padded_length"] == L}
            assert same == {L // 2}
    assert cfg.model.real_transform == "clip"
    assert {cell.get("model.dt_max", cfg.model.dt_max) for cell in cells} == {0.1}


def test_sequential_digits_differ_in_what_their_argument_says_alone():
    usual = config.flatten(load_config("smnist"))
    assert usual["data.arrays.decorrelate"] == 0 and usual["data.arrays.set"] == "smnist"

    def changed(arg):
        other = config.flatten(load_config(f"smnist:{arg}"))
        return {key: other[key] for key in usual if other[key] != usual[key] and key != "name"}

    assert changed("decorrelated") == {"data.arrays.decorrelate": 0.1}
    assert changed("fashion") == {"data.arrays.set": "fashion_mnist"}
    assert changed("mnist") == {"data.arrays.set": "mnist"}
    assert ARMS.keys() == {"s4d_ac", "s4d_re0"}
    assert changed("s4d_ac") == {"model.dt_rule": "autocorrelation"}
    assert changed("s4d_re0") == {"model.alpha_real": 0.0}
