"""Paths that people give: whether they can be used, and what an error of the system means."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn

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
