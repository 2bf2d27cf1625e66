"""A few examples of every kind, with what is awkward about each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssm_jax.data.examples import Content, Images, Pairs, Ragged
from ssm_jax.data.prepare import DataPaths, Recipe
from ssm_jax.data.release import Release

_rng = np.random.default_rng(0)


def _texts(largest: int, dtype: type) -> Ragged:
    """12 rows of 0..20 tokens, the first, one in the middle and the last one empty."""
    sizes = [0, 20, 1, *_rng.integers(1, 20, 3), 0, *_rng.integers(1, 20, 4), 0]
    rows = [(_rng.integers(3, largest + 1, size).astype(dtype), i % 3)
            for i, size in enumerate(sizes)]  # fmt: skip
    return Ragged.from_rows(rows, dtype)


_documents = _texts(80, np.uint8)
# Out of order, with an example in two splits, and one (number 3) in none
SPLITS = {
    "train": np.array([11, 0, 4, 7, 1, 9], np.int64),
    "val": np.array([10, 2, 6], np.int64),
    "test": np.array([10, 5, 8], np.int64),
}
EXAMPLES = {
    "tokens": _texts(200, np.uint8),
    "wide tokens": _texts(40_000, np.uint16),
    "images": Images(
        _rng.integers(0, 256, (12, 36)).astype(np.uint8), _rng.permutation(12).astype(np.uint8) % 3
    ),
    "pairs": Pairs(
        _documents.tokens,
        _documents.offsets,
        _rng.permutation(12).astype(np.int32),  # every document is in a pair
        _rng.integers(0, 12, 12).astype(np.int32),
        _rng.integers(0, 2, 12).astype(np.uint8),
    ),
}
KIND = {"tokens": "tokens", "wide tokens": "tokens", "images": "images", "pairs": "pairs"}
VOCABULARY = {
    "tokens": tuple(map(str, range(201))),
    "wide tokens": tuple(map(str, range(40_001))),
    "images": (),
    "pairs": tuple(map(str, range(81))),
}


def made_of(name: str) -> Content:
    """The examples, as a recipe makes them."""
    facts = {"sha256": {"a file": "its hash"}}
    return Content(EXAMPLES[name], SPLITS, f"small {name}", facts, VOCABULARY[name], 3)


@dataclass
class Options:
    """Options of a task "small"."""

    n: int = 12


def recipe_for(made: Content, *, stamp: str | None = None, **changes) -> Recipe:
    """A recipe of a task "small" that makes them, of files with a stamp if one is given."""
    given = {
        "task": "small",
        "source": "generated",
        "options": Options(),
        "paths": DataPaths(Path("data")),
        "parameters": {"n": 12},
        "make": lambda work: made,
        "release": None if stamp is None else Release(Path("files"), False, stamp),
    }
    return Recipe(**{**given, **changes})
