"""What is read from the folders of a sweep, with runs made by hand."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from ssm_jax import config
from ssm_jax.sweep import DIVERGED, runs_of
from ssm_jax.sweep.results import best_cell, best_first, document_of, joined
from ssm_jax.sweep.tables import write_results

CELLS = [{"model.alpha": 1.0}, {"model.alpha": 3.0}]
CFG = config.default()


def digest(run):
    return config.digest(run.config(CFG))


def finished(folder, run, accuracy, commit="abc", validation=0.5):
    folder /= run.name
    folder.mkdir(parents=True)
    summary = {
        "val": {"accuracy": validation, "loss": 1 - validation},
        "test": {"accuracy": accuracy, "loss": 1.0},
        "selected_by": "val accuracy",
        "best": {"step": 8, "value": validation},
        "git": {"commit": commit, "dirty": False},
        "steps": 10,
        "config_digest": digest(run),
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "DONE").touch()


def read(folder, runs, metric=None):
    return document_of(runs, folder, CFG, ["sweep"], metric)


def test_a_cell_is_the_mean_and_spread_of_its_seeds_that_finished(tmp_path):
    runs = runs_of(CELLS, (0, 1, 2))
    for run, accuracy in zip(runs[::2], (0.5, 0.7, 0.9), strict=True):  # of the first cell
        finished(tmp_path, run, accuracy)
    (tmp_path / runs[1].name).mkdir()
    (tmp_path / runs[1].name / DIVERGED).write_text(json.dumps({"config_digest": digest(runs[1])}))
    document = read(tmp_path, runs)
    first, second = document["cells"]
    assert first["values"] == {"0": 0.5, "1": 0.7, "2": 0.9} and first["n"] == 3
    assert (first["mean"], first["std"]) == pytest.approx((0.7, 0.2))
    assert second["diverged"] == [0] and second["missing"] == [1, 2]
    assert (second["mean"], second["std"], second["n"]) == (None, None, 0)
    assert document["seeds"] == [0, 1, 2] and document["options"] == {"model.alpha": [1.0, 3.0]}
    assert [run["status"] for run in document["runs"]].count("missing") == 2
    assert document["git"]["commit"] == "abc" and document["remarks"] == []


def test_validation_names_the_best_cell_and_the_test_split_never(tmp_path):
    runs = runs_of(CELLS, (0, 1))
    for run, test, validation in zip(runs, (0.9, 0.1, 0.9, 0.2), (0.3, 0.6, 0.5, 0.4), strict=True):
        finished(tmp_path, run, test, validation=validation)
    document = read(tmp_path, runs)
    assert document["selected_by"] == "val accuracy" and document["better"] == "max"
    means = [cell["validation"]["mean"] for cell in document["cells"]]
    assert means == pytest.approx([0.4, 0.5])
    assert document["cells"][1]["validation"]["values"] == {"0": 0.6, "1": 0.4}
    assert [cell["mean"] for cell in document["cells"]] == pytest.approx([0.9, 0.15])
    assert best_cell(document) is document["cells"][1]
    loss = read(tmp_path, runs, "loss")  # chosen by the metric that is shown
    means = [cell["validation"]["mean"] for cell in loss["cells"]]
    assert means == pytest.approx([0.6, 0.5]) and loss["better"] == "min"
    assert best_cell(loss) is loss["cells"][1]
    assert loss["runs"][0]["validation"] == {"accuracy": 0.3, "loss": 0.7}


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_metric_that_is_not_a_number_is_never_the_best(tmp_path, first):
    """KGE of constant forecasts is none. Wherever it stands, the others are in their order."""
    losses = [0.5, 0.3]
    losses.insert(first, math.nan)
    runs = runs_of([{"model.alpha": alpha} for alpha in (1.0, 3.0, 5.0)], (0,))
    for run, loss in zip(runs, losses, strict=True):
        finished(tmp_path, run, 0.5, validation=1 - loss)
    document = read(tmp_path, runs, "loss")
    found = [cell["validation"]["mean"] for cell in best_first(document)]
    assert found == pytest.approx([0.3, 0.5, math.nan], nan_ok=True)
    assert best_cell(document)["validation"]["mean"] == pytest.approx(0.3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_whose_metric_is_not_a_number_takes_no_table_from_the_others(tmp_path, bad, seed):
    """Its cell has no spread, and no difference from others, as NumPy has it."""
    runs = runs_of(CELLS, (0, 1))
    for run, accuracy in zip(runs, (0.5, 0.6, 0.8, 0.7), strict=True):
        finished(tmp_path, run, bad if (run.seed, run.cell) == (seed, CELLS[0]) else accuracy)
    document = read(tmp_path, runs)
    spoilt, sound = document["cells"]
    for cell in (spoilt, sound):
        values = [*cell["values"].values()]
        with np.errstate(invalid="ignore"):
            expected = float(np.mean(values)), float(np.std(values, ddof=1))
        assert (cell["mean"], cell["std"]) == pytest.approx(expected, nan_ok=True)
    (pair,) = document["differences"]
    assert math.isnan(pair["test"]["half_width"])
    write_results(tmp_path, document)
    first, second = csv.DictReader((tmp_path / "sweep.csv").open())
    assert first["test_accuracy_max"] == str(bad) and second["test_accuracy_max"] == "0.7"


def test_runs_of_older_versions_have_their_validation_values_in_the_log(tmp_path):
    """Their summaries have that alone which chose the checkpoint."""
    runs = runs_of(CELLS, (0,))
    for run, validation in zip(runs, (0.3, 0.6), strict=True):
        finished(tmp_path, run, 0.5, validation=validation)
        file = tmp_path / run.name / "summary.json"
        summary = json.loads(file.read_text())
        del summary["val"]
        file.write_text(json.dumps(summary))
    document = read(tmp_path, runs)
    assert [cell["validation"]["mean"] for cell in document["cells"]] == [0.3, 0.6]
    loss = read(tmp_path, runs, "loss")
    assert [cell["validation"] for cell in loss["cells"]] == [None, None]
    assert best_cell(loss) is None
    for run, value in zip(runs, (2.0, 1.5), strict=True):
        rows = [{"step": step, "kind": "val", "accuracy": 0.1, "loss": value} for step in (4, 8)]
        rows[0]["loss"] = 0.0  # of another checkpoint
        log = tmp_path / run.name / "metrics.jsonl"
        log.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    loss = read(tmp_path, runs, "loss")
    assert [cell["validation"]["mean"] for cell in loss["cells"]] == [2.0, 1.5]
    assert best_cell(loss) is loss["cells"][1]


def test_baselines_are_the_mean_over_the_seeds_as_the_metric_is(tmp_path):
    """At data.seed=-1 each seed has a test split of its own."""
    runs = runs_of([{}], (0, 1, 2))
    for run, rate in zip(runs, (0.3, 0.25, 0.2), strict=True):
        finished(tmp_path, run, 0.5)
        path = tmp_path / run.name / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"majority_rate": rate}))
    (cell,) = read(tmp_path, runs)["cells"]
    assert cell["baselines"] == {"majority class": pytest.approx(0.25)}
    (cell,) = read(tmp_path, runs[:2])["cells"]
    assert cell["baselines"] == {"majority class": pytest.approx(0.275)}


def test_several_configs_make_one_table(tmp_path):
    documents = {}
    for name, tests, validation in (("PLAID:s4d", (0.5, 0.6), 0.7), ("PLAID:s5", (0.9, 0.7), 0.6)):
        folder, runs = tmp_path / name, runs_of([{}], (0, 1))
        assert [run.name for run in runs] == ["seed=0", "seed=1"]
        for run, test in zip(runs, tests, strict=True):
            finished(folder, run, test, validation=validation)
        documents[name] = read(folder, runs)
    both = joined(documents, ["sweep"])
    assert both["options"] == {"config": ["PLAID:s4d", "PLAID:s5"]} and both["seeds"] == [0, 1]
    assert [cell["mean"] for cell in both["cells"]] == pytest.approx([0.55, 0.8])
    assert best_cell(both)["options"] == {"config": "PLAID:s4d"}, "by validation"
    (difference,) = both["differences"]
    assert (difference["one"], difference["other"]) == ("PLAID:s4d", "PLAID:s5")
    assert difference["test"]["mean"] == pytest.approx(-0.25) and difference["test"]["n"] == 2
    assert [run["name"] for run in both["runs"]][1::2] == ["PLAID:s4d: seed=1", "PLAID:s5: seed=1"]
    documents["PLAID:s5"]["metric"] = "loss"
    with pytest.raises(ValueError, match="their metric are accuracy and loss; give --metric"):
        joined(documents, ["sweep"])


def test_what_the_runs_do_not_share_is_remarked(tmp_path):
    runs = runs_of(CELLS, (0,))
    for run, commit in zip(runs, ("abc", "def"), strict=True):
        finished(tmp_path, run, 0.5, commit)
    document = read(tmp_path, runs)
    assert document["remarks"] == ["the runs have 2 different git; the first run's is shown."]
    assert document["git"]["commit"] == "abc"


def test_a_lost_best_checkpoint_is_remarked(tmp_path):
    runs = runs_of(CELLS, (0,))
    for run in runs:
        finished(tmp_path, run, 0.5)
    summary = tmp_path / runs[1].name / "summary.json"
    lost = {"best": {"step": 40, "value": 0.5}, "best_lost": {"step": 20}}
    summary.write_text(json.dumps(json.loads(summary.read_text()) | lost))
    assert read(tmp_path, runs)["remarks"] == [
        "alpha=3,seed=0: the best checkpoint, of step 20, was lost; the next best, of step 40, is "
        "tested."
    ]


def test_a_run_without_its_mark_of_the_end_goes_on(tmp_path):
    """The figures are drawn after summary.json is written."""
    runs = runs_of(CELLS[:1], (0,))
    finished(tmp_path, runs[0], 0.5)
    (tmp_path / runs[0].name / "DONE").unlink()
    (tmp_path / runs[0].name / "LOCK").touch()
    assert [run["status"] for run in read(tmp_path, runs)["runs"]] == ["unfinished"]
