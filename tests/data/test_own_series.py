"""Splits, statistics, windows and baselines of a user's series, against loops over the arrays."""

import warnings

import numpy as np
import pytest

from ssm_jax import config as config_lib
from ssm_jax.config.check import check
from ssm_jax.config.load import load_config
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


@pytest.mark.parametrize("head", ["regression", "forecasting"])
@pytest.mark.parametrize("tenths", [(3, 3), (4, 4), (1, 2), (2, 1)])
def test_a_split_by_time_has_the_shares_that_are_asked_for(tmp_path, head, tenths):
    whole = [10 - sum(tenths), *tenths]
    x = RNG.normal(size=(1, 30, 1) if head == "forecasting" else (30, 3, 1))
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(len(x)))
    val, test = (n / 10 for n in tenths)
    windows = {"context": 1, "horizon": 1}
    dataset = opened(tmp_path / "a.npz", head, split="time", val=val, test=test, **windows)
    lost = head == "forecasting"  # no window reaches over a boundary
    assert [dataset.size(s) for s in ("train", "val", "test")] == [3 * n - lost for n in whole]


def test_channels_are_standardized_by_the_training_examples_alone(labelled):
    path, x = labelled
    dataset = opened(path)
    train = x[dataset.rows["train"]].reshape(-1, 2)
    batch = dataset.gather("test", np.array([3, 0]))
    expected = (x[dataset.rows["test"][[3, 0]]] - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(batch["inputs"], expected, rtol=1e-5, atol=1e-6)
    raw = opened(path, standardize="none").gather("test", np.array([3, 0]))
    np.testing.assert_allclose(raw["inputs"], x[dataset.rows["test"][[3, 0]]], rtol=1e-6)


@pytest.mark.parametrize("role", ["x", "y"])
@pytest.mark.parametrize("head", ["classification", "forecasting"])
def test_a_name_of_an_array_is_refused_where_there_are_columns(tmp_path, head, role):
    """A forecast of y=level would be one of all channels."""
    rows = "".join(f"{i // 30},{i},{i * i},{i // 30 % 2}\n" for i in range(300))
    (tmp_path / "a.csv").write_text("id,pressure,level,kind\n" + rows)
    options = {"id": "id", "context": 2, "horizon": 1, "val": 0.2}
    options |= {} if head == "forecasting" else {"target": "kind"}
    opened(tmp_path / "a.csv", head, **options)
    with pytest.raises(ValueError, match=rf"{role}='level' names an array of an \.npz, and a\.csv"):
        opened(tmp_path / "a.csv", head, **options, **{role: "level"})


def test_each_series_may_be_standardized_by_itself(tmp_path):
    x, lengths = 1e3 + 50 * RNG.normal(size=(20, 7, 2)) * np.arange(1, 21)[:, None, None], None
    x[4, :, 1] = 3.0  # a constant channel becomes 0
    lengths = np.repeat([7, 4], 10)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2, lengths=lengths)
    dataset = opened(tmp_path / "a.npz", standardize="series", split="time")
    found = dataset.gather("train", np.arange(dataset.size("train")))["inputs"]
    for i in range(dataset.size("train")):
        own = x[i, : lengths[i]]
        spread = np.where(own.std(0) > 0, own.std(0), 1)
        np.testing.assert_allclose(
            found[i, : lengths[i]], (own - own.mean(0)) / spread, rtol=1e-4, atol=1e-5
        )
    x[2, :, 0], x[3, :4, 1] = 0.1, np.nan  # 0.1 less its mean is a rounding error
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2, lengths=lengths)
    options = {"standardize": "series", "split": "time", "missing": "interpolate"}
    found = opened(tmp_path / "a.npz", **options).gather("train", np.array([2, 3]))["inputs"]
    assert np.abs(found[0, :, 0]).max() == 0 and np.abs(found[1, :, 1]).max() < 5
    np.save(tmp_path / "x.npy", RNG.normal(size=(1, 60, 1)))
    with pytest.raises(ValueError, match="series needs whole series"):
        opened(tmp_path / "x.npy", "forecasting", standardize="series", context=2, horizon=1)


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


