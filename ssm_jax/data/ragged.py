"""Token sequences of different lengths as three flat arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike


@dataclass(frozen=True)
class Ragged:
    """Labelled token sequences, one after the other.

    Attributes:
      tokens: uint8 or uint16, the tokens of all rows in one line.
      offsets: int64, one more than there are rows; row i is tokens[offsets[i]:offsets[i + 1]].
      targets: uint8, the class of each row.

    Raises:
      ValueError: if the arrays do not fit together.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray

    def __post_init__(self) -> None:
        dtypes = (self.tokens.dtype, self.offsets.dtype, self.targets.dtype)
        if dtypes[0] not in (np.uint8, np.uint16) or dtypes[1:] != (np.int64, np.uint8):
            raise ValueError(f"ragged arrays must be uint8 or 16, int64, uint8; got {dtypes}.")
        if any(a.ndim != 1 for a in (self.tokens, self.offsets, self.targets)):
            raise ValueError("ragged arrays must have one axis each.")
        if self.offsets.size != self.targets.size + 1:
            raise ValueError(
                f"{self.targets.size} targets need {self.targets.size + 1} offsets; "
                f"got {self.offsets.size}."
            )
        if self.offsets[0] != 0 or self.offsets[-1] != self.tokens.size:
            raise ValueError(
                f"offsets must run from 0 to {self.tokens.size}; "
                f"they run from {self.offsets[0]} to {self.offsets[-1]}."
            )
        steps = np.diff(self.offsets)
        if (steps < 0).any():
            row = int(np.argmax(steps < 0))
            raise ValueError(
                f"offsets must not decrease; those of row {row} are {self.offsets[row]} and "
                f"{self.offsets[row + 1]}."
            )

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[bytes, int]]) -> Ragged:
        """Lay (tokens, target) rows one after the other."""
        tokens, lengths, targets = bytearray(), [0], bytearray()
        for row, target in rows:
            tokens += row
            lengths.append(len(row))
            targets.append(target)
        return cls(
            np.frombuffer(tokens, np.uint8),
            np.cumsum(np.array(lengths, np.int64), dtype=np.int64),
            np.frombuffer(targets, np.uint8),
        )

    def __len__(self) -> int:
        return self.targets.size

    @classmethod
    def from_arrays(cls, rows: Iterable[tuple[np.ndarray, int]], dtype: DTypeLike) -> Ragged:
        """As `from_rows`, for tokens that are arrays of a type."""
        tokens, targets = [], bytearray()
        for row, target in rows:
            tokens.append(row.astype(dtype, copy=False))
            targets.append(target)
        lengths = np.array([0, *(row.size for row in tokens)], np.int64)
        return cls(
            np.concatenate(tokens) if tokens else np.zeros(0, dtype),
            np.cumsum(lengths, dtype=np.int64),
            np.frombuffer(targets, np.uint8),
        )

    def row(self, index: int) -> np.ndarray:
        """The tokens of one row, a view."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def features(self, index: int) -> dict[str, np.ndarray]:
        """One row by name: {"tokens": ...}."""
        return {"tokens": self.row(index)}

    def rows(self) -> Iterator[tuple[bytes, int]]:
        """All (tokens, target) rows in order."""
        for index, target in enumerate(self.targets.tolist()):
            yield self.row(index).tobytes(), target

    def steps(self, numbers: np.ndarray) -> np.ndarray:
        """Steps of some rows with their end of sequence, int64."""
        return self.lengths()[numbers] + 1

    def lengths(self) -> np.ndarray:
        """Tokens per row, int64."""
        return np.diff(self.offsets)
