"""Arrays in .npy files: written block by block where memory is too small, mapped when read."""

from __future__ import annotations

import hashlib
import math
import os
import weakref
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ssm_jax.places import printable


class MappedFile:
    """The .npy file at a path, open: what it holds, whatever is put at the path later.

    A link is followed: all that is said here is of the file it leads to.
    """

    def __init__(self, path: Path) -> None:
        """Raises:
        OSError: if it cannot be opened.
        ValueError: if it is no file.
        """
        if not path.is_file():  # opening a named pipe would wait for its writer
            raise ValueError(f"{path} has 0 bytes to read: it {_instead(path)}")
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def identity(self) -> tuple[int, ...]:
        """Device, inode, bytes, and the times in ns of the last change of content and of either.

        The last one, ctime, is the kernel's: programs that set the other back cannot set it.
        """
        at = os.fstat(self._file.fileno())
        return at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns

    def sha256(self) -> str:
        """Of all its bytes; some 0.6 s for each GB."""
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()

    def array(self) -> np.ndarray:
        """A plain view of the map: indexing a np.memmap costs 1 us more each time.

        Raises:
          ValueError: if the header is damaged, or the file is longer or shorter than it says.
        """
        self._file.seek(0)
        try:
            if np.lib.format.read_magic(self._file) != (1, 0):  # others have headers of any size
                raise ValueError("another version of the format")
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(self._file)
        except Exception as error:  # what a header of chance bytes raises is documented nowhere
            raise ValueError(f"the header of {self.path.name} cannot be read: {error}") from None
        if dtype.hasobject:
            raise ValueError(f"{self.path.name} holds Python objects")
        start, size = self._file.tell(), self.identity()[2]
        if min(shape, default=0) < 0 or start + math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"{self.path.name} says {dtype} {shape}, which are not {size:,} bytes")
        if by_columns:
            raise ValueError(f"{self.path.name} is stored by columns, not by rows")
        try:
            return np.asarray(np.memmap(self._file, dtype, "r", start, shape))
        except OSError as error:  # some network file systems map nothing
            error.filename = str(self.path)
            raise


def _instead(path: Path) -> str:
    """What is at a path where a file should be."""
    if path.is_symlink() and not path.exists():
        return f"is a link to {printable(os.readlink(path))}, which is not there"
    if path.is_dir():
        return "is a folder"
    return "is no regular file" if path.exists() else "is missing"


def write_mapped(path: Path, shape: tuple[int, int], blocks: Iterable[np.ndarray]) -> np.ndarray:
    """A .npy file of bytes, there whole or not at all.

    Args:
      path: of the file; what is there is replaced.
      shape: rows and columns in all.
      blocks: uint8, one after the other along the rows.

    Returns:
      The array, a read-only `np.memmap`.

    Raises:
      ValueError: if the blocks are not so many bytes.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        # Written like any file: where the disk is full, writing through a map kills the process.
        with open(temporary, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            for block in blocks:
                file.write(np.ascontiguousarray(block, np.uint8).data)
            written = file.tell() - start
        if written != shape[0] * shape[1]:
            raise ValueError(f"{path} was to have the shape {shape}, but has {written:,} bytes.")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r", allow_pickle=False)
