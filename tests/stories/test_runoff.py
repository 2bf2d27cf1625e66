"""Rainfall and runoff: scores against loops, the published settings, and the study."""

from __future__ import annotations

import functools
import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from camels_files import write_attributes, write_camels
from flax import nnx

from ssm_jax.commands import runs as read
from ssm_jax.commands import studies
from ssm_jax.commands import train as make
from ssm_jax.config.check import check
from ssm_jax.config.load import load_config, load_sweep
from ssm_jax.data.preprocessing import Preprocessing
from ssm_jax.stories.runoff.camels import ATTRIBUTES
from ssm_jax.stories.runoff.task import BANDS, eval_sums, flow_scores, summary, train_sums
from ssm_jax.tasks.heads import build_network

SMALL = [f"--config.{option}" for option in (
    "batch_size=8", "model.depth=1", "model.d_model=4", "model.n_ssm=4", "model.d_state=4",
    "train.epochs=0", "train.steps=4", "train.eval_every=2", "checkpoint.every=2", "log.every=1",
    "log.diagnostics=false", "figures=false", "data.padded_length=40", "data.n_train=40",
    "data.n_val=20", "train.eval_batch_size=64",
)]  # fmt: skip


def looped(y, p):
    """Scores of flows without gaps, each by its definition in a loop over float64."""
    T = len(y)
    n, mean_y, mean_p = max(1, round(0.02 * T)), sum(y) / T, sum(p) / T
    var_y = sum((v - mean_y) ** 2 for v in y) / T
    var_p = sum((v - mean_p) ** 2 for v in p) / T
    squared = sum((a - b) ** 2 for a, b in zip(y, p, strict=True)) / T
    covariance = sum((a - mean_y) * (b - mean_p) for a, b in zip(y, p, strict=True)) / T
    r, spread = covariance / math.sqrt(var_y * var_p), math.sqrt(var_p / var_y)
    least = sorted(y)[-n]
    peaks = [(a, b) for a, b in zip(y, p, strict=True) if a >= least]
    top, said = sum(sorted(y)[-n:]), sum(sorted(p)[-n:])
    return {
        "nse": 1 - squared / var_y,
        "kge": 1 - math.sqrt((r - 1) ** 2 + (spread - 1) ** 2 + (mean_p / mean_y - 1) ** 2),
        "fhv": (said - top) / top,
        "peak_bias": sum(b for _, b in peaks) / sum(a for a, _ in peaks) - 1,
        "missed_peaks": sum(b < least for _, b in peaks) / len(peaks),
    }


