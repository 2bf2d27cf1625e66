"""Running the cells of a sweep, each in its folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import jax
from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config.load import ours
from ssm_jax.files import os_fault, write_json
from ssm_jax.progress import say
from ssm_jax.stop import EXIT_STOPPED, StopRequest
from ssm_jax.sweep.cells import Run
from ssm_jax.sweep.results import DIVERGED, FAILED, Status, look_at
from ssm_jax.train.checkpoint.manifest import CheckpointError, ConfigMismatch, SaveError
from ssm_jax.train.experiment import Experiment
from ssm_jax.train.loop import train_and_evaluate
from ssm_jax.train.workdir import WorkdirBusy

Outcome = Literal["finished", "diverged", "failed", "stopped", "busy"]


def run_sweep(
    runs: Sequence[Run],
    cfg: ConfigDict,
    folder: Path,
    *,
    build: Callable[[ConfigDict], Experiment],
    command: Callable[[Run], list[str]],
) -> bool:
    """Run what is not yet done, one after the other.

    A run that diverges, or cannot be restored, is marked and the next one begins. One that another
    process is in the midst of is left to it, so that several processes can share a sweep.

    Args:
      runs: of the sweep.
      cfg: the experiment of which they are cells.
      folder: has a folder for each.
      build: as `experiment.build`, where the data are.
      command: what makes a run by itself, for its record.

    Returns:
      Whether all runs have been seen to; False: stopped by SIGTERM or Ctrl-C, with everything
      saved.

    Raises:
      ValueError: a folder holds a run with other options.
    """
    done = 0
    with StopRequest() as stop:
        for number, run in enumerate(runs, start=1):
            if stop.requested:
                return False
            path, run_cfg = folder / run.name, run.config(cfg)
            found = look_at(path, config_lib.digest(run_cfg))
            if found.status in ("finished", "diverged"):
                done += 1
                continue
            start = time.monotonic()
            outcome: Outcome | Status = run_one(run_cfg, path, build=build, command=command(run))
            if outcome == "finished":
                outcome = look_at(path, config_lib.digest(run_cfg)).status
            seconds = time.monotonic() - start
            say(f"[{number} of {len(runs)}] {run.name}: {outcome} after {seconds:.0f} s")
            if outcome == "stopped":
                return False
    if done:
        say(f"{done} of {len(runs)} runs were done before.")
    return True


# A file where a folder of the run is to be, or the reverse
MISPLACED = (FileExistsError, IsADirectoryError, NotADirectoryError)


def share_compiled(folder: Path) -> None:
    """Keep compiled programs in the folder of a sweep, unless they are kept elsewhere already.

    Its runs compile the same programs, if no option changes a shape.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def run_one(
    cfg: ConfigDict,
    path: Path,
    *,
    build: Callable[[ConfigDict], Experiment],
    command: Sequence[str],
) -> Outcome:
    """Train one run, or go on with it; what it says goes to log.txt in its folder."""
    experiment = build(cfg)
    path.mkdir(parents=True, exist_ok=True)
    (path / FAILED).unlink(missing_ok=True)
    with (path / "log.txt").open("a", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        try:
            code = train_and_evaluate(experiment, path, argv=command)
        except FloatingPointError as error:
            digest = config_lib.digest(cfg)
            write_json(path / DIVERGED, {"error": str(error), "config_digest": digest})
            return "diverged"
        except WorkdirBusy:
            return "busy"
        except (CheckpointError, ValueError, *MISPLACED) as error:
            if isinstance(error, (ConfigMismatch, SaveError)) or not (
                isinstance(error, OSError) or ours(error)
            ):
                raise  # the folder of another sweep, a full disk, or a bug
            told = os_fault(error) if isinstance(error, OSError) else str(error)
            say(f"error: {told}")
            mark = {"error": told, "config_digest": config_lib.digest(cfg)}
            write_json(path / FAILED, mark)
            return "failed"
        finally:
            jax.clear_caches()  # the next run compiles its own programs
    return "stopped" if code == EXIT_STOPPED else "finished"
