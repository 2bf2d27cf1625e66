"""How far back a layer reaches: the study's numbers against loops and closed forms."""

from __future__ import annotations

import json
import math

import numpy as np
import oracles
import pytest
from running import numbers

from ssm_jax.analysis.autocorrelation import lambda_max
from ssm_jax.plots import save
from ssm_jax.plots.autocorrelation import memory_figure
from ssm_jax.stories.autocorrelation import memory

SMALL = {"L": 64, "DELAY": 16, "H": 4, "N": 8, "AVERAGE": 8}


@pytest.fixture
def small(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(memory, name, value)


@pytest.fixture(scope="module")
def rows():
    """A short study, of two compiled programs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(memory, name, value)
        return [*memory.runs(steps=60, seeds=(0, 1))]


def test_signals_are_band_limited_with_variance_1():
    x_nL = memory.signals(np.random.default_rng(0), 100)
    assert x_nL.var() == pytest.approx(1, abs=0.05)
    taper = np.hanning(memory.L)
    power = np.mean(np.abs(np.fft.rfft(x_nL * taper)) ** 2, axis=0)
    angle = np.linspace(0, math.pi, power.size)
    assert power[angle > 1.1 * memory.BAND].max() < 1e-3 * power[angle < memory.BAND].mean()


def test_lambda_max_is_that_of_a_sample(small):
    """The estimator takes a few percent too much of a finite sample."""
    found = lambda_max(memory.signals(np.random.default_rng(1), 4_000)).estimate
    assert found == pytest.approx(memory.lambda_max(), rel=0.06)
    assert 0.9 * math.pi / memory.BAND < memory.lambda_max() < math.pi / memory.BAND


def test_reach_is_the_kernel_of_each_channel(small):
    model = memory.Delay(-0.5, (0.01, 0.1), 3)
    p = numbers(model)
    A = np.tile(np.asarray(model.ssm.modes(), complex), (memory.H, 1))
    dt = np.asarray(model.ssm.step_sizes(), float)
    k_HL = oracles.s4d_kernel(A, p["ssm"]["C_ri"][0] @ [1, 1j], dt, memory.L)
    exact = np.abs(p["encoder"][:, None] * p["decoder"][:, None] * k_HL)
    np.testing.assert_allclose(memory.reach(model), exact, atol=1e-5 * exact.max())


@pytest.mark.parametrize("real_part", [-0.5, -0.05, 0.0])
def test_the_older_half_is_what_the_decay_leaves(real_part, monkeypatch):
    """Of e^{Re(A) dt lag} over two halves: 1 / (1 + e^{-Re(A) dt L / 2}).

    S4D-Lin repeats itself after 2 / dt = 32 steps, but for the decay, so that one channel is enough
    to be exact to a few percent.
    """
    monkeypatch.setattr(memory, "L", 128)
    model = memory.Delay(real_part, (1 / 16, 1 / 16), 0)
    expected = 1 / (1 + math.exp(-real_part / 16 * 64))
    assert memory.share_of_older_half(memory.reach(model)) == pytest.approx(expected, rel=0.02)


def test_training_keeps_modes_damped_and_freezes_real_parts_alone(rows):
    assert [row["trained"] for row in rows] == [True, True, True, False] * 3
    for row in rows:
        assert all(re < 0 if row["trained"] else re == 0 for re in row["real_part_after"])
        assert row["curve_before"] != row["curve_after"]
    # 1 is what zeros as outputs have
    assert np.mean([row["error"] for row in rows if row["timescale"] == "rule"]) < 0.9
    with pytest.raises(ValueError, match="matches no parameter"):
        memory.train([memory.Delay(0.0, (0.1, 0.1), 0)], 0, freeze="A_real", steps=1)


def test_a_study_has_a_row_for_each_timescale_and_real_part(rows, tmp_path):
    assert len(rows) == 12 and len(rows[0]["curve_after"]) == 8
    json.dumps(rows, allow_nan=False)
    assert memory.describe({"runs": rows}).count("\n") == 11
    shown = {"runs": rows, "average": 8, "delay": 16}
    save(tmp_path / "memory.png", memory_figure, shown)
    still = [row for row in rows if row["real_part"] == 0]
    assert all(0.3 < row["share_before"][0] < 0.7 for row in still)
