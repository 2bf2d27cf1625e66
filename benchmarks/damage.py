"""Every file of a run lost or changed between two starts, and every write refused by a full disk.

For each damage a copy of the run is spoilt and the same command is given again, in this process. It
must end in the numbers of the undisturbed run, in the next best checkpoint's with that said, or in
one line; and where it ends in one line, a way that the line names must lead on.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from ssm_jax.outside import ours
from ssm_jax.stop import StopRequest
from ssm_jax.training import loop
from ssm_jax.training.checkpoint import io as step_folder
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.logs import MetricsLog
from ssm_jax.training.record import config_of, read_record
from ssm_jax.training.result import draw
from ssm_jax.training.run import Request
from ssm_jax.training.runs import open_checkpoint

Damage = Callable[[Path, Path], None]  # (what is spoilt, the same of another run)

COLUMNS = ("when", "file", "damage", "outcome", "said")
ALWAYS = ("record.json", "metrics.jsonl", "timing.jsonl", "LOCK", "summary.json", "DONE")
COMMAND = ("scripts/train.py",)


def _flip(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _delete(path: Path, other: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _replace(path: Path, other: Path) -> None:
    _delete(path, other)
    if other.is_dir():
        shutil.copytree(other, path)
    elif other.exists():
        shutil.copy(other, path)


def _as_folder(path: Path, other: Path) -> None:
    _delete(path, other)
    path.mkdir()


def _as_file(path: Path, other: Path) -> None:
    _delete(path, other)
    path.write_text("not a folder\n")


def _as_link(path: Path, other: Path) -> None:
    _delete(path, other)
    path.symlink_to(path.with_name("nowhere"))


def _change(change: Callable[[bytes], bytes]) -> Damage:
    def apply(path: Path, other: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return apply


OF_FILES: dict[str, Damage] = {
    "deleted": _delete,
    "emptied": _change(lambda content: b""),
    "halved": _change(lambda content: content[: len(content) // 2]),
    "torn": _change(lambda content: content[:-1]),
    "flipped": _flip,
    "doubled": _change(lambda content: content * 2),
    "appended": _change(lambda content: content + b'{"step": 1, "kind": "x"}\n\xff'),
    "reversed": _change(lambda content: b"".join(reversed(content.splitlines(keepends=True)))),
    "another run's": _replace,
    "a folder": _as_folder,
    "a dangling link": _as_link,
}
OF_FOLDERS: dict[str, Damage] = {
    "deleted": _delete,
    "emptied": _as_folder,
    "another run's": _replace,
    "a file": _as_file,
    "a dangling link": _as_link,
}
WITHIN_CHECKPOINTS = ("deleted", "halved", "flipped", "another run's")


def damage_matrix(
    experiment: Experiment,
    other: Experiment,
    folder: Path,
    *,
    only: Callable[[str, str, str], bool] = lambda when, what, how: True,
) -> dict[str, Any]:
    """Spoil a run in every way, and see what the same command makes of it; prints case by case.

    Args:
      experiment: small; better one that keeps its compiled steps.
      other: with another seed.
      folder: for the runs; must be new.
      only: whether to try a damage, by moment, file and kind; all by default.

    Returns:
      "cases": of each its moment, file, kind, outcome and the line that was said; "outcomes": how
      often there was which; "right": whether none is wrong.
    """
    folder.mkdir(parents=True)
    reference, stopped = folder / "reference", folder / "stopped"
    _train(experiment, reference)
    _stop(experiment, stopped, round(0.7 * experiment.total_steps))
    _train(other, folder / "other")
    _stop(other, folder / "other_stopped", round(0.7 * experiment.total_steps))
    moments = {
        "stopped": (stopped, folder / "other_stopped"),
        "done": (reference, folder / "other"),
    }
    cases = []
    path = folder / "spoilt"

    def note(when: str, name: str, how: str, outcome: str, said: str) -> None:
        print(f"{when:9} {name:60.60} {how:16} {outcome}", flush=True)
        found = (when, name, how, outcome, said.replace(str(path), "RUN"))
        cases.append(dict(zip(COLUMNS, found, strict=True)))

    for when, (source, foreign) in moments.items():
        for name, how, damage in _damages(source):
            if only(when, name, how):
                shutil.rmtree(path, ignore_errors=True)
                shutil.copytree(source, path, symlinks=True)
                damage(path / name, foreign / name)
                note(when, name, how, *_outcome(experiment, path, reference))
    for name, number in _refused(experiment):
        how = f"write {number}"
        if only("disk full", name, how):
            shutil.rmtree(path, ignore_errors=True)
            note("disk full", name, how, *starved(experiment, path, reference, name, number))
    counted = Counter(case["outcome"] for case in cases)
    return {
        "cases": cases,
        "outcomes": dict(sorted(counted.items())),
        "right": not any(outcome.startswith("WRONG") for outcome in counted),
    }


def _damages(source: Path) -> Iterator[tuple[str, str, Damage]]:
    """Names below the run's folder, kinds of damage, and what does it."""
    files = [name for name in ALWAYS if (source / name).exists()]
    files += [str(p.relative_to(source)) for p in sorted(source.glob("diagnostics/*.npz"))][:2]
    files += [str(p.relative_to(source)) for p in sorted(source.glob("figures/*"))][:1]
    for name in files:
        for how, damage in OF_FILES.items():
            yield name, how, damage
    steps = step_folder.list_steps(source / "checkpoints")
    folders = ["checkpoints", *(f"checkpoints/{step}" for step in steps)]
    folders += [name for name in ("diagnostics", "figures") if (source / name).is_dir()]
    for name in folders:
        for how, damage in OF_FOLDERS.items():
            yield name, how, damage
    for step, twin in itertools.permutations(steps, 2):
        yield f"checkpoints/{step}", f"step {twin}", _copy_of(twin)
    best, newest = f"checkpoints/{steps[0]}", f"checkpoints/{steps[-1]}"
    for step in (best, newest):
        for path in sorted((source / step).rglob("*")):
            if path.is_file():
                for how in WITHIN_CHECKPOINTS:
                    yield str(path.relative_to(source)), how, OF_FILES[how]


