"""The folder of one run: its files, its single writer, its end."""

from __future__ import annotations

import errno
from pathlib import Path
from types import TracebackType
from typing import Any

from ssm_jax.files import local_path, write_json
from ssm_jax.lock import Held, Lock
from ssm_jax.stop import EXIT_STORAGE, begin


class WorkdirBusy(RuntimeError):  # noqa: N818 - it reads as what happened
    """Another process writes to this folder."""


class WorkdirLost(RuntimeError):  # noqa: N818
    """The folder was deleted or moved, or another process has become its writer."""

    exit_code = EXIT_STORAGE


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
        write_json(self.path / "DONE", result)

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
