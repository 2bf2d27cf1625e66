"""A data set of labelled token sequences, ready to be gathered into batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ssm_jax.data.listops import EOS, N_CLASSES, PAD, VOCAB_SIZE
from ssm_jax.data.ragged import Ragged
from ssm_jax.data.store import open_store


@dataclass(frozen=True)
class Provenance:
    """Where the data come from.

    Attributes:
      source: "generated" or "official".
      detail: the same in a line for a person.
      sha256: over the stored arrays.
    """

    source: str
    detail: str
    sha256: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class TokenDataset:
    """Token sequences with one class each, memory-mapped.

    Args:
      name: of the task.
      splits: the rows of "train", "val" and "test".
      padded_length: L of every batch; a sequence and its end-of-sequence token must fit.
      provenance: where the rows come from.

    Raises:
      ValueError: if the longest sequence does not fit; nothing is ever cut off.
    """

    vocab_size = VOCAB_SIZE
    n_classes = N_CLASSES

    def __init__(
        self, name: str, splits: Mapping[str, Ragged], padded_length: int, provenance: Provenance
    ) -> None:
        longest = max(int(rows.lengths().max()) for rows in splits.values())
        if padded_length < longest + 1:
            raise ValueError(
                f"data.padded_length={padded_length} cannot hold the longest {name} sequence, "
                f"{longest} tokens and the end of sequence; use at least {longest + 1}."
            )
        self.name = name
        self.padded_length = padded_length
        self.provenance = provenance
        self.fingerprint = provenance.sha256[:16]
        self._splits = dict(splits)

    @classmethod
    def open(cls, folder: Path, padded_length: int) -> TokenDataset:
        """The data set stored in a folder.

        Raises:
          FileNotFoundError: if there is no store.
          ValueError: if it is damaged, or does not fit `padded_length`.
        """
        manifest, splits = open_store(folder)
        provenance = Provenance(manifest["source"], manifest["detail"], manifest["sha256"])
        return cls(manifest["task"], splits, padded_length, provenance)

    def rows(self, split: str) -> Ragged:
        """The stored rows of a split.

        Raises:
          ValueError: for a split that does not exist.
        """
        if split not in self._splits:
            raise ValueError(
                f"{self.name} has no split {split!r}; choose one of {', '.join(self._splits)}."
            )
        return self._splits[split]

    def size(self, split: str) -> int:
        """Examples in a split."""
        return len(self.rows(split))

    def majority_rate(self, split: str) -> float:
        """Share of the most frequent class: the accuracy of a constant guess."""
        targets = self.rows(split).targets
        return float(np.bincount(targets, minlength=self.n_classes).max() / targets.size)

    def gather(self, split: str, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The examples with these numbers.

        Returns:
          "inputs": int32 (B, L), tokens, the end of sequence, then padding;
          "lengths": int32 (B,), tokens with the end of sequence;
          "targets": int32 (B,).

        Raises:
          IndexError: for a number outside the split.
        """
        rows = self.rows(split)
        indices = np.asarray(indices, np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(rows):
            raise IndexError(
                f"{self.name} {split} has examples 0..{len(rows) - 1}; asked for "
                f"{indices.min()}..{indices.max()}."
            )
        inputs_BL = np.full((indices.size, self.padded_length), PAD, np.int32)
        lengths_B = (rows.offsets[indices + 1] - rows.offsets[indices] + 1).astype(np.int32)
        for inputs_L, index, length in zip(inputs_BL, indices, lengths_B, strict=True):
            inputs_L[: length - 1] = rows.row(index)
            inputs_L[length - 1] = EOS
        targets_B = rows.targets[indices].astype(np.int32)
        return {"inputs": inputs_BL, "lengths": lengths_B, "targets": targets_B}
