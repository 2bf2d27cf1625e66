"""Paths that people give: whether they can be used, and what an error of the system means.

Where things are kept that can be made again.

One writer at a time: a lock that ends with its process, on file systems with and without flock.

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
import errno
import fcntl
import json
import os
import re
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn

from ssm_jax.stop import EXIT_STORAGE

LONGEST = 3800  # bytes of a path; 4,095 is Linux's limit, and a run has folders in its folder

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{2,}")  # gs://, s3://, file:///


def local_path(text: str | Path) -> Path:
    """A path on a file system that is mounted here; a leading ~ is expanded where it can be.

    Raises:
      ValueError: an address such as gs://bucket/run, without a full stop. Object stores have no
        locks and no memory maps, and runs and data rest on both.
    """
    text = os.fspath(text)
    if (address := ADDRESS.match(text)) is not None:
        if address[0].startswith("file:"):
            raise ValueError(f"it is an address; give the path, {text[address.end() - 1 :]}")
        raise ValueError(
            f"{address[0]} is not a file system of this machine; mount it (gcsfuse, s3fs) or copy "
            "to and from a local folder, and give that path"
        )
    path = Path(os.path.expanduser(text))
    # What still begins with ~ is a name, such as ./~x: nobody downstream may expand it.
    return path.absolute() if str(path).startswith("~") else path


def printable(text: str) -> str:
    """A text of others for a line of ours: control, bidi and other unseen characters escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def parse_json(text: str | bytes) -> Any:
    """The document in a text that may be damaged.

    Raises:
      ValueError: it is no JSON, or is nested deeper than any that a program writes.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def check_writable(path: Path, kind: Literal["file", "folder"]) -> None:
    """Refuse a path at which nothing can be written, before any work is done for it.

    Args:
      path: of what is to be written; it and folders above it may be missing.
      kind: what is to be there.

    Raises:
      OSError: why not, with the path.
    """

    def refuse(number: int, where: Path) -> NoReturn:
        raise OSError(number, os.strerror(number), str(where))

    if len(os.fsencode(path.absolute())) > LONGEST:
        refuse(errno.ENAMETOOLONG, path)
    there = path.absolute()
    while True:
        try:
            mode = os.stat(there).st_mode
        except FileNotFoundError:
            if there.is_symlink():
                raise FileNotFoundError(errno.ENOENT, "the link leads to nothing", path) from None
            there = there.parent
        except OSError as error:
            refuse(error.errno or errno.EIO, path)
        else:
            break
    if there == path.absolute():
        if kind == "folder" and not stat.S_ISDIR(mode):
            refuse(errno.ENOTDIR, path)
        if kind == "file" and stat.S_ISDIR(mode):
            refuse(errno.EISDIR, path)
        if kind == "file":
            if not stat.S_ISREG(mode):
                raise OSError(errno.EINVAL, "it is no regular file", str(path))
            there = Path(os.path.realpath(there)).parent  # the file is replaced, not written to
    elif not stat.S_ISDIR(mode):
        refuse(errno.ENOTDIR, there)
    room = os.statvfs(there)
    if not os.access(there, os.W_OK | os.X_OK):
        refuse(errno.EROFS if room.f_flag & os.ST_RDONLY else errno.EACCES, path)
    if room.f_blocks and not room.f_bfree:
        refuse(errno.ENOSPC, path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError that comes through here name this path, if it names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


ADVICE = {
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.ENOSPC: "make room there, or choose another place",
    errno.EDQUOT: "your quota is used up; make room there, or choose another place",
    errno.EFBIG: "the file system or a limit (ulimit -f) takes no file of this size",
    errno.EROFS: "it can only be read here; choose a place that can be written",
    errno.EACCES: "ask for the permission, or choose another place",
    errno.EPERM: "ask for the permission, or choose another place",
    errno.ENOENT: "check the path",
    errno.EEXIST: "choose another name, or move away what is there",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "give a folder, below folders only",
    errno.ENOTEMPTY: "choose another name, or move away what is there",
    errno.ELOOP: "links lead round in a circle; mend them, or give the folder itself",
    errno.EMLINK: "choose another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the system's limit of open files is reached; end other processes",
    errno.ENOMEM: "end other processes, or ask for less",
    errno.ESTALE: "the network file system has lost it; mount it again",
    errno.EIO: "the disk or the network behind it fails; look at the mount",
    errno.ENODEV: "look at the mount",
    errno.ENOTCONN: "the network behind it is gone; look at the mount",
    errno.ETIMEDOUT: "the network behind it is gone; look at the mount",
    errno.EBADF: "it is closed; open it, or redirect it to a file",
}


def os_fault(error: OSError) -> str:
    """What an error of the system says, with the path and what to do, in one line."""
    where = error.filename2 or error.filename  # of a rename it is the name that was wanted
    what = error.strerror or " ".join(str(arg) for arg in error.args) or type(error).__name__
    if where is None and error.errno is None:
        return what  # a check of ours, in words
    shown = "the system" if where is None else os.fsdecode(where)
    usual = error.errno is not None and error.strerror == os.strerror(error.errno)
    advice = ADVICE.get(error.errno or 0, "look at it, then give the command again")
    return f"{shown}: {what}" + (f"; {advice}." if usual else "")


def user_cache() -> Path | None:
    """This package's folder in $XDG_CACHE_HOME or ~/.cache, which may not exist; None: no home."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(folder):
        folder = os.path.expanduser("~/.cache")
        if not os.path.isabs(folder):
            return None
    return Path(folder) / "ssm_jax"


