"""One writer at a time: a lock that ends with its process, on file systems with and without flock.

Where the file system has flock, the kernel holds the lock and drops it when the process ends,
however it ends. Elsewhere (ENOSYS of Lustre, ENOLCK of NFS, and the like) a lease takes its place:

    LOCK.lease-N    {"host", "pid", ..., "beat"}; its holder counts "beat" up every BEAT_S seconds

The highest N holds. A lease is taken over at once if its process was of this host and is dead, and
after LOST_BEATS beats without a change if it was of another. To take over is to create N + 1, which
one process alone can do (O_EXCL); the highest lease stays when it is given up, so that no number is
used twice. A holder that finds a higher one ends its process at once.
"""

import contextlib
import datetime
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Self

from ssm_jax.files import UNSUPPORTED, naming, parse_json
from ssm_jax.progress import warn
from ssm_jax.stop import EXIT_STORAGE, end_at_once

BEAT_S = 10.0
LOST_BEATS = 6

_held: set["Lock"] = set()  # those of this process


class Held(RuntimeError):  # noqa: N818 - it reads as what happened
    """Another process has the lock; the text names it, and `pid` too, as far as it is known."""

    def __init__(self, text: bytes) -> None:
        owner = _parsed(text)
        self.pid = owner.get("pid", "?")
        if {"pid", "host", "since"} <= owner.keys():
            super().__init__("process {pid} on {host} since {since}".format_map(owner))
        else:  # it has taken the lock this instant and not yet written its name
            super().__init__("another process")


def _give_up_in_child() -> None:
    # A forked worker shares its parent's lock, and would keep it after the parent is killed.
    for lock in _held:
        os.close(lock.descriptor)
        lock.descriptor, lock._lease = -1, 0
    _held.clear()


os.register_at_fork(after_in_child=_give_up_in_child)