def looped_bands(y, p):
    """Energy of the error over that of the flow by period, by a sum for each frequency."""
    T = len(y)
    window = [0.5 - 0.5 * math.cos(2 * math.pi * t / (T - 1)) for t in range(T)]
    error = [b - a for a, b in zip(y, p, strict=True)]
    energy = {name: [0.0, 0.0] for name in BANDS}
    for which, x in enumerate((error, y)):
        mean = sum(x) / T
        for k in range(1, T // 2 + 1):
            turns = [
                complex(math.cos(a), -math.sin(a))
                for a in (2 * math.pi * k * t / T for t in range(T))
            ]
            part = sum((v - mean) * w * e for v, w, e in zip(x, window, turns, strict=True))
            period = T / k
            band = BANDS[0] if period > 90 else BANDS[1] if period > 10 else BANDS[2]
            energy[band][which] += abs(part) ** 2
    return {name: math.sqrt(error / whole) for name, (error, whole) in energy.items()}


def test_scores_of_a_hydrograph_by_loops():
    rng = np.random.default_rng(0)
    y = np.convolve(rng.gamma(0.2, 4, 431), 0.7 ** np.arange(12))[:431] + 0.1
    p = y * rng.uniform(0.3, 1.3, 431) + 0.1
    found = flow_scores(y, p)
    expected = looped(y.tolist(), p.tolist()) | looped_bands(y.tolist(), p.tolist())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name
    assert found["peak_bias"] < -0.05 and 0 < found["missed_peaks"] < 1


def test_missing_flows_count_in_no_score_and_bands_take_the_longest_stretch():
    rng = np.random.default_rng(1)
    y, p = rng.gamma(1, 2, 500), rng.gamma(1, 2, 500)
    y[[40, 41, 260]] = np.nan
    there = ~np.isnan(y)
    expected = looped(y[there].tolist(), p[there].tolist())
    expected |= looped_bands(y[261:].tolist(), p[261:].tolist())
    assert flow_scores(y, p) == pytest.approx(expected, rel=1e-9)
    short = flow_scores(y[:150], p[:150])
    assert not short.keys() & set(BANDS)  # fewer than two periods of 90
    assert "nse" not in flow_scores(np.full(20, 3.0), p[:20])


def plain(center, unit):
    about = Preprocessing.plain("regression", ("prcp",), ("flow",), padded_length=4)
    return SimpleNamespace(
        preprocessing=SimpleNamespace(
            **{**vars(about), "target_mean": (center,), "target_std": (unit,)}
        )
    )


def test_sums_of_batches_give_the_scores_of_loops_over_basins():
    """In two batches with examples that do not count, as float32 sums."""
    rng, n, center, unit = np.random.default_rng(2), 300, 2.0, 3.0
    basin = rng.integers(0, 3, n)
    y = rng.gamma(0.5, 2.0, n) * (1 + basin)
    p = 0.7 * y + rng.normal(size=n)  # some below 0
    least = [sorted(y[basin == k])[-max(1, round(0.02 * (basin == k).sum()))] for k in range(3)]
    scaled = lambda v: ((np.asarray(v) - center) / unit).astype(np.float32)  # noqa: E731
    weight = np.array([0.5, 2.0, 1.0], np.float32)[basin]
    batch = {
        "inputs": scaled(p)[:, None], "targets": scaled(y)[:, None], "weight": weight,
        "basin": np.eye(3, dtype=np.float32)[basin],
        "levels": np.stack([scaled(np.zeros(n)), scaled(np.array(least)[basin])], axis=1),
        "mask": np.ones(n, np.float32),
    }  # fmt: skip
    model = lambda inputs, lengths, **_: inputs  # noqa: E731
    total = {}
    for part in (slice(0, 150), slice(150, 300)):
        half = {name: np.concatenate([rows[part], rows[:7]]) for name, rows in batch.items()}
        half["mask"][150:] = 0
        for name, value in eval_sums(model, jax.tree.map(jnp.asarray, half)).items():
            total[name] = total.get(name, 0) + np.asarray(value, np.float64)
    found = summary(total, plain(center, unit))
    each = [looped(y[basin == k].tolist(), np.maximum(p[basin == k], 0).tolist()) for k in range(3)]
    for name in ("nse", "kge", "peak_bias", "missed_peaks"):
        assert found[name] == pytest.approx(np.median([e[name] for e in each]), rel=2e-4), name
    mse, loss = 0.0, 0.0
    for b in range(n):  # of what the model says, below 0 too
        mse += float(scaled(p)[b] - scaled(y)[b]) ** 2 / n
        loss += float(weight[b]) * float(scaled(p)[b] - scaled(y)[b]) ** 2 / n
    assert (found["mse"], found["loss"]) == pytest.approx((mse, loss), rel=1e-4)
    sums = train_sums(model, {k: v for k, v in batch.items() if k != "mask"}, None)
    assert sums["loss"] / sums["count"] == pytest.approx(loss, rel=1e-4)


def test_the_published_network_has_as_many_parameters_as_published():
    """402,177 in the paper; alpha on both parts, by the table and by the program."""
    dataset = SimpleNamespace(
        preprocessing=Preprocessing.plain("regression", ("x",) * 32, ("flow",), padded_length=365),
        n_classes=1, vocab_size=None, d_input=32, padded_length=365,
    )  # fmt: skip
    for arg, real in (("", -5.0), ("script", -(0.5**10)), ("s4d", -0.5)):
        cfg = load_config(f"runoff:{arg}")
        check(cfg)
        build = functools.partial(build_network, dataset, cfg.model.to_dict())
        model = nnx.eval_shape(lambda build=build: build(nnx.Rngs(params=0)))
        leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
        assert sum(leaf.size for leaf in leaves) == 402_177
        cfg.model.update({"depth": 1, "d_model": 4, "n_ssm": 4})
        layer = build_network(dataset, cfg.model.to_dict(), nnx.Rngs(params=0)).blocks[0].ssm
        alpha = 1 if arg == "s4d" else 10
        A_HN = np.asarray(layer.eigenvalues())
        np.testing.assert_allclose(A_HN.real, real, rtol=1e-5)
        np.testing.assert_allclose(A_HN[0].imag, alpha * np.pi * np.arange(64), atol=2e-4)
    groups = load_config("runoff:script").optim.groups
    assert (groups.dt.lr, groups.A.lr, groups.rest.weight_decay) == (4e-5, 4e-4, 0.03)
    assert load_config("runoff").optim.groups.dt.lr == 1e-3


@pytest.mark.parametrize("arg", ["s5", "lru", "s4,reduced", "linoss", "dlinoss,smoke", "smoke"])
def test_every_variant_is_a_valid_experiment(arg):
    cfg = load_config(f"runoff:{arg}")
    check(cfg)
    assert cfg.data.source == {"smoke": "generated", "reduced": "package"}.get(
        arg.split(",")[-1], "files"
    )
    assert load_config("runoff:reduced").optim.groups.rest.lr == 0.004


def test_a_folder_of_camels_is_trained_and_evaluated(tmp_path, capsys):
    write_camels(tmp_path / "camels")
    write_attributes(tmp_path / "camels", ATTRIBUTES)
    where = [f"--from={tmp_path / 'camels'}", f"--data_dir={tmp_path / 'data'}"]
    periods = {"train": "2000-06-01..2001-05-31", "val": "2001-06-01..2001-12-31"}
    periods["test"] = "2002-01-01..2002-07-31"
    own = [f"--config.data.runoff.{name}={value}" for name, value in periods.items()]
    run = tmp_path / "run"
    assert make.train(["--config=runoff", f"--workdir={run}", *where, *SMALL, *own]) == 0
    test = json.loads((run / "summary.json").read_text())["test"]
    assert read.evaluate([str(run), *where, f"--out={tmp_path / 'found.json'}"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    rows = found["by_series"]
    assert [row["series"] for row in rows] == ["01013500", "02011400", "12010000"]
    for name in ("nse", "kge", "peak_bias", "missed_peaks"):  # by sums, and by float64
        median = np.median([row[name] for row in rows if name in row])
        assert test[name] == pytest.approx(median, rel=1e-3, abs=1e-4), name
    assert found["metrics"]["loss"] == pytest.approx(test["loss"], rel=1e-6)
    shown = capsys.readouterr().out
    assert "Scores of 3 series" in shown and "missed peaks" in shown


def test_the_study_trains_its_settings_and_shows_them(tmp_path, compile_once, monkeypatch):
    from ssm_jax.stories.runoff import run

    cfg = load_config("runoff:smoke")
    assert list(run.SETTINGS) == load_sweep("runoff:smoke", cfg)
    monkeypatch.setattr(run, "SETTINGS", run.SETTINGS[:2])
    folder = tmp_path / "study"
    words = ["--config=runoff:smoke", f"--folder={folder}", "--seeds=2"]
    assert studies.runoff([*words, "--config.log.diagnostics=false"]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert [(c["alpha"], c["alpha_real"], c["beta"]) for c in results["cells"]] == [
        (1, 1, 0),
        (3, 3, 0),
    ]
    for cell in results["cells"]:
        assert cell["seeds"].keys() == {"0", "1"} and {"nse", "fhv", *BANDS} <= cell["mean"].keys()
        for seed, scores in cell["seeds"].items():
            length = len(results["hydrograph"]["observed"])
            assert len(cell["said"][seed]) == length and "missed_peaks" in scores
    ours, first = results["cells"][1], results["cells"][0]
    apart = [ours["seeds"][s]["nse"] - first["seeds"][s]["nse"] for s in "01"]
    assert ours["against"]["nse"]["mean"] == pytest.approx(np.mean(apart))
    # Of two values: the t quantile of one degree of freedom, 12.706, times |a - b| / 2
    half = 12.7062 * abs(apart[0] - apart[1]) / 2
    assert ours["against"]["nse"]["half_width"] == pytest.approx(half, rel=1e-4)
    assert (folder / "peaks.png").stat().st_size > 1000
    assert (folder / "table.md").read_text().count("\n") == 4


def test_a_study_of_a_test_too_short_for_bands_has_none_in_its_table(
    tmp_path, compile_once, monkeypatch
):
    from ssm_jax.stories.runoff import run

    monkeypatch.setattr(run, "SETTINGS", run.SETTINGS[:1])
    words = ["--config=runoff:smoke", "--config.data.runoff.test=2013-03-16..2013-03-19"]
    words += [f"--folder={tmp_path}", "--config.log.diagnostics=false"]
    assert studies.runoff(words) == 0  # of 96 hours, and two periods of 90 do not fit
    (cell,) = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert "fhv" in cell["mean"] and not cell["mean"].keys() & set(BANDS)
    row = (tmp_path / "table.md").read_text().splitlines()[2]
    assert [word.strip() for word in row.strip("|").split("|")][-3:] == ["-", "-", "-"]
    assert (tmp_path / "peaks.png").stat().st_size > 1000


@pytest.mark.parametrize(("code", "unit", "short"), [("D", "day", "d"), ("h", "hour", "h")])
def test_figure_and_table_name_the_step_of_the_data(code, unit, short):
    """Those of CAMELS, whose steps are days, said hours and mm / h."""
    from ssm_jax.stories.runoff import run

    dataset = SimpleNamespace(
        basins=("a",), rows={"test": np.arange(3)}, series_of=lambda split: np.zeros(3, int),
        times=np.datetime64("2000-12-31", code) + np.arange(3),
    )  # fmt: skip
    found = run._about_peak(dataset, {"a": np.array([[1.0, 3.0, 2.0], [1.0, 1.0, 1.0]])})
    assert found["time"] == {"D": "2001-01-01", "h": "2000-12-31T01"}[code]
    knobs = {"alpha": 1.0, "alpha_real": 1.0, "beta": 0.0}
    cell = {**knobs, "said": {"0": [1.0, 1.0, 1.0]}, "seeds": {"0": dict.fromkeys(BANDS, 0.5)}}
    above, _, below, _ = run.runoff_figure(found, [cell]).axes
    assert (above.get_xlabel(), above.get_ylabel()) == (f"{unit}s", f"flow (mm / {short})")
    bands = ["over 90", "10 to 90", "under 10"]
    assert [x.get_text() for x in below.get_xticklabels()] == [f"{band} {unit}s" for band in bands]
    heads = [*run.columns_of(found["unit"])][-3:]
    assert heads == [f"error, over 90 {short}", f"10 to 90 {short}", f"under 10 {short}"]