BEAT_S = 10.0
LOST_BEATS = 6

# What file systems answer that do not know a call.
UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class Held(RuntimeError):  # noqa: N818 - it reads as what happened
    """Another process has the lock; the text names it, and `pid` too, as far as it is known."""

    def __init__(self, text: bytes) -> None:
        super().__init__(_owner(text))
        self.pid = _parsed(text).get("pid", "?")


_held: set[Lock] = set()  # those of this process that are files


def _close_locks_in_child() -> None:
    # A forked worker shares its parent's lock, and would hold it on after the parent is killed.
    for lock in _held:
        os.close(lock.descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_locks_in_child)


class Lock:
    """The right to be the only one that writes.

    Args:
      path: of the lock file, in a folder that is there. It stays when the lock is released: were it
        removed, two later processes could lock two files of this name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self._lease: _Lease | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
          Held: another process has it.
          OSError: the file cannot be made or written; nothing is held then.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._lease = self._lock(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_this_process()).encode(), 0)
        except BaseException as error:
            os.close(descriptor)
            if self._lease is not None:
                self._lease.release()
                self._lease = None
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(self.path)
            raise
        self.descriptor = descriptor
        _held.add(self)

    def _lock(self, descriptor: int) -> _Lease | None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(os.pread(descriptor, 4096, 0)) from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            lease = _Lease(self.path)
            lease.take(os.strerror(error.errno))
            return lease
        # Of a host on which this file system has no flock
        _Lease(self.path).wait_for_holder()
        return None

    def release(self) -> None:
        """Let others have it."""
        with contextlib.suppress(OSError):  # the text is for people
            os.ftruncate(self.descriptor, 0)
        _held.discard(self)
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
    """What stands in the place of a lock; see the head of this file."""

    def __init__(self, path: Path) -> None:
        self._stem = path
        self._number = 0
        self._content: dict[str, Any] = {}
        self._ended = threading.Event()
        self._process = os.getpid()

    def _path(self, number: int) -> Path:
        return self._stem.with_name(f"{self._stem.name}.lease-{number}")

    def _numbers(self) -> list[int]:
        head = f"{self._stem.name}.lease-"
        names = os.listdir(self._stem.parent)
        ends = [name.removeprefix(head) for name in names if name.startswith(head)]
        return sorted(int(end) for end in ends if end.isdecimal())

    def _read(self, number: int) -> bytes:
        # Opened anew each time: then network file systems ask their server.
        with contextlib.suppress(FileNotFoundError):
            return self._path(number).read_bytes()
        return b""

    def wait_for_holder(self) -> int:
        """The number of the newest lease, once it is certain that nobody holds it.

        Raises:
          Held: somebody does.
        """
        number = max(self._numbers(), default=0)
        if number == 0:
            return 0
        first = self._read(number)
        holder = _parsed(first)
        if holder.get("released"):
            return number
        if all(holder.get(key) == value for key, value in _this_place().items()):
            if _is_alive(holder):
                raise Held(first)
            return number
        _say(
            f"{self._path(number)} is of {_owner(first)}; waiting {BEAT_S * LOST_BEATS:g} s to see "
            "whether that is alive."
        )
        end = time.monotonic() + BEAT_S * LOST_BEATS
        while time.monotonic() < end:
            time.sleep(min(1.0, BEAT_S / 4))
            if self._read(number) != first:
                raise Held(first)
        return number

    def take(self, reason: str) -> None:
        """Become the holder, and go on saying so.

        Args:
          reason: why there is no lock.

        Raises:
          Held: another process holds the lease.
        """
        last = self.wait_for_holder()
        self._number, path = last + 1, self._path(last + 1)
        self._content = {**_this_process(), **_this_place(), "beat": 0}
        self._content["started"] = _start_of(os.getpid())
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            raise Held(self._read(self._number)) from None
        try:
            os.write(descriptor, json.dumps(self._content).encode())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        numbers = self._numbers()
        if max(numbers, default=0) != self._number:
            path.unlink(missing_ok=True)
            raise Held(self._read(max(numbers, default=0)))
        for number in numbers[:-1]:
            self._path(number).unlink(missing_ok=True)
        _say(
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
            if (lost or time.monotonic() - renewed > BEAT_S * LOST_BEATS) and not (
                self._ended.is_set()
            ):
                # Not an exception: it would reach the main thread late, and saving is writing.
                line = (
                    f"error: {self._path(self._number)} was lost to another process; this ends.\n"
                )
                with contextlib.suppress(OSError):
                    os.write(2, line.encode(errors="backslashreplace"))
                os._exit(EXIT_STORAGE)

    def _write(self) -> None:
        text = json.dumps(self._content).encode()
        # Without O_CREAT: a lease that was deleted does not come back.
        descriptor = os.open(self._path(self._number), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, text, 0)  # in place: that works on a full disk too
            os.ftruncate(descriptor, len(text))
        finally:
            os.close(descriptor)

    def valid(self) -> bool:
        try:
            return max(self._numbers(), default=0) == self._number
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
    """Where a process number means one process: the host, since it was started, and container."""
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace}


def _start_of(pid: int) -> str:
    """When a process of this host began, in the kernel's ticks; empty if it has ended."""
    try:
        # Behind the name, which may hold anything: the state, and 19 fields later the start.
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


def _say(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder where the file system can do that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)
