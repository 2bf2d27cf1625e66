"""Runs of commit 9e0406c evaluate, analyze and resume, also where options are newer than they are.

old_runs/finished has 20 steps and the best checkpoint, of step 10. old_runs/half was killed with
SIGKILL while it saved step 100 of 300. Both are ListOps of at most 64 steps with a model of 244
parameters; they were made by

    scripts/train.py --config=configs/lra/listops.py:smoke --workdir=...

with the overrides below. Left out are the diagnostics, timing.jsonl, and the arrays of step 20.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ssm_jax import config as config_lib
from ssm_jax.config.load import load_config
from ssm_jax.options.rows import OPTIONS
from ssm_jax.training import loop
from ssm_jax.training.checkpoint.manifest import ConfigMismatch
from ssm_jax.training.experiment import build
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.runs import open_run
from ssm_jax.training.runs.evaluate import analyze, evaluate_run

OVERRIDES = {
    "model.d_model": 4, "model.d_state": 3, "model.depth": 1, "data.padded_length": 64,
    "data.listops.longer_than": 10, "data.listops.shorter_than": 64, "figures": False,
    "checkpoint.keep": 1, "train.steps": 300, "train.eval_every": 100, "log.every": 50,
    "checkpoint.every": 50,
}  # fmt: skip

# Of the same run, never killed, by the old commit: loss, of the training and of the validation
WHOLE = {
    ("train", 100): 2.2759525632858275, ("val", 100): 2.2506184577941895,
    ("train", 150): 2.225347673892975,
    ("train", 200): 2.2025383162498473, ("val", 200): 2.232735335826874,
    ("train", 250): 2.1849041414260864,
    ("train", 300): 2.124589922428131, ("val", 300): 2.256580352783203,
}  # fmt: skip
TEST_LOSS = 2.4504008293151855
ADDED = "schedule.newer"
# Of tasks that are newer than the runs
OTHERS = (
    "data.arrays.", "data.copying.", "data.delay.", "data.video.", "model.video.", "data.runoff.",
    "model.waves.oscillators",
)  # fmt: skip


@pytest.fixture
def old(request, tmp_path) -> Path:
    """A copy of an old run, to be changed."""
    return Path(
        shutil.copytree(Path(__file__).with_name("old_runs") / request.param, tmp_path / "run")
    )


@pytest.fixture
def newer(monkeypatch) -> str:
    """An option that this version has and the old runs have not; the line of all such, but those
    of other tasks."""
    option = OPTIONS["schedule.warmup_steps"]._replace(default=7, since="9.9")
    monkeypatch.setitem(OPTIONS, ADDED, option)
    rows = config_lib.rows()
    known = config_lib.flatten(config_lib.default())
    return ", ".join(key for key in known if rows[key].since and not key.startswith(OTHERS))


def resume(path: Path, data_dir: Path, **changes) -> int:
    cfg = load_config("configs/lra/listops.py:smoke")
    cfg.update_from_flattened_dict({**OVERRIDES, **changes})
    return loop.train_and_evaluate(build(cfg, data_dir=data_dir), path)


@pytest.mark.parametrize("old", ["finished"], indirect=True)
def test_an_old_run_evaluates_and_analyzes(old, data_dir, tmp_path, newer, capsys):
    summary = json.loads((old / "summary.json").read_text())
    result = evaluate_run(old, data_dir=data_dir)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    start = f"warning: {old} was recorded before these options existed; they have their defaults: "
    assert line.startswith(start) and line.endswith(f"{newer}.")
    assert (result["step"], result["accuracy"]) == (10, summary["test"]["accuracy"])
    assert result["loss"] == pytest.approx(summary["test"]["loss"], rel=1e-5)
    found, figures = analyze(old, data_dir=data_dir, out=tmp_path / "out")
    assert found["step"] == 10 and all(figure.is_file() for figure in figures)
    row = read_metrics(old / "metrics.jsonl", "diagnostics")[1]
    for name, value in found["all_layers"]["after"].items():
        if not name.startswith(("gradient", "states")):  # which the old run did not take
            assert value == pytest.approx(row[name], rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize("old", ["half"], indirect=True)
def test_an_old_run_that_was_killed_resumes_to_the_numbers_of_one_that_was_not(
    old, data_dir, newer, capsys
):
    """To rtol 1e-4: the program is compiled anew, from other code."""
    before = (old / "metrics.jsonl").read_bytes().splitlines()[:2]
    assert resume(old, data_dir) == loop.EXIT_DONE
    err = capsys.readouterr().err
    assert "going on from step 50 of 300." in err
    assert f"{old} was recorded before these options existed; they have" in err and newer in err
    assert (old / "metrics.jsonl").read_bytes().splitlines()[:2] == before
    rows = read_metrics(old / "metrics.jsonl")
    found = {(r["kind"], r["step"]): r for r in rows if r["kind"] != "diagnostics"}
    assert found.keys() == {("train", 50), *WHOLE}
    for key, loss in WHOLE.items():
        assert found[key]["loss"] == pytest.approx(loss, rel=1e-4), key
    assert "lr/rest" in found["train", 100] and "lr/rest" not in found["train", 50]
    summary = json.loads((old / "summary.json").read_text())
    assert summary["best"] == {"step": 200, "value": 0.25}
    assert summary["test"]["accuracy"] == 0.125
    assert summary["test"]["loss"] == pytest.approx(TEST_LOSS, rel=1e-4)


@pytest.mark.parametrize("old", ["half"], indirect=True)
def test_a_newer_option_that_is_not_at_its_default_is_another_run(old, data_dir, newer):
    with pytest.raises(ConfigMismatch, match=f"{ADDED}: checkpoint 7, asked for 8"):
        resume(old, data_dir, **{ADDED: 8})


@pytest.mark.parametrize("old", ["finished"], indirect=True)
def test_a_run_opens_with_an_option_that_was_read_by_nothing(old, data_dir, monkeypatch):
    row = OPTIONS["schedule.clamp"]._replace(when={"schedule.shape": ("constant",)})
    monkeypatch.setitem(OPTIONS, "schedule.clamp", row)
    _, experiment, opened = open_run(old, "best", data_dir=data_dir)
    assert opened.meta.step == 10
    with pytest.raises(ValueError, match=r"^schedule\.clamp=False is not read with"):
        build(experiment.cfg, data_dir=data_dir)


@pytest.mark.parametrize("old", ["finished"], indirect=True)
def test_an_option_that_is_gone_is_named(old, data_dir, monkeypatch):
    monkeypatch.delitem(OPTIONS, "log.gradient")
    assert "log.gradient" not in config_lib.flatten(config_lib.default())
    with pytest.raises(ValueError, match=r"log\.gradient is unknown here.* commit 9e0406c"):
        evaluate_run(old, data_dir=data_dir)
