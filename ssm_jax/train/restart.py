"""What a run finds in its folder when it starts: whether it is what the run has left there.

A checkpoint says how long the log was when it was saved, and its hash; so for the arrays of the
diagnostics. What does not fit stops the run with one line, before anything is changed. Nothing is
overwritten: files that have to make way are renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssm_jax import config as config_lib
from ssm_jax.files import replace_atomically, write_json
from ssm_jax.progress import say, warn
from ssm_jax.train import stamps
from ssm_jax.train.checkpoint import CheckpointStore
from ssm_jax.train.checkpoint.manifest import CheckpointError, Meta, document_checksum, is_number
from ssm_jax.train.checkpoint.retention import rename_aside
from ssm_jax.train.experiment import Experiment, setup_digest
from ssm_jax.train.logs import sound_lines
from ssm_jax.train.record import run_record
from ssm_jax.train.runs.open import read_record
from ssm_jax.train.runs.result import read_done, result_stands
from ssm_jax.train.step import TrainState
from ssm_jax.train.workdir import Workdir

# What a run writes into its folder; LOCK stays there, as does what others put beside it.
FILES = (
    "record.json", "metrics.jsonl", "timing.jsonl", "diagnostics", "checkpoints", "crash",
    "summary.json", "DONE", "figures", "analysis", "wandb", "wandb_id",
)  # fmt: skip


class RunDamaged(ValueError):  # noqa: N818 - it reads as what happened
    """Something is not what the run has left in its folder, and nothing was changed."""


@dataclass(frozen=True)
class Restart:
    """Where a run begins.

    Attributes:
      state: of the run.
      meta: of the checkpoint; None: a fresh start.
      stamps: of log and diagnostics, as far as they hold.
    """

    state: TrainState
    meta: Meta | None
    stamps: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps done."""
        return 0 if self.meta is None else self.meta.step


def start_anew(workdir: Workdir) -> None:
    """Move all that a run has left into the subfolder old-1, or old-2 and so on."""
    found = [workdir.path / name for name in FILES if os.path.lexists(workdir.path / name)]
    if not found:
        return
    n = 1
    while os.path.lexists(old := workdir.path / f"old-{n}"):
        n += 1
    old.mkdir()
    for path in found:
        path.rename(old / path.name)
    warn(f"the run starts anew; what it had left is in {old}.")


def accept(meta: Meta) -> None:
    """Raise CheckpointError for an `extra` that the loop never writes."""
    window, files = meta.extra.get("window"), meta.extra.get("files", {})
    if not (
        isinstance(window, dict)
        and all(map(is_number, window.values()))
        and (not window or window.get("steps", 0) >= 1)
    ):
        raise CheckpointError(f"its meta document is sound but has window={window!r:.60}")
    if not stamps.are_stamps(files):
        raise CheckpointError(f"its meta document is sound but has files={files!r:.60}")


def find(
    experiment: Experiment,
    workdir: Workdir,
    checkpoints: CheckpointStore,
    argv: Sequence[str],
    *,
    accept_log: bool,
) -> Restart | None:
    """Where the run begins, with its record written or mended; None if it is finished.

    Args:
      experiment, workdir, checkpoints: of the run.
      argv: the command, for the record.
      accept_log: go on though log or diagnostics are not what the run has written. They are
        renamed, and of a log the lines that can be its own are kept.

    Raises:
      ConfigMismatch, StateMismatch, CheckpointError: see `CheckpointStore.restore_newest`.
      RunDamaged: what is there would be lost, or is not the run's.
    """
    files, not_done = read_done(experiment, workdir)
    unreadable: CheckpointError | None = None
    restored: tuple[TrainState, Meta] | None = None
    try:
        restored = checkpoints.restore_newest(experiment.abstract_state())
    except CheckpointError as error:
        if files is None:
            raise
        unreadable = error
    if files is not None and result_stands(experiment, workdir, files, restored is not None):
        if unreadable is not None:
            warn(" ".join(str(unreadable).split()))
        return None
    if unreadable is not None:
        raise unreadable
    if restored is None:
        _check_beginning(experiment, workdir)
        _new_record(experiment, workdir, argv)
        return Restart(experiment.fresh_state(), None, {})
    state, meta = restored
    held = _check_files(workdir, meta, accept_log=accept_log)
    check_record(experiment, workdir, argv, meta.step)
    if not_done is not None:
        aside = rename_aside(workdir.path / "DONE", "damaged")
        warn(f"{aside.with_name('DONE')} {not_done} and is now {aside.name}.")
    lost = meta.best is not None and meta.best["step"] not in checkpoints.steps()
    if meta.best is not None and lost and meta.step < experiment.total_steps:
        warn(
            f"the checkpoint of step {meta.best['step']}, the best so far, is lost; if no better "
            "one comes, the next best that is left will be tested."
        )
    say(f"going on from step {meta.step:,} of {experiment.total_steps:,}.")
    return Restart(state, meta, held)


