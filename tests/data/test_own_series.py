"""Splits, statistics, windows and baselines of a user's series, against loops over the arrays."""

import numpy as np
import pytest

from ssm_jax import config as config_lib
from ssm_jax.data.arrays import open_arrays

RNG = np.random.default_rng(1)


def opened(path, head="classification", **options):
    data = config_lib.default(head).data.to_dict()
    shared = {k: options.pop(k) for k in list(options) if k in data}
    data |= {"padded_length": 0} | shared
    data["arrays"] |= options
    return open_arrays(head, data, path)


@pytest.fixture
def labelled(tmp_path):
    x = 5 + 3 * RNG.normal(size=(60, 8, 2))
    np.savez(tmp_path / "a.npz", x=x, y=np.repeat(["b", "a", "c"], 20))
    return tmp_path / "a.npz", x


def test_each_example_is_in_one_split_and_each_class_in_all(labelled):
    dataset = opened(labelled[0], seed=4)
    rows = np.concatenate([dataset.rows[s] for s in dataset.splits])
    assert sorted(rows) == list(range(60))
    for split, n in {"train": 42, "val": 6, "test": 12}.items():
        batch = dataset.gather(split, np.arange(dataset.size(split)))
        assert np.bincount(batch["targets"]).tolist() == [n // 3] * 3
    assert dataset.preprocessing.classes == ("a", "b", "c")
    other = opened(labelled[0], seed=5)
    assert other.fingerprint != dataset.fingerprint
    assert (other.rows["test"] != dataset.rows["test"]).any()


def test_channels_are_standardized_by_the_training_examples_alone(labelled):
    path, x = labelled
    dataset = opened(path)
    train = x[dataset.rows["train"]].reshape(-1, 2)
    batch = dataset.gather("test", np.array([3, 0]))
    expected = (x[dataset.rows["test"][[3, 0]]] - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(batch["inputs"], expected, rtol=1e-5, atol=1e-6)
    raw = opened(path, standardize=False).gather("test", np.array([3, 0]))
    np.testing.assert_allclose(raw["inputs"], x[dataset.rows["test"][[3, 0]]], rtol=1e-6)


def test_large_offsets_keep_their_digits(tmp_path):
    """Seconds since 1970: float32 has steps of 128 there."""
    x = 1.7e9 + RNG.normal(size=(20, 5, 1))
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2)
    dataset = opened(tmp_path / "a.npz")
    train = x[dataset.rows["train"]].reshape(-1, 1)
    expected = (x[dataset.rows["val"]] - train.mean(0)) / train.std(0)
    found = dataset.gather("val", np.arange(dataset.size("val")))["inputs"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_splits_of_the_files_are_kept_and_validation_comes_from_training(tmp_path):
    x, y = RNG.normal(size=(40, 6)), np.arange(40) % 4
    np.savez(tmp_path / "a.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    dataset = opened(tmp_path / "a.npz", val=0.2)
    assert sorted([*dataset.rows["train"], *dataset.rows["val"]]) == list(range(30))
    assert dataset.rows["test"].tolist() == list(range(10))
    with pytest.raises(ValueError, match="would mix them"):
        opened(tmp_path / "a.npz", split="random")


def test_unequal_series_are_padded_after_standardization(tmp_path):
    x, lengths = RNG.normal(size=(10, 6, 1)) + 4, np.arange(10) % 6 + 1
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(10.0), lengths=lengths)
    dataset = opened(tmp_path / "a.npz", "regression", split="time")
    assert dataset.rows["test"].tolist() == [8, 9]
    batch = dataset.gather("test", np.array([0, 1]))
    assert batch["lengths"].tolist() == [3, 4]
    assert (batch["inputs"][0, 3:] == 0).all() and batch["inputs"].shape[1] == dataset.padded_length
    y = np.arange(7.0)
    np.testing.assert_allclose(batch["targets"][:, 0], ([8, 9] - y.mean()) / y.std(), rtol=1e-6)


def test_windows_lie_within_one_stretch_and_hold_the_right_steps(tmp_path):
    x = np.arange(200.0)[:, None] + [[0.0, 1000.0]]
    np.save(tmp_path / "x.npy", x[None])
    options = {"context": 10, "horizon": 5, "stride": 3, "target": "channel 1", "relative": False}
    dataset = opened(tmp_path / "x.npy", "forecasting", **options)
    p, ends = dataset.preprocessing, {"train": (0, 140), "val": (140, 160), "test": (160, 200)}
    for split, (first, end) in ends.items():
        starts = dataset.rows[split][:, 1]
        assert starts.tolist() == list(range(first, end - 14, 3))
        batch = dataset.gather(split, np.arange(dataset.size(split)))
        for start, u, y in zip(starts, batch["inputs"], batch["targets"], strict=True):
            steps = np.array(p.std) * u + p.mean
            np.testing.assert_allclose(steps, x[start : start + 10], rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(p.unscaled(y), x[start + 10 : start + 15, 1:], rtol=1e-5)
    # The steps of training windows, each counted once
    np.testing.assert_allclose(p.mean[0], np.arange(138).mean())
    with pytest.raises(ValueError, match="no window of 105 steps"):
        opened(tmp_path / "x.npy", "forecasting", context=100, horizon=5)


def test_baselines_of_a_forecast(tmp_path):
    x = RNG.normal(size=(1, 300, 2)).cumsum(1)
    np.save(tmp_path / "x.npy", x)
    options = {"context": 12, "horizon": 7, "season": 4, "relative": False}
    dataset = opened(tmp_path / "x.npy", "forecasting", **options)
    p, errors = dataset.preprocessing, {"last_value": [], "seasonal_naive": []}
    scaled = (x[0] - p.mean) / p.std
    for start in dataset.rows["test"][:, 1]:
        for h in range(7):
            now = scaled[start + 12 + h]
            errors["last_value"].append(now - scaled[start + 11])
            errors["seasonal_naive"].append(now - scaled[start + 12 - 4 + h % 4])
    facts = dataset.facts("test")
    for name, error in errors.items():
        np.testing.assert_allclose(facts[f"{name}_mse"], np.mean(np.square(error)), rtol=1e-5)
        np.testing.assert_allclose(facts[f"{name}_mae"], np.mean(np.abs(error)), rtol=1e-5)


def test_missing_values_are_named_or_interpolated(tmp_path):
    x = RNG.normal(size=(20, 6, 2))
    x[3, 1, 1] = np.nan
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2)
    with pytest.raises(ValueError, match=r"a.npz:x\[3, 1\], channel 1: nan; .*interpolate"):
        opened(tmp_path / "a.npz")
    dataset = opened(tmp_path / "a.npz", missing="interpolate", split="time")
    found = dataset.gather("train", np.array([3]))["inputs"][0] * dataset.preprocessing.std
    found = found + dataset.preprocessing.mean
    np.testing.assert_allclose(found[1, 1], (x[3, 0, 1] + x[3, 2, 1]) / 2, rtol=1e-5)
    x[3, 1, 1] = np.inf
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2)
    with pytest.raises(ValueError, match=r"x\[3, 1\], channel 1: inf"):
        opened(tmp_path / "a.npz", missing="interpolate")


def test_files_that_do_not_fit_a_head_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=RNG.normal(size=(20, 6)), y=RNG.normal(size=20))
    with pytest.raises(ValueError, match="real numbers; classification needs a class"):
        opened(path)
    with pytest.raises(ValueError, match="per_step needs numbers of each step"):
        opened(path, "per_step")
    np.savez(path, x=RNG.normal(size=(20, 6)))
    with pytest.raises(ValueError, match="has no targets"):
        opened(path, "regression")
    np.savez(path, x=RNG.normal(size=(20, 6)), y=np.zeros(20, int))
    with pytest.raises(ValueError, match="the class 0 alone"):
        opened(path)
    with pytest.raises(FileNotFoundError, match="--from=PATH"):
        opened(None)


def test_a_file_that_is_written_to_is_noticed(labelled):
    dataset = opened(labelled[0])
    dataset.check_unchanged()
    np.savez(labelled[0], x=labelled[1][:50], y=np.arange(50) % 2)
    with pytest.raises(ValueError, match="was written to since"):
        dataset.check_unchanged()
