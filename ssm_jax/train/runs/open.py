"""A run opened to be read, finished or not: its experiment, and the state of any checkpoint.

Nothing is written and no lock is taken, so another process may go on with the run meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssm_jax import config as config_lib
from ssm_jax.files import parse_json
from ssm_jax.progress import warn
from ssm_jax.train import experiment as experiment_lib
from ssm_jax.train.checkpoint import io as step_folder
from ssm_jax.train.checkpoint.manifest import (
    CheckpointError,
    ConfigMismatch,
    Meta,
    StateMismatch,
    document_checksum,
    other_run,
)
from ssm_jax.train.checkpoint.retention import Shelf
from ssm_jax.train.experiment import Experiment
from ssm_jax.train.step import TrainState

# Where a run's numbers come from, as its record says
PROVENANCE = (
    "seed", "config_digest", "setup_digest", "data", "git", "versions", "devices", "command",
    "started",
)  # fmt: skip

# Why a checkpoint that is there is not the one that was saved: it is damaged, or another run's
UNUSABLE = (CheckpointError, ConfigMismatch, StateMismatch)


def read_record(path: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged.
    """
    again = "give the command that trained the run once more, which writes it again"
    if not path.is_file():
        if (path.parent / "checkpoints").is_dir():
            raise FileNotFoundError(f"{path} is missing; bring it back, or {again}.")
        raise FileNotFoundError(
            f"{path.parent} holds no run, as it has no {path.name}; give the --workdir of one."
        )
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        lacking = [key for key in (*PROVENANCE, "config") if key not in record]
    except (ValueError, TypeError):
        raise ValueError(
            f"{path} is not JSON of a run; bring the run's own record back, or {again}."
        ) from None
    if lacking:
        raise ValueError(
            f"{path} lacks {', '.join(lacking)}; evaluate with the version that wrote it."
        )
    content = {key: value for key, value in record.items() if key != "crc32"}
    kinds = (("config", dict), ("data", dict), ("git", dict), ("config_digest", str))
    if (
        any(not isinstance(record[key], kind) for key, kind in kinds)
        or {"fingerprint", "detail"} - record["data"].keys()
        or "commit" not in record["git"]
        or record.get("crc32", document_checksum(content)) != document_checksum(content)
    ):
        raise ValueError(
            f"{path} was changed after it was written; bring the run's own record back, or {again}."
        )
    return record


def config_of(record: Mapping[str, Any], where: Path) -> Any:
    """The locked config of a run; `where` is the file of its record, for messages.

    Raises:
      ValueError: it has not exactly the options of this version, or was changed since.
    """
    cfg = config_lib.default()
    known = config_lib.flatten(cfg)
    given = {  # JSON has no tuples, and a config has no lists
        key: tuple(value) if isinstance(value, list) else value
        for key, value in record["config"].items()
    }
    faults = [f"{key} is unknown here" for key in sorted(given.keys() - known.keys())]
    faults += [f"{key} is missing" for key in sorted(known.keys() - given.keys())]
    faults += [
        f"{key}={value!r} is no {type(known[key]).__name__}"
        for key, value in given.items()
        if key in known and type(value) is not type(known[key])
    ]
    if faults:
        listed = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if faults[5:] else "")
        commit = record["git"]["commit"]
        raise ValueError(
            f"the options in {where} are not those of this version of ssm_jax: {listed}. "
            f"Evaluate with the version of the run{f', commit {commit}' if commit else ''}."
        )
    cfg.update_from_flattened_dict(given)
    if (digest := config_lib.digest(cfg)) != record["config_digest"]:
        raise ValueError(
            f"the options in {where} have been changed: their digest is {digest}, that of the run "
            f"{record['config_digest']}; bring the run's own record back."
        )
    return cfg.lock()


def rebuild(
    record: Mapping[str, Any], where: Path, *, data_dir: Path, files: Path | None = None
) -> Experiment:
    """The experiment of a run.

    Args:
      record, where: from `read_record`, and its file.
      data_dir, files: see `experiment.build`.

    Raises:
      ValueError: other options or other data than the run's; else as `experiment.build`.
    """
    cfg = config_of(record, where)
    experiment = experiment_lib.build(cfg, data_dir=data_dir, files=files)
    dataset, data = experiment.dataset, record["data"]
    if dataset.fingerprint != data["fingerprint"]:
        raise ValueError(
            f"the run had other data: {data['fingerprint']} ({data['detail']}), and here are "
            f"{dataset.fingerprint} ({dataset.provenance.detail}); give the run's with --data_dir "
            "or --from."
        )
    return experiment


