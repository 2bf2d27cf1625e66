"""Runs side by side: seeds of a setting share a row, a colour, a mean and a band."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection

from ssm_jax import config as config_lib
from ssm_jax.commands.runs import analyze
from ssm_jax.plots.compare import compare_figure, shared_steps
from ssm_jax.sweep.compare import compare, curves_of, settings_of
from ssm_jax.sweep.tables import caption, splits_of
from ssm_jax.training.record import run_record

DATA = {"fingerprint": "a", "source": "generated", "detail": "", "sha256": ""}


def write(
    folder, seed, accuracies, *, test=None, alpha=1.0, layer="s4d", task="", data=DATA, ema=0.0
):
    """A run with an evaluation every 10 steps; finished if there is a test accuracy.

    ema: how much more accurate the averages of its parameters are, which then choose.
    """
    cfg = config_lib.default()
    cfg.name, cfg.seed, cfg.model.alpha, cfg.train.steps = "tiny", seed, alpha, 30
    config_lib.override(cfg, {"model.layer": layer, "task": task or cfg.task})
    if ema:
        cfg.train.ema, cfg.train.select_ema = 0.9, True
    folder.mkdir(parents=True)
    record = run_record(cfg, data, ["train"], folder)
    (folder / "record.json").write_text(json.dumps(record))
    rows = [{"step": 0, "kind": "diagnostics", "aliased": 0.0}]  # as the log of a run begins
    for step, accuracy in zip((10, 20, 30), accuracies, strict=False):
        rows.append({"step": step, "kind": "train", "loss": 2.0 - accuracy, "accuracy": 0.1})
        rows.append({"step": step, "kind": "val", "loss": 3.0 - accuracy, "accuracy": accuracy})
        if ema:
            rows[-1] |= {"ema_loss": 1.0, "ema_accuracy": accuracy + ema}
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    if test is not None:
        best = max((row for row in rows if row["kind"] == "val"), key=lambda row: row["accuracy"])
        summary = {
            "test": {"accuracy": test, "loss": 1.0},
            "val": {"accuracy": best["accuracy"], "loss": best["loss"]},
            "selected_by": "val accuracy",
            "best": {"step": best["step"], "value": best["accuracy"]},
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "DONE").touch()
    return folder


@pytest.fixture
def runs(tmp_path):
    """Three seeds of one setting, of which one is not finished, and one run of another."""
    return [
        write(tmp_path / "a0", 0, (0.2, 0.5, 0.4), test=0.45),
        write(tmp_path / "a1", 1, (0.3, 0.6, 0.7), test=0.65),
        write(tmp_path / "a2", 2, (0.1, 0.4)),
        write(tmp_path / "b0", 0, (0.2, 0.3, 0.9), test=0.4, alpha=3.0),
    ]


def test_seeds_of_a_setting_are_one_row_and_options_tell_namesakes_apart(runs):
    settings = settings_of(runs)
    assert {label: [run.cfg.seed for run in found] for label, found in settings.items()} == {
        "tiny (alpha=1)": [0, 1, 2],
        "tiny (alpha=3)": [0],
    }
    document = compare(settings, ["analyze"])
    one, other = document["cells"]
    assert (one["n"], one["unfinished"], one["values"]) == (2, [2], {"0": 0.45, "1": 0.65})
    assert one["mean"] == pytest.approx(0.55) and other["mean"] == 0.4
    assert one["validation"]["values"] == {"0": 0.5, "1": 0.7}
    assert document["metric"] == "accuracy" and document["better"] == "max"
    assert [run["status"] for run in document["runs"]].count("unfinished") == 1
    loss = compare(settings, ["analyze"], "loss")
    assert loss["cells"][1]["validation"]["mean"] == pytest.approx(2.1)
    with pytest.raises(ValueError, match=r"a0 has no test metric 'f1', it has accuracy, loss"):
        compare(settings, ["analyze"], "f1")


def test_the_layer_comes_first_of_the_options_that_tell_settings_apart(tmp_path):
    """Of which three are shown: an S4 has another init and rule than an S4D, too."""
    runs = [write(tmp_path / "a", 0, (0.2,)), write(tmp_path / "b", 0, (0.2,), layer="s4")]
    for label, layer in zip(settings_of(runs), ("s4d", "s4"), strict=True):
        assert label.startswith(f"tiny (layer={layer}, ")


def test_a_seed_counts_once_and_other_data_are_said(tmp_path, runs, capsys):
    again = write(tmp_path / "again", 1, (0.9,), test=0.9)
    other = write(tmp_path / "c", 3, (0.2,), test=0.2, data={**DATA, "fingerprint": "b"})
    settings = settings_of([*runs, again, other])
    assert "again repeats" in capsys.readouterr().err
    assert len(settings["tiny (alpha=1)"]) == 4
    remarks = compare(settings, ["analyze"])["remarks"]
    assert remarks == ["the runs have 2 different data sets."]


def test_the_losses_of_classes_and_of_numbers_are_not_compared(tmp_path, runs):
    """Each is chosen by val loss, and one of them was the best."""
    other = write(tmp_path / "c", 0, (0.2,), test=0.2, task="forecasting")
    said = r"the loss of \S+a0 \(listops\) and of \S+c \(forecasting\) are not one number"
    with pytest.raises(ValueError, match=said):
        compare(settings_of([runs[0], other]), [], "loss")


def test_the_figure_has_the_mean_and_the_band_of_the_steps_that_all_seeds_have(runs):
    figure = compare_figure(*curves_of(settings_of(runs)))
    training, evaluation = figure.axes
    assert evaluation.get_ylabel() == "validation accuracy (share correct)"
    assert training.get_ylabel() == "training loss (cross-entropy, nats)"
    thick = [line for line in evaluation.lines if line.get_linewidth() == 2]
    np.testing.assert_allclose(thick[0].get_xdata(), [10, 20])
    np.testing.assert_allclose(thick[0].get_ydata(), [0.2, 0.5])
    (band,) = [found for found in evaluation.collections if isinstance(found, PolyCollection)]
    corners = band.get_paths()[0].vertices
    for step, low, high in ((10, 0.1, 0.3), (20, 0.4, 0.6)):
        ends = corners[corners[:, 0] == step, 1]
        np.testing.assert_allclose((ends.min(), ends.max()), (low, high))
    means = [line for line in training.lines if line.get_linewidth() == 2]
    np.testing.assert_allclose(means[0].get_ydata(), [1.8, 1.5])
    rings = [line for line in evaluation.lines if line.get_markerfacecolor() == "white"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in rings] == [
        (20, 0.5), (30, 0.7), (30, 0.9),
    ]  # fmt: skip
    same = {line.get_color() for line in rings[:2]} | {thick[0].get_color()}
    assert len(same) == 1 and rings[2].get_color() not in same, "a colour is a setting"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "tiny (alpha=1), mean of 3 seeds", "tiny (alpha=3)", "each seed", "from least to most",
        "tested checkpoint",
    ]  # fmt: skip
    assert not training.get_legend() and not evaluation.get_legend(), "none over the curves"


@pytest.mark.parametrize("letters", [20, 45, 70, 200])
def test_the_legend_stays_within_the_figure(letters):
    rows = [{"step": 8, "kind": "train", "loss": 0.7}]
    figure = compare_figure({f"{c} {'mode=S ' * (letters // 7)}": [rows] for c in "ab"}, "loss")
    FigureCanvasAgg(figure).draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1


def test_averages_that_chose_are_what_is_shown(tmp_path):
    """With train.select_ema a result has the averages of the parameters under the plain names."""
    run = write(tmp_path / "a", 0, (0.2, 0.5), ema=0.25, test=0.5)
    settings = settings_of([run])
    evaluation = compare_figure(*curves_of(settings)).axes[1]
    np.testing.assert_allclose(evaluation.lines[0].get_ydata(), [0.45, 0.75])
    assert compare(settings, [])["selected_by"] == "val ema_accuracy"


def test_runs_that_chose_by_different_metrics_are_not_said_to_share_one(tmp_path):
    own = write(tmp_path / "own", 0, (0.2, 0.5), test=0.4)
    averages = write(tmp_path / "averages", 0, (0.2, 0.4), test=0.4, ema=0.1)
    document = compare(settings_of([own, averages]), ["analyze"])
    assert "checkpoints: the best val accuracy or ema_accuracy of each run" in caption(document)
    assert splits_of(document) == ["validation", "test"]


def test_a_single_logged_step_is_a_dot():
    rows = [{"step": 8, "kind": "train", "loss": 0.7}]
    training = compare_figure({"a": [rows], "b": [rows, rows]}, "loss").axes[0]
    assert all(line.get_marker() not in ("", "None", None) for line in training.lines)


def test_steps_are_shared_whatever_their_order_of_logging():
    curves = [(np.array([1.0, 2, 3, 5]), np.array([1.0, 2, 3, 5]))]
    curves.append((np.array([2.0, 4, 5]), np.array([20.0, 40, 50])))
    steps, values = shared_steps(curves)
    np.testing.assert_array_equal(steps, [2, 5])
    np.testing.assert_array_equal(values, [[2, 5], [20, 50]])


def test_long_curves_of_training_are_running_means_and_empty_ones_say_so():
    rows = [{"step": step, "kind": "train", "loss": float(step % 2)} for step in range(1, 401)]
    training, evaluation = compare_figure({"a": [rows]}, "mae").axes
    assert "mean of 8 points" in training.get_ylabel()
    assert np.ptp(training.lines[0].get_ydata()[8:-8]) < 1e-9
    assert [text.get_text() for text in evaluation.texts] == ["no values yet"]
    assert evaluation.get_ylabel() == "validation mae"


def test_analyze_compares_runs_and_the_runs_of_a_folder(tmp_path, runs, capsys):
    assert analyze([*map(str, runs)]) == 0
    shown = capsys.readouterr().out
    assert "| tiny (alpha=1) | 60.0 ± 14.1 | 55.0 ± 14.1 | 2, 1 of 3 unfinished |" in shown
    assert "1 of 4 runs are not finished" in shown
    assert "| tiny (alpha=3) | **90.0** | **40.0** | 1 |" in shown
    names = ["comparison.csv", "comparison.json", "comparison.md", "curves.png"]
    assert sorted(path.name for path in (tmp_path / "comparison").iterdir()) == names
    with (tmp_path / "comparison/comparison.csv").open(newline="") as file:
        assert [(row["n"], row["unfinished"]) for row in csv.DictReader(file)] == [
            ("2", "1"), ("1", "0"),
        ]  # fmt: skip
    assert analyze([str(tmp_path), f"--out={tmp_path / 'out'}"]) == 0
    assert capsys.readouterr().out.startswith(shown[:200])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--step=3"], "--step=3 is of one run, got 4"),
        (["--metric=f1"], "has no test metric 'f1'"),
        (["none"], "none holds no run"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path, runs, capsys, words, fault):
    with pytest.raises((SystemExit, ValueError, OSError)) as caught:
        analyze([*map(str, runs), *words])
    said = capsys.readouterr().err.strip() or str(caught.value)
    assert fault in said and "\n" not in said
    assert not (tmp_path / "comparison").exists()


def test_metric_is_no_flag_of_a_single_run(runs, capsys):
    with pytest.raises(SystemExit):
        analyze([str(runs[0]), "--metric=loss"])
    assert "--metric is for several runs" in capsys.readouterr().err
