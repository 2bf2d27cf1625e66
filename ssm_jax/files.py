"""Paths that people give, files that are whole or not there, the system's errors in a line."""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

LONGEST = 3800  # bytes of a path; 4,095 is Linux's limit, and a run has folders in its folder

# What file systems answer that do not know a call
UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


def local_path(text: str | Path) -> Path:
    """A path on a file system that is mounted here; a leading ~ is expanded where it can be.

    ValueError, without a full stop, for an address (gs://, file:///): object stores have no locks
    and no memory maps, on which runs and data rest.
    """
    text = os.fspath(text)
    if (address := re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/{2,}", text)) is not None:
        if address[0].startswith("file:"):
            raise ValueError(f"it is an address; give the path, {text[address.end() - 1 :]}")
        raise ValueError(
            f"{address[0]} is not a file system of this machine; mount it (gcsfuse, s3fs) or copy "
            "to and from a local folder, and give that path"
        )
    path = Path(os.path.expanduser(text))
    # What still begins with ~ is a name, such as ./~x: nobody downstream may expand it.
    return path.absolute() if str(path).startswith("~") else path


def check_writable(path: Path, kind: Literal["file", "folder"]) -> None:
    """Refuse, before any work is done, a path at which no file or folder can be made or written."""

    def refuse(number: int, where: Path = path) -> NoReturn:
        raise OSError(number, os.strerror(number), str(where))

    there = whole = path.absolute()
    if len(os.fsencode(whole)) > LONGEST:
        refuse(errno.ENAMETOOLONG)
    while True:
        try:
            mode = os.stat(there).st_mode
            break
        except FileNotFoundError:
            if there.is_symlink():
                raise FileNotFoundError(errno.ENOENT, "the link leads to nothing", path) from None
            there = there.parent
        except OSError as error:
            refuse(error.errno or errno.EIO)
    if there != whole or kind == "folder":
        if not stat.S_ISDIR(mode):
            refuse(errno.ENOTDIR, there)
    elif stat.S_ISDIR(mode):
        refuse(errno.EISDIR)
    elif not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    else:
        there = Path(os.path.realpath(there)).parent  # the file is replaced, not written to
    room = os.statvfs(there)
    if not os.access(there, os.W_OK | os.X_OK):
        refuse(errno.EROFS if room.f_flag & os.ST_RDONLY else errno.EACCES)
    if not room.f_blocks:  # /proc lets root in, and then makes no file
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError:
            refuse(errno.EACCES)
    elif not room.f_bfree:
        refuse(errno.ENOSPC)


def user_cache() -> Path | None:
    """This package's folder in $XDG_CACHE_HOME or ~/.cache, which may not exist; None: no home."""
    for folder in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if os.path.isabs(folder):
            return Path(folder) / "ssm_jax"
    return None


def default_data_dir() -> Path:
    """The folder of data unless a command says otherwise: $SSM_JAX_DATA_DIR, or ./data."""
    return Path(os.environ.get("SSM_JAX_DATA_DIR") or "data")


def replace_atomically(path: Path, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write a file; it is the old one or the complete new one, even after a power cut.

    Its folder must exist; a link is followed. A write that fails leaves nothing behind, and its
    OSError names the path. `content` may be a function that writes into the open file.
    """
    if isinstance(content, str):
        content = content.encode(errors="surrogateescape")
    with naming(path):
        path = Path(os.path.realpath(path))
        temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                content(file) if callable(content) else file.write(content)
                file.flush()
                os.fsync(file.fileno())
            move_into_place(temporary, path)
        except OSError as error:
            if error.filename == str(temporary) and error.filename2 is None:
                error.filename = str(path)
            raise
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document atomically; a number that is not finite as the word "nan" or "inf"."""
    replace_atomically(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """A document with words for numbers that are not finite: JSON has none but null."""
    if isinstance(value, Mapping):
        return {key: finite(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [finite(of) for of in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def move_into_place(made: Path, path: Path) -> None:
    """Give a file or folder, which is on the disk, its name; that too outlives a power cut."""
    os.replace(made, path)
    sync(path.parent)


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


def rename_aside(path: Path, word: str) -> str:
    """Rename what is there to NAME.word, or NAME.word-1 and so on; its new name, "" for nothing."""
    if not os.path.lexists(path):
        return ""
    aside, n = path.with_name(f"{path.name}.{word}"), 1
    while os.path.lexists(aside):
        aside, n = path.with_name(f"{path.name}.{word}-{n}"), n + 1
    return path.rename(aside).name


def parse_json(text: str | bytes) -> Any:
    """The document in a text; ValueError if it is no JSON, or is nested too deep to be ours."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def json_digest(document: Any) -> str:
    """The sha256 of a document as JSON; the order of its keys does not count."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def printable(text: str) -> str:
    """A text of others for a line of ours: control, bidi and other unseen characters escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError that comes through here name this path, if it names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


_ADVICE = {
    "ENAMETOOLONG": "choose a shorter one",
    "ENOSPC": "make room there, or choose another place",
    "EDQUOT": "your quota is used up; make room there, or choose another place",
    "EFBIG": "the file system or a limit (ulimit -f) takes no file of this size",
    "EROFS": "it can only be read here; choose a place that can be written",
    "EACCES EPERM": "ask for the permission, or choose another place",
    "ENOENT": "check the path",
    "EEXIST ENOTEMPTY": "choose another name, or move away what is there",
    "EISDIR": "give a file",
    "ENOTDIR": "give a folder, below folders only",
    "ELOOP": "links lead round in a circle; mend them, or give the folder itself",
    "EMLINK": "choose another place",
    "EMFILE": "raise the limit of open files (ulimit -n)",
    "ENFILE": "the system's limit of open files is reached; end other processes",
    "ENOMEM": "end other processes, or ask for less",
    "ESTALE": "the network file system has lost it; mount it again",
    "EIO": "the disk or the network behind it fails; look at the mount",
    "ENODEV": "look at the mount",
    "ENOTCONN ETIMEDOUT": "the network behind it is gone; look at the mount",
    "EBADF": "it is closed; open it, or redirect it to a file",
}


def os_fault(error: OSError) -> str:
    """An error of the system in one line, with the path and what to do."""
    where = error.filename2 or error.filename  # of a rename it is the name that was wanted
    what = error.strerror or " ".join(str(arg) for arg in error.args) or type(error).__name__
    if where is None and error.errno is None:
        return what  # a check of ours, in words
    shown = "the system" if where is None else os.fsdecode(where)
    if error.errno is None or error.strerror != os.strerror(error.errno):
        return f"{shown}: {what}"
    name = errno.errorcode.get(error.errno, "")
    advice = [advice for names, advice in _ADVICE.items() if name in names.split()]
    return f"{shown}: {what}; {(*advice, 'look at it, then give the command again')[0]}."
