"""Delay: the signals, what scores 0 and what scores the variance, and a run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import ssm_jax
from ssm_jax import config
from ssm_jax.config import check as config_check
from ssm_jax.config.load import load_config
from ssm_jax.data.prepare import DataPaths
from ssm_jax.tasks import find_task
from ssm_jax.tasks.delay import DelayDataset
from ssm_jax.tasks.heads import number_eval_sums, number_summary
from ssm_jax.training import loop
from ssm_jax.training.experiment import build

COUNTS = {"train": 0, "val": 0, "test": 0}


@pytest.mark.parametrize(("length", "band", "harmonics"), [(24, 0.5, 6), (25, 1.0, 12)])
def test_an_example_by_a_loop_over_waves(length, band, harmonics):
    dataset = DelayDataset(length, 7, band, COUNTS, seed=5)
    batch = dataset.gather("val", np.array([4, 2]))
    for b, number in enumerate((4, 2)):
        key, counter = np.array([5, number], np.uint64), np.array([0, 0, 0, 8], np.uint64)
        words = [int(w) for w in np.random.Philox(key=key, counter=counter).random_raw(64)]
        u = [(w // 2**11 + 1) / 2**53 for w in words]
        x = []
        for t in range(length):
            x.append(0.0)
            for k in range(1, harmonics + 1):
                radius = math.sqrt(-2 * math.log(u[k - 1]))
                angle = 2 * math.pi * (k * t / length - u[harmonics + k - 1])
                x[t] += 0.5 / math.sqrt(harmonics) * radius * math.cos(angle)
        x = [value - x[0] for value in x]
        y = [0.0] * 7 + x[: length - 7]
        np.testing.assert_allclose(batch["inputs"][b, :, 0], x, atol=1e-6)
        np.testing.assert_allclose(batch["targets"][b, :, 0], y, atol=1e-6)
    one = dataset.gather("val", np.array([2]))
    np.testing.assert_array_equal(one["inputs"][0], batch["inputs"][1])


def test_signals_have_the_published_spread_and_band():
    dataset = find_task("delay").open_data(load_config("delay").data.to_dict(), DataPaths(None))
    assert [dataset.size(split) for split in dataset.splits] == [16_384, 1_024, 1_024]
    assert (dataset.padded_length, dataset.lag, dataset.harmonics) == (4_000, 1_000, 1_000)
    x_BL = dataset.gather("train", np.arange(100))["inputs"][..., 0].astype(np.float64)
    assert x_BL.std(axis=1).mean() == pytest.approx(0.5, rel=0.01)
    power_F = (np.abs(np.fft.rfft(x_BL)) ** 2).mean(axis=0)
    assert power_F[1_001:].max() < 1e-6 * power_F[1:1_001].min()
    assert power_F[1:501].mean() == pytest.approx(power_F[501:1_001].mean(), rel=0.03)


def test_the_first_value_rules_lambda_max():
    """Var x_0 is 1/4, a constant over L = 64 steps; without it 64 / (2 K) / 4 for K = 16 waves."""
    counts = {**COUNTS, "train": 2_000}
    for from_zero, low, high in ((True, 15, 18), (False, 0.5, 0.7)):
        dataset = DelayDataset(64, 16, 0.5, counts, seed=0, from_zero=from_zero)
        x_BL = dataset.gather("train", np.arange(2_000))["inputs"][..., 0].astype(np.float64)
        assert (x_BL[:, 0] == 0).all() == from_zero
        assert low < np.linalg.eigvalsh(x_BL.T @ x_BL / 2_000)[-1] < high
    assert dataset.facts("train")["mean_mse"] == pytest.approx(0.25 * 48 / 64, rel=0.03)


def test_the_past_itself_scores_0_and_nothing_scores_the_variance():
    dataset = DelayDataset(64, 16, 0.5, {**COUNTS, "test": 40}, seed=0)
    batch = dataset.gather("test", np.arange(40))

    def says(y):
        sums = number_eval_sums(lambda *_, **__: y, batch)
        return number_summary({k: np.asarray(v, np.float64) for k, v in sums.items()}, dataset)

    right, nothing = says(batch["targets"]), says(np.zeros_like(batch["targets"]))
    assert right["rmse"] == 0 and right["r2"] == 1
    by_hand = (batch["targets"].astype(np.float64) ** 2).mean()
    assert nothing["mse"] == pytest.approx(by_hand, rel=1e-5)
    assert dataset.facts("test") == {"mean_mse": pytest.approx(by_hand, rel=1e-5)}
    assert by_hand == pytest.approx(0.5 * 48 / 64, rel=0.2)  # Var x_t - x_0 is twice 1/4


def test_what_does_not_go_together_is_said_in_a_line():
    cfg = config.default("delay")
    cfg.train.steps, cfg.model.pool, cfg.train.select_metric = 1, "none", "rmse"
    cfg.data.padded_length, cfg.data.delay.lag = 64, 64
    with pytest.raises(ValueError, match=r"delay\.lag=64 must be below data.padded_length=64"):
        config_check.check(cfg)
    cfg.data.padded_length, cfg.data.delay.lag = 3, 0
    with pytest.raises(ValueError, match=r"padded_length=3 has no quarter for data\.delay\.lag=0"):
        config_check.check(cfg)
    cfg.data.padded_length, cfg.data.delay.band = 64, 0.03
    config_check.check(cfg)
    with pytest.raises(ValueError, match=r"band=0\.03 has no harmonic of 64 steps; .* least 0.031"):
        find_task("delay").open_data(cfg.data.to_dict(), DataPaths(None))


def test_a_run_ends_with_the_variance_beside_it_and_can_be_used(tmp_path, capsys):
    cfg = load_config("delay:smoke")
    cfg.figures, cfg.log.diagnostics = False, False
    cfg.model.depth, cfg.model.d_state, cfg.data.padded_length = 1, 3, 24
    cfg.train.steps, cfg.train.eval_every = 4, 2
    experiment = build(cfg, data_dir=tmp_path)
    assert loop.train_and_evaluate(experiment, tmp_path / "run") == loop.EXIT_DONE
    assert "(mean mse 0." in capsys.readouterr().err
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["test"]["rmse"] == pytest.approx(summary["test"]["mse"] ** 0.5)
    assert summary["test"]["error_0_0.125"] > 0
    batch = experiment.dataset.gather("test", np.arange(8))
    values = ssm_jax.load(tmp_path / "run").predict(batch["inputs"][..., 0])
    error = np.mean((values - batch["targets"]) ** 2)
    assert error == pytest.approx(summary["test"]["mse"], rel=1e-4)
