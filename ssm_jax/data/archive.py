"""Foreign archives, which may hold anything: read in bounded memory and time, or refused.

Nothing is ever unpacked to the disk. Every reader of a release states in `Limits` what its files
are at most; what has more is refused before it is read.
"""

import gzip
import io
import itertools
import lzma
import struct
import tarfile
import zlib
from bz2 import BZ2File
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ssm_jax.files import printable

_HEADERS = 1 << 18  # bytes before a member: its header, long names, attributes of PAX
_ATTRIBUTES = 100  # of PAX that hold for all members that follow
_RATIO = 100  # unpacked bytes for a packed one; the releases have below 5
_ALWAYS = 1 << 26  # bytes that a small archive may unpack to, whatever its ratio
_XZ_MEMORY = 1 << 27  # bytes; xz -9 needs 65 MiB
GET_AGAIN = "get the release again."


@dataclass(frozen=True)
class Limits:
    """The largest release that a reader takes."""

    members: int = 4_000_000  # of its archive, those of other data sets included
    files: int = 1_000_000  # that are wanted
    largest: int = 1 << 30  # bytes of one of them
    wanted: int = 1 << 34  # bytes of all of them
    unpacked: int = 1 << 37  # bytes of all members of the archive


def counted(limits: Limits) -> Callable[[str, int], None]:
    """A function of where a wanted file is and its bytes: a ValueError if it is beyond a limit."""
    files = total = 0

    def add(where: str, size: int) -> None:
        nonlocal files, total
        files, total = files + 1, total + size
        if not 0 <= size <= limits.largest:
            most = f"such a file has at most {limits.largest:,}"
            raise ValueError(f"{where} has {size:,} bytes, {most}; {GET_AGAIN}")
        if files > limits.files or total > limits.wanted:
            raise ValueError(
                f"with {where} there are {files:,} such files of {total:,} bytes, the release has "
                f"at most {limits.files:,} of {limits.wanted:,}; {GET_AGAIN}"
            )

    return add


def shown(name: object) -> str:
    """A name that others chose, for a message: printable, and at most 200 characters."""
    return printable(str(name)[:200])


class RefusedError(ValueError):
    """An archive that is damaged, or larger than its limits, in one line."""


@contextmanager
def one_line(archive: Path) -> Iterator[None]:
    """Turn the errors of a damaged tar archive into one line."""
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        # What a header of chance bytes raises in tarfile, gzip and lzma is documented nowhere.
        text = shown(error) or type(error).__name__
        raise RefusedError(f"{shown(archive)} is not a whole tar archive ({text}).") from error


class _Xz(io.RawIOBase):
    """The content of a .xz file; `lzma.LZMAFile` takes all the memory that a file asks for."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = b""
        while not data and not self._unpack.eof:
            packed = self._raw.read(1 << 16) if self._unpack.needs_input else b""
            if self._unpack.needs_input and not packed:
                raise EOFError("it ends too early")
            data = self._unpack.decompress(packed, len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Stream:
    """The file that `tarfile.TarFile` reads: an archive unpacked on the way, only forwards."""

    def __init__(
        self, raw: IO[bytes], path: Path, limits: Limits, advance: Callable[[int], None]
    ) -> None:
        head = raw.read(6)
        raw.seek(0)
        self._raw = self._file = raw
        if head.startswith(b"\x1f\x8b"):
            self._file = gzip.GzipFile(fileobj=raw)  # type: ignore[assignment]
        elif head.startswith(b"BZh"):
            self._file = BZ2File(raw)
        elif head == b"\xfd7zXZ\x00":
            self._file = io.BufferedReader(_Xz(raw), 1 << 16)
        self._path, self._advance = path, advance
        self._most = min(limits.unpacked, max(_RATIO * path.stat().st_size, _ALWAYS))
        self._at = self._told = 0
        self.headers: int | None = _HEADERS  # bytes that they may still have; None: in a content

    def read(self, n: int) -> bytes:
        """The next n bytes; fewer, at the end, if they are of headers."""
        with one_line(self._path):
            if self.headers is not None:
                self.headers -= n
                if n < 0 or self.headers < 0:
                    raise RefusedError(
                        f"{shown(self._path)} has a header of {max(n, _HEADERS):,} bytes at byte "
                        f"{self._at:,}; a member's name and attributes have at most "
                        f"{_HEADERS:,}; {GET_AGAIN}"
                    )
            data = self._file.read(n)
            self._at += len(data)
            if self._file is not self._raw and self._at > self._most:
                large = f"{shown(self._path)} unpacks to more than {self._most:,} bytes"
                raise RefusedError(f"{large}; {GET_AGAIN}")
            if self.headers is None and len(data) < n:
                raise tarfile.ReadError("unexpected end of data")
            told, self._told = self._told, self._raw.tell()
        self._advance(self._told - told)
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        """Read up to a byte of the unpacked archive."""
        if to < self._at:
            raise tarfile.StreamError("a member begins before the end of the one before it")
        if self._file is self._raw:
            self._at = self._raw.seek(to)
        headers, self.headers = self.headers, None
        while self._at < to:
            self.read(min(to - self._at, 1 << 16))
        self.headers = headers
        return self._at


def tar_members(
    raw: IO[bytes], path: Path, limits: Limits, advance: Callable[[int], None]
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members of an archive, plain or packed by gzip, bzip2 or xz, each to be read before the
    next. What is damaged, or larger than its limits, is a ValueError, also while one is read.
    `advance` is told the bytes of the archive that are read."""
    more = f"{shown(path)} has more than"
    with one_line(path):
        stream = _Stream(raw, path, limits, advance)
        # As `tarfile.open(mode="r|*")`, which reads a header of any size.
        tar = tarfile.TarFile(fileobj=stream, mode="r")  # type: ignore[arg-type]
        for count in itertools.count(1):
            stream.headers = _HEADERS
            member = tar.next()
            tar.members.clear()  # type: ignore[attr-defined]  # else 1 GB in 1.2 million
            if member is None:
                break
            if count > limits.members:
                raise RefusedError(f"{more} {limits.members:,} members; {GET_AGAIN}")
            if len(tar.pax_headers) > _ATTRIBUTES:
                raise RefusedError(f"{more} {_ATTRIBUTES} attributes of all members; {GET_AGAIN}")
            stream.headers = None
            yield tar, member
        # A cut or damaged header ends the members as the two empty blocks at the end do.
        at_end = stream.tell() >= tar.offset + tarfile.BLOCKSIZE
        if not at_end or stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"it stops being one at byte {tar.offset:,}")


def decoded(
    data: bytes, kind: str, mode: str, size: tuple[int, int], *, at_most: bool = False
) -> Any:
    """The PIL image in a "PNG" or "JPEG" in memory, in the mode "L" or "RGB". If it is none, or not
    of the size (W, H), it is not decoded, and the ValueError continues after the file's name."""
    # Not `Image.open`, which warns of large images on standard error and continues; imported here,
    # as training has no use for it.
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    opener = {"PNG": PngImageFile, "JPEG": JpegImageFile}[kind]
    try:
        with opener(io.BytesIO(data)) as image:
            found = image.size
            if found == size or (at_most and found[0] <= size[0] and found[1] <= size[1]):
                return image.convert(mode)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"is not a whole {kind} image ({printable(str(error))})") from None
    most = "at most " if at_most else ""
    raise ValueError("has {} x {} pixels, expected {}{} x {}".format(*found, most, *size))
