"""Data sets of labelled sequences, memory-mapped: tokens, pairs, images."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ssm_jax.data.dataset import Dataset, Provenance
from ssm_jax.data.examples import Examples, Images, Pairs, Ragged, Splits, check_values, spread
from ssm_jax.data.store import Store
from ssm_jax.data.vocabulary import EOS, PAD


class LabelledDataset(Dataset):
    """Sequences with a class each, memory-mapped.

    `gather` returns

      "inputs": int32 tokens (B, L), or (B, 2, L) of pairs: each with its end of sequence, then
        padding; or float32 (B, L, 1);
      "lengths": int32 (B,), or (B, 2): tokens with the end of sequence; not for images, which have
        no padding;
      "targets": int32 (B,).

    Attributes:
      n_classes: K.
      vocabulary: of the tokens, from id 0; empty for real inputs.
      vocab_size, d_input: ids of a token, or features of a real step; the other one is None.
      paired: an example is two sequences.

    Raises:
      ValueError: for a token outside the vocabulary, a target outside the classes, or a sequence
        that is longer than `padded_length`, each with its split and number.
    """

    paired: ClassVar[bool] = False
    d_input: ClassVar[int | None] = None

    def __init__(
        self,
        name: str,
        examples: Examples,
        splits: Splits,
        padded_length: int,
        provenance: Provenance,
        *,
        vocabulary: tuple[str, ...] = (),
        n_classes: int = 10,
        unchanged: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name, padded_length, provenance)
        splits = {split: np.asarray(numbers) for split, numbers in splits.items()}
        check_values(examples, splits, len(vocabulary), n_classes)
        self._unchanged = unchanged
        self.n_classes = n_classes
        self.vocabulary = vocabulary
        self._examples = examples
        self._splits = dict(splits)
        self.splits = tuple(splits)
        if empty := [split for split, numbers in splits.items() if not numbers.size]:
            raise ValueError(f"the split {empty[0]!r} of {name} has no examples.")
        lengths = {split: self.lengths(split) for split in splits}
        split, longest = max(((s, int(n.max())) for s, n in lengths.items()), key=lambda at: at[1])
        if padded_length < longest:
            raise ValueError(
                f"data.padded_length={padded_length} cannot hold the longest {name} sequence, "
                f"{longest} steps ({split} example {lengths[split].argmax()}); use at least "
                f"{longest}."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_unchanged": None}  # a pickled one holds copies, not files

    @property
    def vocab_size(self) -> int | None:
        return len(self.vocabulary) or None

    def numbers(self, split: str) -> np.ndarray:
        """The places of a split's examples in the store, int64 (n,).

        Raises:
          ValueError: for a split that does not exist.
        """
        if split not in self._splits:
            raise self.no_split(split)
        return self._splits[split]

    def size(self, split: str) -> int:
        return self.numbers(split).size

    def targets(self, split: str) -> np.ndarray:
        """The classes of a split's examples, uint8 (n,)."""
        return self._examples.targets[self.numbers(split)]

    def majority_rate(self, split: str) -> float:
        """Share of the most frequent class: the accuracy of a constant guess."""
        targets = self.targets(split)
        return float(np.bincount(targets, minlength=self.n_classes).max() / targets.size)

    def check_unchanged(self) -> None:
        if self._unchanged is not None:
            self._unchanged()

    def facts(self, split: str) -> dict[str, float]:
        return {"majority_rate": self.majority_rate(split)}

    def lengths(self, split: str) -> np.ndarray:
        """Steps of a split's examples with the end of sequence, int64 (n,); of a pair the more."""
        return self._examples.steps(self.numbers(split))

    def steps_of(self, batch: Mapping[str, Any]) -> int:
        return steps_of(batch)

    def gather(
        self, split: str, indices: np.ndarray, length: int | None = None
    ) -> dict[str, np.ndarray]:
        numbers = self.numbers(split)[self.check(split, indices)]
        return {
            **self._inputs(numbers, self.padded_length if length is None else length),
            "targets": self._examples.targets[numbers].astype(np.int32),
        }

    @abc.abstractmethod
    def _inputs(self, numbers: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """What `gather` returns besides the targets."""


def steps_of(batch: Mapping[str, Any]) -> int:
    """L of a batch of labelled sequences: tokens have lengths beside them, real inputs features."""
    return batch["inputs"].shape[-1 if "lengths" in batch else 1]


def padded(rows: Ragged, numbers: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows with their end of sequence and padding, int32 (B, L), and their lengths, int32 (B,)."""
    inputs_BL = np.full((numbers.size, length), PAD, np.int32)
    lengths_B = (rows.offsets[numbers + 1] - rows.offsets[numbers] + 1).astype(np.int32)
    for inputs_L, number, steps in zip(inputs_BL, numbers, lengths_B, strict=True):
        inputs_L[: steps - 1] = rows.row(number)
        inputs_L[steps - 1] = EOS
    return inputs_BL, lengths_B


class TokenDataset(LabelledDataset):
    """One sequence of tokens per example."""

    _examples: Ragged

    def shapes(self, batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], type]]:
        B = (batch_size,)
        inputs = ((*B, length), np.int32)
        return {"inputs": inputs, "lengths": (B, np.int32), "targets": (B, np.int32)}

    def _inputs(self, numbers: np.ndarray, length: int) -> dict[str, np.ndarray]:
        inputs_BL, lengths_B = padded(self._examples, numbers, length)
        return {"inputs": inputs_BL, "lengths": lengths_B}


class PairDataset(LabelledDataset):
    """Two sequences of tokens per example."""

    paired = True
    _examples: Pairs

    def shapes(self, batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], type]]:
        inputs, lengths = (batch_size, 2, length), (batch_size, 2)
        shapes = {"inputs": inputs, "lengths": lengths, "targets": (batch_size,)}
        return {name: (shape, np.int32) for name, shape in shapes.items()}

    def _inputs(self, numbers: np.ndarray, length: int) -> dict[str, np.ndarray]:
        pairs = self._examples
        each = [
            padded(pairs.documents, part[numbers], length) for part in (pairs.first, pairs.second)
        ]
        inputs, lengths = (np.stack(parts, axis=1) for parts in zip(*each, strict=True))
        return {"inputs": inputs, "lengths": lengths}


class ImageDataset(LabelledDataset):
    """One gray image per example, a pixel per step: (p / 255 - mean) / std.

    `mean` and `std` are in units of full white.
    """

    d_input = 1
    _examples: Images

    def __init__(self, *args: Any, mean: float = 0.0, std: float = 1.0, **named: Any) -> None:
        super().__init__(*args, **named)
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError(
                f"pixels become (p - mean) / std; mean={mean} must be finite, std={std} finite "
                "and above 0."
            )
        self.mean, self.std = mean, std
        steps = self._examples.pixels.shape[1]
        if self.padded_length != steps:
            raise ValueError(
                f"data.padded_length={self.padded_length} must be the pixels of a {self.name} "
                f"image, {steps}: images are not padded."
            )

    def shapes(self, batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], type]]:
        return {
            "inputs": ((batch_size, length, 1), np.float32),
            "targets": ((batch_size,), np.int32),
        }

    def _inputs(self, numbers: np.ndarray, length: int) -> dict[str, np.ndarray]:
        pixels_BL = self._examples.pixels[numbers].astype(np.float32)
        scale, shift = np.float32(1 / (255 * self.std)), np.float32(self.mean / self.std)
        return {"inputs": (pixels_BL * scale - shift)[:, :, None]}


DATASETS = {"tokens": TokenDataset, "pairs": PairDataset, "images": ImageDataset}


def open_dataset(
    folder: Path,
    padded_length: int,
    *,
    counts: Mapping[str, int] | None = None,
    **options: float,
) -> LabelledDataset:
    """The data set stored in a folder.

    Args:
      folder: of a store.
      padded_length: L of every batch.
      counts: how many examples of each split are used, evenly spread; 0: all.
      options: of the kind of data set, such as an image's mean and std.

    Raises:
      FileNotFoundError: if there is no store.
      ValueError: if it is damaged, does not fit `padded_length`, or has fewer examples.
    """
    store = Store(folder)
    manifest, splits = store.manifest, store.splits
    source = Provenance(manifest["source"], manifest["detail"], manifest["sha256"])
    for split, n in (counts or {}).items():
        try:
            splits = {**splits, split: spread(splits[split], n)}
        except ValueError as error:
            raise ValueError(f"data.n_{split}={n}: {error}") from None
    return DATASETS[manifest["kind"]](
        manifest["task"],
        store.examples,
        splits,
        padded_length,
        source,
        vocabulary=tuple(manifest["vocabulary"]),
        n_classes=manifest["n_classes"],
        unchanged=store.check_unchanged,
        **options,
    )
