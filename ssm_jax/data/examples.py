"""Labelled examples in flat arrays, and the numbers of those in each split."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

SPLITS = ("train", "val", "test")
PAD, UNKNOWN, EOS = 0, 1, 2  # token ids
SPECIALS = ("pad", "unknown", "eos")
Splits = Mapping[str, np.ndarray]  # int64 numbers of the examples in "train", "val" and "test"


@dataclass(frozen=True)
class Ragged:
    """Labelled token sequences, one after the other; a ValueError if the arrays do not fit."""

    kind: ClassVar = "tokens"
    tokens: np.ndarray  # uint8 or uint16, of all rows in one line
    offsets: np.ndarray  # int64 (n + 1,): row i is tokens[offsets[i]:offsets[i + 1]]
    targets: np.ndarray  # uint8 (n,), the class of each row

    def __post_init__(self) -> None:
        dtypes = (self.tokens.dtype, self.offsets.dtype, self.targets.dtype)
        if dtypes[0] not in (np.uint8, np.uint16) or dtypes[1:] != (np.int64, np.uint8):
            raise ValueError(f"ragged arrays must be uint8 or 16, int64, uint8; got {dtypes}.")
        if any(a.ndim != 1 for a in (self.tokens, self.offsets, self.targets)):
            raise ValueError("ragged arrays must have one axis each.")
        n, ends, stop = self.targets.size, self.offsets, self.tokens.size
        if ends.size != n + 1:
            raise ValueError(f"{n} targets need {n + 1} offsets; got {ends.size}.")
        if ends[0] != 0 or ends[-1] != stop:
            found = f"they run from {ends[0]} to {ends[-1]}"
            raise ValueError(f"offsets must run from 0 to {stop}; {found}.")
        for row in np.flatnonzero(self.lengths() < 0)[:1]:
            found = f"those of row {row} are {ends[row]} and {ends[row + 1]}"
            raise ValueError(f"offsets must not decrease; {found}.")

    @classmethod
    def from_rows(
        cls, rows: Iterable[tuple[bytes | np.ndarray, int]], dtype: DTypeLike = np.uint8
    ) -> Ragged:
        """Lay (tokens, target) rows one after the other; tokens are bytes, or an array."""
        tokens, targets = [np.zeros(0, dtype)], bytearray()
        for row, target in rows:
            array = np.frombuffer(row, np.uint8) if isinstance(row, bytes) else row
            tokens.append(array.astype(dtype, copy=False))
            targets.append(target)
        offsets = np.cumsum([row.size for row in tokens], dtype=np.int64)
        return cls(np.concatenate(tokens), offsets, np.frombuffer(targets, np.uint8))

    def __len__(self) -> int:
        return self.targets.size

    def row(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def rows(self) -> Iterator[tuple[bytes, int]]:
        """All (tokens, target) in order."""
        for index, target in enumerate(self.targets.tolist()):
            yield self.row(index).tobytes(), target

    def lengths(self) -> np.ndarray:
        """Tokens per row, int64."""
        return np.diff(self.offsets)

    def steps(self, numbers: np.ndarray) -> np.ndarray:
        """Steps of some rows with their end of sequence, int64."""
        return self.offsets[numbers + 1] - self.offsets[numbers] + 1

    def batch(self, numbers: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Rows with end of sequence and padding: "inputs" int32 (B, L), "lengths" int32 (B,)."""
        inputs_BL = np.full((numbers.size, length), PAD, np.int32)
        lengths_B = self.steps(numbers).astype(np.int32)
        for inputs_L, number, steps in zip(inputs_BL, numbers, lengths_B, strict=True):
            inputs_L[: steps - 1] = self.row(number)
            inputs_L[steps - 1] = EOS
        return {"inputs": inputs_BL, "lengths": lengths_B}

    def features(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of one example by name."""
        return {"tokens": self.row(index)}


@dataclass(frozen=True)
class Images:
    """Labelled gray images, flattened row by row: pixels uint8 (n, L), targets uint8 (n,)."""

    kind: ClassVar = "images"
    pixels: np.ndarray
    targets: np.ndarray

    def __post_init__(self) -> None:
        pixels, targets = self.pixels, self.targets
        if (pixels.dtype, targets.dtype) != (np.uint8, np.uint8):
            raise ValueError(f"images must be uint8; got {pixels.dtype} and {targets.dtype}.")
        if pixels.ndim != 2 or targets.shape != pixels.shape[:1]:
            raise ValueError(
                f"images (n, L) need targets (n,); got {pixels.shape}, {targets.shape}."
            )

    def __len__(self) -> int:
        return self.targets.size

    def steps(self, numbers: np.ndarray) -> np.ndarray:
        return np.full(numbers.size, self.pixels.shape[1], np.int64)

    def batch(self, numbers: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Images, "inputs" uint8 (B, L)."""
        return {"inputs": self.pixels[numbers]}

    def features(self, index: int) -> dict[str, np.ndarray]:
        return {"pixels": self.pixels[index]}


@dataclass(frozen=True)
class Pairs:
    """Labelled pairs of documents; a ValueError if the arrays do not fit together."""

    kind: ClassVar = "pairs"
    tokens: np.ndarray  # with offsets, the documents as in Ragged, each of them once
    offsets: np.ndarray
    first: np.ndarray  # int32 (n,), as second: the documents of each pair
    second: np.ndarray
    targets: np.ndarray  # uint8 (n,), the class of each pair

    def __post_init__(self) -> None:
        n, pairs = len(self.documents), self.targets.size
        for name, numbers in (("first", self.first), ("second", self.second)):
            if numbers.dtype != np.int32 or numbers.shape != self.targets.shape:
                raise ValueError(
                    f"{pairs} pairs need as many int32 numbers; "
                    f"got {name} {numbers.dtype} {numbers.shape}."
                )
            for i in np.flatnonzero((numbers < 0) | (numbers >= n))[:1]:
                where = f"pair {i} names a document outside 0..{n - 1}"
                raise ValueError(f"{where}: its {name} is {numbers[i]}.")
        if self.targets.dtype != np.uint8:
            raise ValueError(f"targets must be uint8; got {self.targets.dtype}.")

    @functools.cached_property
    def documents(self) -> Ragged:
        """The documents, with classes that mean nothing."""
        return Ragged(self.tokens, self.offsets, np.zeros(self.offsets.size - 1, np.uint8))

    def __len__(self) -> int:
        return self.targets.size

    def steps(self, numbers: np.ndarray) -> np.ndarray:
        """Steps of the longer document of some pairs with its end of sequence, int64."""
        steps = self.documents.steps
        return np.maximum(steps(self.first[numbers]), steps(self.second[numbers]))

    def batch(self, numbers: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Both documents of some pairs, as of Ragged: "inputs" (B, 2, L) and "lengths" (B, 2)."""
        sides = [self.documents.batch(s[numbers], length) for s in (self.first, self.second)]
        return {name: np.stack([side[name] for side in sides], axis=1) for name in sides[0]}

    def features(self, index: int) -> dict[str, np.ndarray]:
        row = self.documents.row
        return {"first": row(self.first[index]), "second": row(self.second[index])}


Examples = Ragged | Images | Pairs
KINDS: dict[str, type] = {kind.kind: kind for kind in (Ragged, Images, Pairs)}


@dataclass(frozen=True)
class Content:
    """The content of a data set."""

    examples: Examples
    splits: Splits
    detail: str  # where they come from, in a line
    facts: Mapping[str, object]  # what else the manifest keeps, as JSON: hashes of the files read
    vocabulary: tuple[str, ...]  # of tokens, from id 0; empty for images, or if it is not known
    n_classes: int

    def check(self) -> None:
        """Refuse a token outside the vocabulary, a target that is no class, and a number that is
        no example; 5 to 30 ms for 100 MB, without a copy."""
        examples, n_classes, vocab_size = self.examples, self.n_classes, len(self.vocabulary)
        for split, numbers in self.splits.items():
            outside = (numbers < 0) | (numbers >= len(examples))
            if not np.issubdtype(numbers.dtype, np.integer) or numbers.ndim != 1 or outside.any():
                dtype = f"{numbers.dtype} {numbers.shape}"
                raise ValueError(
                    f"the split {split!r} must hold numbers of examples, 0..{len(examples) - 1}; "
                    f"got {numbers[outside][:1] if outside.any() else dtype}."
                )
        targets = examples.targets
        if (value := targets.max(initial=0)) >= n_classes:
            where, number = self._located(targets >= n_classes)
            raise ValueError(
                f"{where} has the target {targets[number]}; there are {n_classes} classes, "
                f"0..{n_classes - 1} (the largest target is {value})."
            )
        if isinstance(examples, Images) or not vocab_size:
            return
        tokens, offsets = examples.tokens, examples.offsets
        if tokens.max(initial=0) >= vocab_size:
            at = int(np.argmax(tokens >= vocab_size))
            row = int(np.searchsorted(offsets, at, side="right")) - 1
            wrong = np.arange(len(examples)) == row
            if isinstance(examples, Pairs):
                wrong = (examples.first == row) | (examples.second == row)
            raise ValueError(
                f"{self._located(wrong)[0]} has the token {tokens[at]} at step "
                f"{at - offsets[row]}; the vocabulary has {vocab_size} ids, 0..{vocab_size - 1}."
            )

    def _located(self, wrong: np.ndarray) -> tuple[str, int]:
        """The first example marked, in the words of a split if one has it, and its number."""
        for split, numbers in self.splits.items():
            for position in np.flatnonzero(wrong[numbers])[:1]:
                return f"{split} example {position}", int(numbers[position])
        for number in np.flatnonzero(wrong)[:1]:
            return f"example {number} of no split", int(number)
        return "a document of no pair", -1


def joined(tables: Mapping[str, Ragged]) -> tuple[Ragged, dict[str, np.ndarray]]:
    """The rows of several tables one after the other, and the numbers that each has there."""
    tokens = np.concatenate([table.tokens for table in tables.values()])
    lengths = np.concatenate([[0], *(table.lengths() for table in tables.values())])
    targets = np.concatenate([table.targets for table in tables.values()])
    sizes = {name: len(table) for name, table in tables.items()}
    return Ragged(tokens, np.cumsum(lengths, dtype=np.int64), targets), consecutive(sizes)


def consecutive(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Splits that follow each other: {"train": 0..n-1, "val": n.., ...}."""
    stops = np.cumsum([*sizes.values()])
    return dict(zip(sizes, np.split(np.arange(stops[-1]), stops[:-1]), strict=True))


def spread(numbers: np.ndarray, n: int, split: str = "") -> np.ndarray:
    """n of the numbers, or rows, evenly spread: files are often sorted by class. 0: all."""
    size = len(numbers)
    if n > size:
        option = f"data.n_{split}={n}: " if split else ""
        raise ValueError(f"{option}there are only {size:,} examples, {n:,} are asked for.")
    return numbers[np.arange(n, dtype=np.int64) * size // n] if n else numbers
