"""One writer at a time: a lock that ends with its process, on file systems with and without flock.

Where the file system has flock, the kernel holds the lock and drops it when the process ends,
however it ends. Elsewhere (ENOSYS of Lustre, ENOLCK of NFS, and the like) a lease takes its place:

    LOCK.lease-N    {"host", "pid", ..., "beat"}; its holder counts "beat" up every BEAT_S seconds

The highest N holds. A lease is taken over at once if its process was of this host and is dead, and
after LOST_BEATS beats without a change if it was of another. To take over is to create N + 1, which
one process alone can do (O_EXCL); the highest lease stays when it is given up, so that no number is
used twice. A holder that finds a higher one ends its process at once.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from ssm_jax.files import UNSUPPORTED, naming, parse_json
from ssm_jax.progress import warn
from ssm_jax.stop import EXIT_STORAGE

BEAT_S = 10.0
LOST_BEATS = 6

_held: set[Lock] = set()  # those of this process


class Held(RuntimeError):  # noqa: N818 - it reads as what happened
    """Another process has the lock; the text names it, and `pid` too, as far as it is known."""

    def __init__(self, text: bytes) -> None:
        super().__init__(_owner(text))
        self.pid = _parsed(text).get("pid", "?")


def _close_locks_in_child() -> None:
    # A forked worker shares its parent's lock, and would hold it on after the parent is killed.
    for lock in _held:
        os.close(lock.descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_locks_in_child)


class Lock:
    """The right to be the only one that writes; the lock file's folder must be there.

    The file stays when the lock is released: were it removed, two later processes could lock two
    files of this name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self._lease: _Lease | None = None

    def acquire(self) -> None:
        """Take the lock; Held or OSError: another process has it, or the file cannot be written."""
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with naming(self.path):
                self._lock()
                os.ftruncate(self.descriptor, 0)
                os.pwrite(self.descriptor, json.dumps(_this_process()).encode(), 0)
        except BaseException:
            self._give_up()
            raise
        _held.add(self)

    def _lock(self) -> None:
        lease = _Lease(self.path)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(os.pread(self.descriptor, 4096, 0)) from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            lease.take(os.strerror(error.errno))
            self._lease = lease
        else:
            lease.wait_for_holder()  # of a host on which this file system has no flock

    def release(self) -> None:
        """Let others have it."""
        with contextlib.suppress(OSError):  # the text is for people
            os.ftruncate(self.descriptor, 0)
        _held.discard(self)
        self._give_up()

    def _give_up(self) -> None:
        # Where the file system is gone this fails too; the error that told so is the one to show.
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        self.descriptor = -1
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def valid(self) -> bool:
        """Whether the lock is still ours: its file was not deleted, nor its lease taken over."""
        if self._lease is not None and not self._lease.valid():
            return False
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except OSError:
            return False


class _Lease:
    """The substitute for a lock; see the head of this file."""

    def __init__(self, path: Path) -> None:
        self._stem = path
        self._number = 0
        self._content: dict[str, Any] = {}
        self._ended = threading.Event()
        self._process = os.getpid()

    def _path(self, number: int) -> Path:
        return self._stem.with_name(f"{self._stem.name}.lease-{number}")

    def _numbers(self) -> list[int]:
        """Those of the leases, ascending; 0 where there is none."""
        head = f"{self._stem.name}.lease-"
        ends = [n.removeprefix(head) for n in os.listdir(self._stem.parent) if n.startswith(head)]
        return sorted(int(end) for end in ends if end.isdecimal()) or [0]

    def _read(self, number: int) -> bytes:
        # Opened anew each time: then network file systems ask their server.
        with contextlib.suppress(FileNotFoundError):
            return self._path(number).read_bytes()
        return b""

    def wait_for_holder(self) -> int:
        """The number of the newest lease, once it is certain that nobody holds it; else Held."""
        number = self._numbers()[-1]
        first = self._read(number)
        holder = _parsed(first)
        if number == 0 or holder.get("released"):
            return number
        if all(holder.get(key) == value for key, value in _this_place().items()):
            if _is_alive(holder):
                raise Held(first)
            return number
        patience = BEAT_S * LOST_BEATS
        warn(
            f"{self._path(number)} is of {_owner(first)}; waiting {patience:g} s to see "
            "whether that is alive."
        )
        end = time.monotonic() + patience
        while time.monotonic() < end:
            time.sleep(min(1.0, BEAT_S / 4))
            if self._read(number) != first:
                raise Held(first)
        return number

    def take(self, reason: str) -> None:
        """Become the holder and keep saying so, as `reason` keeps us from a lock; else Held."""
        self._number = self.wait_for_holder() + 1
        path = self._path(self._number)
        self._content = {**_this_process(), **_this_place(), "beat": 0}
        self._content["started"] = _start_of(os.getpid())
        try:
            with path.open("xb", buffering=0) as file:
                file.write(json.dumps(self._content).encode())
        except FileExistsError:
            raise Held(self._read(self._number)) from None
        except OSError:
            path.unlink(missing_ok=True)
            raise
        *older, newest = self._numbers()
        if newest != self._number:
            path.unlink(missing_ok=True)
            raise Held(self._read(newest))
        for number in older:
            self._path(number).unlink(missing_ok=True)
        warn(
            f"{self._stem.parent}: this file system has no locks ({reason}); {path.name} takes "
            f"their place. It is renewed every {BEAT_S:g} s, and after {BEAT_S * LOST_BEATS:g} s "
            "without that another host may go on with the run: this process then ends as soon as "
            "it notices, but a write under way cannot be called back."
        )
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(BEAT_S):
            lost = not self.valid()
            if not lost:
                self._content["beat"] += 1
                with contextlib.suppress(OSError):
                    self._write()
                    renewed = time.monotonic()
            lost = lost or time.monotonic() - renewed > BEAT_S * LOST_BEATS
            if lost and not self._ended.is_set():
                # Not an exception: it would reach the main thread late, and saving is writing.
                line = f"error: {self._path(self._number)} was lost to another process; this ends."
                with contextlib.suppress(OSError):
                    os.write(2, f"{line}\n".encode(errors="backslashreplace"))
                os._exit(EXIT_STORAGE)

    def _write(self) -> None:
        text = json.dumps(self._content).encode()
        # Not "w": a lease that was deleted does not come back, and on a full disk this works too.
        with self._path(self._number).open("r+b", buffering=0) as file:
            file.write(text)
            file.truncate(len(text))

    def valid(self) -> bool:
        try:
            return self._numbers()[-1] == self._number
        except OSError:
            return False

    def release(self) -> None:
        if os.getpid() == self._process:  # and not in a forked worker
            self._ended.set()
            self._content = {"released": True}
            with contextlib.suppress(OSError):
                if self.valid():
                    self._write()


def _this_process() -> dict[str, Any]:
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since}


def _this_place() -> dict[str, str]:
    """The scope of a process number: the host, since it was started, and container."""
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace}


def _start_of(pid: int) -> str:
    """When a process of this host began, in the kernel's ticks; empty if it has ended."""
    try:
        # After the name, which may hold anything: the state, and 19 fields later the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_alive(holder: dict[str, Any]) -> bool:
    if Path("/proc/self/stat").exists():
        return holder.get("started", "") == _start_of(holder["pid"]) != ""
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        content = parse_json(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _owner(text: bytes) -> str:
    owner = _parsed(text)
    if not {"pid", "host", "since"} <= owner.keys():
        return "another process"  # it has taken the lock this instant and not yet written its name
    return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
