"""Recipes of Retrieval: whether one of two papers cites the other (AAN)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data import aan, stand_in
from ssm_jax.data.archive import shown
from ssm_jax.data.examples import Made, Pairs, consecutive
from ssm_jax.data.ragged import Ragged
from ssm_jax.data.recipe import Place, Recipe, command, files_missing
from ssm_jax.data.release import Release
from ssm_jax.data.vocabulary import SPECIALS, Vocabulary

TASK = "retrieval"
N_CLASSES = 2  # 1: linked by a citation


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions(stand_in.Drawn):
    """What the examples depend on.

    Attributes:
      max_length: steps of one document with the end of sequence; documents are cut to fit.
    """

    max_length: int = 4_000

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ValueError(f"max_length={self.max_length} must be at least 2.")


def retrieval(
    options: RetrievalOptions,
    source: str,
    place: Place,
    *,
    expected_rows: Mapping[str, int] = aan.OFFICIAL_ROWS,
) -> Recipe:
    """How Retrieval is made.

    Args:
      options: what is made.
      source: "official" (the LRA release), or "stand_in" (documents drawn at random on two topics,
        for tests of the machinery).
      place: folders; its files are the release, an archive or a folder above tsv_data.
      expected_rows: of the official files.
    """
    parameters: dict[str, Any] = {"max_length": options.max_length}
    release: Release | None = None
    stamp: str | None = "" if source == "stand_in" else None
    if source == "stand_in":
        parameters |= options.identity()
    elif place.files is not None:
        release = aan.find_release(place.files)
        stamp = release.stamp

    def make(_: Path) -> Made:
        if source == "stand_in":
            papers = stand_in.papers(options.counts, options.seed, options.max_length)
            detail = f"STAND-IN of random documents, seed {options.seed}; not AAN"
            return _made(options, papers, detail, {})
        if release is None:
            raise files_missing(TASK, f"the LRA release, an archive or a folder above {aan.FOLDER}")
        papers = aan.read_release(release, expected_rows=expected_rows)
        quoted = "with" if papers.quoting else "without"
        detail = (
            f"official LRA release, read from {shown(release.path.name)} {quoted} quoting; "
            f"{len(papers.documents):,} texts, {papers.varying_papers:,} papers have several"
        )
        return _made(options, papers, detail, {"read": papers.sha256})

    return Recipe(
        task=TASK,
        source=source,
        parameters=parameters,
        stamp=stamp,
        make=make,
        at_once=source == "stand_in" or release is not None,
        command=command(TASK, source, place, options),
    )


def _made(
    options: RetrievalOptions, papers: aan.Papers, detail: str, facts: Mapping[str, object]
) -> Made:
    """The papers as tokens, in the characters of the training pairs."""
    vocabulary = Vocabulary.of_characters(
        papers.documents,
        min_freq=1,
        max_length=options.max_length,
        weights=papers.occurrences("train"),
    )
    documents = Ragged.from_arrays(
        ((vocabulary.encode(text), 0) for text in papers.documents), vocabulary.dtype
    )
    parts = list(papers.splits.values())
    examples = Pairs(
        documents.tokens,
        documents.offsets,
        np.concatenate([p.first for p in parts]),
        np.concatenate([p.second for p in parts]),
        np.concatenate([p.targets for p in parts]),
    )
    splits = consecutive({split: p.targets.size for split, p in papers.splits.items()})
    return Made(examples, splits, detail, facts, (*SPECIALS, *vocabulary.tokens), N_CLASSES)