def _copy_of(twin: int) -> Damage:
    def copy(path: Path, other: Path) -> None:
        shutil.rmtree(path)
        shutil.copytree(path.with_name(str(twin)), path)

    return copy


def _train(experiment: Experiment, path: Path, **ways: bool) -> int:
    # Nobody reads what a few hundred runs print.
    with contextlib.redirect_stderr(io.StringIO()):
        return loop.train_and_evaluate(experiment, path, Request(argv=COMMAND, **ways))


def _stop(experiment: Experiment, path: Path, at: int) -> None:
    """Train up to a step, as if SIGTERM had come there."""

    def poll(self: StopRequest, step: int) -> bool:
        if step >= at:
            self.requested = "SIGTERM"
        return self.requested is not None

    with mock.patch.object(StopRequest, "poll", poll):
        assert _train(experiment, path) == loop.EXIT_STOPPED


def _outcome(experiment: Experiment, path: Path, reference: Path) -> tuple[str, str]:
    """Give a spoilt run the same command: its outcome, and the line it says."""
    if fault := _reading(experiment, path):
        return f"WRONG: {fault}", ""
    before = _contents(path)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            loop.train_and_evaluate(experiment, path, Request(argv=COMMAND))
    except Exception as error:
        line = " ".join(str(error).split())
        if not _for_people(error):
            return f"WRONG: {type(error).__name__} for a developer", line
        if _contents(path) != before:
            return "WRONG: refused, and something has changed", line
        for way in ("accept_log", "fresh", "moving away what it names"):
            flags = {way: True} if way in ("accept_log", "fresh") else {}
            with contextlib.suppress(Exception):
                if not flags and isinstance(error, OSError) and error.filename:
                    Path(error.filename).rename(path / "moved")
                _train(experiment, path, **flags)
                result = _result(path, reference, way != "accept_log")
                if result in EQUAL and not _lost(before, path):
                    return f"refused; {'--' if flags else ''}{way} leads to {result}", line
        return "WRONG: refused without a way on", line
    warnings = [line for line in said.getvalue().splitlines() if line.startswith("warning: ")]
    told = warnings[-1] if warnings else ""
    if lost := _lost(before, path):
        return f"WRONG: {', '.join(lost)} overwritten", told
    result = _result(path, reference, whole=True)
    if not warnings and result not in ("the same result", "the same result, a log is lost"):
        return f"WRONG: {result} without a word", told
    return (f"{result}, said" if warnings else result), told


EQUAL = ("the same result", "the next best checkpoint")