class Lock:
    """The right to be the only one that writes; the lock file's folder must exist.

    The file is not removed on release: two later processes could lock two files of this name.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.descriptor = path, -1
        self._lease = 0  # number of the lease; 0: the lock is the kernel's
        self._ended = threading.Event()

    def acquire(self) -> None:
        """Take the lock; Held or OSError: another process has it, or the file cannot be written."""
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with naming(self.path):
                try:
                    if not self._flock():
                        raise Held(os.pread(self.descriptor, 4096, 0))
                except OSError as error:
                    if error.errno not in UNSUPPORTED:
                        raise
                    self._take_lease(os.strerror(error.errno))
                else:
                    self._newest_lease()  # of a host on which this file system has no flock
                os.ftruncate(self.descriptor, 0)
                os.pwrite(self.descriptor, json.dumps(_this_process()).encode(), 0)
        except BaseException:
            self._give_up()
            raise
        _held.add(self)

    def _flock(self) -> bool:
        """Ask the kernel for the lock, some times: for an instant a `holder_of` may have it."""
        for wait in (0.0, 0.01, 0.05):
            time.sleep(wait)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Let others have it."""
        with contextlib.suppress(OSError):  # the text is for people
            os.ftruncate(self.descriptor, 0)
        _held.discard(self)
        self._give_up()

    def _give_up(self) -> None:
        # Where the file system is gone this fails too; the error that said so is the one to show.
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        self.descriptor = -1
        self._ended.set()
        with contextlib.suppress(OSError):
            if self._lease and self._is_newest():
                self._write({"released": True})
        self._lease = 0

    def valid(self) -> bool:
        """Whether the lock is still ours: its file was not deleted, nor its lease taken over."""
        if self._lease and not self._is_newest():
            return False
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except OSError:
            return False

    def _path(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.lease-{number}")

    def _numbers(self) -> list[int]:
        """Those of the leases, ascending; 0 where there is none."""
        head = f"{self.path.name}.lease-"
        ends = [n.removeprefix(head) for n in os.listdir(self.path.parent) if n.startswith(head)]
        return sorted(int(end) for end in ends if end.isdecimal()) or [0]

    def _is_newest(self) -> bool:
        try:
            return self._numbers()[-1] == self._lease
        except OSError:
            return False

    def _read(self, number: int) -> bytes:
        # Opened anew each time: then network file systems ask their server.
        with contextlib.suppress(FileNotFoundError):
            return self._path(number).read_bytes()
        return b""

    def _write(self, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        # Not "w": a lease that was deleted does not come back, and on a full disk this works too.
        with self._path(self._lease).open("r+b", buffering=0) as file:
            file.write(text)
            file.truncate(len(text))

    def _newest_lease(self) -> int:
        """The number of the newest lease, once it is certain that nobody holds it; else Held."""
        number = self._numbers()[-1]
        first = self._read(number)
        holder = _parsed(first)
        if number == 0 or holder.get("released"):
            return number
        if _this_place().items() <= holder.items():
            if (holder.get("started") or "?") == _start_of(holder["pid"]):
                raise Held(first)
            return number
        patience = BEAT_S * LOST_BEATS
        warn(
            f"{self._path(number)} is of {Held(first)}; waiting {patience:g} s to see "
            "whether that is alive."
        )
        end = time.monotonic() + patience
        while time.monotonic() < end:
            time.sleep(min(1.0, BEAT_S / 4))
            if self._read(number) != first:
                raise Held(first)
        return number

    def _take_lease(self, reason: str) -> None:
        """Become the holder and keep saying so, as `reason` keeps us from a lock; else Held."""
        number = self._newest_lease() + 1
        path, start = self._path(number), _start_of(os.getpid())
        content = {**_this_process(), **_this_place(), "beat": 0, "started": start}
        try:
            with path.open("xb", buffering=0) as file:
                file.write(json.dumps(content).encode())
        except FileExistsError:
            raise Held(self._read(number)) from None
        except OSError:
            path.unlink(missing_ok=True)
            raise
        *older, newest = self._numbers()
        if newest != number:
            path.unlink(missing_ok=True)
            raise Held(self._read(newest))
        for other in older:
            self._path(other).unlink(missing_ok=True)
        self._lease, self._ended = number, threading.Event()
        warn(
            f"{self.path.parent}: this file system has no locks ({reason}); {path.name} takes "
            f"their place. It is renewed every {BEAT_S:g} s, and after {BEAT_S * LOST_BEATS:g} s "
            "without that another host may go on with the run: this process then ends as soon as "
            "it notices, but a write under way cannot be called back."
        )
        threading.Thread(target=self._beat, args=(content,), name="lease", daemon=True).start()

    def _beat(self, content: dict[str, Any]) -> None:
        line = f"error: {self._path(self._lease)} was lost to another process; this ends."
        renewed = time.monotonic()
        while not self._ended.wait(BEAT_S):
            if ours := self._is_newest():
                content["beat"] += 1
                with contextlib.suppress(OSError):
                    self._write(content)
                    renewed = time.monotonic()
                ours = time.monotonic() - renewed <= BEAT_S * LOST_BEATS
            if not ours and not self._ended.is_set():
                # Not an exception: it would reach the main thread late, and saving is writing.
                end_at_once(EXIT_STORAGE, line)


def holder_of(path: Path) -> dict[str, Any] | None:
    """Who has a lock, as {"host", "pid", "since"} as far as it is known; None: nobody has it.

    Nothing is taken. Of a lease of another host nobody can tell from outside whether it is alive.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.pread(descriptor, 4096, 0)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parsed(text)
    except OSError:
        pass
    finally:
        os.close(descriptor)
    lock = Lock(path)
    found = _parsed(lock._read(number)) if (number := lock._numbers()[-1]) else {"released": True}
    dead = _this_place().items() <= found.items() and (
        (found.get("started") or "?") != _start_of(found["pid"])
    )
    return None if found.get("released") or dead else found


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
    """When a process of this host began, in ticks ("?" where there is no /proc); "": it ended."""
    if not Path("/proc/self/stat").exists():
        with contextlib.suppress(PermissionError):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return ""
        return "?"
    try:
        # After the name, which may hold anything: the state, and 19 fields later the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _parsed(text: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        if isinstance(content := parse_json(text), dict):
            return content
    return {}