def test_one_series_for_training_has_validation_at_its_end(tmp_path):
    """Of several, whole ones are drawn; of one that a share leaves out of a split nothing is."""
    x, path = RNG.normal(size=(1, 50, 1)), tmp_path / "a.npz"
    np.savez(path, x_train=x, x_test=x + 9)
    windows = {"context": 3, "horizon": 2}
    dataset = opened(path, "forecasting", val=0.3, **windows)
    starts = {split: dataset.rows[split][:, 1].tolist() for split in dataset.splits}
    assert starts == {"train": [*range(31)], "val": [*range(35, 46)], "test": [*range(46)]}
    np.testing.assert_allclose(dataset.preprocessing.mean[0], x[0, :35].mean())
    np.savez(path, x=x)
    with pytest.raises(ValueError, match=r"of 1 series none is left for train: use .*split=time"):
        opened(path, "forecasting", split="random", **windows)


def test_series_too_short_for_a_window_are_said_where_they_are(tmp_path):
    """They are in no error and no score, so that these are of fewer series than the file has."""
    x, lengths = RNG.normal(size=(3, 100, 1)), np.array([100, 60, 35])
    np.savez(tmp_path / "a.npz", x=x, lengths=lengths)
    dataset = opened(tmp_path / "a.npz", "forecasting", context=8, horizon=2)
    said = [line for line in dataset.describe() if "WARNING" in line]
    for split, share in (("val", 0.1), ("test", 0.2)):
        assert len({*dataset.rows[split][:, 0]}) == sum(n * share >= 10 for n in lengths)
    lacking = "series have no part in {}, where they are shorter than a window of 10 steps"
    assert [lacking.format("val") in said[0], lacking.format("test") in said[1]] == [True, True]
    assert said[0].startswith("WARNING: 2 of 3") and said[1].startswith("WARNING: 1 of 3")
    assert not any(
        "WARNING" in line
        for line in lines_of(tmp_path / "a.npz", "forecasting", context=2, horizon=1).splitlines()
    )


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


def test_a_baseline_weighs_targets_as_the_metrics_do(tmp_path):
    """Each the same, however much of one is missing."""
    y = RNG.normal(size=(20, 30, 2))
    y[14:] *= [3.0, 1.0]
    y[14:, 3:, 0] = np.nan
    np.savez(tmp_path / "a.npz", x=RNG.normal(size=(20, 30, 1)), y=y)
    dataset = opened(tmp_path / "a.npz", "per_step", split="time")
    p, facts = dataset.preprocessing, dataset.facts("test")
    scaled = (y[dataset.rows["test"]] - p.target_mean) / p.target_std
    mse, mae = (np.mean([np.nanmean(f(scaled[..., k])) for k in (0, 1)]) for f in (np.square, abs))
    assert facts == {"mean_mse": pytest.approx(mse), "mean_mae": pytest.approx(mae)}


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


@pytest.mark.parametrize("role", ["inputs", "target", "id", "time", "split_column"])
def test_roles_of_columns_are_refused_where_files_have_none(labelled, role):
    said = f"data.arrays.{role}='channel 0' names columns of a .csv, and .* is .npz"
    with pytest.raises(ValueError, match=said):
        opened(labelled[0], **{role: "channel 0"})


def test_files_that_do_not_fit_a_head_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "who,a,y\n" + "".join(f"{i},{i},{'much' if i == 7 else i}\n" for i in range(20))
    )
    with pytest.raises(ValueError, match=r"a\.csv line 9.*, y: 'much' is no number"):
        opened(path, "regression", id="who", target="y")
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