def _result(path: Path, reference: Path, whole: bool) -> str:
    """How a run that came to its end compares with the undisturbed one.

    Args:
      path, reference: their folders.
      whole: whether log and diagnostics are compared as well.
    """
    try:
        summaries = [json.loads((p / "summary.json").read_bytes()) for p in (path, reference)]
    except (OSError, ValueError):
        return "WRONG: no result"
    if "best_lost" in summaries[0]:
        return "the next best checkpoint"
    if any(summaries[0][key] != summaries[1][key] for key in ("test", "best", "config_digest")):
        return "WRONG: another result"
    names = ["metrics.jsonl", *(f"diagnostics/{p.name}" for p in reference.glob("diagnostics/*"))]
    if whole:
        for name in names:
            if not (path / name).is_file():
                return "the same result, a log is lost"
            if (path / name).read_bytes() != (reference / name).read_bytes():
                return "the same result, a log is damaged"
    return "the same result"


def _contents(path: Path) -> dict[str, bytes | str]:
    """All files and links below a folder, except what every start writes."""
    return {
        str(p.relative_to(path)): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in path.rglob("*")
        if (p.is_symlink() or p.is_file()) and p.name != "LOCK"
    }


def _lost(before: dict[str, bytes | str], path: Path) -> list[str]:
    """Files of before that are nowhere below the folder now.

    Checkpoints come and go, and a log is cut after the checkpoint that the run continues from.
    """
    now = _contents(path)
    there = set(now.values())
    logs = [content for name, content in now.items() if ".jsonl" in name]
    return [
        name
        for name, content in before.items()
        if content not in there
        and not name.startswith(("checkpoints", "diagnostics"))
        and content
        and not (
            name.endswith(".jsonl")
            and any(isinstance(log, bytes) and log[:200] == content[:200] for log in logs)
        )
    ]


def _reading(experiment: Experiment, path: Path) -> str | None:
    """Read a spoilt run: the error, if it is no line for people."""
    try:
        record = read_record(path / "record.json")
        config_of(record, path / "record.json")
        with contextlib.redirect_stderr(io.StringIO()):
            open_checkpoint(experiment, path / "checkpoints", "best")
    except Exception as error:
        if not _for_people(error):
            return f"{type(error).__name__} for a developer on reading: {error!s:.200}"
    return None


def _for_people(error: Exception) -> bool:
    """Whether a command shows it as a line."""
    return isinstance(error, OSError) or (
        isinstance(error, (ValueError, RuntimeError, FloatingPointError)) and ours(error)
    )


def _refused(experiment: Experiment) -> Iterator[tuple[str, int]]:
    """Writes that a full disk refuses: the file, and which of its writes."""
    yield from (("record.json", 1), ("record.json", 2), ("summary.json", 1), ("DONE", 1))
    yield from itertools.product(("metrics.jsonl", "timing.jsonl"), (1, 7))
    if experiment.cfg.log.diagnostics:
        yield from ((".npz", 1), (".npz", 2))
    if experiment.cfg.figures:
        yield "figures", 1


def starved(
    experiment: Experiment, path: Path, reference: Path, name: str, number: int
) -> tuple[str, str]:
    """Train with a disk that is full at the n-th write of a file and then has room: the outcome."""
    said = io.StringIO()
    line = ""
    with _full_disk(name, number), contextlib.redirect_stderr(said):
        try:
            loop.train_and_evaluate(experiment, path, Request(argv=COMMAND))
        except Exception as error:
            line = " ".join(str(error).split())
            if not isinstance(error, OSError):
                return f"WRONG: {type(error).__name__}", line
    _train(experiment, path)
    result = _result(path, reference, whole=True)
    if result != "the same result":
        return f"WRONG: {result}", line
    return ("stopped, then the same result" if line else "survived, the same result"), line


@contextlib.contextmanager
def _full_disk(name: str, number: int) -> Iterator[None]:
    """Let the n-th write of a file, or of one whose name ends so, fail."""
    seen = itertools.count(1)
    replace, opened = os.replace, MetricsLog.__init__

    def refuse() -> None:
        if next(seen) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def replace_watched(source: Any, target: Any, **options: Any) -> None:
        if os.fspath(target).endswith(name):
            refuse()
        replace(source, target, **options)

    class Full:
        """A log's file, of which half a line is written when the disk is full."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, line: bytes) -> int:
            whole = next(seen) != number
            return self._file.write(line if whole else line[: len(line) // 2])

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self._file, attribute)

    def opened_watched(self: MetricsLog, path: Path, *rest: Any) -> None:
        opened(self, path, *rest)
        if path.name == name:
            self._file = Full(self._file)  # type: ignore[assignment]

    def draw_watched(*arguments: Any) -> list[Path]:
        if name == "figures":
            refuse()
        return draw(*arguments)

    with (
        mock.patch.object(os, "replace", replace_watched),
        mock.patch.object(MetricsLog, "__init__", opened_watched),
        mock.patch("ssm_jax.training.run.draw", draw_watched),
    ):
        yield
