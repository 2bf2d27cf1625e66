"""A batch of CIFAR-10's Python version: a pickle, of which nothing is executed.

Each is the dictionary {"batch_label", "labels", "data", "filenames"} as Python 2 pickled it; "data"
is a NumPy array uint8 (10000, 3072), for each image its red, green and blue values.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np

_COLOURS = 3 * 32 * 32


class _Kept:
    """Stands for an array, its type and what makes it: keeps what they are given, does nothing."""

    def __init__(self, *args: object) -> None:
        self.args = args
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Knows the three names in a pickled array, and lets none of them be what it names."""

    _NAMES = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._NAMES:
            raise pickle.UnpicklingError(f"names {module}.{name}"[:80])
        return _Kept


def read_batch(data: bytes, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours uint8 (rows, 3072) and classes uint8 (rows,) of a batch.

    Args:
      data: the pickle.
      rows: images that it must hold.

    Raises:
      ValueError: if it is no such batch; the text goes on after the name of the file.
    """
    try:
        if not data:
            raise EOFError("it is empty")
        # The C unpickler makes room for all numbers below the one that it is to remember.
        for code, argument, _ in pickletools.genops(data):
            if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise pickle.UnpicklingError(f"remembers object {argument}")
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # the documentation does not say which ones a bad pickle raises
        raise ValueError(f"is no pickle of plain data ({_words(error)})") from None
    if not isinstance(batch, dict):
        raise ValueError(f"is a pickle of a {type(batch).__name__}, not of a dictionary")
    return _colours(batch.get(b"data"), rows), _classes(batch.get(b"labels"), rows)


def _words(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text)


def _colours(array: object, rows: int) -> np.ndarray:
    # What ndarray.__reduce__ gives as state: version, shape, type, column-major or not, content.
    match array.state if isinstance(array, _Kept) else None:
        case (1, shape, _Kept(args=(b"u1", *_)), False, bytes(raw)) if (
            shape == (rows, _COLOURS) and len(raw) == rows * _COLOURS
        ):
            return np.frombuffer(raw, np.uint8).reshape(rows, _COLOURS)
    raise ValueError(f"has no data that are a uint8 array ({rows}, {_COLOURS})")


def _classes(labels: object, rows: int) -> np.ndarray:
    if (
        isinstance(labels, list)
        and len(labels) == rows
        and all(type(label) is int and 0 <= label < 256 for label in labels)
    ):
        return np.array(labels, np.uint8)
    raise ValueError(f"has no labels that are a list of {rows} small whole numbers")