@pytest.mark.parametrize("name", ["a.csv", "a.npz"])
def test_a_file_that_is_written_to_while_it_is_read_is_noticed(tmp_path, monkeypatch, name):
    """As one that is still being copied: what is kept would be of another file from then on."""
    from ssm_jax.data import arrays

    def write(n):
        if name == "a.npz":
            return np.savez(tmp_path / name, x=np.arange(2.0 * n).reshape(n, 2), y=np.arange(n))
        lines = [f"{i},{2.0 * i + t},{i}" for i in range(n) for t in range(2)]
        (tmp_path / name).write_text("\n".join(["id,a,y", *lines]))

    def read_slowly(*args, **options):
        found = read_once(*args, **options)
        write(40)
        return found

    write(20)
    data = config_lib.default("regression").data.to_dict() | {"padded_length": 0}
    data["arrays"] |= {"split": "time"} | ({} if name == "a.npz" else {"id": "id", "target": "y"})
    read_once = arrays.read_once
    monkeypatch.setattr(arrays, "read_once", read_slowly)
    with pytest.raises(ValueError, match="was written to since it was opened; start again"):
        open_arrays("regression", data, tmp_path / name, tmp_path / "kept").check_unchanged()
    monkeypatch.setattr(arrays, "read_once", read_once)
    again = open_arrays("regression", data, tmp_path / name, tmp_path / "kept")
    again.check_unchanged()
    assert again.preprocessing.mean[0] == pytest.approx(np.arange(2 * again.size("train")).mean())


def lines_of(path, head="classification", **options):
    return "\n".join(opened(path, head, **options).describe())


def test_what_a_person_should_know_is_said(tmp_path):
    path, x, y = tmp_path / "a.npz", RNG.normal(size=(24, 5, 3)), np.arange(24) % 2
    x[..., 1] = 0.1  # whose standard deviation is not 0 but a rounding error
    x[20] = x[2]
    y[22:] = 2
    x[3, :2, 2] = np.nan
    split = np.repeat(["train", "val", "test"], [12, 6, 6])
    np.savez(path, x=x, y=y, split=split)
    said = lines_of(path, missing="interpolate")
    assert "channel 0: mean " in said
    raw = lines_of(path, missing="interpolate", standardize="none")
    assert "inputs and targets as they are" in raw and "mean" not in raw
    assert "WARNING: channel 1 is constant in training." in said
    assert "WARNING: class 2 is in test and not in training." in said
    assert "1 series are in two splits, such as" in said and "[20, 0] in test, which is" in said
    assert "WARNING: channel 2: 3.3% of training is missing, and interpolated." in said
    assert "classes in test: 0 2, 1 2, 2 2" in said
    found = opened(path, missing="interpolate").gather("test", np.arange(6))["inputs"]
    assert np.abs(found[..., 1]).max() < 1e-6
    np.savez(path, x=RNG.normal(size=(24, 5, 3)), y=np.arange(24) % 2)
    assert "WARNING" not in lines_of(path)
    np.savez(path, x=RNG.integers(0, 9, (24, 5)), y=np.arange(24) % 2)
    assert "tokens: whole numbers (n, L), 9 ids" in lines_of(path)


def test_padding_of_the_files_is_not_looked_at(tmp_path):
    lengths, x = np.arange(20) % 4 + 2, RNG.normal(size=(20, 5, 2))
    tokens = RNG.integers(0, 9, (20, 5))
    for i, n in enumerate(lengths):
        x[i, n:], tokens[i, n:] = np.nan, -100
    plain = np.concatenate([x[i, : lengths[i]] for i in range(14)])
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2, lengths=lengths)
    p = opened(tmp_path / "a.npz", split="time").preprocessing
    np.testing.assert_allclose(p.mean, plain.mean(0), rtol=1e-12)
    np.testing.assert_allclose(p.std, plain.std(0), rtol=1e-12)
    np.savez(tmp_path / "a.npz", x=tokens, y=np.arange(20) % 2, lengths=lengths)
    assert opened(tmp_path / "a.npz").vocab_size <= 9
    y = np.nan_to_num(x[..., :1], nan=np.inf)
    np.savez(tmp_path / "a.npz", x=x, y=y, lengths=lengths)
    p = opened(tmp_path / "a.npz", "per_step", split="time").preprocessing
    np.testing.assert_allclose(p.target_mean, plain.mean(0)[:1], rtol=1e-12)


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.where(np.arange(20) == 7, np.nan, 1.0), r"\[7, 0\]: nan is no class"),
        (np.full((20, 3), 1), r"int64 \(20, 3\); classification needs"),
        (np.full(20, 1e300), "are real numbers"),
        (np.array(["a", "b", "", "b"] * 5), r"\[2, 0\]: the class '' is missing"),
        (np.array(["a", "?"] * 10), r"\[1, 0\]: the class '\?' is missing"),
        (np.where(np.arange(20) == 7, "NaN", "none"), r"\[7, 0\]: the class 'NaN' is missing"),
        (np.array(["a", "NULL"] * 10), r"\[1, 0\]: the class 'NULL' is missing"),
        (np.array(["a", "b", "#N/A", "b"] * 5), r"\[2, 0\]: the class '#N/A' is missing"),
    ],
)
def test_what_is_no_class_is_refused(tmp_path, y, said):
    np.savez(tmp_path / "a.npz", x=RNG.normal(size=(20, 5)), y=y)
    with pytest.raises(ValueError, match=said):
        opened(tmp_path / "a.npz")


