"""Retrieval: does one of two papers cite the other?

The texts are those of the ACL Anthology Network (Radev et al. 2013) in the official release of the
Long Range Arena. A paper is in many pairs, and the files hold its text in each: here it is kept
once.
"""

import csv
import functools
import hashlib
import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ssm_jax.data import release as releases
from ssm_jax.data.archive import Limits, shown
from ssm_jax.data.examples import SPECIALS, Content, Pairs, consecutive
from ssm_jax.data.prepare import DataPaths, Recipe, files_missing
from ssm_jax.data.release import Release, tables, wrong_rows
from ssm_jax.lra import stand_in
from ssm_jax.lra.vocabulary import Vocabulary

TASK = "retrieval"
N_CLASSES = 2  # 1: linked by a citation
FOLDER = "tsv_data"
OFFICIAL_ROWS: Mapping[str, int] = {"train": 147_086, "val": 18_090, "test": 17_437}
# In the order that the names of stores are made with
_FILES = {s: f"new_aan_pairs.{s.replace('val', 'eval')}.tsv" for s in ("train", "test", "val")}
_LABELS = {"0.0": 0, "1.0": 1}
_LONGEST_LINE = 1 << 24  # bytes; two books
# Some 180,000 rows of two papers of some 30,000 characters each, read line by line; kept is the
# text of each of some 20,000 papers.
LIMITS = Limits(files=3, largest=1 << 36, wanted=1 << 36)
_MOST_TEXT = 1 << 32  # characters kept


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions(stand_in.Drawn):
    """The options of the examples."""

    max_length: int = 4_000  # steps of one document with its end of sequence; it is cut to fit

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ValueError(f"max_length={self.max_length} must be at least 2.")


@dataclass(frozen=True)
class Papers:
    """The task as the release has it."""

    # The different texts of all splits, in the order in which train, val and test name them first.
    # One paper has several if its text is not the same in all rows.
    documents: list[str]
    # int32 (n, 3): the numbers of two documents, and 1 where one cites the other
    splits: dict[str, np.ndarray]
    # Whether a field that begins with a double quote ends with one, and holds tabs and lines
    # between; else quotes are characters as others are.
    quoting: bool = False
    varying_papers: int = 0  # paper ids with more than one text
    sha256: Mapping[str, str] | None = None  # of each file, by its name

    def occurrences(self, split: str) -> np.ndarray:
        """The number of times that each document is in a split, the weights for counting."""
        return np.bincount(self.splits[split][:, :2].ravel(), minlength=len(self.documents))


class _MisreadError(ValueError):
    """The file does not read as it should with this quoting; perhaps with the other."""


find_release = functools.partial(releases.find_release, folder=FOLDER, files=_FILES.values())


def read_release(release: Release) -> Papers:
    """All pairs, read once; a second time with quoting on if the rows do not fit without.

    Where they fit neither way the ValueError says how each fails.
    """
    faults = []
    for quoting in (False, True):
        try:
            return _read(release, quoting)
        except _MisreadError as error:
            faults.append(error.args[0])
    raise ValueError(f"{'; with quoting on, '.join(faults)}; get the release again.")


def _read(release: Release, quoting: bool) -> Papers:
    numbers: dict[tuple[str, str], int] = {}  # by paper and text, as they are read
    size = 0

    def number(paper: str, text: str) -> int:
        nonlocal size
        if (paper, text) not in numbers:
            numbers[paper, text] = len(numbers)
            size += len(text) + 100  # of an empty one, too
            if size > _MOST_TEXT:
                raise ValueError(
                    f"the papers have more than {_MOST_TEXT:,} characters; get the release again."
                )
        return numbers[paper, text]

    splits: dict[str, np.ndarray] = {}
    hashes: dict[str, str] = {}
    title = f"reading {release.path}" + " with quoting on" * quoting
    with closing(tables(release, FOLDER, _FILES, title, LIMITS)) as files:
        for split, where, file in files:
            digest, expected = hashlib.sha256(), OFFICIAL_ROWS[split]
            most = 2 * expected + 100  # more are not even counted
            rows = _rows(file, where, digest.update, quoting)
            splits[split] = _parse(itertools.islice(rows, most), where, number)
            hashes[split] = digest.hexdigest()
            if len(splits[split]) != expected:
                raise _MisreadError(wrong_rows(where, len(splits[split]), expected, most))
    # Number the documents as the splits name them, in whatever order the files were read.
    splits = {split: splits[split] for split in OFFICIAL_ROWS}
    named = np.concatenate([pairs[:, :2].ravel() for pairs in splits.values()])
    order = np.argsort(np.unique(named, return_index=True)[1])  # old by new
    new = np.argsort(order)
    for pairs in splits.values():
        pairs[:, :2] = new[pairs[:, :2]]
    texts = [text for _, text in numbers]
    return Papers(
        documents=[texts[old] for old in order],
        splits=splits,
        quoting=quoting,
        varying_papers=sum(n > 1 for n in Counter(paper for paper, _ in numbers).values()),
        sha256={_FILES[split]: hashes[split] for split in OFFICIAL_ROWS},
    )


