"""Series of text files and pickles, parsed once: what was read is kept as arrays.

They are in DATA_DIR/arrays, one file for each path and choice of columns, and are mapped at the
next start. A file that was written to since, or is another one, is read again.
"""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.array_files import entry_of
from ssm_jax.data.series import WHOLE, Columns, Found, Lines, Series, files_of, read
from ssm_jax.files import parse_json, replace_atomically
from ssm_jax.progress import say

FORM = 2  # of what is kept; raise it when a reader finds other values in the same file
PARSED = (".csv", ".ts", ".arff", ".pkl")  # the others are arrays as they are
_LARGE = 1 << 24  # bytes of files whose reading takes seconds
_ARRAYS = ("steps", "starts", "lengths", "targets", "file_of", "numbers")  # of a part
_WORDS = ("per_step", "channels", "target_names")


def read_once(path: Path, columns: Columns, folder: Path | None, *, keep: bool = True) -> Found:
    """The same as `series.read`; what is parsed was kept in a folder, or is kept there now.

    Without `keep` nothing is written. A folder that cannot be written to costs the next start the
    time to read the files again.
    """
    kind, files = files_of(path)
    if folder is None or kind not in PARSED:
        return read(path, columns)
    asked = json.dumps([str(path.absolute()), dataclasses.asdict(columns)])
    name = hashlib.sha256(asked.encode(errors="surrogateescape")).hexdigest()[:16]
    kept, stamps = folder / f"{path.absolute().stem}-{name}.npz", stamps_of(files)
    about = {"form": FORM, "asked": asked, "files": stamps}
    if (found := _opened(kept, about, files)) is not None:
        return found
    if keep and (size := sum(file.stat().st_size for file in files)) > _LARGE:
        say(f"reading {path} ({size / 1e6:,.0f} MB), once: what is read is kept in {folder}.")
    found = read(path, columns)
    if not keep or stamps_of(files) != stamps:
        return found
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        arrays = _arrays(found, about, files)
        replace_atomically(kept, lambda file: np.savez(file, **arrays))
        return _opened(kept, about, files) or found  # which is mapped: memory is free again
    return found


def stamps_of(files: list[Path]) -> list[list[Any]]:
    """What tells that a file is as it was: its name, size, times and number."""
    return [[str(file.absolute()), *stamp_of(file)] for file in files]


def stamp_of(file: Path) -> tuple[int, ...]:
    """Size, times and number of a file."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _arrays(found: Found, about: Mapping[str, Any], files: list[Path]) -> dict[str, Any]:
    """What was read as arrays for an .npz: of part number 0 "0 steps" and so on, and a header."""
    arrays, parts = dict[str, Any](), []
    for number, (split, part) in enumerate(found.parts.items()):
        assert isinstance(part.where, Lines)
        lines = part.where
        held = {**vars(part), "file_of": lines.file_of, "numbers": lines.numbers}
        there = [n for n in _ARRAYS if held[n] is not None]
        arrays |= {f"{number} {n}": np.ascontiguousarray(held[n]) for n in there}
        parts.append({"split": split} | {name: held[name] for name in _WORDS})
    for split, rows in (found.rows or {}).items():
        arrays[f"rows {split}"] = rows
    places = [files.index(file) for file in found.files]
    header = {**about, "parts": parts, "places": places, "rows": list(found.rows or [])}
    header["remarks"] = found.remarks
    return arrays | {"about": np.frombuffer(json.dumps(header).encode(), np.uint8)}


def _opened(kept: Path, about: Mapping[str, Any], files: list[Path]) -> Found | None:
    """What was kept of these files, mapped; None if there is nothing, or it is damaged."""
    try:
        with zipfile.ZipFile(kept) as archive:
            header = parse_json(entry_of(archive, "about").tobytes())
            if any(header[key] != value for key, value in about.items()):
                return None
            if kept.stat().st_size <= WHOLE and archive.testzip() is not None:
                return None
            arrays = {
                name: entry_of(archive, name)
                for name in (info.filename.removesuffix(".npy") for info in archive.infolist())
                if name != "about"
            }
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    used = tuple(files[place] for place in header["places"])
    parts = {}
    for number, words in enumerate(header["parts"]):
        held: dict[str, Any] = {name: arrays.get(f"{number} {name}") for name in _ARRAYS}
        lines = Lines(used, held.pop("file_of"), held.pop("numbers"), held["starts"])
        texts: dict[str, Any] = {name: tuple(words[name]) for name in _WORDS[1:]}
        parts[words["split"]] = Series(**held, per_step=words["per_step"], **texts, where=lines)
    rows = {split: arrays[f"rows {split}"] for split in header["rows"]} or None
    return Found(parts, rows, used, tuple(header["remarks"]))