def test_missing_targets_of_steps_do_not_count_and_infinite_ones_are_refused(tmp_path):
    y = RNG.normal(size=(20, 5))
    y[3, 2] = np.nan
    np.savez(tmp_path / "a.npz", x=RNG.normal(size=(20, 5)), y=y)
    dataset = opened(tmp_path / "a.npz", "per_step", split="time")
    assert np.isnan(dataset.gather("train", np.array([3]))["targets"][0, :, 0]).tolist() == [
        False, False, True, False, False
    ]  # fmt: skip
    np.testing.assert_allclose(dataset.preprocessing.target_mean[0], np.nanmean(y[:14]))
    for value, said in ((np.inf, r"\[3, 2\], y0: inf is no target"), (np.nan, "missing in all")):
        y[:14] = value if said.startswith("missing") else y[:14]
        y[3, 2] = value
        np.savez(tmp_path / "a.npz", x=RNG.normal(size=(20, 5)), y=y)
        with pytest.raises(ValueError, match=said):
            opened(tmp_path / "a.npz", "per_step", split="time")


def test_as_many_numbers_as_steps_are_those_of_the_head(tmp_path):
    """(n, L) are L targets of a series, or a target of each step."""
    np.savez(tmp_path / "a.npz", x=RNG.normal(size=(20, 5)), y=RNG.normal(size=(20, 5)))
    series, steps = (opened(tmp_path / "a.npz", head) for head in ("regression", "per_step"))
    assert series.shapes(3, 5)["targets"][0] == (3, 5)
    assert steps.shapes(3, 5)["targets"][0] == (3, 5, 1)


def test_a_channel_that_is_forecast_is_an_input_too(tmp_path):
    rows = "\n".join(f"{t},{np.sin(t)},{np.cos(t)}" for t in range(90))
    (tmp_path / "a.csv").write_text(f"t,a,b\n{rows}\n")
    options = {"time": "t", "target": "b", "context": 6, "horizon": 2}
    dataset = opened(tmp_path / "a.csv", "forecasting", **options)
    assert dataset.preprocessing.channels == ("a", "b")
    assert dataset.preprocessing.targets == ("b",)
    alone = opened(tmp_path / "a.csv", "forecasting", **options, inputs="a")
    assert alone.preprocessing.channels == ("a", "b")


def test_splits_that_leave_nothing_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=RNG.normal(size=(2, 5)), y=np.arange(2.0))
    with pytest.raises(ValueError, match="of 2 series none is left for training"):
        opened(tmp_path / "a.npz", "regression")
    for option, said in (
        ({"val": 0.5, "test": 0.5}, "leave nothing for training; their sum must be below 1"),
        ({"horizon": 5}, "data.arrays.horizon=5 is of forecasts alone, not of task=regression"),
    ):
        cfg = load_config("arrays:regression")
        cfg.data.arrays.update(option)
        with pytest.raises(ValueError, match=said):
            check(cfg)
    with pytest.raises(ValueError, match=r"y='level' is not read .* by data\.arrays\.target"):
        load_config("arrays:forecasting", {"data.arrays.y": "level"})  # else one of all channels


