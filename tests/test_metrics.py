"""Metrics from sums over batches, against loops in float64 over all examples at once."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm_jax.data.preprocessing import Preprocessing
from ssm_jax.tasks.heads import number_eval_sums, number_summary, number_train_sums
from ssm_jax.tasks.metrics import (
    BANDS,
    band_sums,
    class_metrics,
    confusion_sums,
    moment_sums,
    moments_of,
    number_metrics,
)
from ssm_jax.training.runs.scores import errors_of

RNG = np.random.default_rng(0)


def added(parts):
    return {k: np.sum([np.asarray(p[k], np.float64) for p in parts], axis=0) for k in parts[0]}


def test_class_metrics():
    K, n = 4, 60
    logits, targets = RNG.normal(size=(n, K)), RNG.integers(0, 3, n)  # the last class has none
    mask = np.repeat([1.0, 0.0], [50, 10])
    args = [np.split(a, [25]) for a in (logits, targets, mask)]
    sums = added([confusion_sums(*map(jnp.asarray, part)) for part in zip(*args, strict=True)])
    found = class_metrics(sums["confusion"])
    predicted, y = logits[:50].argmax(1), targets[:50]
    recalls, f1 = [], []
    for k in range(K):
        right = sum(p == t == k for p, t in zip(predicted, y, strict=True))
        real, said = (y == k).sum(), (predicted == k).sum()
        recalls += [right / real] if real else []
        f1 += [2 * right / (real + said)] if real + said else []
    assert found["accuracy"] == pytest.approx((predicted == y).mean())
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["f1"] == pytest.approx(np.mean(f1))


@pytest.fixture(scope="module")
def forecast():
    """Targets and outputs (n, T, K) in their units, with two missing targets and three fillers."""
    n, T, K = 31, 16, 2
    y = RNG.normal(size=(n, T, K)) * [2.0, 50.0] + [10.0, -300.0]
    p = y + RNG.normal(size=y.shape) * [1.0, 20.0]
    y[3, 5, 0] = y[7, 2, 1] = np.nan
    center, unit = np.array([9.0, -290.0]), np.array([2.5, 40.0])
    scaled = [((a - center) / unit).astype(np.float32) for a in (y, p)]
    filled = [np.concatenate([a, a[-1:], a[-1:], a[-1:]]) for a in scaled]
    args = [np.split(a, [17]) for a in (*filled, np.repeat([1.0, 0.0], [n, 3]))]
    parts = [list(map(jnp.asarray, part)) for part in zip(*args, strict=True)]
    sums = added([{**moment_sums(*part), **band_sums(*part)} for part in parts])
    return number_metrics(sums, center, unit), y, p, center, unit


def test_errors_and_efficiencies(forecast):
    found, y, p, _, unit = forecast
    rows = []
    for k in range(2):
        there = ~np.isnan(y[..., k])
        a, b = y[..., k][there], p[..., k][there]
        r, spread, bias = np.corrcoef(a, b)[0, 1], b.std() / a.std(), b.mean() / a.mean()
        rows.append(
            {
                "mae": np.abs(a - b).mean() / unit[k],
                "mse": ((a - b) ** 2).mean() / unit[k] ** 2,
                "nse": 1 - ((a - b) ** 2).sum() / ((a - a.mean()) ** 2).sum(),
                "kge": 1 - np.sqrt((r - 1) ** 2 + (spread - 1) ** 2 + (bias - 1) ** 2),
            }
        )
    for name in rows[0]:
        assert found[name] == pytest.approx(np.mean([row[name] for row in rows]), rel=1e-4), name
    assert found["r2"] == found["nse"] and found["rmse"] == pytest.approx(found["mse"] ** 0.5)


@pytest.mark.parametrize(("level", "spread"), [(288.0, 0.5), (1013.0, 1.2), (-5000.0, 6.0)])
def test_efficiencies_of_numbers_far_from_0_are_those_of_float64(level, spread):
    """As targets are with standardize=none: kelvins, or hectopascals."""
    y = (level + spread * RNG.normal(size=(20, 32, 24, 1))).astype(np.float32)
    p = (y + 0.3 * spread * RNG.normal(size=y.shape)).astype(np.float32)
    sums = added(
        [moment_sums(*map(jnp.asarray, pair), jnp.ones(32)) for pair in zip(y, p, strict=True)]
    )
    found = number_metrics(sums, np.zeros(1), np.ones(1))
    a, b = (x.astype(np.float64).ravel() for x in (y, p))
    kge = (np.corrcoef(a, b)[0, 1], b.std() / a.std(), b.mean() / a.mean())
    assert found["nse"] == pytest.approx(1 - np.mean((a - b) ** 2) / a.var(), abs=1e-3)
    assert found["kge"] == pytest.approx(1 - np.linalg.norm(np.subtract(kge, 1)), abs=1e-3)
    constant = moment_sums(jnp.full((32, 24, 1), level + 0.3), jnp.asarray(p[0]), jnp.ones(32))
    assert np.isnan(number_metrics(added([constant]), np.zeros(1), np.ones(1))["nse"])


def test_errors_by_band_are_those_of_a_direct_fourier_sum(forecast):
    found, y, p, center, unit = forecast
    T, error, energy = y.shape[1], np.zeros(4), np.zeros(4)
    for i in range(len(y)):
        for k in range(2):
            if np.isnan(y[i, :, k]).any():
                continue
            for f in range(T // 2 + 1):
                wave = np.exp(-2j * np.pi * f * np.arange(T) / T)
                share = f / (T / 2)
                band = max(b for b in range(4) if b == 0 or share > BANDS[b])
                scaled = (y[i, :, k] - center[k]) / unit[k]
                error[band] += abs(wave @ ((p - y)[i, :, k] / unit[k])) ** 2
                energy[band] += abs(wave @ scaled) ** 2
    for b in range(4):
        name = f"error_{BANDS[b]:g}_{BANDS[b + 1]:g}"
        assert found[name] == pytest.approx(np.sqrt(error[b] / energy[b]), rel=1e-4)


def test_errors_by_band_of_unequal_series_are_those_of_each_over_its_own_length():
    """However batches are padded and filled: a series once counted only where it filled its own."""
    lengths = np.array([7, 40, 33, 12, 64, 25, 50], np.int32)
    y, p = np.full((2, 7, 64, 2), np.nan, np.float32)
    error, energy, whole = np.zeros(4), np.zeros(4), 0.0
    for b, T in enumerate(lengths):
        y[b, :T] = RNG.normal(size=(T, 2)).cumsum(axis=0)
        p[b] = RNG.normal(size=(64, 2)) + 0.3  # of padding a model says something, too
        y[3, 3, 0] = np.nan
        for k in range(2):
            real, said = y[b, :T, k].astype(float), p[b, :T, k].astype(float)
            if np.isnan(real).any():
                continue
            for sums, x in ((error, said - real), (energy, real)):
                power, share = np.abs(np.fft.rfft(x)) ** 2 / T, np.arange(T // 2 + 1) / (T / 2)
                for i in range(4):
                    sums[i] += power[(share > (BANDS[i] or -1)) & (share <= BANDS[i + 1])].sum()
            nyquist = real @ (-1.0) ** np.arange(T) if T % 2 == 0 else 0.0
            whole += (real @ real + (real.sum() ** 2 + nyquist**2) / T) / 2
    np.testing.assert_allclose(energy.sum(), whole)  # by Parseval
    evaluate = jax.jit(lambda batch: number_eval_sums(lambda x, lengths, **ways: x, batch))
    for size, padded in ((7, [64]), (4, [40, 64])):
        parts = []
        for first, L in zip(range(0, 7, size), padded, strict=True):
            numbers = np.arange(first, first + size)
            rows = np.minimum(numbers, 6)
            batch = {"targets": y[rows, :L], "inputs": p[rows, :L], "lengths": lengths[rows]}
            parts.append(evaluate({**batch, "mask": (numbers < 7).astype(np.float32)}))
        sums = added(parts)
        np.testing.assert_allclose(sums["energy"], energy, rtol=1e-5)
        np.testing.assert_allclose(sums["error_energy"], error, rtol=1e-5)


def test_a_band_without_a_frequency_has_no_error():
    """Of 7 steps the frequencies are 0, 2/7, 4/7 and 6/7 of Nyquist."""
    y = jnp.asarray(RNG.normal(size=(5, 7, 1)), jnp.float32)
    args = y, 0 * y, jnp.ones(5)
    found = number_metrics({**moment_sums(*args), **band_sums(*args)}, np.zeros(1), np.ones(1))
    bands = {name: value for name, value in found.items() if name.startswith("error_")}
    assert bands == {f"error_{band}": pytest.approx(1) for band in ("0_0.125", "0.25_0.5", "0.5_1")}


def test_errors_of_targets_and_series_are_those_of_loops(forecast):
    """In the units of the files, and the medians over series, of which one is constant."""
    _, y, p, center, unit = forecast
    y, p, series = y.copy(), p.copy(), np.arange(len(y)) % 5
    y[series == 3, :, 0] = 7.0
    about = preprocessing(center, unit)
    found = errors_of(moments_of((y - center) / unit, (p - center) / unit), series, about)
    for k, row in enumerate(found):
        a, b = y[..., k], p[..., k]
        assert row["target"] == f"y{k}"
        assert row["mae"] == pytest.approx(np.nanmean(np.abs(a - b)))
        assert row["rmse"] == pytest.approx(np.nanmean((a - b) ** 2) ** 0.5)
        assert row["bias"] == pytest.approx(np.nanmean(b - a))
        nse = []
        for i in range(5):
            real, said = a[series == i], b[series == i]
            apart = np.nansum((real - np.nanmean(real)) ** 2)
            nse += [1 - np.nansum((real - said) ** 2) / apart] if apart > 0 else []
        assert row["series"] == len(nse) == 5 - (k == 0)
        assert row["median_nse"] == pytest.approx(np.median(nse))
    alone = errors_of(moments_of(y * np.nan, p), None, about)
    assert alone == [{"target": "y0"}, {"target": "y1"}], "what is missing has no error"


def preprocessing(center, unit):
    return Preprocessing(
        head="per_step", channels=("a",), mean=(0.0,), std=(1.0,), targets=("y0", "y1"),
        target_mean=tuple(center), target_std=tuple(unit), padded_length=16,
    )  # fmt: skip


def test_an_example_without_any_target_has_no_part_in_the_loss():
    """Nor has a batch of such examples a loss that is not finite, which would end a run."""
    y, p = RNG.normal(size=(2, 5, 6, 2)).astype(np.float32)
    y[1, 2:], y[3], y[4, 0, 1] = np.nan, np.nan, np.nan
    batch = {"inputs": jnp.asarray(p), "targets": jnp.asarray(y)}

    def model(x, lengths, **ways):
        return x

    each = [np.nanmean((p[i] - y[i]) ** 2) for i in (0, 1, 2, 4)]
    train, val = number_train_sums(model, batch, None), number_eval_sums(model, batch)
    masked = number_eval_sums(model, {**batch, "mask": jnp.array([1.0, 1, 1, 1, 0])})
    for sums, wanted in ((train, each), (val, each), (masked, each[:3])):
        for name in ("loss", "mse") if sums is train else ("loss",):
            assert sums[name] / sums["count"] == pytest.approx(np.mean(wanted), rel=1e-6)
    nothing = {**batch, "targets": jnp.full(y.shape, jnp.nan)}
    sums = number_train_sums(model, nothing, None)
    assert sums["loss"] / sums["count"] == 0
    about = SimpleNamespace(preprocessing=preprocessing(np.zeros(2), np.ones(2)))
    sums = added([number_eval_sums(model, nothing)])
    assert np.isnan(number_summary(sums, about)["loss"]), "a split without targets has no loss"
