"""An array too large for memory, written block by block and then mapped."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


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
