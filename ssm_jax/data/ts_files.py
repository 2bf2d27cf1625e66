"""Series in .ts files, the text format of the UEA/UCR archive; ? is a missing number."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ssm_jax.data.csv_files import numbers_of
from ssm_jax.data.series import Columns, Found, Lines, Series, numbered_channels


def read_ts(files: list[Path], columns: Columns) -> Found:
    """Series of .ts files; TRAIN and TEST in their names are splits."""
    names = sorted({re.sub(r"_(TRAIN|TEST)\Z", "", p.stem) for p in files})
    if len(names) > 1:
        raise ValueError(
            f"{files[0].parent} has the sets {', '.join(names[:5])}; give one, as in "
            f"--from={files[0]}."
        )
    parts = {}
    for path in files:
        split = {"TRAIN": "train", "TEST": "test"}.get(path.stem.rpartition("_")[2], "")
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            parts[split] = parse_ts(file, files, files.index(path))
    if len(parts) > 1 and "" in parts:
        raise ValueError(f"{files[0].parent} has files with and without _TRAIN or _TEST.")
    return Found(parts, None, tuple(files))


def parse_ts(lines: Iterable[str], files: list[Path], file: int) -> Series:
    """The series of one of some .ts files: ":" between channels, "," between values, the target
    last."""
    name = files[file]
    head: dict[str, str] = {}
    cases: list[np.ndarray] = []
    targets: list[str] = []
    places: list[int] = []

    def says(*keys: str) -> bool:
        return any(head.get(key, "").lower().startswith("true") for key in keys)

    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith(("#", "%")):
            continue
        if "data" not in head:
            if not line.startswith("@"):
                raise ValueError(f"{name} line {number}: there is no @data before {line[:30]!r}.")
            key, _, value = line[1:].partition(" ")
            head[key.lower()] = value.strip()
            continue
        if says("timestamps"):
            raise ValueError(f"{name}: series with time stamps are not read; resample them first.")
        channels = line.split(":")
        if says("classlabel", "targetlabel"):
            targets.append(channels.pop().strip())
        rows = []
        for c, channel in enumerate(channels):
            words = channel.split(",")
            rows.append(numbers_of(words, [f"channel {c}"] * len(words), f"{name} line {number}"))
        if len({len(row) for row in rows}) != 1 or (cases and len(rows) != cases[0].shape[1]):
            raise ValueError(
                f"{name} line {number} has channels of {', '.join(str(len(r)) for r in rows)} "
                "steps; a series has as many channels as the others, all equally long."
            )
        case = np.array(rows).T
        there = np.flatnonzero(
            ~np.isnan(case).all(axis=1)
        )  # the archive fills up with missing ones
        cases.append(case[: there[-1] + 1 if there.size else 1])
        places.append(number)
    if not cases:
        raise ValueError(f"{name} has no series after @data.")
    lengths = np.array([len(case) for case in cases], np.int64)
    found: np.ndarray | None = np.array(targets) if targets else None
    if found is not None and not says("classlabel"):
        places_of = zip(targets, places, strict=True)
        found = np.array([numbers_of([w], ["target"], f"{name} line {n}")[0] for w, n in places_of])
    starts, file_of = np.cumsum(lengths) - lengths, np.full(len(cases), file)
    return Series(
        np.concatenate(cases), starts, lengths, found, False,
        numbered_channels(cases[0].shape[1]), ("y0",),
        where=Lines(files, file_of, np.array(places), starts),
    )  # fmt: skip
