"""Series in .csv files, with a line for each step; see `series` for what a folder may hold."""

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ssm_jax.data.series import (
    Columns,
    Found,
    Lines,
    Series,
    lines_of,
    numbers_of,
    rows_of_splits,
    time_of,
)


@dataclass
class _Table:
    """Steps of .csv files, and where the series among them begin."""

    values: array = field(default_factory=lambda: array("d"))  # of the channels, step by step
    targets: list[list[str]] = field(default_factory=list)  # of each step
    places: array = field(default_factory=lambda: array("q"))  # the line of each step
    times: array = field(default_factory=lambda: array("d"))  # of each step, if a column has them
    starts: list[int] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)  # of each series, as its split
    splits: list[str] = field(default_factory=list)

    def read(self, path: Path, columns: Columns, inputs: Sequence[str]) -> None:
        """Add the series of a file."""
        lines = lines_of(path)
        header = next(lines)[1]
        inside = {name for name in header if name}
        before = time = shown = None
        seen: dict[str, int] = {}  # the last line of each series
        for number, line in lines:
            row = dict(zip(header, line, strict=True))
            key = row[columns.id] if columns.id else ""
            split = row[columns.split] if columns.split in inside else ""
            if key != before:
                if key in seen:
                    raise ValueError(
                        f"{path} line {number}: {columns.id}={key} comes again after line "
                        f"{seen[key]}; sort the file by {columns.id}."
                    )
                self.starts.append(len(self.places))
                self.files.append(path)
                self.splits.append(split)
                before, time = key, None
            elif split != self.splits[-1]:
                raise ValueError(
                    f"{path} line {number}: {columns.split}={split} follows "
                    f"{self.splits[-1]} within a series; a series belongs to one split."
                )
            seen[key] = number
            if columns.time:
                now = time_of(row[columns.time], f"{path} line {number}, {columns.time}")
                if time is not None and not time < now:
                    raise ValueError(
                        f"{path} line {number}: {columns.time}={row[columns.time]} comes after "
                        f"{shown}; sort the file by {columns.time}, and give each step its own."
                    )
                time, shown = now, row[columns.time]
                self.times.append(now)
            words = [row[c] for c in inputs]
            self.values.extend(numbers_of(words, inputs, f"{path} line {number}", _NOT_A_CHANNEL))
            if columns.target:
                self.targets.append([row[c] for c in columns.target if c in row])
            self.places.append(number)

    def uneven(self, column: str) -> Iterator[str]:
        """A remark on steps of time that are far from the usual one: the model sees no times.

        Months of 28 to 31 days are near it; a line that is missing doubles a step.
        """
        steps = np.diff(np.frombuffer(self.times))
        steps[np.array(self.starts[1:], np.int64) - 1] = np.nan  # from a series to the next
        usual = np.nanmedian(steps) if np.isfinite(steps).any() else np.nan
        wrong = np.flatnonzero((steps < usual / 1.5) | (steps > usual * 1.5))
        if wrong.size:
            file = self.files[np.searchsorted(self.starts, wrong[0], side="right") - 1]
            yield (
                f"{column} is uneven: {wrong.size:,} of {np.isfinite(steps).sum():,} steps are not "
                f"within 2/3 and 3/2 of the usual {usual:g}, the first at {file.name} line "
                f"{self.places[wrong[0] + 1]}; a model takes all steps for equal, so fill gaps or "
                "tell series apart at them"
            )