def test_what_one_pass_finds_is_kept_and_is_of_that_file(tmp_path):
    data = config_lib.default("regression").data.to_dict() | {"padded_length": 0}
    means = []
    for name in ("a", "b", "a"):
        path = tmp_path / name / "x.npz"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            np.savez(path, x=RNG.normal(size=(20, 5)) + ord(name), y=np.arange(20.0))
        dataset = open_arrays("regression", data, path, tmp_path / "kept")
        means.append(dataset.preprocessing.mean)
    assert means[0] == means[2] != means[1] and len(list((tmp_path / "kept").iterdir())) == 2
    for memo in (tmp_path / "kept").iterdir():
        memo.write_text("{")
    assert open_arrays("regression", data, path, tmp_path / "kept").preprocessing.mean == means[0]


def test_a_long_look_at_many_values_is_shown(labelled, monkeypatch, capsys):
    opened(labelled[0])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("ssm_jax.data.statistics._MANY", 60 * 8 * 2)
    opened(labelled[0])
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" in ")[0] for line in said] == ["checking all values: 480 steps"]


def test_a_target_that_is_there_twice_or_constant_is_said(tmp_path):
    x, y = RNG.normal(size=(20, 30, 2)), RNG.normal(size=(20, 2))
    np.savez(tmp_path / "a.npz", x=x, y=y)
    for head, target in (("forecasting", "channel 1,channel 1"), ("regression", "u,u")):
        windows = {"context": 2, "horizon": 1} if head == "forecasting" else {}
        with pytest.raises(ValueError, match=f"target={target} has .* twice"):
            opened(tmp_path / "a.npz", head, target=target, **windows)
    y[:14, 1] = 5.0
    np.savez(tmp_path / "a.npz", x=x, y=y)
    said = lines_of(tmp_path / "a.npz", "regression", target="u,v", split="time")
    assert "WARNING: target v is constant in training" in said and "target u is" not in said


def test_many_small_classes_have_their_share_together(tmp_path):
    """Of ten classes with four examples a tenth is four in all, not none of each."""
    x, y = RNG.normal(size=(80, 5)), np.arange(80) % 10
    split = np.repeat(["train", "test"], 40)
    np.savez(tmp_path / "a.npz", x=x, y=y, split=split)
    dataset = opened(tmp_path / "a.npz")
    assert dataset.size("val") == 4 and dataset.size("train") == 36
    assert np.bincount(y[dataset.rows["val"]]).max() == 1


def test_what_cannot_be_learned_from_is_refused(tmp_path):
    x, path = RNG.normal(size=(40, 9, 2)), tmp_path / "a.npz"
    split = np.repeat(["train", "test"], [30, 10])
    np.savez(path, x=x, y=np.arange(40) > 30, split=split)
    with pytest.raises(ValueError, match="the class False alone in training"):
        opened(path)
    x[..., 1] *= 1e300
    np.savez(path, x=x, y=np.arange(40) % 2)
    with pytest.raises(ValueError, match="npz: channel 1 has numbers too large"):
        opened(path)
    x[..., 1] = np.nan
    np.savez(path, x=x, y=np.arange(40) % 2)
    with pytest.raises(ValueError, match="npz: channel 1 is missing in all of training"):
        opened(path, missing="interpolate")


@pytest.mark.parametrize("value", [1e60, -1e60])
def test_a_value_of_the_test_part_that_float32_does_not_hold_is_refused(tmp_path, value):
    """As what files write for a missing one: its logits were NaN, and its class the first."""
    x, path = RNG.normal(size=(20, 9, 2)), tmp_path / "a.npz"
    x[18, 3, 1] = value
    np.savez(path, x=x, y=np.arange(20) % 2)
    with pytest.raises(ValueError, match=r"npz: channel 1 has 1e\+60 outside of training, which"):
        opened(path, split="time")
    found = opened(path, split="time", standardize="series").gather("test", np.arange(4))
    assert np.isfinite(found["inputs"]).all()
    x[18, 3, 1] = value * 1e120  # its square has no place in float64 either
    np.savez(path, x=x, y=np.arange(20) % 2)
    with pytest.raises(ValueError, match=r"channel 1 has 1e\+180 outside of training, the square"):
        opened(path, split="time", standardize="series")


