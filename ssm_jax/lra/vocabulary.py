"""Texts as token ids: by character, as S4 reads the Long Range Arena, or by byte, as LRA itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ssm_jax.data.examples import SPECIALS, UNKNOWN, Ragged


@dataclass(frozen=True)
class Vocabulary:
    """Ids of characters or bytes: 0 pad, 1 unknown, 2 end of sequence, then the tokens."""

    unit: Literal["character", "byte"]  # what a token is
    tokens: tuple[str, ...]  # distinct, of ids 3 and up; a byte is the character of its number
    max_length: int  # tokens of a text with its end of sequence; longer texts are cut

    def __post_init__(self) -> None:
        if self.unit not in ("character", "byte"):
            raise ValueError(f"unknown unit {self.unit!r}; choose one of character, byte.")
        if len(set(self.tokens)) < len(self.tokens) or any(len(t) != 1 for t in self.tokens):
            raise ValueError("the tokens of a vocabulary must be distinct single characters.")
        if self.max_length < 2:
            raise ValueError(
                f"max_length={self.max_length} has no room for a token and the end of sequence; "
                "use at least 2."
            )

    @classmethod
    def of_characters(
        cls,
        texts: Iterable[str],
        *,
        min_freq: int,
        max_length: int,
        weights: np.ndarray | None = None,
    ) -> Vocabulary:
        """Characters by falling frequency, equal ones by code point: the rule of torchtext.

        Characters that occur less than min_freq times in the texts, which are those of the training
        split, are unknown: S4 has 15 for IMDB, 1 for AAN. See `character_counts`.
        """
        counts = character_counts(texts, max_length=max_length, weights=weights)
        frequent = [(-n, token) for token, n in counts.items() if n >= min_freq]
        return cls("character", tuple(token for _, token in sorted(frequent)), max_length)

    @classmethod
    def of_bytes(cls, max_length: int) -> Vocabulary:
        """All 256 bytes: the id of a byte is 3 more than it, and no text has an unknown one."""
        return cls("byte", tuple(map(chr, range(256))), max_length)

    @property
    def size(self) -> int:
        """Number of ids, the three special ones included."""
        return len(SPECIALS) + len(self.tokens)

    @property
    def dtype(self) -> np.dtype:
        """The smallest of uint8 and uint16 that holds every id."""
        return np.dtype(np.uint8 if self.size <= 256 else np.uint16)

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, `dtype`, without the end of sequence, for which room is left."""
        text = text[: self.max_length - 1]
        if self.unit == "byte":  # a byte is the character of its number
            text = text.encode().decode("latin-1")[: self.max_length - 1]
        # The last entry of the table is that of all code points beyond the tokens'.
        return self._ids[np.minimum(_code_points(text), self._ids.size - 1)]

    def encode_all(self, rows: Iterable[tuple[str, int]]) -> Ragged:
        """The ids of (text, class) rows."""
        return Ragged.from_rows(((self.encode(text), k) for text, k in rows), self.dtype)

    @cached_property
    def _ids(self) -> np.ndarray:
        """Ids by code point."""
        codes = _code_points("".join(self.tokens))
        ids = np.full(int(codes.max(initial=0)) + 2, UNKNOWN, self.dtype)
        ids[codes] = np.arange(len(SPECIALS), self.size)
        return ids


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def character_counts(
    texts: Iterable[str], *, max_length: int, weights: np.ndarray | None = None
) -> Counter[str]:
    """The number of times that each character occurs in texts that are cut to `max_length - 1`.

    `weights`, integer (texts,), says how often each text counts; by default once.
    """
    texts = list(texts)
    counted = [1] * len(texts) if weights is None else weights.tolist()
    if len(counted) != len(texts):
        raise ValueError(f"there are {len(texts):,} texts and {len(counted):,} weights.")
    totals: Counter[str] = Counter()
    for text, weight in zip(texts, counted, strict=True):
        for character, count in Counter(text[: max_length - 1]).items():
            totals[character] += weight * count
    return totals
