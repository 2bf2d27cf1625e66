"""What the imaginary part does: the study's rows against the laws that they are to show."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ssm_jax.plots import save
from ssm_jax.plots.autocorrelation import conditioning_figure
from ssm_jax.stories.autocorrelation import conditioning


@pytest.fixture(scope="module")
def results():
    with pytest.MonkeyPatch.context() as patch:
        # 2 / (0.1 alpha) is whole at alpha = 1: modes 20 apart alias to one
        patch.setattr(conditioning, "ALPHAS", np.array([0.1, 1.0, 10.0]))
        patch.setattr(conditioning, "SPACINGS", (0.1, 0.5, 1.0, math.pi))
        patch.setattr(conditioning, "DRAWS", 5)
        return conditioning.measure()


def test_results_are_json_and_can_be_drawn(results, tmp_path):
    save(tmp_path / "conditioning.png", conditioning_figure, results)
    json.dumps(results, allow_nan=False)
    assert "spacing 3.14: condition 1.53 (real)" in conditioning.describe(results)
    assert "condition 1.59e+13 (real), singular in float64 (pairs)" in conditioning.describe(
        results
    )


def test_separation_improves_conditioning(results):
    rows = results["spacings"]
    real = [row["real"] for row in rows]
    assert real == sorted(real, reverse=True)
    assert all(row["complex"] < row["limit"] for row in rows if row["complex"])


def test_close_features_approximate_better_and_take_longer(results):
    rows = [row for row in results["trade_off"] if row["kind"] == "close"]
    least, steps = ([row[key] for row in rows] for key in ("least", "steps"))
    assert least == sorted(least) and steps == sorted(steps, reverse=True)
    on = [row for row in results["trade_off"] if row["kind"] == "on"][-1]
    assert on["spacing"] == math.pi and on["losses"][0] < 1e-6 and on["steps"] is None


def test_alpha_widens_the_window_and_aliases_meet(results):
    slow, usual, fast = results["alpha"]
    assert slow["continuous"] > 1e3 > 3 > usual["continuous"] > fast["continuous"] > 2
    assert usual["sampled"][0] == pytest.approx(usual["continuous"], rel=0.01)
    assert usual["sampled"][2] is None and slow["sampled"][2] is not None
    assert np.argmax(slow["variation"]) < np.argmax(usual["variation"]) == 3
