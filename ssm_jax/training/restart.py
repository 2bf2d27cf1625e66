"""The start of a run: find its newest state, and check that its files are what it has left.

A checkpoint says how long the log was when it was saved, and its hash; so for the arrays of the
diagnostics. What does not fit stops the run with one line, before anything is changed. Nothing is
overwritten: files that have to make way are renamed.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssm_jax import config as config_lib
from ssm_jax.files import parse_json, rename_aside, replace_atomically, write_json
from ssm_jax.progress import say, warn
from ssm_jax.training.checkpoint import CheckpointError, CheckpointStore, ConfigMismatch, Meta
from ssm_jax.training.checkpoint.manifest import is_number
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.logs import sound_lines
from ssm_jax.training.record import check_sources, read_record, run_record, say_new_options
from ssm_jax.training.step import TrainState
from ssm_jax.training.workdir import FILES, LOGS, Stamps, Workdir, are_stamps, sealed, stamp_faults


class RunDamaged(ValueError):  # noqa: N818 - it reads as what happened
    """Something is not what the run has left in its folder, and nothing was changed."""


def start_anew(workdir: Workdir) -> None:
    """Move all that a run has left into the subfolder old-1, or old-2 and so on."""
    found = [workdir.path / name for name in FILES if os.path.lexists(workdir.path / name)]
    if not found:
        return
    places = (workdir.path / f"old-{n}" for n in itertools.count(1))
    old = next(place for place in places if not os.path.lexists(place))
    old.mkdir()
    for path in found:
        path.rename(old / path.name)
    warn(f"the run starts anew; what it had left is in {old}.")


def accept(meta: Meta) -> None:
    """Raise CheckpointError for an `extra` that the loop never writes."""
    window, files = meta.extra.get("window"), meta.extra.get("files", {})
    sound = isinstance(window, dict) and all(map(is_number, window.values()))
    if not sound or (window and window.get("steps", 0) < 1):
        raise CheckpointError(f"its meta document is sound but has window={window!r:.60}")
    if not are_stamps(files):
        raise CheckpointError(f"its meta document is sound but has files={files!r:.60}")


def find(
    experiment: Experiment,
    workdir: Workdir,
    checkpoints: CheckpointStore,
    argv: Sequence[str],
    *,
    accept_log: bool,
) -> tuple[TrainState, Meta | None, dict[str, Any]] | None:
    """Find where the run begins, and write or mend its record; None if it is finished.

    Returns its state, the meta of its checkpoint (None: a fresh start) and the stamps of the files
    that hold. `accept_log`: resume though log or diagnostics are not what the run has written; they
    are renamed, and of a log the lines that can be its own are kept. Raises RunDamaged where
    something would be lost, or is not the run's; else as `CheckpointStore.restore_newest`.
    """
    check_sources(experiment.cfg, workdir.path)
    files, not_done = _read_done(experiment, workdir)
    unreadable: CheckpointError | None = None
    restored: tuple[TrainState, Meta] | None = None
    try:
        restored = checkpoints.restore_newest(experiment.abstract_state())
    except CheckpointError as error:
        unreadable = error
    if files is not None and _result_stands(experiment, workdir, files, restored is not None):
        if unreadable is not None:
            warn(" ".join(str(unreadable).split()))
        return None
    if unreadable is not None:
        raise unreadable
    if restored is None:
        _check_beginning(experiment, workdir)
        _make_record(experiment, workdir, argv, None)
        return experiment.fresh_state(), None, {}
    state, meta = restored
    held = _check_files(workdir, meta, accept_log=accept_log)
    check_record(experiment, workdir, argv, meta.step)
    say_new_options(experiment.cfg, read_record(workdir.record), workdir.record)
    if not_done is not None:
        mark = workdir.done_mark
        warn(f"{mark} {not_done} and is now {rename_aside(mark, 'damaged')}.")
    lost = meta.best is not None and meta.best["step"] not in checkpoints.steps()
    if meta.best is not None and lost and meta.step < experiment.total_steps:
        warn(
            f"the checkpoint of step {meta.best['step']}, the best so far, is lost; if no better "
            "one comes, the next best that is left will be tested."
        )
    say(f"going on from step {meta.step:,} of {experiment.total_steps:,}.")
    return state, meta, held


def _in_a_line(folder: Path, faults: Mapping[str, str]) -> str:
    """The first of some faults, and how many more there are."""
    name, what = next(iter(faults.items()))
    more = f" (and {len(faults) - 1} more files)" if len(faults) > 1 else ""
    return f"{folder / name} {what}{more}"


def _read_done(experiment: Experiment, workdir: Workdir) -> tuple[Stamps | None, str | None]:
    """The stamps in DONE, which older versions had not, and what is wrong with it."""
    if not os.path.lexists(workdir.done_mark):
        return None, None
    try:
        document = parse_json(workdir.done_mark.read_bytes())
        files, ours = document.get("files", {}), config_lib.digest(experiment.cfg)
        if isinstance(document["test"], dict) and are_stamps(files):
            same = document.get("config_digest", ours) == ours
            return (files, None) if same else (None, "is that of another run")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None, "is damaged"


def _result_stands(experiment: Experiment, workdir: Workdir, files: Stamps, testable: bool) -> bool:
    """Whether the summary is sound; if not, but the run is `testable`, it is renamed. Warns."""
    faults, path = stamp_faults(workdir.path, files, finished=True), workdir.summary
    fault = faults.pop(path.name, None)
    if faults:
        warn(f"{_in_a_line(workdir.path, faults)}, says DONE; the result does not depend on it.")
    if fault is None:
        try:
            summary = parse_json(path.read_bytes())
            found = (summary["config_digest"], summary["data"]["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            fault = "is missing or damaged"
        else:
            if found != (asked := _names(experiment)):
                raise ConfigMismatch(
                    f"{path} is the result of other options or data (config {found[0]}, data "
                    f"{found[1]}) than this command's (config {asked[0]}, data {asked[1]}); choose "
                    "a new --workdir."
                )
            return True
    if not testable:
        raise CheckpointError(
            f"{path} {fault}, and there is no checkpoint to test again; bring it back (DONE has "
            "the test result), or add --fresh to start anew."
        )
    rename_aside(path, "damaged")
    warn(f"{path} {fault}; the run is tested again.")
    return False


def _names(experiment: Experiment) -> tuple[str, str]:
    """The names of the options and the data of a run in its documents."""
    return config_lib.digest(experiment.cfg), experiment.dataset.fingerprint


def _check_beginning(experiment: Experiment, workdir: Workdir) -> None:
    """Refuse to write, without any checkpoint, over the log of another run.

    A run that was ended before its first save begins again without a word: its record says that
    nothing was saved, and the same options make the same lines.
    """

    def holds(name: str) -> bool:
        path = workdir.path / name
        if path.is_dir():
            return any(path.iterdir())
        return os.path.lexists(path) and (path.is_symlink() or path.stat().st_size > 0)

    left = [name for name in (*LOGS, "diagnostics", "summary.json", "DONE") if holds(name)]
    record, fault = _own_record(experiment, workdir)
    if record is not None:
        fault = "does not say that the run ended before its first save"
    unsaved = record is not None and record.get("saved", 0) is None
    if left and not (unsaved and {"summary.json", "DONE"}.isdisjoint(left)):
        raise RunDamaged(
            f"{workdir.path} has {' and '.join(left)} but no checkpoint, and its record.json "
            f"{fault}; bring the checkpoints back, choose another --workdir, or add --fresh to "
            "start anew (all of it goes to a subfolder)."
        )


def _check_files(workdir: Workdir, meta: Meta, *, accept_log: bool) -> dict[str, Any]:
    """The stamps of log and diagnostics that hold; a checkpoint of an older version has none."""
    files: Stamps = meta.extra.get("files", {})
    faults = stamp_faults(workdir.path, files)
    if faults and not accept_log:
        raise RunDamaged(
            f"{_in_a_line(workdir.path, faults)}, says the checkpoint of step {meta.step}; bring "
            "it back, or add --accept_log to go on with what there is, or --fresh to start anew."
        )
    for name, fault in faults.items():
        path = workdir.path / name
        lines = sound_lines(path, meta.step) if name in LOGS else b""
        # The parent, where a file is in the place of the folder of diagnostics
        aside = rename_aside(path if path.parent.is_dir() else path.parent, "damaged")
        said = f"{path} {fault}" + (f", and is now {aside}" if aside else "")
        if lines:
            replace_atomically(path, lines)
            said += f"; {len(lines.splitlines())} of its lines are kept"
        warn(f"{said}.")
    return {name: dict(stamp) for name, stamp in files.items() if name not in faults}


def _make_record(
    experiment: Experiment, workdir: Workdir, argv: Sequence[str], saved: int | None
) -> None:
    """Write the record of a run; `saved` is a step known to be saved, None if none is yet."""
    dataset = experiment.dataset
    data = {"fingerprint": dataset.fingerprint, **dataset.provenance._asdict()}
    record = run_record(experiment.cfg, data, argv, workdir.path)
    write_json(workdir.record, sealed({**record, "saved": saved}))


def note_saved(workdir: Workdir, step: int) -> bool:
    """Note in the record that a step is saved, if it can be: a full disk is no reason to stop."""
    try:
        write_json(workdir.record, sealed({**read_record(workdir.record), "saved": step}))
    except (OSError, ValueError) as error:
        warn(f"the first save is not yet noted in {workdir.record}: {error}")
        return False
    return True


def check_record(experiment: Experiment, workdir: Workdir, argv: Sequence[str], step: int) -> None:
    """Make the record of a run with a saved step again, if it is missing, damaged or another's."""
    record, fault = _own_record(experiment, workdir)
    if record is None:
        aside = rename_aside(workdir.record, "damaged")
        renamed = f"; the old one is now {aside}" if aside else ""
        _make_record(experiment, workdir, argv, step)
        warn(f"{workdir.record} {fault}, so it was made again from this command{renamed}.")
    elif record.get("saved", step) is None:
        note_saved(workdir, step)


def _own_record(experiment: Experiment, workdir: Workdir) -> tuple[dict[str, Any] | None, str]:
    """The record of this run, or a reason why what is there cannot be, as the end of a sentence."""
    if not os.path.lexists(workdir.record):
        return None, "is missing"
    try:
        record = read_record(workdir.record)
    except (OSError, ValueError):
        return None, "is damaged"
    if (record["config_digest"], record["data"]["fingerprint"]) != _names(experiment):
        return None, "is that of another run"
    return record, ""