def _check_beginning(experiment: Experiment, workdir: Workdir) -> None:
    """See that a run without any checkpoint would not write over the log of another one.

    A run that was ended before its first save begins again without a word: its record says that
    nothing was saved, and the same options make the same lines.

    Raises:
      RunDamaged: the folder has a log, diagnostics or a result, and they are not such a run's.
    """
    names = (*stamps.LOGS, "diagnostics", "summary.json", "DONE")
    left = [name for name in names if _has(workdir, name)]
    if not left:
        return
    fault = _record_fault(experiment, workdir)
    if fault is None:
        if read_record(workdir.record).get("saved", 0) is None and not {"summary.json", "DONE"} & {
            *left
        }:
            return
        fault = "does not say that the run ended before its first save"
    raise RunDamaged(
        f"{workdir.path} has {' and '.join(left)} but no checkpoint, and its record.json {fault}; "
        "bring the checkpoints back, choose another --workdir, or add --fresh to start anew (all "
        "of it goes to a subfolder)."
    )


def _has(workdir: Workdir, name: str) -> bool:
    """Whether a file, link or folder of this name holds anything."""
    path = workdir.path / name
    if path.is_dir():
        return any(path.iterdir())
    return os.path.lexists(path) and (path.is_symlink() or path.stat().st_size > 0)


def _check_files(workdir: Workdir, meta: Meta, *, accept_log: bool) -> dict[str, Any]:
    """Compare log and diagnostics with what the checkpoint says of them.

    Returns:
      The stamps that hold; none for a checkpoint of an older version.

    Raises:
      RunDamaged: one line for all that does not fit; nothing is changed.
    """
    files: stamps.Stamps = meta.extra.get("files", {})
    faults = stamps.faults(workdir.path, files)
    if faults and not accept_log:
        raise RunDamaged(
            f"{stamps.told(workdir.path, faults)}, says the checkpoint of step {meta.step}; bring "
            "it back, or add --accept_log to go on with what there is, or --fresh to start anew."
        )
    for name, fault in faults.items():
        path = workdir.path / name
        lines = sound_lines(path, meta.step) if name in stamps.LOGS else b""
        if not path.parent.is_dir():  # a file in the place of the folder of diagnostics
            path = path.parent
        renamed = ""
        if os.path.lexists(path):
            renamed = f", and is now {rename_aside(path, 'damaged').name}"
        if lines:
            replace_atomically(path, lines)
            renamed += f"; {len(lines.splitlines())} of its lines are kept"
        warn(f"{workdir.path / name} {fault}{renamed}.")
    return {name: dict(stamp) for name, stamp in files.items() if name not in faults}


def _new_record(
    experiment: Experiment, workdir: Workdir, argv: Sequence[str], saved: int | None = None
) -> None:
    """Write the record of a run; `saved` is a step known to be saved, None if none is yet."""
    cfg, dataset = experiment.cfg, experiment.dataset
    data = {"fingerprint": dataset.fingerprint, **dataset.provenance.as_dict()}
    record = run_record(config_lib.flatten(cfg), config_lib.digest(cfg), cfg.seed, data, argv)
    _write_record(workdir, {**record, "setup_digest": setup_digest(cfg), "saved": saved})


def _write_record(workdir: Workdir, record: Mapping[str, Any]) -> None:
    content = json.loads(json.dumps({k: v for k, v in record.items() if k != "crc32"}))
    write_json(workdir.record, {**content, "crc32": document_checksum(content)})


def note_saved(workdir: Workdir, step: int) -> bool:
    """Note in the record that a step is saved: a log is then worth a checkpoint.

    Returns:
      Whether it is written; a full disk is no reason to stop.
    """
    try:
        _write_record(workdir, {**read_record(workdir.record), "saved": step})
    except (OSError, ValueError) as error:
        warn(f"the first save is not yet noted in {workdir.record}: {error}")
        return False
    return True


def check_record(experiment: Experiment, workdir: Workdir, argv: Sequence[str], step: int) -> None:
    """Make the record again, with a warning, if it is missing, damaged or another run's.

    Args:
      experiment, workdir: of the run.
      argv: the command.
      step: that is saved, and is of this experiment.
    """
    fault = _record_fault(experiment, workdir)
    if fault is None:
        if read_record(workdir.record).get("saved", step) is None:
            note_saved(workdir, step)
        return
    renamed = ""
    if os.path.lexists(workdir.record):
        renamed = f"; the old one is now {rename_aside(workdir.record, 'damaged').name}"
    _new_record(experiment, workdir, argv, saved=step)
    warn(f"{workdir.record} {fault}, so it was made again from this command{renamed}.")


def _record_fault(experiment: Experiment, workdir: Workdir) -> str | None:
    """Why the record cannot be that of this run, as the end of a sentence; or None."""
    if not os.path.lexists(workdir.record):
        return "is missing"
    try:
        record = read_record(workdir.record)
    except (OSError, ValueError):
        return "is damaged"
    ours = (config_lib.digest(experiment.cfg), experiment.dataset.fingerprint)
    if (record["config_digest"], record["data"]["fingerprint"]) != ours:
        return "is that of another run"
    return None
