"""Data sets: examples in splits, gathered into batches by their numbers."""

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from ssm_jax.data.array_files import open_npy
from ssm_jax.data.examples import SPLITS, Content, Images, Pairs, spread
from ssm_jax.data.store import Store
from ssm_jax.files import json_digest

Arrays = dict[str, np.ndarray]  # a batch, by name


class Provenance(NamedTuple):
    """The origin of data: a value of data.source, a line about it, a hash of the arrays.

    `unseeded` is a hash of what data.seed then splits, "" where that is not known.
    """

    source: str
    detail: str
    sha256: str
    unseeded: str = ""

    @classmethod
    def generated(cls, detail: str, about: Mapping[str, Any]) -> Self:
        """Of examples that a few numbers determine, which stand for the arrays."""
        return cls("generated", detail, json_digest(about))


class Dataset(abc.ABC):
    """Examples of a task in splits, of one length if a subclass does not say otherwise.

    `padded_length` is L of a batch, unless it is asked for shorter.
    """

    splits: tuple[str, ...] = SPLITS
    rows: Mapping[str, Any]  # of each split an array as long as it has examples

    def __init__(self, name: str, padded_length: int, provenance: Provenance) -> None:
        self.name, self.padded_length, self.provenance = name, padded_length, provenance

    @property
    def fingerprint(self) -> str:
        """Changes if and only if the data or the examples that are used change."""
        used = "".join(f" {split}={self.size(split)}" for split in self.splits)
        return self.provenance.sha256[:16] + used

    def size(self, split: str) -> int:
        """Examples in a split; a ValueError for one that does not exist."""
        if split in self.rows:
            return len(self.rows[split])
        raise ValueError(
            f"{self.name} has no split {split!r}; choose one of {', '.join(self.splits)}."
        )

    @abc.abstractmethod
    def gather(self, split: str, indices: np.ndarray, length: int | None = None) -> Arrays:
        """Arrays whose first axis is the batch, "inputs" among them.

        `indices`, int (B,) or none at all, are numbers of examples within the split; one outside it
        is an IndexError. `length` is L, at least that of the longest; None: padded_length.
        """

    def shapes(self, batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and type of what `gather` returns, by name."""
        empty = self.gather(self.splits[0], np.zeros(0, np.int64), length)
        return {name: ((batch_size, *a.shape[1:]), a.dtype.type) for name, a in empty.items()}

    def lengths(self, split: str) -> np.ndarray:
        """Steps of a split's examples with their end of sequence, int64 (n,)."""
        return np.full(self.size(split), self.padded_length, np.int64)

    def steps_of(self, batch: Mapping[str, Any]) -> int:
        """L of a batch."""
        return batch["inputs"].shape[1]

    def check_unchanged(self) -> None:  # noqa: B027
        """Raise a ValueError if a file of the examples was written to since it was opened."""

    def facts(self, split: str) -> dict[str, float]:
        """Numbers to compare a result on a split with, by name."""
        return {}

    def describe(self) -> list[str]:
        """Lines about the data that a person should read before training."""
        return []

    def check(self, split: str, indices: np.ndarray) -> np.ndarray:
        """The numbers of examples as int64; errors as `gather`."""
        indices, n = np.asarray(indices, np.int64), self.size(split)
        if indices.size and not 0 <= indices.min() <= indices.max() < n:
            raise IndexError(
                f"{self.name} {split} has examples 0..{n - 1}; asked for "
                f"{indices.min()}..{indices.max()}."
            )
        return indices


class LabelledDataset(Dataset):
    """Sequences with a class each, memory-mapped.

    `gather` returns

      "inputs": int32 tokens (B, L), or (B, 2, L) of pairs: each with its end of sequence, then
        padding; or float32 pixels (B, L, 1), (p / 255 - mean) / std;
      "lengths": int32 (B,), or (B, 2): tokens with the end of sequence; not for images, which have
        no padding;
      "targets": int32 (B,).

    Of `vocab_size`, ids of a token, and `d_input`, features of a real step, the other is None;
    `paired`: an example is two sequences. `mean` and `std` are of pixels, in units of full white;
    `store` holds the files of the examples. Values that cannot be, and sequences beyond
    `padded_length`, are a ValueError with their split and number.
    """

    def __init__(
        self,
        name: str,
        content: Content,
        padded_length: int,
        provenance: Provenance,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        store: Store | None = None,
    ) -> None:
        super().__init__(name, padded_length, provenance)
        content.check()
        self._examples, self.rows = content.examples, content.splits
        self.splits = tuple(content.splits)
        self.n_classes, self.vocabulary = content.n_classes, content.vocabulary
        self.vocab_size = len(content.vocabulary) or None
        self.paired = isinstance(content.examples, Pairs)
        self.d_input = 1 if isinstance(content.examples, Images) else None
        self.mean, self.std, self._store = mean, std, store
        if empty := [split for split, numbers in self.rows.items() if not numbers.size]:
            raise ValueError(f"the split {empty[0]!r} of {name} has no examples.")
        lengths = {split: self.lengths(split) for split in self.splits}
        split = max(lengths, key=lambda split: lengths[split].max())
        longest = int(lengths[split].max())
        if padded_length < longest:
            raise ValueError(
                f"data.padded_length={padded_length} cannot hold the longest {name} sequence, "
                f"{longest} steps ({split} example {lengths[split].argmax()}); use at least "
                f"{longest}."
            )
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError(
                f"pixels become (p - mean) / std; mean={mean} must be finite, std={std} finite "
                "and above 0."
            )
        if self.d_input and padded_length != longest:
            raise ValueError(
                f"data.padded_length={padded_length} must be the pixels of a {name} image, "
                f"{longest}: images are not padded."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}  # a pickled one holds copies, not files

    @property
    def class_names(self) -> Sequence[Any]:
        """What the classes are called."""
        return range(self.n_classes)

    def targets(self, split: str) -> np.ndarray:
        """The classes of a split's examples, uint8 (n,)."""
        return self._examples.targets[self.rows[split]]

    def facts(self, split: str) -> dict[str, float]:
        """ "majority_rate": the accuracy of a constant guess."""
        targets = self.targets(split)
        return {"majority_rate": float(np.bincount(targets).max() / targets.size)}

    def check_unchanged(self) -> None:
        if self._store is not None:
            self._store.check_unchanged()

    def lengths(self, split: str) -> np.ndarray:
        return self._examples.steps(self.rows[split])

    def steps_of(self, batch: Mapping[str, Any]) -> int:
        return batch["inputs"].shape[1 if self.d_input else -1]

    def gather(self, split: str, indices: np.ndarray, length: int | None = None) -> Arrays:
        numbers = self.rows[split][self.check(split, indices)]
        batch = self._examples.batch(numbers, self.padded_length if length is None else length)
        if self.d_input:
            scale, shift = np.float32(1 / (255 * self.std)), np.float32(self.mean / self.std)
            batch = {"inputs": (batch["inputs"].astype(np.float32) * scale - shift)[:, :, None]}
        return {**batch, "targets": self._examples.targets[numbers].astype(np.int32)}


def open_dataset(
    folder: Path,
    padded_length: int,
    *,
    counts: Mapping[str, int] | None = None,
    mean: float = 0.0,
    std: float = 1.0,
) -> LabelledDataset:
    """The data set of the store in a folder; errors as `Store`, and as `LabelledDataset`. `counts`
    say how many examples of each split are used, evenly spread; 0: all."""
    store = Store(folder)
    splits = {s: spread(n, (counts or {}).get(s, 0), s) for s, n in store.content.splits.items()}
    content = replace(store.content, splits=splits)
    name, manifest = store.manifest["task"], store.manifest
    origin = (manifest[key] for key in ("source", "detail", "sha256"))
    return LabelledDataset(
        name, content, padded_length, Provenance(*origin), mean=mean, std=std, store=store
    )


# The sequences, the size of their vocabulary (None: they are real), and what they are
Sequences = tuple[list[np.ndarray], int | None, str]


def sequences_of(dataset: Dataset, n: int, *, flag: str = "file") -> Sequences:
    """The inputs of n training examples, evenly spread.

    A ValueError if they are no sequences, or not finite; `flag` is the option of the command that
    takes an array in their place.
    """
    chosen = _evenly(dataset.size("train"), n)
    batch = dataset.gather("train", chosen)
    sequences = list(batch["inputs"])
    if "lengths" in batch:  # of a pair two rows of tokens
        lengths = batch["lengths"].ravel()
        rows = batch["inputs"].reshape(
            lengths.size, *batch["inputs"].shape[batch["lengths"].ndim :]
        )
        sequences = [row[:steps] for row, steps in zip(rows, lengths, strict=True)]
    elif len(sequences[0]) != dataset.steps_of(batch):
        raise ValueError(
            f"the examples of task={dataset.name} are no sequences; give --{flag}=X.npy alone, "
            "an array of your own."
        )
    _check_finite(sequences, np.repeat(chosen, len(sequences) // len(chosen)), dataset.name)
    return sequences, getattr(dataset, "vocab_size", None), dataset.provenance.detail


def read_sequences(path: Path, n: int, *, tokens: bool = False, flag: str = "file") -> Sequences:
    """As `sequences_of`, of a .npy file (L,), (n, L) or, unless of tokens, (n, L, channels).

    `flag` is the option that named it, for messages.
    """
    if path.suffix != ".npy":
        raise ValueError(f"--{flag}={path} does not fit: it must be a .npy of numpy.save.")
    array = open_npy(path, f"--{flag}={path}")  # mapped: it may be larger than memory
    array = array[None] if array.ndim == 1 else array
    if array.ndim not in ((2,) if tokens else (2, 3)) or not array.size:
        raise ValueError(f"--{flag}={path} has the shape {array.shape}; see --help for those read.")
    if array.dtype.kind not in ("iu" if tokens else "iufb"):
        what = "whole" if tokens else "real"
        raise ValueError(f"--{flag}={path} holds {array.dtype}; it must hold {what} numbers.")
    numbers = _evenly(len(array), n)
    chosen = array[numbers]
    if tokens and (least := chosen.min()) < 0:
        raise ValueError(f"--{flag}={path} holds {least}; tokens count from 0.")
    _check_finite(chosen, numbers, f"--{flag}={path}")
    vocabulary = int(chosen.max()) + 1 if tokens else None
    return list(chosen), vocabulary, f"{path.name}, {len(array):,} sequences"


def _check_finite(sequences: Sequence[np.ndarray] | np.ndarray, numbers: Any, name: str) -> None:
    """Refuse the first of sequences with these numbers that has a value that is not finite."""
    for number, sequence in zip(numbers, sequences, strict=True):
        if not np.isfinite(sequence).all():
            raise ValueError(
                f"{name}: sequence {number} has a value that is not finite; mend the data."
            )


def _evenly(size: int, n: int) -> np.ndarray:
    """n of so many numbers, the first and the last among them; all if there are fewer."""
    return np.unique(np.linspace(0, size - 1, min(n, size)).astype(int))