def _parse(
    rows: Iterator[tuple[int, list[str]]], where: str, number: Callable[[str, str], int]
) -> np.ndarray:
    pairs = array("i")
    for line, fields in rows:
        if len(fields) != 5:
            raise _MisreadError(
                f"{where} line {line} has {len(fields)} columns instead of the 5 label, id, id, "
                "text, text"
            )
        label, id_1, id_2, text_1, text_2 = fields
        if label not in _LABELS:
            raise _MisreadError(
                f"{where} line {line} has the label {label[:20]!r} instead of 0.0 or 1.0"
            )
        pairs.extend((number(id_1, text_1), number(id_2, text_2), _LABELS[label]))
    return np.array(pairs, np.int32).reshape(-1, 3)


def _rows(
    file: IO[bytes], where: str, update: Callable[[bytes], None], quoting: bool
) -> Iterator[tuple[int, list[str]]]:
    """The fields of each row, and the number of its last line."""
    row = 0  # characters so far

    def lines() -> Iterator[str]:
        nonlocal row
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
            update(line)
            if len(line) == _LONGEST_LINE:
                raise ValueError(f"{where} line {number} has {len(line):,} bytes or more.")
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{where} line {number} is not UTF-8 ({error}).") from None
            row += len(text)
            if quoting and row > _LONGEST_LINE:  # fields on many lines, each with an end
                raise _MisreadError(f"{where} has a row of {row:,} characters or more")
            yield text

    if not quoting:
        for number, line in enumerate(lines(), 1):
            yield number, line.removesuffix("\n").removesuffix("\r").split("\t")
        return
    reader = csv.reader(lines(), delimiter="\t")
    # Texts may be longer than the limit of `csv`, which is one for the whole process.
    usual = csv.field_size_limit(_LONGEST_LINE)
    try:
        for fields in reader:
            row = 0
            yield reader.line_num, fields
    except csv.Error as error:
        raise _MisreadError(f"{where} line {reader.line_num} is malformed ({error})") from None
    finally:
        csv.field_size_limit(usual)


def retrieval(options: RetrievalOptions, source: str, paths: DataPaths) -> Recipe:
    """The recipe of Retrieval, "official" (the LRA release) or "stand_in" (random documents on two
    topics, for tests of the machinery)."""
    drawn = source == "stand_in"
    parameters = {"max_length": options.max_length, **(options.identity() if drawn else {})}
    release = None if drawn or paths.files is None else find_release(paths.files)

    def make(_: Path) -> Content:
        if drawn:
            papers = Papers(*stand_in.papers(options, options.max_length))
            detail = f"STAND-IN of random documents, seed {options.seed}; not AAN"
            return _content(options, papers, detail)
        if release is None:
            raise files_missing(TASK, f"the LRA release, an archive or a folder above {FOLDER}")
        papers = read_release(release)
        quoted = "with" if papers.quoting else "without"
        detail = (
            f"official LRA release, read from {shown(release.path.name)} {quoted} quoting; "
            f"{len(papers.documents):,} texts, {papers.varying_papers:,} papers have several"
        )
        return _content(options, papers, detail)

    return Recipe(TASK, source, options, paths, parameters, make, release)


def _content(options: RetrievalOptions, papers: Papers, detail: str) -> Content:
    """The papers as tokens, in the characters of the training pairs."""
    vocabulary = Vocabulary.of_characters(
        papers.documents,
        min_freq=1,
        max_length=options.max_length,
        weights=papers.occurrences("train"),
    )
    documents = vocabulary.encode_all((text, 0) for text in papers.documents)
    first, second, targets = np.concatenate(list(papers.splits.values())).T.copy()
    examples = Pairs(documents.tokens, documents.offsets, first, second, targets.astype(np.uint8))
    splits = consecutive({split: len(pairs) for split, pairs in papers.splits.items()})
    facts = {} if papers.sha256 is None else {"read": papers.sha256}
    return Content(examples, splits, detail, facts, (*SPECIALS, *vocabulary.tokens), N_CLASSES)