def choose_step(checkpoints: Path, asked: str) -> int:
    """The step of the checkpoint that is asked for.

    Args:
      checkpoints: the run's folder of checkpoints.
      asked: "best" (what the newest checkpoint says of the evaluations up to it, though it be
        lost), "newest", or a number.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: there is no such checkpoint; the line lists those there are.
      CheckpointError: the newest one is damaged, and it was to say which is best.
    """
    steps = step_folder.list_steps(checkpoints) if checkpoints.is_dir() else []
    if not steps:
        raise FileNotFoundError(
            f"there is no checkpoint in {checkpoints} yet; evaluate after the first save."
        )
    listed = ", ".join(map(str, steps))
    if asked == "newest":
        return steps[-1]
    if asked == "best":
        try:
            best = step_folder.read_meta(checkpoints / str(steps[-1]))[0].best
        except CheckpointError as error:
            raise _damaged(checkpoints, steps[-1], error) from error
        if best is None:
            raise ValueError(
                f"no evaluation had a finite result up to step {steps[-1]}, so no checkpoint is "
                f"the best; give --step=newest or one of {listed}."
            )
        return int(best["step"])
    elif asked.isdecimal():
        number = int(asked)
    else:
        raise ValueError(f"--step={asked} does not fit: it must be best, newest or a number.")
    if number not in steps:
        raise ValueError(f"the step {number} is not in {checkpoints}; there are {listed}.")
    return number


@dataclass(frozen=True)
class Opened:
    """A checkpoint as it was found.

    Attributes:
      step: of the checkpoint.
      state: saved there.
      lost: {"step", "reason"} of the best one, where it is lost or damaged and this is the next
        best; else None.
    """

    step: int
    state: TrainState
    lost: dict[str, Any] | None = None

    def warn(self) -> None:
        """Say in a line that the best one is lost, if it is."""
        if self.lost is not None:
            warn(
                f"the checkpoint of step {self.lost['step']}, which has the best evaluation, is "
                f"lost ({self.lost['reason']}); that of step {self.step}, the next best, takes "
                "its place."
            )


def open_checkpoint(experiment: Experiment, checkpoints: Path, asked: str) -> Opened:
    """The checkpoint that is asked for; the next best with a warning, where the best is lost.

    Args:
      experiment: of the run.
      checkpoints, asked: as for `choose_step`.

    Raises:
      ConfigMismatch, StateMismatch: see `restore`; else as `choose_step`.
      CheckpointError: the checkpoint is damaged, and so is every one that could stand in for it.
    """
    while True:
        number = choose_step(checkpoints, asked)
        if asked != "best":
            return Opened(number, restore(experiment, checkpoints, number))
        metric = experiment.cfg.train.select_metric
        shelf = Shelf(checkpoints, keep=1, metric=metric, mode=experiment.task.metrics[metric])
        try:
            opened = best_of(
                number, shelf.ranked(), lambda step: _restored(experiment, checkpoints, step)
            )
        except CheckpointError as error:
            raise _damaged(checkpoints, number, error) from error
        # A run that goes on drops its best step when it has found a better one.
        if opened.lost is None or choose_step(checkpoints, asked) == number:
            opened.warn()
            return opened


def best_of(best: int, ranked: Sequence[int], restore: Callable[[int], TrainState]) -> Opened:
    """The best step that can be restored.

    Args:
      best: the step with the best evaluation.
      ranked: the steps that were evaluated and are on the disk, the best first.
      restore: the state of a step; raises an error of UNUSABLE for one that is damaged or another
        run's.

    Raises:
      CheckpointError, ConfigMismatch, StateMismatch: there is none; says why not `best`.
    """
    first: Exception | None = None
    lost: dict[str, Any] | None = None
    for step in (best, *(step for step in ranked if step != best)):
        try:
            state = restore(step)
        except UNUSABLE as error:
            if first is None:
                first, lost = error, {"step": best, "reason": " ".join(str(error).split())}
            continue
        return Opened(step, state, lost)
    assert first is not None
    raise first


def restore(experiment: Experiment, checkpoints: Path, step: int) -> TrainState:
    """The state saved at a step.

    Raises:
      CheckpointError: it is damaged.
      ConfigMismatch, StateMismatch: it is not of this experiment.
    """
    try:
        return _restored(experiment, checkpoints, step)
    except CheckpointError as error:
        raise _damaged(checkpoints, step, error) from error


def _restored(experiment: Experiment, checkpoints: Path, step: int) -> TrainState:
    # As it was written: tuples are lists.
    identity = json.loads(json.dumps(config_lib.identity(experiment.cfg)))

    def accept(meta: Meta) -> None:
        if lines := other_run(meta, identity, experiment.dataset.fingerprint):
            raise ConfigMismatch(
                f"the checkpoint of step {step} in {checkpoints} is not of the run that the record "
                f"beside it describes: {'; '.join(lines)}."
            )

    return step_folder.restore(checkpoints / str(step), experiment.abstract_state(), accept)[0]


def _damaged(checkpoints: Path, step: int, error: CheckpointError) -> CheckpointError:
    if not (checkpoints / str(step)).is_dir():  # a run that goes on keeps only its newest ones
        return CheckpointError(f"the run has just dropped step {step}; give the command again.")
    others = [str(other) for other in step_folder.list_steps(checkpoints) if other != step]
    advice = f"give --step={' or '.join(others)}" if others else "there is no other"
    return CheckpointError(
        f"the checkpoint of step {step} in {checkpoints} is damaged: {error}; {advice}."
    )
