"""Input sequences of a data set or of a file, for what looks at inputs before any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssm_jax.data.dataset import Dataset

# The sequences, the size of their vocabulary (None: they are real), and what they are
Sequences = tuple[list[np.ndarray], int | None, str]


def _spread(size: int, n: int) -> np.ndarray:
    """n of so many numbers, evenly spread, or all if there are fewer."""
    return np.unique(np.linspace(0, size - 1, min(n, size)).astype(int))


def sequences_of(dataset: Dataset, n: int) -> Sequences:
    """The inputs of n training examples, evenly spread.

    Raises:
      ValueError: the examples are no sequences.
    """
    sequences: list[np.ndarray] = []
    for index in _spread(dataset.size("train"), n):
        batch = dataset.gather("train", np.array([index]))
        inputs = batch["inputs"][0]
        if "lengths" in batch:  # tokens, one row or the two of a pair
            lengths = np.atleast_1d(batch["lengths"][0])
            rows = inputs.reshape(len(lengths), -1)
            sequences += [row[:steps] for row, steps in zip(rows, lengths, strict=True)]
        elif len(inputs) != dataset.steps_of(batch):
            raise ValueError(f"the examples of task={dataset.name} are no sequences; give --file.")
        else:
            sequences.append(inputs)
    return sequences, getattr(dataset, "vocab_size", None), dataset.provenance.detail


def read_sequences(path: Path, n: int, *, tokens: bool = False) -> Sequences:
    """n sequences of a .npy file, evenly spread.

    Args:
      path: of an array (L,), (n, L) or (n, L, channels).
      n: at most so many.
      tokens: they are ids, (L,) or (n, L).

    Raises:
      ValueError: a file that is no such array.
    """
    if path.suffix != ".npy":
        raise ValueError(f"--file={path} does not fit: it must be a .npy of numpy.save.")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"--file={path} is no array that can be read ({error}).") from error
    array = array[None] if array.ndim == 1 else array
    if array.ndim not in ((2,) if tokens else (2, 3)) or not array.size:
        raise ValueError(f"--file={path} has the shape {array.shape}; see --help for those read.")
    if array.dtype.kind not in ("iu" if tokens else "iufb"):
        what = "whole" if tokens else "real"
        raise ValueError(f"--file={path} holds {array.dtype}; it must hold {what} numbers.")
    chosen = array[_spread(len(array), n)]
    vocabulary = int(chosen.max()) + 1 if tokens else None
    return list(chosen), vocabulary, f"{path.name}, {len(array):,} sequences"
