"""ListOps in the official Long Range Arena release: an archive, or a folder somebody unpacked."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ssm_jax.data.listops import encode, evaluate
from ssm_jax.data.progress import stage
from ssm_jax.data.ragged import Ragged

OFFICIAL_ROWS: Mapping[str, int] = {"train": 96_000, "val": 2_000, "test": 2_000}
FOLDER = "listops-1000"  # despite its name it holds the 96,000
_FILES = {split: f"basic_{split}.tsv" for split in OFFICIAL_ROWS}
_HEADER = b"Source\tTarget"
# 2,000 tokens with their round brackets are up to 13,000 characters; a million are not ListOps.
_LONGEST_LINE = 1 << 20
_DEPTH = 4  # folders between the given one and listops-1000, that included


@dataclass(frozen=True)
class Release:
    """Where a release is.

    Attributes:
      path: the archive, or the folder that holds the three files.
      is_archive: which of the two.
      stamp: sizes in bytes; tells two releases apart without reading them.
    """

    path: Path
    is_archive: bool
    stamp: str


def find_release(path: Path) -> Release:
    """Find ListOps at a path the user gave.

    Args:
      path: the archive (.tar.gz or .tar), listops-1000, or a folder at most four levels above it.

    Raises:
      FileNotFoundError: if it, or one of the three files, is not there.
    """
    if path.is_file():
        return Release(path, True, f"archive {path.stat().st_size}")
    if not path.is_dir():
        raise FileNotFoundError(
            f"--lra_release={path} does not exist; give the LRA release, an archive or a folder "
            f"above {FOLDER}."
        )
    level = [path]
    for _ in range(_DEPTH + 1):
        for folder in level:
            if folder.name == FOLDER:
                return _unpacked(folder)
        level = [child for folder in level for child in sorted(folder.iterdir()) if child.is_dir()]
    raise FileNotFoundError(
        f"no folder {FOLDER} in --lra_release={path}, nor in the {_DEPTH} levels below it; "
        f"give a folder above {FOLDER}, or the release's archive."
    )


def _unpacked(folder: Path) -> Release:
    for name in _FILES.values():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{name} is not in {folder}; unpack the LRA release again.")
    sizes = [str((folder / name).stat().st_size) for name in _FILES.values()]
    return Release(folder, False, f"files {' '.join(sizes)}")


def read_release(
    release: Release, expected_rows: Mapping[str, int] = OFFICIAL_ROWS
) -> tuple[dict[str, Ragged], dict[str, str]]:
    """The rows of every split, and the sha256 of every file.

    Nothing is unpacked; the wanted members of an archive are read as they come by.

    Args:
      release: from `find_release`.
      expected_rows: rows that each split must have.

    Raises:
      FileNotFoundError: if the archive lacks a file.
      ValueError: for a malformed row, naming file and line; for a wrong number of rows; for a
        damaged archive.
    """
    if release.is_archive:
        found = _read_archive(release.path, expected_rows)
    else:
        found = {}
        total = sum((release.path / name).stat().st_size for name in _FILES.values())
        with stage(f"reading {release.path}", total, "bytes") as advance:
            for split, name in _FILES.items():
                path = release.path / name
                with open(path, "rb") as file:
                    found[split] = _parse(file, str(path), expected_rows[split], advance)
    splits = {split: found[split][0] for split in _FILES}
    return splits, {_FILES[split]: found[split][1] for split in _FILES}


def _read_archive(path: Path, expected_rows: Mapping[str, int]) -> dict[str, tuple[Ragged, str]]:
    found: dict[str, tuple[Ragged, str]] = {}
    with open(path, "rb") as raw, stage(f"reading {path}", path.stat().st_size, "bytes") as advance:
        seen = 0

        def advance_archive(_: int) -> None:
            nonlocal seen
            advance(raw.tell() - seen)
            seen = raw.tell()

        try:
            with tarfile.open(fileobj=raw, mode="r|*") as archive:
                for member in archive:
                    advance_archive(0)
                    split = _split_of(member.name)
                    if split is None:
                        continue
                    where = f"{path}:{member.name}"
                    file = archive.extractfile(member) if member.isreg() else None
                    if file is None:
                        raise ValueError(f"{where} is not a regular file; get the release again.")
                    if split in found:
                        raise ValueError(f"{where} is in the archive twice; get the release again.")
                    found[split] = _parse(file, where, expected_rows[split], advance_archive)
                    if len(found) == len(_FILES):
                        break  # 7 GB of other tasks may follow
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ValueError(f"{path} is not a whole tar archive ({error}).") from error
    for split, name in _FILES.items():
        if split not in found:
            raise FileNotFoundError(f"{FOLDER}/{name} is not in the archive {path}.")
    return found


def _split_of(member: str) -> str | None:
    """The split whose file a member is, at whatever depth; None for other or for hostile names."""
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts:
        return None
    for split, name in _FILES.items():
        if path.parts[-2:] == (FOLDER, name):
            return split
    return None


def _parse(
    file: IO[bytes], where: str, expected: int, advance: Callable[[int], None]
) -> tuple[Ragged, str]:
    """Rows and sha256 of one file."""
    digest = hashlib.sha256()
    rows: list[tuple[bytes, int]] = []
    line = file.readline(_LONGEST_LINE)
    digest.update(line)
    if line.rstrip(b"\r\n") != _HEADER:
        raise ValueError(
            f"{where} line 1: expected the header Source<TAB>Target, got {line[:60]!r}."
        )
    count, pending = 0, len(line)
    while line := file.readline(_LONGEST_LINE):
        digest.update(line)
        count += 1
        pending += len(line)
        if count <= expected:
            try:
                rows.append(_parse_row(line))
            except ValueError as error:
                raise ValueError(f"{where} line {count + 1}: {error}") from None
        if count % 500 == 0:
            advance(pending)
            pending = 0
    advance(pending)
    if count != expected:
        raise ValueError(
            f"{where} has {count:,} rows, the official file has {expected:,}; "
            "get the release again."
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
