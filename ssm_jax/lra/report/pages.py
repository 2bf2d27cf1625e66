"""What a report says: headings, texts, lists and tables of lines, in pieces of five kinds."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterator
from typing import Literal, NamedTuple

from ssm_jax.lra.published import ANCHORS, COLUMNS, Published
from ssm_jax.lra.report.results import Result
from ssm_jax.lra.report.table import OFFICIAL, Cell, Row, Table, half_width, outcome, percent


class Span(NamedTuple):
    """A piece of a line. Small and bad pieces are set off from what is before them."""

    text: str
    kind: Literal["text", "strong", "code", "small", "bad"] = "text"


Line = tuple[Span, ...]


class Lines(NamedTuple):
    kind: Literal["heading", "paragraph", "items", "numbered"]
    lines: list[Line]


class Grid(NamedTuple):
    """A table: a head, and groups of rows with a title each, "" for none.

    The first column names the row. In a table of numbers the columns between the first and the last
    are aligned.
    """

    head: tuple[str, ...]
    groups: list[tuple[str, list[tuple[Line, ...]]]]
    numeric: bool


def parts_of(table: Table, published: bool) -> Iterator[Lines | Grid]:
    """Everything in a table of results, in order; the published rows if they are wanted."""
    cells = [(r, task, cell) for r in table.rows for task, cell in r.cells.items()]
    yield _text(
        "Test accuracy in percent: the mean over n seeds ± half of its 95 % interval (Student t). "
        "Runs that diverged are not in the mean and are always shown. Avg is given where all six "
        "tasks are there."
    )
    if not table.rows:
        yield _text("No run has a result.")
    groups = [("These runs", [_our_row(row) for row in table.rows])] if table.rows else []
    if published:
        groups.append(("Published", [_published_row(row) for row in ANCHORS]))
    if groups:
        yield Grid(("Model", *COLUMNS.values(), "Avg", "Source"), groups, numeric=True)
    if any(row.marks for row in table.rows):
        yield _text(
            "* Not comparable with the published numbers: reduced, not as published, or not on the "
            "official data."
        )
    if table.footnotes:
        yield Lines("numbered", [(Span(note),) for note in table.footnotes])
    if published:
        yield _text(
            "Published: standard deviation over seeds in brackets where it is printed; x: fails to "
            "learn, which counts as 50 in the printed average; -: not printed, or not checked."
        )
    if table.others:
        yield _text("Other tasks", "heading")
        head = ("Task", "Run", "Test metric", "Mean", "Seeds")
        yield Grid(head, [("", [_other(runs) for runs in table.others])], numeric=False)
    if table.unfinished:
        yield _text("Unfinished runs, not counted", "heading")
        yield Lines("items", [_named(run, outcome(run)) for run in table.unfinished])
    if table.remarks:
        yield _text("Remarks", "heading")
        yield Lines("items", [(Span(remark),) for remark in table.remarks])
    if table.rows:
        yield _text("Seeds", "heading")
        yield Lines("items", [_seeds(row, COLUMNS[task], cell) for row, task, cell in cells])
        yield _text("Data", "heading")
        rows = [_data(row, COLUMNS[task], cell) for row, task, cell in cells]
        yield Grid(("Model", "Task", "Source", "sha256", "Detail"), [("", rows)], numeric=False)
        yield _text("Runs", "heading")
        yield Lines("items", [_run(run) for _, _, cell in cells for run in cell.runs])


def _text(words: str, kind: Literal["heading", "paragraph"] = "paragraph") -> Lines:
    return Lines(kind, [(Span(words),)])


def _words(*cells: str) -> tuple[Line, ...]:
    return tuple((Span(cell),) for cell in cells)


def _our_row(row: Row) -> tuple[Line, ...]:
    name = Span(row.label + ("*" if row.marks else ""), "strong")
    cells = [_cell(row.cells[key]) if key in row.cells else () for key in COLUMNS]
    average: Line = ()
    if row.average is not None:
        n = sum(len(cell.diverged) for cell in row.cells.values())
        bad = (Span(f"{n} diverged", "bad"),) if n else ()
        average = (Span(percent(row.average), "strong"), *bad)
    source = Span("here, official data" if row.source == OFFICIAL else "here")
    return ((name, *(Span(mark, "small") for mark in row.marks)), *cells, average, (source,))


def _cell(cell: Cell) -> Line:
    spans = [Span("-") if cell.mean is None else Span(percent(cell.mean), "strong")]
    n, k = len(cell.finished), len(cell.diverged)
    if cell.half_width is not None:
        spans.append(Span(f" ± {percent(cell.half_width)}"))
    if n:
        spans.append(Span(f"n = {n}", "small"))
    if cell.footnotes:
        word = "note" if len(cell.footnotes) == 1 else "notes"
        spans.append(Span(f"{word} {', '.join(map(str, cell.footnotes))}", "small"))
    if k:
        spans.append(Span(f"{k} of {n + k} diverged", "bad"))
    return tuple(spans)


def _published_row(row: Published) -> tuple[Line, ...]:
    def score(key: str) -> str:
        value = row.scores.get(key)
        if value is None:
            return "x" if key in row.scores else "-"
        return f"{value.mean}" if value.std is None else f"{value.mean} ({value.std})"

    return _words(row.model, *map(score, COLUMNS), str(row.average), row.source)


def _seeds(row: Row, task: str, cell: Cell) -> Line:
    runs = sorted(cell.runs, key=lambda run: run.seed)
    listed = "; ".join(f"seed {run.seed}: {outcome(run)}" for run in runs)
    return (Span(f"{row.name}, {task}", "strong"), Span(f": {listed}"))


def _data(row: Row, task: str, cell: Cell) -> tuple[Line, ...]:
    run = cell.runs[0]
    sha256 = (Span(run.sha256[:12], "code"),) if run.sha256 else ()
    return (*_words(row.name, task, run.source or "unknown"), sha256, *_words(run.detail))


def _other(runs: tuple[Result, ...]) -> tuple[Line, ...]:
    values = [run.value for run in runs if run.value is not None]
    spread = half_width(values)
    mean = f"{statistics.fmean(values):.4g}" + (f" ± {spread:.2g}" if spread else "")
    label = ", ".join((runs[0].name, *runs[0].options))
    seeds = ", ".join(str(run.seed) for run in runs)
    return _words(runs[0].other or "unknown", label, runs[0].metric, mean, seeds)


def _named(run: Result, rest: str) -> Line:
    return (Span(run.path, "code"), Span(f" {run.name}, seed {run.seed}: {rest}"))


def _run(run: Result) -> Line:
    """All that is needed to make a run again."""
    known = [outcome(run)]
    if run.majority_rate is not None:
        known.append(f"majority class {percent(run.majority_rate)} %")
    if run.steps is not None and run.status == "finished":
        known.append(f"{run.steps:,} steps")
    if run.parameters is not None:
        known.append(f"{run.parameters:,} parameters")
    known += [run.device] if run.device else []
    known += [f"config {run.config_digest}"] if run.config_digest else []
    known.append(f"commit {run.commit or 'unknown'}")
    command = (Span(". "), Span(shlex.join(run.command), "code")) if run.command else ()
    return (*_named(run, ", ".join(known)), *command)
