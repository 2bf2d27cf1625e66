"""A user's series from file to table: docs/own-data.md as it is, and each head killed midway."""

from __future__ import annotations

import json
import os
import re
import signal
from copy import copy
from pathlib import Path

import numpy as np
import pytest

from ssm_jax.commands import runs as read
from ssm_jax.commands import spectrum as look
from ssm_jax.commands import sweep as sweeps
from ssm_jax.commands import train as make
from ssm_jax.config.load import load_config
from ssm_jax.data.loader import eval_order
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.trained import load
from ssm_jax.training import loop, runs
from ssm_jax.training.experiment import build
from ssm_jax.training.runs.evaluate import evaluate_run, moments

PAGE = (Path(__file__).parents[1] / "docs/own-data.md").read_text()
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = {
    "train": make.train, "sweep": sweeps.sweep, "evaluate": read.evaluate, "analyze": read.analyze,
    "report": read.report, "spectrum": look.spectrum,
}  # fmt: skip
SMALL = [f"--config.{option}" for option in (
    "batch_size=8", "model.depth=1", "model.d_model=4", "model.d_state=4", "train.epochs=0",
    "train.steps=6", "train.eval_every=3", "checkpoint.every=2", "log.every=1",
    "log.diagnostics=false", "data.n_train=20", "data.n_val=6", "data.n_test=10",
)]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A folder in which all that the page says has been written and run, with a small model."""
    folder, before = tmp_path_factory.mktemp("page"), Path.cwd()
    os.chdir(folder)
    try:
        for name, text in FILES.items():
            (folder / name).write_text(text)
            if name.startswith("make_"):
                exec(text, {})
        for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
            for line in block.splitlines():
                program, command, *words = line.split()
                assert program == "ssm-jax"
                words = [word for word in words if "train.epochs" not in word]
                words += [] if command == "report" else [f"--data_dir={folder / 'data'}"]
                words += SMALL if command in ("train", "sweep") else []
                words += ["--config.figures=false"] if command == "train" else []
                assert COMMANDS[command](words) == 0, line
    finally:
        os.chdir(before)
    return folder


def test_the_page_leaves_errors_figures_and_tables(page):
    result = json.loads((page / "runs/tides/test.json").read_text())
    (level,) = result["targets"]
    assert level["target"] == "level" and level["series"] == 3 and level["rmse"] > level["mae"] > 0
    assert {"last_value_mse", "seasonal_naive_mse"} <= result.keys()
    assert {"mse", "mae", "nse", "kge", "error_0.5_1"} <= result["metrics"].keys()
    swept = json.loads((page / "runs/alpha/sweep.json").read_text())
    assert [run["status"] for run in swept["runs"]] == ["finished"] * 2
    for name in (
        "spectrum.png",
        "alpha/sweep.png",
        "alpha/sweep.md",
        "tides/analysis/response.png",
    ):
        assert (page / "runs" / name).stat().st_size > 0
    text = (page / "runs/tides/record.json").read_text()
    assert str(page) not in text and "tides.csv" in text


def test_errors_are_those_of_outputs_in_the_units_of_the_file(page, monkeypatch):
    """By a loop over windows of the .csv, without the batches or moments of the package."""
    monkeypatch.chdir(page)
    rows = [line.split(",") for line in Path("tides.csv").read_text().splitlines()[1:]]
    level = np.array([float(row[3]) for row in rows]).reshape(3, 1500)
    opened = runs.open_run(Path("runs/tides"), "best", data_dir=page / "data",
                           files=Path("tides.csv"))  # fmt: skip
    experiment, state = opened[1], opened[2].state
    model, p = experiment.model(state), experiment.dataset.preprocessing
    errors = []
    for number, (series, start) in enumerate(experiment.dataset.rows["test"].tolist()):
        batch = experiment.dataset.gather("test", np.array([number]))
        said = np.asarray(experiment.task.outputs(model, batch))[0]
        errors.append(p.unscaled(said)[:, 0] - level[series, start + 72 : start + 96])
    found = json.loads(Path("runs/tides/test.json").read_text())["targets"][0]
    assert found["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert found["bias"] == pytest.approx(np.mean(errors), rel=1e-3)


def series_for(head: str, folder: Path) -> list[str]:
    """A small file for a head, unequal in length and of two channels; the options that it needs."""
    rng, n, L = np.random.default_rng(0), 40, 12
    x, path = rng.normal(size=(n, L, 2)), folder / "mine.npz"
    y = {
        "classification": np.array(["no", "yes", "maybe"])[np.arange(n) % 3],
        "regression": rng.normal(size=(n, 2)),
        "per_step": x.cumsum(1),
    }
    if head == "forecasting":
        np.savez(path, x=rng.normal(size=(2, 120, 2)))
        return ["data.arrays.context=8", "data.arrays.horizon=4", "data.arrays.season=4"]
    np.savez(path, x=x, y=y[head], lengths=np.arange(n) % 6 + 7)
    return []


def moments_do_not_depend_on_buckets(experiment):
    """Which only change the order in which examples are evaluated."""
    in_two = copy(experiment)
    in_two.padded_lengths = (9, 12)
    order = eval_order(experiment.dataset, "test", in_two.padded_lengths)
    assert (order != np.arange(order.size)).any()
    state = experiment.fresh_state()
    one, two = moments(experiment, state, "test"), moments(in_two, state, "test")
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-4, err_msg=name)


def steps_say_what_windows_do(run):
    """A forecaster as the config has it is streamed: after n steps it says what a window does."""
    model = load(run)
    x = np.random.default_rng(3).normal(size=(8, 2))
    stream = model.stream()
    said = [stream.step(step) for step in x]
    for n in (1, 5, 8):
        np.testing.assert_allclose(said[n - 1], model.predict(x[None, :n])[0], atol=1e-5)


@pytest.mark.parametrize("head", ["classification", "regression", "per_step", "forecasting"])
def test_each_head_is_trained_resumed_and_evaluated(head, tmp_path, monkeypatch, capsys):
    """Killed after three steps and continued, it ends with the same bits."""
    options = [f"--config.{option}" for option in series_for(head, tmp_path)]
    made = []

    def once(cfg, **where):  # so that each program is compiled once
        made.extend([] if made else [build(cfg, **where)])
        return made[0]

    monkeypatch.setattr(loop, "build", once)
    monkeypatch.setattr(runs, "build", once)
    where = [f"--from={tmp_path / 'mine.npz'}", f"--data_dir={tmp_path / 'data'}"]
    small = [word for word in SMALL if "data.n_" not in word]
    small += ["--config.figures=false"]
    argv = [f"--config=arrays:{head}", *where, *small, *options]

    def train(name):
        return make.train([*argv, f"--workdir={tmp_path / name}"])

    assert train("whole") == 0
    batches = made[0].train_batches

    def killed(start):
        for number, batch in enumerate(batches(start), start=start + 1):
            if number == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(made[0], "train_batches", killed)
    assert train("killed") == EXIT_STOPPED
    monkeypatch.setattr(made[0], "train_batches", batches)
    assert train("killed") == 0
    whole, resumed = tmp_path / "whole", tmp_path / "killed"
    assert (whole / "metrics.jsonl").read_bytes() == (resumed / "metrics.jsonl").read_bytes()
    tests = [json.loads((path / "summary.json").read_text())["test"] for path in (whole, resumed)]
    assert tests[0] == tests[1] and set(made[0].task.metrics) <= tests[0].keys()
    if head == "forecasting":
        steps_say_what_windows_do(whole)
    if head == "per_step":
        moments_do_not_depend_on_buckets(made[0])
    said = capsys.readouterr().err
    assert said.count("channel 1: mean") == 3 and "channel channel" not in said, (
        "once for each start"
    )
    assert read.evaluate([str(whole), *where]) == 0
    out = capsys.readouterr().out
    shown = {
        "classification": ("maybe", "precision"),
        "regression": ("y1", "bias"),
        "per_step": ("median NSE", "Nyquist"),
        "forecasting": ("channel 1", "seasonal naive"),
    }
    assert all(word in out for word in shown[head]), out
    assert ("Accuracy by length (steps)" in out) == (head == "classification")


def test_a_metric_that_validation_never_has_is_one_line_that_says_what_to_do(tmp_path):
    """As R2 of targets that are all equal there; the last state can still be evaluated."""
    y, split = np.random.default_rng(0).normal(size=40), ["train"] * 24 + ["val"] * 6
    y[24:30] = 2.0
    x, split = np.random.default_rng(1).normal(size=(40, 6, 2)), split + ["test"] * 10
    np.savez(tmp_path / "a.npz", x=x, y=y, split=split)
    where = {"data_dir": tmp_path / "data", "files": tmp_path / "a.npz"}
    changes = {
        "batch_size": 8, "model.depth": 1, "model.d_model": 4, "model.d_state": 4,
        "train.steps": 2, "train.eval_every": 1, "train.select_metric": "r2",
        "figures": False, "log.diagnostics": False,
    }  # fmt: skip
    cfg, run = load_config("arrays:regression", changes), tmp_path / "run"
    with pytest.raises(FloatingPointError, match=r"had a finite val r2, .* --step=newest"):
        loop.train(cfg, run, **where)
    found = evaluate_run(run, step="newest", **where)
    assert found["step"] == 2 and np.isfinite(found["metrics"]["r2"])
