"""The amplitudes of the wave experiment."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ssm_jax import config
from ssm_jax.data.prepare import DataPaths
from ssm_jax.stories.waves.task import WaveDataset, open_waves

FEW = {"train": 0, "val": 30, "test": 20}


def test_training_is_the_whole_grid_with_the_first_amplitude_slowest():
    dataset = WaveDataset(8_193, FEW, seed=0)
    rows = dataset.gather("train", np.arange(10_000))["inputs"]
    assert rows.dtype == np.float32 and rows.shape == (10_000, 4)
    expected = list(itertools.product(range(1, 11), repeat=4))
    np.testing.assert_allclose(rows, np.array(expected) / 10, rtol=1e-6)


def test_drawn_amplitudes_are_uniform_and_a_function_of_the_seed():
    whole = {"train": 0, "val": 0, "test": 0}
    first, again, other = (WaveDataset(8_193, whole, seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    test, val = (first.gather(split, np.arange(10_000))["inputs"] for split in ("test", "val"))
    assert 0 <= test.min() < 1e-3 and 0.999 < test.max() < 1
    np.testing.assert_allclose(test.mean(axis=0), 0.5, atol=0.015)
    assert not np.array_equal(test, val)


def test_fewer_for_training_are_spread_over_the_grid():
    dataset = WaveDataset(8_193, {**FEW, "train": 10}, seed=0)
    rows = dataset.gather("train", np.arange(10))["inputs"]
    assert len(np.unique(rows[:, 0])) == 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"padded_length": 8_192}, "8192 puts the wave of 4096 rad/s beyond Nyquist; use more"),
        ({"n_train": 10_001}, "n_train=10001"),
        ({"source": "official"}, "waves are generated"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, words):
    cfg = config.default()
    cfg.data.padded_length = 12_288
    cfg.data.update(changes)
    with pytest.raises(ValueError, match=words):
        open_waves(cfg.data.to_dict(), DataPaths(data_dir=None))
