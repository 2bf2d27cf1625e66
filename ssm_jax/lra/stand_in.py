"""Random data in the form of a task, for tests of the machinery where the real files are missing.

They are asked for by name (data.source=stand_in) and say in every result what they are. Each class
has a mark that a model can learn, so that a broken path shows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssm_jax.data.draws import philox
from ssm_jax.data.examples import SPLITS, Images, consecutive

VERSION = 1  # raise it whenever the same arguments would give other data
_WORDS = ("good", "bad")  # the mark of class 1 and of class 0
_SIDE = 32  # pixels


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Options of a task that are read for its stand-in alone."""

    seed: int = 0  # of all random numbers, >= 0
    n_train: int = 400  # examples, >= 1
    n_val: int = 100
    n_test: int = 100

    @property
    def counts(self) -> dict[str, int]:
        """Examples by split."""
        return {split: getattr(self, f"n_{split}") for split in SPLITS}

    def identity(self) -> dict[str, Any]:
        """The parameters of a stand-in, besides the other options."""
        return {"counts": self.counts, "seed": self.seed, "version": VERSION}


def _stream(drawn: Drawn) -> np.random.Generator:
    for name, least in {"seed": 0, "n_train": 1, "n_val": 1, "n_test": 1}.items():
        if (value := getattr(drawn, name)) < least:
            raise ValueError(f"{name}={value} of a stand-in must be at least {least}.")
    return np.random.Generator(philox(drawn.seed, VERSION))


def _document(rng: np.random.Generator, word: str, longest: int) -> str:
    """A tenth to all of the longest length in words of 2 to 8 letters, a fifth of them the mark."""
    length = int(rng.integers(max(longest // 10, 1), longest + 1))
    letters = rng.integers(ord("a"), ord("z") + 1, length, np.uint8).tobytes().decode()
    words, at = [], 0
    while at < length:
        step = int(rng.integers(2, 9))
        words.append(word if rng.random() < 0.2 else letters[at : at + step])
        at += step
    return " ".join(words)[:length]


def reviews(drawn: Drawn, max_length: int) -> dict[str, list[tuple[str, int]]]:
    """(review, class) of each split, classes in turn."""
    rng = _stream(drawn)
    return {
        split: [(_document(rng, _WORDS[1 - i % 2], max_length - 1), i % 2) for i in range(n)]
        for split, n in drawn.counts.items()
    }


def papers(drawn: Drawn, max_length: int) -> tuple[list[str], dict[str, np.ndarray]]:
    """Documents, and (first, second, class) of the pairs of each split, int32 (n, 3); class 1: the
    same mark."""
    rng = _stream(drawn)
    documents: list[str] = []
    pairs = {}
    for split, n in drawn.counts.items():
        targets = np.arange(n) % 2
        marks = rng.integers(0, 2, n)
        for mark, target in zip(marks.tolist(), targets.tolist(), strict=True):
            other = mark if target else 1 - mark
            documents += [_document(rng, _WORDS[m], max_length - 1) for m in (mark, other)]
        first = np.arange(len(documents) - 2 * n, len(documents), 2)
        pairs[split] = np.stack([first, first + 1, targets], axis=1).astype(np.int32)
    return documents, pairs


def images(drawn: Drawn) -> tuple[Images, dict[str, np.ndarray]]:
    """32 x 32 stripes in noise; class k has k + 1 of them."""
    rng = _stream(drawn)
    n = sum(drawn.counts.values())
    targets = (np.arange(n) % 10).astype(np.uint8)
    column = np.arange(_SIDE) / _SIDE
    stripes = 0.5 + 0.25 * np.sin(2 * np.pi * np.outer(targets + 1, column))
    pixels = stripes[:, None, :] + rng.normal(0, 0.1, (n, _SIDE, _SIDE))
    gray = np.clip(np.round(255 * pixels), 0, 255).astype(np.uint8).reshape(n, -1)
    return Images(gray, targets), consecutive(drawn.counts)