def read_csv(files: list[Path], columns: Columns) -> Found:
    """Series of .csv files. A file labels.csv has the columns file, target and, if any, split.

    Targets are the same in all steps of a series, unless they are wanted of each step: then they
    are columns of the series.
    """
    given, files = files, [p for p in files if p.name != "labels.csv"]
    if not files:
        raise ValueError("there is no .csv with series besides labels.csv.")
    if columns.id and len(files) > 1:
        raise ValueError(
            f"data.arrays.id={columns.id} tells the series of one file apart; there are "
            f"{len(files)} files, each a series: leave it empty."
        )
    headers = {path: next(lines_of(path), (1, []))[1] for path in files}
    header, table = headers[files[0]], _Table()
    labels = _labels(given, columns)
    inputs = _inputs_of(files[0], header, columns, labels.targets + labels.split)
    for path in files:
        if headers[path] != header:
            raise ValueError(
                f"{path} has the columns {', '.join(headers[path])}; {files[0].name} has "
                f"{', '.join(header)}."
            )
        before = len(table.places)
        table.read(path, columns, inputs)
        if len(table.places) == before:  # the series after it would have other numbers
            raise ValueError(f"{path} has a header and no line of numbers.")
    starts = np.array(table.starts, np.int64)
    steps = np.frombuffer(table.values).reshape(-1, len(inputs))
    # labels.csv last: it is a part of the data, though no series
    files += [p for p in given if p not in files]
    places = {file: number for number, file in enumerate(files)}
    file_of = np.array([places[file] for file in table.files], np.int64)
    where = Lines(files, file_of, np.frombuffer(table.places, np.int64), starts)
    series = Series(
        steps, starts, np.diff([*table.starts, len(steps)]),
        None, False, tuple(inputs), columns.target, where,
    )  # fmt: skip
    splits, column = table.splits, f"{files[0]}: {columns.split}"
    if labels.split:
        splits = [word for (word,) in labels.words(table.files, labels.split)]
        column = f"{labels.path}: {labels.split[0]}"
    if labels.targets:
        words = labels.words(table.files, labels.targets)
        typed = typed_targets(words, lambda i: f"labels.csv, {table.files[i].name}")
        series = replace(series, targets=typed)
    elif columns.target:
        series = _with_targets(series, table, columns.per_step)
    rows = rows_of_splits(splits, column) if any(splits) else None
    remarks = tuple(table.uneven(columns.time)) if columns.time else ()
    return Found({"": series}, rows, tuple(files), remarks)


def _inputs_of(
    path: Path, header: list[str], columns: Columns, elsewhere: tuple[str, ...]
) -> tuple[str, ...]:
    """The columns of the channels; refuses names that the header has twice, or has not, unless they
    are elsewhere: in labels.csv."""
    others = (*columns.target, columns.id, columns.time, columns.split)
    if not header:
        raise ValueError(f"{path} is empty; its first line must name the columns.")
    if len(set(header)) < len(header):
        raise ValueError(f"{path} has two columns of one name: {', '.join(header)}.")
    if _is_of_numbers(header):
        raise ValueError(
            f"{path} has numbers in its first line ({', '.join(header[:4])}), which must name the "
            "columns: write a line of names before it."
        )
    if "" in header and not columns.inputs:
        raise ValueError(
            f"{path} has a column without a name, which may number the lines: name it, or choose "
            "the channels with --config.data.arrays.inputs=NAME,NAME."
        )
    for name in filter(None, (*columns.inputs, *others)):
        if name not in header and name not in elsewhere:
            raise ValueError(f"{path} has no column {name!r} but {', '.join(header)}.")
    if twice := [n for n in columns.inputs if columns.inputs.count(n) > 1 or n in columns.target]:
        raise ValueError(
            f"data.arrays.inputs={','.join(columns.inputs)}: {twice[0]} is there twice, or is the "
            "target; leave it out."
        )
    for role in ("id", "time", "split"):
        if (name := getattr(columns, role)) and name in columns.inputs:
            option = "split_column" if role == "split" else role
            raise ValueError(
                f"data.arrays.inputs={','.join(columns.inputs)}: {name} is "
                f"data.arrays.{option} too; leave one out."
            )
    if not (found := columns.inputs or tuple(c for c in header if c not in others)):
        raise ValueError(f"{path} has no column left for the inputs: {', '.join(header)}.")
    return found


