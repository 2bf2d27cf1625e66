"""The folder of one run: its files, its single writer, its end.

A checkpoint and DONE have the length and hash of the files next to them: their stamps.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ssm_jax.files import local_path, printable
from ssm_jax.lock import Held, Lock
from ssm_jax.stop import EXIT_STOPPED, EXIT_STORAGE, Process

# What a run writes into its folder, besides LOCK
FILES = (
    "record.json", "metrics.jsonl", "timing.jsonl", "diagnostics", "checkpoints", "crash",
    "summary.json", "DONE", "figures", "analysis", "wandb", "wandb_id",
    "tensorboard", "profile", "start", "truncated",
)  # fmt: skip
# ... and of those, what tells the folder of a run from any other
MARKS = ("record.json", "metrics.jsonl", "checkpoints", "crash", "summary.json", "DONE", "LOCK")
# What `sweep.runs` writes beside a run that has not begun
BESIDE = ("log.txt", "failed.json", "diverged.json", "pruned.json")
LOGS = ("metrics.jsonl", "timing.jsonl")  # they grow after a checkpoint's stamp

Stamps = Mapping[str, Mapping[str, Any]]  # {"bytes", "hash"} by name within the run's folder


class WorkdirBusy(RuntimeError):  # noqa: N818 - it reads as what happened
    """Another process writes to this folder; the same command may go on once that has ended."""

    exit_code = EXIT_STOPPED


class WorkdirLost(RuntimeError):  # noqa: N818
    """The folder was deleted or moved, or another process has become its writer."""

    exit_code = EXIT_STORAGE


class Workdir:
    """The folder of one run.

    Naming its files needs no lock; `with Workdir(path) as workdir:` makes this process its only
    writer. Of several processes of one run process 0 alone writes, and holds the lock.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = local_path(path).absolute()
        self.record = self.path / "record.json"
        self.summary = self.path / "summary.json"
        self.done_mark = self.path / "DONE"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"  # what depends on the clock
        self.diagnostics = self.path / "diagnostics"  # arrays of each evaluation
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self.tensorboard = self.path / "tensorboard"
        self.profile = self.path / "profile"
        self.start = (
            self.path / "start"
        )  # the first state of a run with a parent, or set by its data
        self.crash = self.path / "crash"  # the last state of a run that met a non-finite number
        self._lock: Lock | None = None
        self._made = False  # whether entering it made the folder

    @property
    def done(self) -> bool:
        """Whether the run has come to its end."""
        return self.done_mark.exists()

    def refuse_foreign(self) -> None:
        """Refuse, with a ValueError, a folder of something else than a run; nothing is changed.

        Hidden and empty files are no obstacle: a file manager or a redirected output made them.
        """
        if not self.path.is_dir() or any(os.path.lexists(self.path / name) for name in MARKS):
            return
        # Also record.json.old of a mended record, LOCK.lease-4, and old-1 of --fresh
        ours = "|".join(map(re.escape, (*FILES, *BESIDE, "LOCK")))
        ours = rf"\..*|({ours})(\..*)?|old-\d+"
        found = sorted(
            path.name
            for path in self.path.iterdir()
            if not re.fullmatch(ours, path.name)
            and (path.is_symlink() or path.is_dir() or path.stat().st_size)
        )
        if found:
            more = f" and {len(found) - 1} more" if found[1:] else ""
            raise ValueError(
                f"{self.path} holds what no run wrote ({printable(found[0])}{more}); give a new or "
                "an empty folder, or that of a run."
            )

    def __enter__(self) -> Self:
        """Become the folder's only writer (else WorkdirBusy); a run that is done needs none.

        A folder of something else is refused, see `refuse_foreign`; and one that another process of
        the run sees otherwise: its host has another disk there.
        """
        from ssm_jax.training import processes  # here, so that the rest starts without JAX

        owner = processes.agreed(self._enter)
        lock = self.path / "LOCK"
        if not processes.first() and owner and not (lock.exists() and lock.read_text() == owner):
            raise ValueError(
                f"{self.path} is not what process 0 sees there; give a --workdir on a file system "
                "that all hosts share."
            )
        Process.begun = True
        return self

    def _enter(self) -> str:
        """Take the lock; its text, or "" where a run that is done cannot be written to."""
        self.refuse_foreign()
        self._made = not os.path.lexists(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        lock = Lock(self.path / "LOCK")
        try:
            lock.acquire()
        except Held as held:
            raise WorkdirBusy(
                f"{self.path} is being written by {held}; "
                "wait for it, stop it, or choose another --workdir."
            ) from None
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and self.done:
                return ""
            raise
        self._lock = lock
        return lock.path.read_text()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(self.path)
        if error is not None and self._made and self._lock is not None:
            self._remove_if_empty()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _remove_if_empty(self) -> None:
        """Remove a folder that holds the lock and empty folders alone: nothing was begun."""
        inside = [path for path in self.path.rglob("*") if path.name != "LOCK"]
        if all(path.is_dir() and not path.is_symlink() for path in inside):
            with contextlib.suppress(OSError):
                for path in sorted(inside, reverse=True):
                    path.rmdir()
                (self.path / "LOCK").unlink()
                self.path.rmdir()

    def confirm(self) -> None:
        """Raise WorkdirLost, before a save, if this process no longer is the folder's writer."""
        if self._lock is not None and not self._lock.valid():
            raise WorkdirLost(
                f"{self.path} was deleted, moved or taken over while the run went on; nothing more "
                "is written. Bring it back and give the same command, or choose a new --workdir."
            )


def run_and_step(path: Path, step: str) -> tuple[Path, str]:
    """The folder of a run and the step, also of WORKDIR/checkpoints/STEP, which names both."""
    whole = path.absolute()
    if whole.parent.name != "checkpoints" or not whole.name.isdecimal():
        return path, step
    if step != "best":
        raise ValueError(f"--step={step} and {path} both name a step; give one of them.")
    return whole.parents[1], whole.name


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON document with its checksum."""
    content = json.loads(json.dumps(content))  # as it will read back: tuples are lists
    return {**content, "crc32": document_checksum(content)}


def document_checksum(document: Mapping[str, Any]) -> int:
    """CRC-32 of a JSON document without its own "crc32", whatever the order of its entries."""
    content = {key: value for key, value in document.items() if key != "crc32"}
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def is_count(value: Any) -> bool:
    """Whether JSON has read a whole number of at least 0."""
    return type(value) is int and value >= 0


def new_hash(content: bytes) -> hashlib.blake2b:
    """The hash of a stamp, to be updated as a file grows."""
    return hashlib.blake2b(content, digest_size=8)


def stamp_of(content: bytes) -> dict[str, Any]:
    """The stamp of a file's content."""
    return {"bytes": len(content), "hash": new_hash(content).hexdigest()}


def are_stamps(value: Any) -> bool:
    """Whether JSON has read stamps of files that a run writes."""
    return isinstance(value, dict) and all(
        isinstance(stamp, dict)
        and is_count(stamp.get("bytes"))
        and isinstance(stamp.get("hash"), str)
        and (name in (*LOGS, "summary.json") or re.fullmatch(r"diagnostics/\d+(\.npz)?", name))
        for name, stamp in value.items()
    )


def stamp_faults(folder: Path, stamps: Stamps, *, finished: bool = False) -> dict[str, str]:
    """How files differ from their stamps, by name; logs of a `finished` run have not grown."""
    found = {}
    for name, stamp in stamps.items():
        size, whole = stamp["bytes"], finished or name not in LOGS
        if not os.path.lexists(folder / name):
            if size or whole:
                found[name] = "is missing"
            continue
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            found[name] = f"cannot be read ({error.strerror})"
            continue
        if len(content) < size or (whole and len(content) > size):
            found[name] = f"has {len(content)} bytes, and {size} were written"
        elif stamp_of(content[:size])["hash"] != stamp["hash"]:
            found[name] = f"is not what was written: its first {size} bytes have another hash"
    return found