@pytest.mark.parametrize("head", ["regression", "per_step", "forecasting"])
@pytest.mark.parametrize("standardize", ["training", "none"])
def test_a_target_whose_square_is_infinite_is_refused(tmp_path, head, standardize):
    """Every loss of its split was infinite, and no checkpoint the best, after all of training."""
    x, path = RNG.normal(size=(20, 40, 2)), tmp_path / "a.npz"
    y = {"regression": x[:, 0], "per_step": x[..., :1].copy(), "forecasting": x}[head].copy()
    where = {"split": "time", "standardize": standardize}
    where |= {"context": 2, "horizon": 1} if head == "forecasting" else {}
    for value in (1e18, -1e30):
        y[-1, -1] = value
        np.savez(path, **({"x": y} if head == "forecasting" else {"x": x, "y": y}))
        if value > 0:
            opened(path, head, **where)
            continue
        with pytest.raises(ValueError, match=r"target .* has 1e\+30 outside of training, the squ"):
            opened(path, head, **where)


def test_half_precision_is_read_without_a_word(tmp_path):
    x = RNG.normal(size=(20, 9, 2)).astype(np.float16)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2)
    with warnings.catch_warnings(action="error"):
        p = opened(tmp_path / "a.npz", split="time").preprocessing
    np.testing.assert_allclose(p.mean, x[:14].astype(float).mean(axis=(0, 1)), rtol=1e-12)


def test_a_split_that_is_not_there_is_named(tmp_path):
    x, y = RNG.normal(size=(30, 6)), np.arange(30) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y)
    with pytest.raises(ValueError, match="says which examples are train and none else"):
        opened(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x)
    with pytest.raises(ValueError, match="has no targets for test; classification needs"):
        opened(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=x, y=np.eye(2)[y])
    with pytest.raises(ValueError, match=r"give argmax\(axis=1\)"):
        opened(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=x, y=y + 0.5)
    with pytest.raises(ValueError, match=r"real numbers; .* --config=arrays:regression learns"):
        opened(tmp_path / "a.npz")


def test_times_and_turned_arrays_are_pointed_out(tmp_path):
    """Both train without an error, on what nobody meant."""
    lines = [f"{0.1 * t},{(t * t) % 7},{t + (t == 50)}" for t in range(300)]
    (tmp_path / "a.csv").write_text("\n".join(["t,a,b", *lines]))
    options = {"context": 9, "horizon": 2}
    said = opened(tmp_path / "a.csv", "forecasting", **options).describe()
    (remark,) = [line for line in said if "WARNING" in line]
    assert "channel t rises evenly" in remark and "--config.data.arrays.time=t" in remark
    said = opened(tmp_path / "a.csv", "forecasting", **options, time="t").describe()
    assert not any("WARNING" in line for line in said)
    np.savez(tmp_path / "a.npz", x=RNG.normal(size=(20, 3, 50)), y=np.arange(20) % 2)
    said = opened(tmp_path / "a.npz").describe()
    assert "WARNING: series have at most 3 steps and 50 channels" in said[-1]


def test_uneven_times_are_pointed_out(tmp_path):
    """A window goes over a gap, and the season before it is another hour; months are no gaps."""
    rows = [(who, f"2026-{m:02}-{d:02}", m * d % 7) for who in "pq" for m in (1, 2, 3)
            for d in range(1, 29)]  # fmt: skip
    path, kept = tmp_path / "a.csv", tmp_path / "kept"
    data = config_lib.default("forecasting").data.to_dict() | {"padded_length": 0}
    data["arrays"] |= {"id": "who", "time": "t", "context": 1, "horizon": 1}

    def warnings(rows):
        path.write_text("who,t,a\n" + "".join(f"{','.join(map(str, row))}\n" for row in rows))
        for _ in range(2):  # read, and found as it was kept
            said = open_arrays("forecasting", data, path, kept).describe()
        return [line for line in said if "WARNING" in line]

    (said,) = warnings(rows)  # 29 to 31 January are not there
    assert "t is uneven: 2 of 166 steps are not within 2/3 and 3/2 of the usual 86400" in said
    assert "the first at a.csv line 30;" in said
    assert warnings([row for row in rows if row[1] < "2026-02"]) == []
    months = [(who, f"20{y}-{m:02}-01", m % 5) for who in "pq" for y in range(10, 20)
              for m in range(1, 13)]  # fmt: skip
    assert warnings(months) == []