def _is_of_numbers(header: list[str]) -> bool:
    """Whether a first line is one of values: numbers, but not 0, 1, 2, ... as pandas writes."""
    with suppress(ValueError):
        return [float(word) for word in header] != list(range(len(header)))
    return False


_NOT_A_CHANNEL = (
    "; give the column its role (--config.data.arrays.id, time, target or split_column), or choose "
    "the channels with --config.data.arrays.inputs=NAME,NAME"
)


@dataclass(frozen=True)
class _Labels:
    """What labels.csv says of the other files of its folder."""

    path: Path
    rows: dict[str, dict[str, str]] = field(default_factory=dict)  # by the name of the file
    targets: tuple[str, ...] = ()  # its columns with targets of series, where they are wanted
    split: tuple[str, ...] = ()  # its column with splits, if any

    def words(self, files: list[Path], names: tuple[str, ...]) -> list[list[str]]:
        """What some of its columns say of each of some files."""
        for lacking in [p.name for p in files if p.name not in self.rows][:1]:
            raise ValueError(f"{self.path} has no line for {lacking}.")
        return [[self.rows[p.name][name] for name in names] for p in files]


def _labels(files: list[Path], columns: Columns) -> _Labels:
    """The labels.csv among some files; one that says nothing, if there is none."""
    path = files[0].with_name("labels.csv")
    if path not in files:
        return _Labels(path)
    targets = () if columns.per_step or not columns.y else columns.target or ("target",)
    lines = lines_of(path)
    header = next(lines, (1, []))[1]
    if not {"file", *targets} <= set(header) or len(set(header)) < len(header):
        raise ValueError(
            f"{path} must have the columns {', '.join(('file', *targets))}, each once; it has "
            f"{', '.join(header) or 'none'}."
        )
    found: dict[str, dict[str, str]] = {}
    there = {p.name for p in files}
    for number, line in lines:
        row = dict(zip(header, line, strict=True))
        if (name := row["file"]) in found or name not in there:
            wrong = "comes twice" if name in found else "is not in the folder"
            raise ValueError(f"{path} line {number}: {name} {wrong}.")
        found[name] = row
    split = columns.split or "split"
    return _Labels(path, found, targets, (split,) if split in header else ())


def typed_targets(rows: Sequence[Sequence[str]], where: Callable[[int], str]) -> np.ndarray:
    """Targets as numbers (n,) or (n, K), whole ones as integers; one that is none as words (n,)."""
    names = [f"target {k}" for k in range(len(rows[0]))]
    try:
        values = np.array([numbers_of(row, names, where(i)) for i, row in enumerate(rows)])
    except ValueError:
        if len(names) > 1:
            raise
        return np.array([row[0] for row in rows])
    if all(re.fullmatch(r"\s*[-+]?\d{1,15}\s*", word) for row in rows for word in row):
        values = values.astype(np.int64)
    return values[:, 0] if values.shape[1] == 1 else values


def _with_targets(series: Series, table: _Table, per_step: bool) -> Series:
    """A series with the target columns of its steps, or with what is the same in all of them."""
    parts = [table.targets[series.of(i)] for i in range(len(series))]
    if not per_step:
        for i, rows in enumerate(parts):
            for step, row in enumerate(rows):
                if row != rows[0]:
                    raise ValueError(
                        f"{series.where(i, step)}: the target {', '.join(row)} follows "
                        f"{', '.join(rows[0])} within a series, and belongs to all of it; tell "
                        "series apart with --config.data.arrays.id=COLUMN, or train with "
                        "--config=arrays:per_step."
                    )
        firsts = [rows[0] for rows in parts]
        return replace(series, targets=typed_targets(firsts, lambda i: series.where(i, 0)))
    values = [
        numbers_of(row, series.target_names, series.where(number, step))
        for number, rows in enumerate(parts)
        for step, row in enumerate(rows)
    ]
    return replace(series, targets=np.array(values), per_step=True)
