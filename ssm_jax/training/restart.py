"""The start of a run: find its newest state, and check that its files are what it has left.

A checkpoint says how long the log was when it was saved, and its hash; so for the arrays of the
diagnostics. What does not fit stops the run with one line, before anything is changed. Nothing is
overwritten: files that have to make way are renamed.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssm_jax import config as config_lib
from ssm_jax.files import parse_json, rename_aside, replace_atomically, write_json
from ssm_jax.progress import say, warn
from ssm_jax.training import numerics, processes
from ssm_jax.training.checkpoint import Checkpoints
from ssm_jax.training.checkpoint.manifest import CheckpointError, ConfigMismatch, Meta
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.first_state import begin_run, facts
from ssm_jax.training.logs import sound_lines
from ssm_jax.training.parent import Begin
from ssm_jax.training.record import check_sources, read_record, run_record, say_new_options
from ssm_jax.training.step import TrainState
from ssm_jax.training.workdir import FILES, LOGS, Stamps, Workdir, are_stamps, sealed, stamp_faults


class RunDamaged(ValueError):  # noqa: N818 - it reads as what happened
    """Something is not what the run has left in its folder, and nothing was changed."""


def start_anew(workdir: Workdir) -> None:
    """Move all that a run has left into the subfolder old-1, or old-2 and so on."""
    found = [workdir.path / name for name in FILES if os.path.lexists(workdir.path / name)]
    if found:
        places = (workdir.path / f"old-{n}" for n in itertools.count(1))
        old = next(place for place in places if not os.path.lexists(place))
        old.mkdir()
        for path in found:
            path.rename(old / path.name)
        warn(f"the run starts anew; what it had left is in {old}.")


def find(
    experiment: Experiment,
    workdir: Workdir,
    checkpoints: Checkpoints,
    argv: Sequence[str],
    *,
    accept_log: bool,
    begin: Begin | None = None,
) -> tuple[TrainState, Meta, dict[str, Any]] | None:
    """Find where the run begins, and write or mend its record; None if it is finished.

    Returns its state, the meta of its checkpoint (without identity at a fresh start) and the stamps
    of the files that hold. `begin` is the other run that it begins from. `accept_log`: resume
    though log or diagnostics are not what the run has written; they are renamed, and of a log the
    lines that can be its own are kept. Raises RunDamaged where something would be lost, or is not
    the run's; else as `CheckpointStore.restore_newest`. Of several processes process 0 looks after
    the files, and says what it found.
    """
    check_sources(experiment.cfg, workdir.path)
    first, not_done = processes.first(), ""
    done: dict[str, Any] | None = None
    if first:
        done, not_done = _own(experiment, workdir.done_mark, _read_done)
    unreadable: CheckpointError | None = None
    restored: tuple[TrainState, Meta] | None = None
    try:
        restored = checkpoints.restore_newest(experiment.abstract_state())
    except CheckpointError as error:
        unreadable = error

    def finished() -> bool:
        files, testable = done and done["files"], restored is not None
        return files is not None and _result_stands(experiment, workdir, files, testable)

    if processes.agreed(finished):
        if unreadable is not None:
            warn(" ".join(str(unreadable).split()))
        return None
    if unreadable is not None:
        raise unreadable
    if restored is None:
        processes.agreed(lambda: _check_beginning(experiment, workdir))
        state = begin_run(experiment, workdir, begin)
        if first:
            _make_record(experiment, workdir, argv, None)
        return state, Meta(int(state.step), {}, "", False, {}, None, {"window": {}}), {}
    state, meta = restored
    begin_run(experiment, workdir, begin)
    held = processes.agreed(lambda: _check_files(workdir, meta, accept_log=accept_log))
    if not first:
        return state, meta, held
    check_record(experiment, workdir, argv, meta.step)
    say_new_options(experiment.cfg, read_record(workdir.record), workdir.record)
    mark = workdir.done_mark
    if not_done and os.path.lexists(mark):
        warn(f"{mark} {not_done} and is now {rename_aside(mark, 'damaged')}.")
    best = meta.best["step"] if meta.best else meta.step
    if best not in checkpoints.steps() and meta.step < experiment.total_steps:
        warn(
            f"the checkpoint of step {best}, the best so far, is lost; if no better one comes, the "
            "next best that is left will be tested."
        )
    say(f"going on from step {meta.step:,} of {experiment.total_steps:,}.")
    return state, meta, held


def _in_a_line(folder: Path, faults: Mapping[str, str]) -> str:
    """The first of some faults, and how many more there are."""
    name, what = next(iter(faults.items()))
    more = f" (and {len(faults) - 1} more files)" if len(faults) > 1 else ""
    return f"{folder / name} {what}{more}"


def _own(
    experiment: Experiment, path: Path, read: Callable[[Path], dict[str, Any]]
) -> tuple[dict[str, Any] | None, str]:
    """A document of this run, or why what is there cannot be it, as the end of a sentence."""
    if not os.path.lexists(path):
        return None, "is missing"
    digest, fingerprint = _names(experiment)
    try:
        document = read(path)
        data = document.get("data", {"fingerprint": fingerprint})
        same = (document.get("config_digest", digest), data["fingerprint"]) == (digest, fingerprint)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, "is damaged"
    return (document, "") if same else (None, "is that of another run")


def _read_done(path: Path) -> dict[str, Any]:
    """The document DONE; older versions had no stamps of files in it, and no digest."""
    document = parse_json(path.read_bytes())
    if not isinstance(document["test"], dict) or not are_stamps(document.setdefault("files", {})):
        raise ValueError
    return document


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
    record, fault = _own(experiment, workdir.record, read_record)
    unsaved = record is not None and record.get("saved", 0) is None
    if left and not (unsaved and {"summary.json", "DONE"}.isdisjoint(left)):
        fault = fault or "does not say that the run ended before its first save"
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
    return {name: stamp for name, stamp in files.items() if name not in faults}


def _make_record(
    experiment: Experiment, workdir: Workdir, argv: Sequence[str], saved: int | None
) -> None:
    """Write the record of a run; `saved` is a step known to be saved, None if none is yet."""
    dataset = experiment.dataset
    data = {"fingerprint": dataset.fingerprint, **dataset.provenance._asdict()}
    unseeded = data.pop("unseeded")
    if experiment.cfg.data.seed < 0:  # so `report` knows that seeds repeat one experiment
        data["unseeded"] = data["source"] if data["source"] == "generated" else unseeded
    record = run_record(experiment.cfg, data, argv, workdir.path)
    vocabulary = getattr(dataset, "vocab_size", None)
    platform = numerics.platform_of(experiment.mesh)
    record["determinism"] = numerics.determinism(experiment.cfg, platform, vocabulary)._asdict()
    if experiment.built_from is not None:
        record["built_from"] = experiment.built_from
    if experiment.population:
        record["population"] = experiment.population
    write_json(workdir.record, sealed({**record, **facts(workdir.path), "saved": saved}))


def note_saved(workdir: Workdir, step: int) -> bool:
    """Note in the record that a step is saved, if it can be: a full disk is no reason to stop."""
    try:
        write_json(workdir.record, sealed({**read_record(workdir.record), "saved": step}))
    except (OSError, ValueError) as error:
        warn(f"the first save is not yet noted in {workdir.record}: {error}")
        return False
    return True


def check_record(experiment: Experiment, workdir: Workdir, argv: Sequence[str], step: int) -> None:
    """Make the record of a run with a saved step again, if it is missing, damaged or another's.

    The states of a member of a population are elsewhere: its record says of none that it is saved.
    """
    record, fault = _own(experiment, workdir.record, read_record)
    there = workdir.checkpoints.is_dir()
    if record is None:
        aside = rename_aside(workdir.record, "damaged")
        renamed = f"; the old one is now {aside}" if aside else ""
        _make_record(experiment, workdir, argv, step if there else None)
        warn(f"{workdir.record} {fault}, so it was made again from this command{renamed}.")
    elif record.get("saved", step) is None and there:
        note_saved(workdir, step)
