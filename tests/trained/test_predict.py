"""Predictions against a float64 network of loops, which standardizes by itself; and their files."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import oracles
import pytest
from flax import nnx
from running import numbers
from small_models import CAUSAL, MEAN, STD, preprocessing, trained

from ssm_jax.commands import runs as commands
from ssm_jax.models import PairClassifier
from ssm_jax.trained.predict import Predictor
from ssm_jax.trained.series import predict_file

RNG = np.random.default_rng(5)
LENGTHS = (24, 3, 17, 1, 16, 9, 24)
SERIES = [np.array(MEAN) + np.array(STD) * RNG.normal(size=(n, 2)) for n in LENGTHS]


def exact(model, series, *, mode="mean", horizon=24, per_step=False):
    """Logits or standardized values of one series alone, in float64."""
    p = numbers(model.network)
    x = (series - np.array(MEAN)) / np.array(STD)
    padded = np.zeros((max(horizon, len(x)), 2))
    padded[: len(x)] = x
    if not per_step:
        return oracles.classifier(p, padded[None], [len(x)], kind="batch", prenorm=True, mode=mode)[
            0
        ]
    y = oracles.linear(p["encoder"], padded[None])
    for i in sorted(p["blocks"]):
        y = oracles.block(p["blocks"][i], y, [len(x)], kind="batch", prenorm=True, train=False)
    return oracles.linear(p["decoder"], oracles.norm(p["norm"], y, "batch", False))[0, : len(x)]


@pytest.fixture(scope="module")
def classifier():
    """With filters, which act on a circle of 48 steps."""
    return trained()


def test_unequal_series_of_raw_numbers_give_the_logits_of_float64(classifier):
    found = classifier.predict(SERIES)
    expected = np.stack([exact(classifier, one) for one in SERIES])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    probabilities = classifier.probabilities(SERIES)
    odds = np.exp(expected)
    np.testing.assert_allclose(probabilities, odds / odds.sum(1, keepdims=True), atol=1e-5)
    assert classifier.labels(SERIES).tolist() == [
        ("ant", "bee", "cow")[k] for k in expected.argmax(axis=1)
    ]


def test_batches_and_their_order_change_nothing_and_each_shape_is_compiled_once(classifier):
    whole = classifier.predict(SERIES)
    scale = np.abs(whole).max()
    for batch_size in (1, 2, 32):
        for order in (np.arange(7), np.arange(7)[::-1]):
            found = classifier.predict([SERIES[i] for i in order], batch_size=batch_size)
            np.testing.assert_allclose(found, whole[order], rtol=0, atol=1e-6 * scale)
    alone = np.stack([classifier.predict(one[None])[0] for one in SERIES])
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-6 * scale)
    # Lengths 16 and 24, each with batches of 1, 2 and 4
    assert classifier._predictor._call._cache_size() == 6


def test_a_filtered_model_takes_no_longer_series_and_says_why(classifier):
    with pytest.raises(ValueError, match=r"series 1 has 25 steps; the filters .* at most 24"):
        classifier.predict([SERIES[0], np.zeros((25, 2))])


def test_a_model_without_filters_takes_any_length():
    model = trained(**CAUSAL)
    long = np.array(MEAN) + np.array(STD) * RNG.normal(size=(57, 2))
    found = model.predict([long, SERIES[1]])
    expected = np.stack([exact(model, long), exact(model, SERIES[1])])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_numbers_are_in_the_units_of_the_user():
    model = trained("regression")
    expected = [np.array([100, 7]) + np.array([10, 3]) * exact(model, one) for one in SERIES]
    np.testing.assert_allclose(model.predict(SERIES), expected, rtol=2e-5)


def test_numbers_of_each_step_come_as_a_list_where_lengths_differ():
    model = trained("per_step")
    found = model.predict(SERIES)
    assert [row.shape for row in found] == [(n, 2) for n in LENGTHS]
    for row, one in zip(found, SERIES, strict=True):
        expected = np.array([100, 7]) + np.array([10, 3]) * exact(model, one, per_step=True)
        np.testing.assert_allclose(row, expected, rtol=1e-4)
    assert model.predict(np.stack([SERIES[0], SERIES[6]])).shape == (2, 24, 2)


def test_a_forecast_starts_from_the_last_value_and_sees_the_last_steps():
    model = trained("forecasting", horizon=5)
    long = np.concatenate([RNG.normal(size=(7, 2)), SERIES[0]])
    found = model.predict([SERIES[0], long, SERIES[2]])
    assert found.shape == (3, 5, 2)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    for row, one in ((found[0], SERIES[0]), (found[2], SERIES[2])):
        change = exact(model, one, mode="last").reshape(5, 2)
        expected = one[-1, ::-1] + np.array(STD)[::-1] * change  # targets: channel 1, channel 0
        np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_missing_steps_are_interpolated_where_training_did():
    holes, mended = SERIES[0].copy(), SERIES[0].copy()
    holes[5:7, 1] = np.nan
    mended[5:7, 1] = np.interp([5, 6], [4, 7], mended[[4, 7], 1])
    model = trained(missing="interpolate")
    np.testing.assert_allclose(model.predict([holes]), model.predict([mended]), atol=1e-5)


def test_tokens_and_pairs():
    model = trained(vocab_size=6, **CAUSAL)
    tokens = [RNG.integers(0, 6, n) for n in (5, 24, 11)]
    p = numbers(model.network)
    for row, ids in zip(model.predict(tokens), tokens, strict=True):
        kind = {"kind": "batch", "prenorm": True, "mode": "mean"}
        logits = oracles.classifier(p, ids[None], [len(ids)], **kind)[0]
        np.testing.assert_allclose(row, logits, rtol=0, atol=1e-5 * np.abs(logits).max())
    with pytest.raises(ValueError, match=r"series 1 has the token 6; the model knows 0\.\.5"):
        model.predict([tokens[0], np.array([1, 6])])


def test_pairs_of_unequal_sequences_are_those_of_the_network():
    network = PairClassifier(
        n_classes=3, vocab_size=6, d_model=4, depth=1, ssm={"d_state": 3}, rngs=nnx.Rngs(0)
    )
    predictor = Predictor(network, None, 24, paired=True)
    pairs = [tuple(RNG.integers(0, 6, n) for n in lengths) for lengths in ((5, 9), (20, 2))]
    found = predictor(pairs, 32)
    for row, (one, two) in zip(found, pairs, strict=True):
        ids, lengths = np.zeros((1, 2, 32), np.int32), np.array([[len(one), len(two)]])
        ids[0, 0, : len(one)], ids[0, 1, : len(two)] = one, two
        np.testing.assert_allclose(row, network(ids, lengths)[0], atol=1e-5)


def test_a_network_that_knows_no_lengths_is_called_at_each_length():
    class Mean(nnx.Module):
        def __call__(self, x_BLC):
            return x_BLC.mean(axis=1)

    found = Predictor(Mean(), None, 24)(SERIES, 4)
    np.testing.assert_allclose(found, [one.mean(axis=0) for one in SERIES], rtol=1e-5)


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ([SERIES[0], np.ones((3, 5))], r"series 1 is float64 of the shape \(3, 5\); .* \(L, 2\)"),
        ([np.zeros((0, 2))], r"series 0 .* L >= 1"),
        (SERIES[0], r"series 0 .* One series alone is x\[None\]"),
        ([SERIES[1], np.array([[1, np.nan]])], "series 1: a series has missing values"),
        ([np.array([[1.0, 2.0], [3.0, np.inf]])], "series 0 is not finite at step 1, channel 1"),
        ([np.array([["a", "b"]])], "series 0 is <U1"),
        ([], "there is no series"),
    ],
)
def test_series_that_do_not_fit_are_named(classifier, series, message):
    with pytest.raises(ValueError, match=message):
        classifier.predict(series)


@pytest.mark.parametrize(
    ("head", "changes", "step"),
    [
        ("classification", {"by_series": True, "missing": "interpolate"}, 4),
        ("classification", {"elapsed": True}, 4),
        ("forecasting", {"padded_length": 6, "horizon": 2}, 20),
    ],
)
def test_an_infinite_value_is_refused_where_the_user_has_it(head, changes, step):
    """Its mean over the series was infinite, and all of the channel then "missing": zeros."""
    predictor = Predictor(nnx.Module(), preprocessing(head, **changes), 6)
    x = SERIES[0].copy()
    x[step, 1] = np.inf
    with pytest.raises(ValueError, match=f"series 1 is not finite at step {step}, channel 1; mend"):
        predictor([SERIES[0], x], 4)
    x[step, 1] = np.nan
    if "missing" not in changes:
        with pytest.raises(ValueError, match=f"series 1: .* first at step {step}, channel one;"):
            predictor([SERIES[0], x], 4)
    if "by_series" in changes:
        x[step, 1] = 1e200
        with pytest.raises(ValueError, match="series 1: a series has numbers too large"):
            predictor([SERIES[0], x], 4)


# Files


def command(tmp_path, model, name, output):
    model.save(tmp_path / "m.safetensors")
    given = [str(tmp_path / "m.safetensors"), f"--input={tmp_path / name}"]
    return commands.predict([*given, f"--output={tmp_path / output}"])


def test_the_command_writes_what_predict_says(classifier, tmp_path, capsys):
    x = np.zeros((7, 24, 2))
    for row, one in zip(x, SERIES, strict=True):
        row[: len(one)] = one
    np.savez(tmp_path / "new.npz", x=x, lengths=np.array(LENGTHS), y=np.arange(7))
    for output in ("a/found.npz", "a/found.csv"):
        assert command(tmp_path, classifier, "new.npz", output) == 0
    found = np.load(tmp_path / "a/found.npz")
    np.testing.assert_allclose(found["logits"], classifier.predict(SERIES), atol=1e-6)
    labels = classifier.labels(SERIES).tolist()
    assert found["label"].tolist() == labels and found["classes"].tolist() == ["ant", "bee", "cow"]
    with (tmp_path / "a/found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == labels
    shares = [[float(row[f"p({name})"]) for name in classifier.classes] for row in rows]
    np.testing.assert_allclose(shares, classifier.probabilities(SERIES), atol=1e-6)
    assert "7 series predicted" in capsys.readouterr().out


def test_a_csv_needs_no_targets_and_its_forecast_has_a_line_for_each_step(tmp_path):
    model = trained("forecasting", horizon=3)
    lines = ["one,when,two"] + [f"{b!r},{t},{a!r}" for t, (a, b) in enumerate(SERIES[0].tolist())]
    (tmp_path / "new.csv").write_text("\n".join(lines))
    command(tmp_path, model, "new.csv", "found.CSV")
    header, *rows = list(csv.reader((tmp_path / "found.CSV").open()))
    assert header == ["series", "step", "one", "two"]
    assert [row[:2] for row in rows] == [["0", "0"], ["0", "1"], ["0", "2"]]
    values = np.array([row[2:] for row in rows], float)
    np.testing.assert_allclose(values, model.predict(SERIES[:1])[0], rtol=1e-6)


def test_columns_of_a_csv_are_channels_that_had_no_names_in_training(tmp_path):
    """They are known by number where training read an array; one of them too many is refused."""
    model = trained("forecasting", horizon=3)
    own = {key: ["channel 0", "channel 1"] for key in ("channels", "targets")}
    p = {**model.built_from["preprocessing"], **own}
    model = dataclasses.replace(model, built_from={**model.built_from, "preprocessing": p})
    lines = [f"{a!r},{b!r}" for a, b in SERIES[0].tolist()]
    (tmp_path / "new.csv").write_text("\n".join(["a,b", *lines]))
    (predicted,) = predict_file(model, tmp_path / "new.csv").rows
    np.testing.assert_allclose(predicted, model.predict(SERIES[:1])[0], rtol=1e-6)
    (tmp_path / "new.csv").write_text("\n".join(["a,b,c", *(f"{line},1" for line in lines)]))
    with pytest.raises(ValueError, match=r"has 3 channels \(a, b, c\); the model has 2"):
        predict_file(model, tmp_path / "new.csv")
    np.save(tmp_path / "new.npy", SERIES[0])
    with pytest.raises(
        ValueError, match=r"has 1 channels .* One series in an array is \(1, L, C\)"
    ):
        predict_file(model, tmp_path / "new.npy")


def test_targets_of_a_folder_are_not_looked_at(tmp_path):
    """Whatever labels.csv calls them, and of which files it has them; its splits are said."""
    model = trained("forecasting", horizon=3)
    for i in range(2):
        lines = [f"{a + i!r},{b!r}" for a, b in SERIES[0].tolist()]
        (tmp_path / f"s{i}.csv").write_text("\n".join(["two,one", *lines]))
    (tmp_path / "labels.csv").write_text("file,kind\ns1.csv,ant\n")
    found = predict_file(model, tmp_path)
    np.testing.assert_allclose(found.rows[0], model.predict(SERIES[:1])[0], rtol=1e-6)
    (tmp_path / "labels.csv").write_text("file,split\ns1.csv,test\ns0.csv,train\n")
    assert predict_file(model, tmp_path).splits == ("train", "test")


def test_steps_that_a_shorter_series_lacks_are_nan(tmp_path):
    model = trained("per_step", depth=1)
    x = np.tile(SERIES[0], (2, 1, 1))
    np.savez(tmp_path / "new.npz", x=x, lengths=np.array([24, 9]))
    command(tmp_path, model, "new.npz", "found.npz")
    found = np.load(tmp_path / "found.npz")
    assert found["lengths"].tolist() == [24, 9] and found["names"].tolist() == ["one", "two"]
    assert np.isnan(found["values"][1, 9:]).all() and np.isfinite(found["values"][1, :9]).all()


def test_a_file_of_a_split_is_that_split_alone(tmp_path):
    head = "@problemName A\n@univariate false\n@dimension 2\n@classLabel true ant bee\n@data\n"
    for part, n in (("TRAIN", 3), ("TEST", 2)):
        lines = ["1,2,3:4,5,6:ant"] * n
        (tmp_path / f"A_{part}.ts").write_text(head + "\n".join(lines))
    model = trained(depth=1)
    command(tmp_path, model, "A_TEST.ts", "found.npz")
    found = np.load(tmp_path / "found.npz")
    assert found["split"].tolist() == ["test"] * 2
    (tmp_path / "both").mkdir()
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"A_{part}.ts").rename(tmp_path / f"both/A_{part}.ts")
    command(tmp_path, model, "both", "found.npz")
    assert np.load(tmp_path / "found.npz")["split"].tolist() == ["train"] * 3 + ["test"] * 2


def test_an_input_that_is_not_there_is_said_by_its_option(classifier, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz is not there; .* --input=PATH"):
        command(tmp_path, classifier, "none.npz", "found.csv")


def test_a_command_that_cannot_be_done_leaves_the_output_as_it_was(classifier, tmp_path, capsys):
    np.savez(tmp_path / "new.npz", x=np.zeros((2, 8, 3)))
    (tmp_path / "found.csv").write_text("old")
    with pytest.raises(ValueError, match=r"has 3 channels .* the model has 2"):
        command(tmp_path, classifier, "new.npz", "found.csv")
    assert (tmp_path / "found.csv").read_text() == "old"
    with pytest.raises(SystemExit):
        command(tmp_path, classifier, "new.npz", "found.json")
    assert "it must end in .npz or .csv." in capsys.readouterr().err
    before = (tmp_path / "new.npz").read_bytes()
    with pytest.raises(SystemExit):
        command(tmp_path, classifier, "new.npz", "../" + tmp_path.name + "/new.npz")
    assert "is the series to predict" in capsys.readouterr().err
    assert (tmp_path / "new.npz").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["found.csv", "m.safetensors", "new.npz"]
