"""The folder of one run: its files, its single writer, its end."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from ssm_jax.files import Held, Lock, local_path, naming, sync
from ssm_jax.stop import EXIT_STORAGE, StopRequest, begin

__all__ = [
    "StopRequest",
    "Workdir",
    "WorkdirBusy",
    "WorkdirLost",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_text_atomic",
]


class WorkdirBusy(RuntimeError):  # noqa: N818 - it reads as what happened
    """Another process writes to this folder."""


class WorkdirLost(RuntimeError):  # noqa: N818
    """The folder was deleted or moved, or another process has become its writer."""

    exit_code = EXIT_STORAGE


def write_json_atomic(path: Path, value: Any) -> None:
    """Write JSON; see `write_text_atomic`."""
    write_text_atomic(path, json.dumps(value, indent=2) + "\n")


def write_text_atomic(path: Path, text: str) -> None:
    """Write text as UTF-8; see `write_bytes_atomic`."""
    write_bytes_atomic(path, text.encode(errors="surrogateescape"))


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write a file; it is the old one or the complete new one, even after a power cut.

    Where the path is a link, the file that it leads to is written. An OSError names the path.
    """
    with naming(path):
        path = Path(os.path.realpath(path))
        temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)  # or the rename itself may be lost


class Workdir:
    """The folder of one run.

    Naming its files needs no lock; `with Workdir(path) as workdir:` makes this process its only
    writer. In a run of several processes process 0 alone enters it.

    Attributes:
      path: the folder, absolute.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = local_path(path).absolute()
        self._lock: Lock | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def diagnostics(self) -> Path:
        """Arrays of each evaluation; see `diagnose`."""
        return self.path / "diagnostics"

    @property
    def crash(self) -> Path:
        """Where a run that met a non-finite number leaves its last state."""
        return self.path / "crash"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        """What depends on the clock."""
        return self.path / "timing.jsonl"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def record(self) -> Path:
        return self.path / "record.json"

    @property
    def done(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "DONE").exists()

    def mark_done(self, result: dict[str, Any]) -> None:
        """Declare the run finished: the same command then has nothing left to do."""
        write_json_atomic(self.path / "DONE", result)

    def __enter__(self) -> Workdir:
        """Make the folder and become its writer.

        A run that is done can be entered where nothing can be written: nothing needs to be.

        Raises:
          WorkdirBusy: if a living process is; its one line names that process.
        """
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
                return self
            raise
        self._lock = lock
        begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(self.path)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def confirm(self) -> None:
        """See that this process still is the folder's writer; to be called before a save.

        Raises:
          WorkdirLost: the folder is not there any more, or another process has taken it over.
        """
        if self._lock is not None and not self._lock.valid():
            raise WorkdirLost(
                f"{self.path} was deleted, moved or taken over while the run went on; nothing more "
                "is written. Bring it back and give the same command, or choose a new --workdir."
            )
