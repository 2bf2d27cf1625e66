"""Making the runs of a sweep, each in its folder."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config.ending import is_out_of_memory
from ssm_jax.files import default_data_dir, os_fault, write_json
from ssm_jax.outside import one_line, ours
from ssm_jax.progress import relayed, say
from ssm_jax.stop import EXIT_STOPPED, StopRequest
from ssm_jax.sweep import DIVERGED, FAILED, FOR_GOOD, PRUNED, Run, Status
from ssm_jax.sweep.standing import Standing, line_of, progress_of, runs_in
from ssm_jax.tasks import find_task
from ssm_jax.training.checkpoint.manifest import CheckpointError, ConfigMismatch, SaveError
from ssm_jax.training.experiment import Experiment, build
from ssm_jax.training.loop import train_and_evaluate
from ssm_jax.training.parent import Begin
from ssm_jax.training.record import check_sources, read_record
from ssm_jax.training.run import Request, Watch
from ssm_jax.training.workdir import WorkdirBusy

# A file where a folder of the run is to be, or the reverse
MISPLACED = (FileExistsError, IsADirectoryError, NotADirectoryError)

OUT_OF_MEMORY = (MemoryError, jax.errors.JaxRuntimeError)  # which may be something else, too


@dataclass(frozen=True)
class Job:
    """Where the runs of a command are, and what made them.

    folder: has a folder for each run, and the results.
    data_dir, files: see `experiment.build`.
    spec: FILE.py[:ARG] of the experiment; overrides: what the command, argv, changed of it.
    begin: the run with whose parameters each of them begins.
    """

    folder: Path
    data_dir: Path
    files: Path | None
    spec: str
    overrides: Mapping[str, Any]
    argv: Sequence[str]
    begin: Begin | None = None

    def build(self, cfg: ConfigDict) -> Experiment:
        return build(cfg, data_dir=self.data_dir, files=self.files)

    def command(self, run: Run) -> list[str]:
        """The command that makes a run by itself."""
        options = {**self.overrides, **run.cell, "seed": run.seed}
        words = [f"--config.{key}={value}" for key, value in options.items()]
        workdir = f"--workdir={(self.folder / run.name).as_posix()}"
        if self.data_dir != default_data_dir():
            words.append(f"--data_dir={self.data_dir.as_posix()}")
        if self.files is not None:
            words.append(f"--from={self.files.as_posix()}")
        if self.begin is not None:
            words.append(f"--init_from={self.begin.run}:{self.begin.step}")
            words += [f"--init_match={self.begin.match}"] * bool(self.begin.match)
        return ["ssm-jax", "train", f"--config={self.spec}", *words, workdir]


def run_sweep(runs: Sequence[Run], cfg: ConfigDict, job: Job) -> bool:
    """Run what is not yet done of the cells of an experiment, one after the other.

    A run that diverges, or cannot be restored, is marked and the next one begins. Runs locked by
    another process are skipped, so several processes can share a sweep. Returns whether all runs
    have been seen to; False: stopped by SIGTERM or Ctrl-C, with everything saved. Raises ValueError
    if a folder holds a run with other options.
    """
    done, known = 0, dict[str, Standing]()
    with StopRequest() as stop:
        for number, run in enumerate(runs, start=1):
            if stop.requested:
                return False
            check_sources(run.config(cfg), job.folder / run.name)
            if run.status(cfg, job.folder)[0] in FOR_GOOD:
                done += 1
                continue
            say(f"[{number} of {len(runs)}] {run.name}: begins; its lines are in log.txt")
            start = time.monotonic()
            outcome = run_one(run, cfg, job)
            if outcome == "finished":
                outcome, _ = run.status(cfg, job.folder)
            seconds = time.monotonic() - start
            say(f"[{number} of {len(runs)}] {run.name}: {outcome} after {seconds:.0f} s")
            if len(runs) > 1:
                say(line_of(progress_of(runs, job.folder, cfg, known=known)))
            if outcome == "stopped":
                return False
    if done:
        say(f"{done} of {len(runs)} runs were done before.")
    return stop.requested is None


def run_one(
    run: Run, cfg: ConfigDict, job: Job, watching: Callable[[Experiment], Watch] | None = None
) -> Status | Literal["stopped", "busy"]:
    """Start or continue one run; what it says is added to log.txt in its folder.

    What `watching` makes may end it early: the run is then marked as pruned.
    """
    before, cfg, path = config_lib.flatten(cfg), run.config(cfg), job.folder / run.name
    mark = {"config_digest": config_lib.digest(cfg), "options": dict(run.cell), "seed": run.seed}
    experiment = job.build(cfg)
    check_data(run, experiment, job.folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / FAILED).unlink(missing_ok=True)
    ended: list[str] = []
    watch = None if watching is None else watching(experiment)

    def watched(step: int, value: float) -> str:
        if why := watch(step, value) if watch is not None else "":
            # While the run's lock is ours
            write_json(path / PRUNED, {"error": why, "step": step, **mark})
            ended.append(why)
        return why

    with (
        relayed(run.name),
        (path / "log.txt").open("a", encoding="utf-8") as log,
        contextlib.redirect_stderr(log),
    ):
        if line := config_lib.given_up(before, cfg, {*run.cell, *run.given}):
            say(line)
        try:
            code = train_and_evaluate(
                experiment,
                path,
                Request(argv=job.command(run), begin=job.begin, watch=watched if watch else None),
            )
        except FloatingPointError as error:
            write_json(path / DIVERGED, {"error": str(error), **mark})
            return "diverged"
        except WorkdirBusy:
            return "busy"
        except Exception as error:
            if (fault := fault_of_run(error)) is None:
                raise
            say(f"error: {fault}")
            write_json(path / FAILED, {"error": fault, **mark})
            return "failed"
        finally:
            jax.clear_caches()  # the next run compiles its own programs
    if code == EXIT_STOPPED:
        return "pruned" if ended else "stopped"
    return "finished"


def data_options(cfg: ConfigDict) -> dict[str, Any]:
    """The options that name the data of an experiment: those with the same have the same."""
    names = {"task", *(("seed",) if cfg.data.seed < 0 else ())}  # -1: the data have the run's seed
    flat = config_lib.flatten(cfg).items()
    own = {key: value for key, value in flat if key in names or key.startswith("data.")}
    return {key: value for key, value in own.items() if key != "data.order_seed"}


def check_metric(runs: Sequence[Run], cfg: ConfigDict, job: Job, metric: str) -> None:
    """Refuse, with a ValueError, a metric that a cell of a sweep will not have, before it is run.

    Those that a task names are known; what its summary adds is read off an evaluation's shapes.
    """
    for run in {str(run.cell): run for run in reversed(runs)}.values():
        own = run.config(cfg)
        if metric in find_task(own.task).metrics or run.status(cfg, job.folder)[0] in FOR_GOOD:
            continue
        known = job.build(own).reported()
        if metric not in known:
            raise ValueError(
                f"{run.name} will have no test metric {metric!r}; give --metric="
                f"{' or '.join(sorted(known))}."
            )


def check_data(run: Run, experiment: Experiment, folder: Path) -> None:
    """Refuse, with a ValueError, a run with other data than those of its sweep have."""
    for other in runs_in(folder, list(run.cell), run.given, [run.name]):
        try:
            record = read_record(folder / other.name / "record.json")
        except (OSError, ValueError):
            continue  # it has none yet, or a damaged one
        own, theirs = data_options(experiment.cfg), record["config"]
        if any(theirs.get(k, v) != v for k, v in json.loads(json.dumps(own)).items()):
            continue
        dataset, data = experiment.dataset, record["data"]
        if dataset.fingerprint != data["fingerprint"]:
            raise ValueError(
                f"{folder / other.name} has other data, {data['fingerprint']} ({data['detail']}), "
                f"than {run.name} would have, {dataset.fingerprint} ({dataset.provenance.detail}); "
                "bring those of the sweep back, or choose another --folder."
            )
        return  # which was compared with the others


def fault_of_run(error: Exception) -> str | None:
    """What an error says that is of one run; None: the folder of another sweep, a bug, or such."""
    if not isinstance(error, (CheckpointError, ValueError, *MISPLACED, *OUT_OF_MEMORY)):
        return None
    misplaced, full = isinstance(error, OSError), is_out_of_memory(error)
    known = misplaced or full or ours(error)
    if isinstance(error, (ConfigMismatch, SaveError)) or not known:
        return None
    fault = os_fault(error) if isinstance(error, OSError) else str(error)
    return f"out of memory: {one_line(error)}" if full else fault
