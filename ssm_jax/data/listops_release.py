"""ListOps in the official Long Range Arena release."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import IO

from ssm_jax.data import release as releases
from ssm_jax.data.archive import Limits
from ssm_jax.data.listops import encode, evaluate
from ssm_jax.data.ragged import Ragged
from ssm_jax.data.release import Release

OFFICIAL_ROWS: Mapping[str, int] = {"train": 96_000, "val": 2_000, "test": 2_000}
FOLDER = "listops-1000"  # despite its name it holds the 96,000
_FILES = {split: f"basic_{split}.tsv" for split in OFFICIAL_ROWS}
_SPLITS = {f"{FOLDER}/{name}": split for split, name in _FILES.items()}
_HEADER = b"Source\tTarget"
# 96,000 rows of up to 13,000 bytes, read line by line
LIMITS = Limits(files=3, largest=1 << 31, wanted=1 << 31)
# 2,000 tokens with their round brackets are up to 13,000 characters; a million are not ListOps.
_LONGEST_LINE = 1 << 20


def find_release(path: Path) -> Release:
    """Find ListOps at a path the user gave; see `release.find_release`."""
    return releases.find_release(path, FOLDER, _FILES.values())


def read_release(
    release: Release, expected_rows: Mapping[str, int] = OFFICIAL_ROWS
) -> tuple[dict[str, Ragged], dict[str, str]]:
    """The rows of every split, and the sha256 of every file.

    Args:
      release: from `find_release`.
      expected_rows: rows that each split must have.

    Raises:
      FileNotFoundError: if the archive lacks a file.
      ValueError: for a malformed row, naming file and line; for a wrong number of rows; for a
        damaged archive.
    """
    found: dict[str, tuple[Ragged, str]] = {}
    title = f"reading {release.path}"
    # 7 GB of other tasks may follow the three files.
    with closing(releases.members(release, _split_of, title, LIMITS, count=len(_FILES))) as files:
        for split, where, file in files:
            found[split] = _parse(file, where, expected_rows[split])
    for split, name in _FILES.items():
        if split not in found:
            raise FileNotFoundError(f"{FOLDER}/{name} is not in the archive {release.path}.")
    splits = {split: found[split][0] for split in _FILES}
    return splits, {_FILES[split]: found[split][1] for split in _FILES}


def _split_of(path: str) -> str | None:
    """The split whose file is at a path, at whatever depth."""
    return _SPLITS.get("/".join(path.split("/")[-2:]))


def _parse(file: IO[bytes], where: str, expected: int) -> tuple[Ragged, str]:
    """Rows and sha256 of one file."""
    digest = hashlib.sha256()
    rows: list[tuple[bytes, int]] = []
    line = file.readline(_LONGEST_LINE)
    digest.update(line)
    if line.rstrip(b"\r\n") != _HEADER:
        raise ValueError(
            f"{where} line 1: expected the header Source<TAB>Target, got {line[:60]!r}."
        )
    count, most = 0, 2 * expected + 100  # more are not even counted
    while count < most and (line := file.readline(_LONGEST_LINE)):
        digest.update(line)
        count += 1
        if count <= expected:
            try:
                rows.append(_parse_row(line))
            except ValueError as error:
                raise ValueError(f"{where} line {count + 1}: {error}") from None
    if count != expected:
        raise ValueError(
            f"{where} has {count:,} rows{' or more' if count == most else ''}, the official file "
            f"has {expected:,}; get the release again."
        )
    return Ragged.from_rows(rows), digest.hexdigest()


def _parse_row(line: bytes) -> tuple[bytes, int]:
    if len(line) == _LONGEST_LINE:
        raise ValueError(f"the line has {_LONGEST_LINE:,} characters or more.")
    fields = line.rstrip(b"\r\n").split(b"\t")
    if len(fields) != 2:
        raise ValueError(f"expected Source<TAB>Target, got {len(fields)} fields.")
    source, target = fields
    if len(target) != 1 or not target.isdigit():
        raise ValueError(f"the target must be a digit, got {target[:20]!r}.")
    tokens = encode(source)
    value = evaluate(tokens)
    if value != int(target):
        raise ValueError(f"the target is {int(target)}, but the expression's value is {value}.")
    return tokens, value
