"""What a report says, as headings, texts, lists and tables that every format can show."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ssm_jax.analysis.published import ANCHORS, COLUMNS, Published, Score
from ssm_jax.analysis.report.result import Result
from ssm_jax.analysis.report.table import OFFICIAL, Cell, Row, Table, outcome, percent

TITLE = "Long Range Arena"
AVERAGE, SOURCE = "Avg", "Source"


class Span(NamedTuple):
    """A piece of a line. Small and bad pieces stand a little apart from what is before them."""

    text: str
    kind: Literal["text", "strong", "code", "small", "bad"] = "text"


Line = tuple[Span, ...]


class Heading(NamedTuple):
    text: str


class Text(NamedTuple):
    line: Line


class Items(NamedTuple):
    lines: tuple[Line, ...]
    numbered: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: a head, and groups of rows with a title each, "" for none.

    The first column names the row. `numeric` tells a table of numbers, whose columns between the
    first and the last are aligned.
    """

    head: tuple[str, ...]
    groups: tuple[tuple[str, tuple[tuple[Line, ...], ...]], ...]
    numeric: bool


Block = Heading | Text | Items | Grid


def blocks_of(table: Table, *, published: bool) -> Iterator[Block]:
    """Everything in a table of results, in order.

    Args:
      table: of `tabulate`.
      published: whether the published rows stand below ours.
    """
    yield Text(
        text(
            "Test accuracy in percent: the mean over n seeds ± half of its 95 % interval (Student "
            "t). Runs that diverged are not in the mean and are always shown. Avg is given where "
            "all six tasks are there."
        )
    )
    if not table.rows:
        yield Text(text("No run has a result."))
    groups = [("These runs", tuple(_our_row(row) for row in table.rows))] if table.rows else []
    if published:
        groups.append(("Published", tuple(_published_row(row) for row in ANCHORS)))
    if groups:
        head = ("Model", *COLUMNS.values(), AVERAGE, SOURCE)
        yield Grid(head, tuple(groups), numeric=True)
    if any(row.marks for row in table.rows):
        yield Text(
            text(
                "* Not comparable with the published numbers: reduced, not as published, or not on "
                "the official data."
            )
        )
    if table.footnotes:
        yield Items(tuple(text(note) for note in table.footnotes), numbered=True)
    if published:
        yield Text(
            text(
                "Published: standard deviation over seeds in brackets where it is printed; x: "
                "fails to learn, which counts as 50 in the printed average; -: not printed, or not "
                "checked."
            )
        )
    if table.unfinished:
        yield Heading("Unfinished runs, not counted")
        yield Items(tuple(_named(run, outcome(run)) for run in table.unfinished))
    if table.remarks:
        yield Heading("Remarks")
        yield Items(tuple(text(line) for line in table.remarks))
    if table.rows:
        yield Heading("Seeds")
        yield Items(tuple(_seeds(*place) for place in _cells(table)))
        yield Heading("Data")
        yield Grid(
            ("Model", "Task", "Source", "sha256", "Detail"),
            (("", tuple(_data(*place) for place in _cells(table))),),
            numeric=False,
        )
        yield Heading("Runs")
        yield Items(
            tuple(
                _run(run)
                for _, _, cell in _cells(table)
                for run in (*cell.finished, *cell.diverged)
            )
        )


def text(words: str) -> Line:
    return (Span(words),)


def score(value: Score | None) -> str:
    """A published accuracy, as printed."""
    if value is None:
        return "x"
    return f"{value.mean}" if value.std is None else f"{value.mean} ({value.std})"


def _our_row(row: Row) -> tuple[Line, ...]:
    star = "*" if row.marks else ""
    name = (Span(row.label + star, "strong"), *(Span(mark, "small") for mark in row.marks))
    cells = [_cell(row.cells[key]) if key in row.cells else () for key in COLUMNS]
    average: Line = ()
    if row.average is not None:
        bad = (Span(f"{row.n_diverged} diverged", "bad"),) if row.n_diverged else ()
        average = (Span(percent(row.average), "strong"), *bad)
    source = "here, official data" if row.source == OFFICIAL else "here"
    return (name, *cells, average, text(source))


def _cell(cell: Cell) -> Line:
    spans: list[Span] = []
    n, k = len(cell.finished), len(cell.diverged)
    if cell.mean is not None:
        spans.append(Span(percent(cell.mean), "strong"))
        if cell.half_width is not None:
            spans.append(Span(f" ± {percent(cell.half_width)}"))
    else:
        spans.append(Span("-"))
    if n:
        spans.append(Span(f"n = {n}", "small"))
    if cell.footnotes:
        word = "note" if len(cell.footnotes) == 1 else "notes"
        spans.append(Span(f"{word} {', '.join(map(str, cell.footnotes))}", "small"))
    if k:
        spans.append(Span(f"{k} of {n + k} diverged", "bad"))
    return tuple(spans)


def _published_row(row: Published) -> tuple[Line, ...]:
    cells = [text(score(row.scores[key])) if key in row.scores else text("-") for key in COLUMNS]
    return (text(row.model), *cells, text(str(row.average)), text(row.source))


def _cells(table: Table) -> Iterator[tuple[Row, str, Cell]]:
    for row in table.rows:
        for task, cell in row.cells.items():
            yield row, COLUMNS[task], cell


def _seeds(row: Row, task: str, cell: Cell) -> Line:
    runs = sorted((*cell.finished, *cell.diverged), key=lambda run: run.seed)
    listed = "; ".join(f"seed {run.seed}: {outcome(run)}" for run in runs)
    return (Span(f"{row.name}, {task}", "strong"), Span(f": {listed}"))


def _data(row: Row, task: str, cell: Cell) -> tuple[Line, ...]:
    run = (*cell.finished, *cell.diverged)[0]
    sha256 = (Span(run.sha256[:12], "code"),) if run.sha256 else ()
    source = run.source or "unknown"
    return (text(row.name), text(task), text(source), sha256, text(run.detail))


def _named(run: Result, rest: str) -> Line:
    return (Span(run.path, "code"), Span(f" {run.name}, seed {run.seed}: {rest}"))


def _run(run: Result) -> Line:
    """All that is needed to make a run again."""
    told = [outcome(run)]
    if run.majority_rate is not None:
        told.append(f"majority class {percent(run.majority_rate)} %")
    if run.steps is not None and run.status == "finished":
        told.append(f"{run.steps:,} steps")
    if run.parameters is not None:
        told.append(f"{run.parameters:,} parameters")
    if run.device:
        told.append(run.device)
    if run.config_digest:
        told.append(f"config {run.config_digest}")
    told.append(f"commit {run.commit or 'unknown'}")
    command = (Span(shlex.join(run.command), "code"),) if run.command else ()
    return (*_named(run, ", ".join(told)), *([Span(". ")] if command else []), *command)
