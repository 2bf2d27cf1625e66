"""A sweep runs what is left, marks what diverges, stops on request, and tells all of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssm_jax import config as config_lib
from ssm_jax.commands import sweep as command
from ssm_jax.config.load import load_config, load_sweep
from ssm_jax.stop import StopRequest
from ssm_jax.sweep import Run, runs_of
from ssm_jax.sweep.results import document_of
from ssm_jax.sweep.runs import Job, run_one, run_sweep
from ssm_jax.sweep.standing import runs_in, validation_curve
from ssm_jax.training.experiment import Experiment, build
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.workdir import Workdir

ROOT = Path(__file__).parents[2]
CONFIG = str(Path(__file__).with_name("tiny_sweep.py"))


class Interrupted(Experiment):
    """An experiment that is told to stop while it fetches its third batch."""

    def train_batches(self, start):
        for number, batch in enumerate(super().train_batches(start), start=start + 1):
            if number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


class Sweep:
    """The sweep of tiny_sweep.py in a folder, run in this process."""

    def __init__(self, folder: Path, data_dir: Path):
        self.folder, self.data_dir = folder, data_dir
        self.cfg = load_config(CONFIG)
        self.runs = runs_of(load_sweep(CONFIG, self.cfg), (0,))
        self.built: list[str] = []  # runs that were opened, by name

    def run(self, interrupt: str = "", early: bool = False) -> bool:
        """Run it; the run of this name is interrupted, while it trains or as it is prepared."""
        names = {config_lib.digest(run.config(self.cfg)): run.name for run in self.runs}
        built = self.built

        class Watched(Job):
            def build(self, cfg):
                name = names[config_lib.digest(cfg)]
                built.append(name)
                experiment = super().build(cfg)
                if name == interrupt and early:
                    os.kill(os.getpid(), signal.SIGTERM)
                return (
                    Interrupted(experiment.cfg, experiment.dataset)
                    if name == interrupt and not early
                    else experiment
                )

        job = Watched(self.folder, self.data_dir, None, "e.py", {}, [])
        return run_sweep(self.runs, self.cfg, job)

    def statuses(self):
        return [run.status(self.cfg, self.folder)[0] for run in self.runs]

    def document(self, metric=None):
        return document_of(self.runs, self.folder, self.cfg, ["sweep"], metric)


def test_a_signal_before_a_run_trains_and_after_it_has_trained_stops_the_sweep(
    tmp_path, monkeypatch
):
    """It came while data were prepared, or figures drawn, and all other runs were still trained."""
    sweep = Sweep(tmp_path / "sweep", tmp_path / "data")
    first = sweep.runs[0].name
    assert sweep.run(interrupt=first, early=True) is False
    assert sweep.statuses()[:2] == ["unfinished", "missing"] and sweep.built == [first]
    assert not (sweep.folder / first / "record.json").exists(), "nothing was begun"

    def ended(experiment, path, request):
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            stop.requested = "pruned"  # as who watches a run says it: this alone ends no sweep
        return 0

    monkeypatch.setattr("ssm_jax.sweep.runs.train_and_evaluate", ended)
    assert sweep.run() is False and sweep.built == [first, first]
    with StopRequest() as outer:
        with StopRequest() as inner:
            inner.requested = "pruned"
        assert outer.requested is None


@pytest.mark.parametrize("more", [(), ("--sampler=optuna", "--search.model.alpha=1,2")])
def test_a_metric_that_no_run_will_have_is_refused_before_the_first(tmp_path, monkeypatch, more):
    monkeypatch.setattr(command, "start_jax", lambda *_, **__: None)
    words = [f"--config={CONFIG}", f"--folder={tmp_path / 'out'}", f"--data_dir={tmp_path}", *more]
    with pytest.raises(ValueError, match="no test metric 'f1'; give --metric=accuracy or loss"):
        command.sweep([*words, "--metric=f1"])
    assert not (tmp_path / "out").exists()


def test_what_a_summary_adds_to_the_metrics_of_a_task_is_known_before_a_run(tmp_path):
    for select_ema, other in ((False, "ema_peak_bias"), (True, "raw_peak_bias")):
        average = {"train.ema": 0.9, "train.select_ema": select_ema}
        names = build(load_config("runoff:smoke", average), data_dir=tmp_path).reported()
        assert {"peak_bias", "nse", other} <= names and "count" not in names


def test_a_sweep_goes_on_where_it_was_stopped_and_marks_what_diverges(tmp_path, compile_once):
    sweep = Sweep(tmp_path / "sweep", tmp_path / "data")
    first, second, third = (run.name for run in sweep.runs[:3])
    assert sweep.run(interrupt=third) is False
    assert sweep.statuses() == ["finished", "diverged", "unfinished", "missing"]
    assert sweep.built == [first, second, third]
    assert [cell["missing"] for cell in sweep.document()["cells"]] == [[], [], [0], [0]]

    with Workdir(sweep.folder / third):  # another process runs it: it is left to that one
        assert sweep.run() is True
    assert sweep.statuses() == ["finished", "diverged", "unfinished", "diverged"]

    steps = sweep.folder / third / "checkpoints"  # damaged: it is marked, and the others run
    kept = shutil.copytree(steps, tmp_path / "kept")
    for file in [file for file in steps.rglob("*") if file.is_file()]:
        file.write_bytes(b"")
    shutil.rmtree(sweep.folder / sweep.runs[3].name)
    assert sweep.run() is True
    assert sweep.statuses() == ["finished", "diverged", "failed", "diverged"]
    document = sweep.document()
    assert [cell["missing"] for cell in document["cells"]] == [[], [], [0], []]
    assert f"{third} failed: no checkpoint in {steps} can be restored" in document["remarks"][-1]
    shutil.rmtree(steps)
    kept.rename(steps)

    sweep.built.clear()
    assert sweep.run() is True
    assert sweep.built == [third], "what is done is not opened again"
    assert sweep.statuses() == ["finished", "diverged", "finished", "diverged"]
    assert "going on from step" in (sweep.folder / third / "log.txt").read_text()

    for name in (first, third):  # log.every is more than the 4 steps
        log = read_metrics(sweep.folder / name / "metrics.jsonl", "train")
        assert [row["step"] for row in log] == [4]

    document = sweep.document()
    assert document["options"] == {"model.beta.init": [0.0, 0.5], "model.alpha": [1.0, 2e38]}
    assert [cell["diverged"] for cell in document["cells"]] == [[], [0], [], [0]]
    for cell, name in zip(document["cells"][::2], (first, third), strict=True):
        summary = json.loads((sweep.folder / name / "summary.json").read_text())
        assert cell["mean"] == summary["test"]["accuracy"] == cell["values"]["0"]
        assert (cell["n"], cell["std"]) == (1, None)
        assert cell["validation"]["mean"] == summary["val"]["accuracy"] == summary["best"]["value"]
        assert summary["command"][-1].endswith(f"/{name}")
    with pytest.raises(ValueError, match=r"no test metric 'f1'; choose one of .*accuracy"):
        sweep.document(metric="f1")
    assert build(sweep.cfg, data_dir=sweep.data_dir).reported() == summary["test"].keys()

    sweep.cfg.batch_size = 4  # the folder holds another sweep
    with pytest.raises(ValueError, match="other options"):
        sweep.run()
    assert run_script(tmp_path, "--config.batch_size=4", code=2).stderr.count("\n") == 1

    done = run_script(tmp_path, "--report_only")
    written = sorted(path.name for path in sweep.folder.glob("sweep.*"))
    assert written == ["sweep.csv", "sweep.json", "sweep.md", "sweep.png"]
    assert done.stdout == (sweep.folder / "sweep.md").read_text()
    assert "2 of 4 runs diverged" in done.stdout
    known = json.loads((sweep.folder / "sweep.json").read_text())
    assert known["cells"] == document["cells"] and known["metric"] == "accuracy"
    assert known["git"] and known["devices"] and known["command"][0] == "scripts/sweep.py"


def test_a_run_that_is_ended_early_trains_on_to_the_same_result(tmp_path, compile_once):
    sweep = Sweep(tmp_path / "sweep", tmp_path / "data")
    run, told = sweep.runs[0], []

    def watching(experiment):
        assert (experiment.total_steps, experiment.eval_every) == (4, 2)

        def watch(step, value):
            told.append((step, value))
            return "no hope"

        return watch

    def job(folder):
        return Job(tmp_path / folder, tmp_path / "data", None, "e.py", {}, [])

    assert run_one(run, sweep.cfg, job("sweep"), watching) == "pruned"
    path = tmp_path / "sweep" / run.name
    assert [step for step, _ in told] == [2], "it is not asked at the last evaluation"
    assert told == validation_curve(run.config(sweep.cfg), path)
    status, mark = run.status(sweep.cfg, tmp_path / "sweep")
    assert (status, mark["error"], mark["step"]) == ("pruned", "no hope", 2)
    assert sweep.document()["cells"][0]["pruned"] == [0]
    assert "no hope: saved step 2" in (path / "log.txt").read_text()
    (found,) = runs_in(tmp_path / "sweep", list(run.cell))
    assert found == run

    assert run_one(run, sweep.cfg, job("sweep")) == "finished"
    assert run_one(run, sweep.cfg, job("whole")) == "finished"
    for name in ("metrics.jsonl", "summary.json"):
        one, other = ((tmp_path / f / run.name / name).read_text() for f in ("sweep", "whole"))
        assert one.replace("sweep", "whole") == other.replace("sweep", "whole"), name
    assert run.status(sweep.cfg, tmp_path / "sweep")[0] == "finished"


def run_script(folder: Path, *arguments: str, code: int = 0):
    """scripts/sweep.py on the sweep in a folder."""
    done = subprocess.run(
        [
            sys.executable, "scripts/sweep.py", f"--config={CONFIG}", *arguments,
            f"--folder={folder / 'sweep'}", f"--data_dir={folder / 'data'}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--seeds=0", "--seeds=0 must be at least 1"),
        ("--config.model.alpha=2", "--config.model.alpha is given and is swept"),
        ("--report_only", "there is nothing to report"),
        ("--config=configs/listops_small.py", "defines no function sweep()"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path, argument, words):
    done = run_script(tmp_path, argument, code=2)
    assert done.stderr.count("\n") == 1 and words in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_stops_one_run_and_a_full_disk_all(tmp_path, monkeypatch):
    cfg, run = config_lib.default(), Run({}, 0, "run")
    path = tmp_path / run.name
    raised = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    class Unbuilt(Job):
        def build(self, cfg):
            return None

    def train(experiment, path, request):
        (path / "checkpoints").write_text("")
        (path / "checkpoints").mkdir()

    def stopped(experiment, path, request):
        raise raised

    job = Unbuilt(tmp_path, tmp_path, None, "e.py", {}, [])
    monkeypatch.setattr("ssm_jax.sweep.runs.train_and_evaluate", train)
    assert run_one(run, cfg, job) == "failed"
    assert run.status(cfg, tmp_path)[0] == "failed"
    assert "checkpoints: File exists; choose another name, or move away" in (
        (path / "log.txt").read_text()
    )
    monkeypatch.setattr("ssm_jax.sweep.runs.train_and_evaluate", stopped)
    with pytest.raises(OSError) as caught:
        run_one(run, cfg, job)
    assert caught.value is raised


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "DONE").touch()
    (tmp_path / "run" / "summary.json").write_text('{"config_digest": "ab"')
    status, document = Run({}, 0, "run").status(config_lib.default(), tmp_path)
    assert "summary.json is damaged" in document["error"]
    assert status == "failed", "the other cells run"
