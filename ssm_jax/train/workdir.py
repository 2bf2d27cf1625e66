"""The folder of one run: its files, its single writer, its end; and the request to stop."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import signal
import socket
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any


class WorkdirBusy(RuntimeError):  # noqa: N818 - it reads as what happened
    """Another process writes to this folder."""


_held: set[int] = set()  # file descriptors of the locks of this process


def _close_locks_in_child() -> None:
    # A forked worker shares its parent's lock, and would hold it on after the parent is killed.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_locks_in_child)


def write_json_atomic(path: Path, value: Any) -> None:
    """Write JSON; see `write_text_atomic`."""
    write_text_atomic(path, json.dumps(value, indent=2) + "\n")


def write_text_atomic(path: Path, text: str) -> None:
    """Write text as UTF-8; see `write_bytes_atomic`."""
    write_bytes_atomic(path, text.encode())


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write a file; it is the old one or the complete new one, even after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # or the rename itself may be lost
    finally:
        os.close(directory)


class Workdir:
    """The folder of one run.

    Naming its files needs no lock; `with Workdir(path) as workdir:` makes this process its only
    writer. In a run of several processes process 0 alone enters it.

    Attributes:
      path: the folder, absolute.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self._lock: IO[str] | None = None

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

        Raises:
          WorkdirBusy: if a living process is; its one line names that process.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = open(self.path / "LOCK", "a+", encoding="utf-8")
        try:
            # The kernel drops the lock when the process ends, however; the text is for people.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = _owner(lock.read())
            lock.close()
            raise WorkdirBusy(
                f"{self.path} is being written by {owner}; "
                "wait for it, stop it, or choose another --workdir."
            ) from None
        except BaseException:
            lock.close()
            raise
        self._lock = lock
        _held.add(lock.fileno())
        lock.truncate(0)
        since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": since}, lock)
        lock.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._lock is not None
        # The file stays: were it removed, two later processes could lock two files of this name.
        self._lock.truncate(0)
        _held.discard(self._lock.fileno())
        self._lock.close()
        self._lock = None


def _owner(text: str) -> str:
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has taken the lock this instant and not yet written its name


class StopRequest:
    """Turns SIGTERM and Ctrl-C into a flag that the loop polls, so that it can save and stop.

    A second Ctrl-C raises KeyboardInterrupt at once. Enter it in the main thread.

    With several JAX processes it installs nothing: they must all stop at one step, which JAX's own
    notifier of SIGTERM arranges, and which a Python handler would disable.

    Attributes:
      requested: "SIGTERM" or "SIGINT" once it came, else None.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._interrupts = 0
        self._previous: dict[int, Any] = {}
        self._many = False

    def __enter__(self) -> StopRequest:
        import jax  # here, so that the rest of this module starts without it

        self._many = jax.process_count() > 1
        if not self._many:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            # None: the old handler was not set from Python; the default is the nearest to it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt
        self.requested = signal.Signals(number).name

    def poll(self, step: int) -> bool:
        """Whether to stop after this step; with several processes all get the same answer.

        Args:
          step: the step just done; every process must poll with the same numbers.
        """
        if self._many and self.requested is None:
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(step):
                self.requested = "SIGTERM"
        return self.requested is not None
