"""What a data set is: examples in splits, gathered into batches by their numbers.

The random splits that S4 and S5 cut with torch, without torch.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ssm_jax.data.examples import SPLITS


@dataclass(frozen=True)
class Provenance:
    """Where the data come from.

    Attributes:
      source: one of ssm_jax.data.prepare.SOURCES.
      detail: the same in a line for a person.
      sha256: over the stored arrays.
    """

    source: str
    detail: str
    sha256: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class Dataset(abc.ABC):
    """Examples in splits, gathered into batches by their numbers.

    Attributes:
      name: of the task.
      splits: "train", "val" and "test".
      padded_length: L of a batch, unless it is asked for shorter.
      provenance: where the examples come from.
    """

    def __init__(self, name: str, padded_length: int, provenance: Provenance) -> None:
        self.name = name
        self.padded_length = padded_length
        self.provenance = provenance
        self.splits: tuple[str, ...] = SPLITS

    @property
    def fingerprint(self) -> str:
        """Changes if and only if the data or the examples that are used change."""
        used = "".join(f" {split}={self.size(split)}" for split in self.splits)
        return self.provenance.sha256[:16] + used

    @abc.abstractmethod
    def size(self, split: str) -> int:
        """Examples in a split."""

    @abc.abstractmethod
    def lengths(self, split: str) -> np.ndarray:
        """Steps of a split's examples, int64 (n,)."""

    @abc.abstractmethod
    def shapes(self, batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and type of what `gather` returns, by name."""

    @abc.abstractmethod
    def gather(
        self, split: str, indices: np.ndarray, length: int | None = None
    ) -> dict[str, np.ndarray]:
        """The examples with these numbers within a split.

        Args:
          split: "train", "val" or "test".
          indices: int (B,).
          length: L, at least that of the longest of them; None: padded_length.

        Returns:
          Arrays whose first axis is the batch, "inputs" among them.

        Raises:
          IndexError: for a number outside the split.
          ValueError: for a split that does not exist.
        """

    @property
    def circle(self) -> int:
        """Samples of the circle on which the filters of the layers live: twice the length."""
        return 2 * self.padded_length

    @abc.abstractmethod
    def steps_of(self, batch: Mapping[str, Any]) -> int:
        """L of a batch."""

    def check_unchanged(self) -> None:  # noqa: B027
        """See that the files that the examples are in are what they were when they were opened.

        Raises:
          ValueError: if one was written to.
        """

    def facts(self, split: str) -> dict[str, float]:
        """What a result on a split is to be read beside, by name."""
        del split
        return {}

    def check(self, split: str, indices: np.ndarray) -> np.ndarray:
        """The numbers of examples as int64.

        Raises:
          IndexError, ValueError: as `gather`.
        """
        indices, n = np.asarray(indices, np.int64), self.size(split)
        if indices.size and not 0 <= indices.min() <= indices.max() < n:
            raise IndexError(
                f"{self.name} {split} has examples 0..{n - 1}; asked for "
                f"{indices.min()}..{indices.max()}."
            )
        return indices

    def no_split(self, split: str) -> ValueError:
        """For a split that there is not."""
        return ValueError(
            f"{self.name} has no split {split!r}; choose one of {', '.join(self.splits)}."
        )


# From here on torch draws 64 bits per position: (2**32 - 1) // 20 in its C++ source.
_TOO_MANY = (2**32 - 1) // 20


def torch_randperm(n: int, seed: int) -> np.ndarray:
    """The permutation `torch.randperm(n, generator=torch.Generator().manual_seed(seed))`, int64.

    Torch draws from the Mersenne Twister MT19937, seeded by its authors' `init_genrand`, and
    exchanges position i with position i + draw % (n - i) for i = 0 .. n - 2 (Fisher and Yates).
    0.1 s for 200,000.

    Args:
      n: how many numbers, 0 .. n - 1.
      seed: 0 .. 2**32 - 1.

    Raises:
      ValueError: for an n or a seed outside of what torch's rule above covers.
    """
    if not 0 <= n < _TOO_MANY:
        raise ValueError(
            f"torch_randperm: n={n:,} must be in 0 .. {_TOO_MANY - 1:,}; beyond, torch draws by "
            "another rule."
        )
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ValueError(f"torch_randperm: seed={seed} must be in 0 .. 2**32 - 1.")
    # RandomState seeds MT19937 as torch does, newer NumPy generators otherwise; integers over the
    # whole range of uint32 are the generator's raw output. Its stream is frozen (NEP 19).
    draws = np.random.RandomState(seed).randint(0, 2**32, size=max(n - 1, 0), dtype=np.uint32)
    steps = (draws % np.arange(n, 1, -1, dtype=np.uint32)).tolist()
    order = list(range(n))
    for i, step in enumerate(steps):
        order[i], order[i + step] = order[i + step], order[i]
    return np.array(order, np.int64)


def held_out(n: int, n_val: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions for training and for validation, as S4 and S5 hold out a part of a training set.

    Args:
      n: size of the whole, 50,000 for CIFAR-10.
      n_val: size of the validation part, 5,000 for CIFAR-10.
      seed: 42 in S4 and S5.

    Returns:
      The first n - n_val positions of `torch_randperm` and the others, in its order.

    Raises:
      ValueError: if either part would be empty; see also `torch_randperm`.
    """
    if not 0 < n_val < n:
        raise ValueError(f"held_out: n_val={n_val:,} must be in 1 .. {n - 1:,}, one less than n.")
    order = torch_randperm(n, seed)
    return order[: n - n_val], order[n - n_val :]
