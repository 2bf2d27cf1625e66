"""Series in .ts and .arff files, text formats of the UEA/UCR archive; ? is a missing number."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ssm_jax.data.series import Columns, Found, Lines, Series, numbered_channels, numbers_of


def read_archive(files: list[Path], columns: Columns) -> Found:
    """Series of .ts or .arff files; TRAIN and TEST in their names are splits."""
    names = sorted({re.sub(r"_(TRAIN|TEST)\Z", "", p.stem) for p in files})
    if len(names) > 1:
        raise ValueError(
            f"{files[0].parent} has the sets {', '.join(names[:5])}; give one, as in "
            f"--from={files[0]}."
        )
    parts = {}
    for path in files:
        split = {"TRAIN": "train", "TEST": "test"}.get(path.stem.rpartition("_")[2], "")
        parse = parse_arff if path.suffix.lower() == ".arff" else parse_ts
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            parts[split] = parse(file, files, files.index(path))
    if len(parts) > 1 and "" in parts:
        raise ValueError(f"{files[0].parent} has files with and without _TRAIN or _TEST.")
    return Found(parts, None, tuple(files))


def parse_ts(lines: Iterable[str], files: list[Path], file: int) -> Series:
    """The series of one of some .ts files: ":" between channels, "," between values, the target
    last."""
    read = _Read(files, file)
    head: dict[str, str] = {}

    def says(*keys: str) -> bool:
        return any(head.get(key, "").lower().startswith("true") for key in keys)

    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith(("#", "%")):
            continue
        if "data" not in head:
            if not line.startswith("@"):
                raise ValueError(
                    f"{read.name} line {number}: there is no @data before {line[:30]!r}."
                )
            key, *value = line[1:].split(None, 1) or [""]
            head[key.lower()] = " ".join(value)
            continue
        if says("timestamps"):
            raise ValueError(
                f"{read.name}: series with time stamps are not read; resample them first."
            )
        channels = line.split(":")
        if says("classlabel", "targetlabel"):
            read.targets.append(channels.pop().strip())
        read.add(number, channels)
    return read.series(classes=says("classlabel"))


def parse_arff(lines: Iterable[str], files: list[Path], file: int) -> Series:
    r"""The series of one of some .arff files: values in quotes, "," between them and "\n" between
    channels, and the target; one channel may be without quotes."""
    read = _Read(files, file)
    attributes: list[str] = []
    data = relational = False
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("%"):
            continue
        if data:
            values, _, target = line.rpartition(",")
            if relational and line[0] not in "'\"":
                raise ValueError(
                    f"{read.name} line {number}: the channels of a series must be in quotes, got "
                    f"{line[:30]!r}."
                )
            if relational:
                values, _, target = line[1:].rpartition(line[0])
            read.targets.append(target.lstrip(",").strip().strip("'\""))
            read.add(number, values.split("\\n"))
            continue
        word = line.split()[0].lower()
        data = word == "@data"
        if data and any("{" in attribute for attribute in attributes[:-1]):
            raise ValueError(f"{read.name}: the classes must be the last attribute.")
        if word == "@attribute":
            attributes.append(line)
            relational |= line.lower().endswith(" relational")
        elif word not in ("@relation", "@end", "@data"):
            raise ValueError(f"{read.name} line {number}: there is no @data before {line[:30]!r}.")
    return read.series(classes=bool(attributes) and attributes[-1].endswith("}"))


class _Read:
    """Series as they are read, line by line, from one of some files."""

    def __init__(self, files: list[Path], file: int) -> None:
        self.files, self.file, self.name = files, file, files[file]
        self.cases: list[np.ndarray] = []
        self.targets: list[str] = []
        self.places: list[int] = []

    def add(self, number: int, channels: Sequence[str]) -> None:
        """Take the channels of a line, each with commas between its values."""
        rows = []
        for c, channel in enumerate(channels):
            words = channel.split(",")
            place = f"{self.name} line {number}"
            rows.append(numbers_of(words, [f"channel {c}"] * len(words), place))
        known = self.cases[0].shape[1] if self.cases else len(rows)
        if len({len(row) for row in rows}) != 1 or len(rows) != known:
            raise ValueError(
                f"{self.name} line {number} has channels of {', '.join(str(len(r)) for r in rows)} "
                "steps; a series has as many channels as the others, all equally long."
            )
        case = np.array(rows).T
        # The archive fills up with missing ones
        there = np.flatnonzero(~np.isnan(case).all(axis=1))
        self.cases.append(case[: there[-1] + 1 if there.size else 1])
        self.places.append(number)

    def series(self, *, classes: bool) -> Series:
        """What was read; targets are words where they are classes, else numbers."""
        if not self.cases:
            raise ValueError(f"{self.name} has no series after @data.")
        lengths = np.array([len(case) for case in self.cases], np.int64)
        found: np.ndarray | None = np.array(self.targets) if self.targets else None
        if found is not None and not classes:
            places_of = zip(self.targets, self.places, strict=True)
            found = np.array(
                [numbers_of([w], ["target"], f"{self.name} line {n}")[0] for w, n in places_of]
            )
        starts, file_of = np.cumsum(lengths) - lengths, np.full(len(self.cases), self.file)
        return Series(
            np.concatenate(self.cases), starts, lengths, found, False,
            numbered_channels(self.cases[0].shape[1]), ("y0",),
            where=Lines(self.files, file_of, np.array(self.places), starts),
        )  # fmt: skip
