"""From runs to cells: which runs share one, what is counted, and what a report says of them."""

import itertools
import shlex
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from ssm_jax.lra.published import ANCHORS, COLUMNS, Published
from ssm_jax.lra.report.results import Result

OFFICIAL = "official"
INTRO = (
    "Test accuracy in percent: the mean over n seeds ± half of its 95 % interval (Student t). "
    "Runs that diverged are not in the mean and are always shown. Avg is given where all six "
    "tasks are there."
)
NOT_COMPARABLE = (
    "* Not comparable with the published numbers: reduced, not as published, or not on the "
    "official data."
)
LEGEND = (
    "Published: standard deviation over seeds in brackets where it is printed; x: fails to "
    "learn, which counts as 50 in the printed average; -: not printed, or not checked."
)


class Cell(NamedTuple):
    """The runs of one variant on one task that are repetitions of each other, by seed."""

    finished: tuple[Result, ...]
    diverged: tuple[Result, ...]  # no part of the mean
    footnotes: tuple[int, ...]  # numbers in Table.footnotes, from 1
    mean: float | None  # test accuracy, 0..1
    half_width: float | None  # of its 95 % interval

    @property
    def runs(self) -> tuple[Result, ...]:
        return (*self.finished, *self.diverged)


def half_width(values: list[float]) -> float | None:
    """Half of the 95 % interval of a mean, by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # here: it takes a tenth of a second

    return float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / len(values) ** 0.5


class Row(NamedTuple):
    """One variant on the tasks."""

    label: str  # the variant, what the commands changed, what tells two setups of one cell apart
    source: str  # of the data of all its cells
    marks: tuple[str, ...]  # why it cannot be compared with the published rows; () if it can
    cells: Mapping[str, Cell]  # by key of COLUMNS

    @property
    def name(self) -> str:
        """The label and the marks: no other row has the same."""
        return self.label + (f" ({', '.join(self.marks)})" if self.marks else "")

    @property
    def average(self) -> float | None:
        """Mean of the six tasks, if all are there."""
        means = [cell.mean for cell in self.cells.values() if cell.mean is not None]
        return statistics.fmean(means) if len(means) == len(COLUMNS) else None

    @property
    def n_diverged(self) -> int:
        return sum(len(cell.diverged) for cell in self.cells.values())


class Table(NamedTuple):
    """All that a report says."""

    rows: tuple[Row, ...]  # comparable ones first
    footnotes: tuple[str, ...]  # what is reduced, data that are not official, lost checkpoints
    others: tuple[tuple[Result, ...], ...]  # the seeds of each setup of a task not of the Arena
    unfinished: tuple[Result, ...]  # runs without a result, never counted
    repeated: tuple[Result, ...]  # runs of a seed that is counted already
    remarks: tuple[str, ...]  # files that cannot be read, repeated seeds, what else is left out


def tabulate(results: Iterable[Result], faults: Iterable[str] = ()) -> Table:
    """Sort runs of `collect`, in any order, into cells; a fault is a remark.

    A cell holds repetitions: one task, variant, setup, data and notes, and different seeds. Runs
    that are reduced, that have notes, or whose data are not official are in rows of their own. A
    task with several setups has a row for each, and none of them enters an average.
    """
    remarks = list(faults)
    runs, unfinished, repeated = [], [], []
    others: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    first: dict[tuple[str, ...], Result] = {}
    for run in sorted(results, key=lambda run: run.path):
        key = (run.task, run.variant, str(run.reduced), run.setup, run.sha256, str(run.seed))
        if not run.task and run.status != "finished":
            remarks.append(f"{run.path}: {run.name} is no task of the Long Range Arena; left out.")
        elif run.status == "unfinished":
            unfinished.append(run)
        elif (kept := first.setdefault(key, run)) is not run:
            repeated.append(run)
            remarks.append(
                f"{run.path} ({outcome(run)}) repeats {kept.path} ({outcome(kept)}): both are "
                f"{run.name} with seed {run.seed}; counted once, {kept.path} is kept."
            )
        elif run.task:
            runs.append(run)
        else:
            others[run.other, run.name, run.setup, run.sha256, run.metric].append(run)
            remarks.append(f"{run.path}: {run.name} is no task of the Long Range Arena.")
    rows, footnotes = _rows(runs, remarks)
    by_seed = tuple(tuple(_by_seed(same)) for _, same in sorted(others.items()))
    return Table(rows, footnotes, by_seed, tuple(unfinished), tuple(repeated), tuple(remarks))


def _by_seed(runs: Iterable[Result]) -> list[Result]:
    return sorted(runs, key=lambda run: run.seed)


def _rows(runs: list[Result], remarks: list[str]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows and the footnotes; tasks with several setups are added to the remarks."""
    # Of one setup written in two ways (alpha=3, alpha=3.0), one way names the row.
    options: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for run in runs:
        setup = (run.task, run.variant, run.setup)
        options[setup] = min(options.get(setup, run.options), run.options)
    variants: dict[tuple, dict[str, dict[tuple, list[Result]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for run in runs:
        mark = "reduced" if run.reduced else "not as published" if run.notes else ""
        changed = options[run.task, run.variant, run.setup]
        key = (bool(mark) or run.source != OFFICIAL, run.variant, changed, run.source, mark)
        variants[key][run.task].setdefault((run.setup, run.sha256, run.notes), []).append(run)
    footnotes: dict[str, int] = {}
    rows: list[Row] = []
    for (_, variant, changed, source, mark), tasks in sorted(variants.items()):
        label = ", ".join((variant or "default", *changed))
        data = "" if source == OFFICIAL else f"{source or 'unknown'} data"
        marks = tuple(filter(None, (data, mark)))
        ordered = [(task, tasks[task]) for task in COLUMNS if task in tasks]
        single = {
            task: _cell([*itertools.chain(*setups.values())], footnotes)
            for task, setups in ordered
            if len(setups) == 1
        }
        if single:
            rows.append(Row(label, source, marks, single))
        for task, setups in ordered:
            n = len(setups)
            if n == 1:
                continue
            parts = zip(("options", "data", "notes"), zip(*setups, strict=True), strict=True)
            differ = " and ".join(name for name, values in parts if len(set(values)) > 1)
            remarks.append(
                f"{label} on {COLUMNS[task]} has {n} setups ({differ} differ); each has a row of "
                "its own, and no average is taken over them."
            )
            for i, (setup, same) in enumerate(sorted(setups.items()), start=1):
                digests = f"setup {setup[0]}, data {setup[1][:8] or 'unknown'}"
                name = f"{label} [{i} of {n}: {digests}]"
                rows.append(Row(name, source, marks, {task: _cell(same, footnotes)}))
    return tuple(rows), tuple(footnotes)


def _cell(runs: list[Result], footnotes: dict[str, int]) -> Cell:
    """A cell, with its footnotes added to those there are."""
    run = runs[0]
    notes = [run.notes] if run.notes else []
    if run.reduced and not run.notes:
        notes.append("Reduced, as the name of the run says.")
    if run.source != OFFICIAL:
        notes.append(f"Data: {(run.detail or run.source or 'of unknown source').rstrip('.')}.")
    notes += [f"Seed {run.seed}: {run.lost}" for run in runs if run.lost]
    numbers = tuple(footnotes.setdefault(note, len(footnotes) + 1) for note in notes)
    finished, diverged = (
        tuple(run for run in _by_seed(runs) if run.status == s) for s in ("finished", "diverged")
    )
    values = [run.accuracy for run in finished if run.accuracy is not None]
    mean = statistics.fmean(values) if values else None
    return Cell(finished, diverged, numbers, mean, half_width(values))


def percent(value: float) -> str:
    """0.6275 as `62.75`."""
    return f"{100 * value:.2f}"


def outcome(run: Result) -> str:
    """What came out of a run, in words."""
    if run.accuracy is not None:
        return f"{percent(run.accuracy)} %"
    if run.value is not None:
        return f"{run.metric} {run.value:.4g}"
    if run.status == "diverged":
        return "diverged" if run.steps is None else f"diverged at step {run.steps:,}"
    best = "no evaluation" if run.validation is None else f"{percent(run.validation)} %"
    return f"at step {run.steps or 0:,}, best validation accuracy so far: {best}"


class Span(NamedTuple):
    """A piece of a line. Small and bad pieces are set off from what is before them."""

    text: str
    kind: Literal["strong", "code", "small", "bad"]


Line = str | tuple[str | Span, ...]


class Grid(NamedTuple):
    """A table, whose first column names the row."""

    head: tuple[str, ...]
    groups: Sequence[
        tuple[str, Sequence[tuple[Line, ...]]]
    ]  # of rows, with a title each, "" for none
    numeric: bool  # the columns between the first and the last are numbers


def parts_of(table: Table, published: bool) -> Iterator[Grid | tuple[str, Sequence[Line]]]:
    """All that a report says, in order: tables, and lines that are a heading, a paragraph, items or
    numbered; the published rows if they are wanted."""
    cells = [(row.name, COLUMNS[t], cell) for row in table.rows for t, cell in row.cells.items()]
    yield "paragraph", [INTRO]
    if not table.rows:
        yield "paragraph", ["No run has a result."]
    groups = [("These runs", [_our_row(row) for row in table.rows])] if table.rows else []
    if published:
        groups.append(("Published", [_published_row(row) for row in ANCHORS]))
    if groups:
        yield Grid(("Model", *COLUMNS.values(), "Avg", "Source"), groups, numeric=True)
    if any(row.marks for row in table.rows):
        yield "paragraph", [NOT_COMPARABLE]
    if table.footnotes:
        yield "numbered", [*table.footnotes]
    if published:
        yield "paragraph", [LEGEND]
    if table.others:
        yield "heading", ["Other tasks"]
        head = ("Task", "Run", "Test metric", "Mean", "Seeds")
        yield Grid(head, [("", [_other_row(runs) for runs in table.others])], numeric=False)
    if table.unfinished:
        yield "heading", ["Unfinished runs, not counted"]
        yield "items", [_named(run, outcome(run)) for run in table.unfinished]
    if table.remarks:
        yield "heading", ["Remarks"]
        yield "items", [*table.remarks]
    if table.rows:
        yield "heading", ["Seeds"]
        lines: list[Line] = []
        rows: list[tuple[Line, ...]] = []
        for name, task, cell in cells:
            seeds = "; ".join(f"seed {run.seed}: {outcome(run)}" for run in _by_seed(cell.runs))
            lines.append((Span(f"{name}, {task}", "strong"), f": {seeds}"))
            run = cell.runs[0]
            sha256 = (Span(run.sha256[:12], "code"),) * bool(run.sha256)
            rows.append((name, task, run.source or "unknown", sha256, run.detail))
        yield "items", lines
        yield "heading", ["Data"]
        yield Grid(("Model", "Task", "Source", "sha256", "Detail"), [("", rows)], numeric=False)
        yield "heading", ["Runs"]
        yield "items", [_run(run) for _, _, cell in cells for run in cell.runs]


def _our_row(row: Row) -> tuple[Line, ...]:
    name = Span(row.label + "*" * bool(row.marks), "strong")
    average: Line = ""
    if row.average is not None:
        bad = (Span(f"{row.n_diverged} diverged", "bad"),) if row.n_diverged else ()
        average = (Span(percent(row.average), "strong"), *bad)
    names = (name, *(Span(mark, "small") for mark in row.marks))
    cells = (_shown(row.cells[key]) if key in row.cells else "" for key in COLUMNS)
    return (names, *cells, average, "here, official data" if row.source == OFFICIAL else "here")


def _shown(cell: Cell) -> Line:
    n, k, notes = len(cell.finished), len(cell.diverged), ", ".join(map(str, cell.footnotes))
    spans = (
        "-" if cell.mean is None else Span(percent(cell.mean), "strong"),
        cell.half_width is not None and f" ± {percent(cell.half_width)}",
        n and Span(f"n = {n}", "small"),
        notes and Span(f"note{'s' * (len(cell.footnotes) > 1)} {notes}", "small"),
        k and Span(f"{k} of {n + k} diverged", "bad"),
    )
    return tuple(span for span in spans if span)


def _published_row(row: Published) -> tuple[Line, ...]:
    scores = ["x" if key in row.scores else "-" for key in COLUMNS]
    for i, value in enumerate(map(row.scores.get, COLUMNS)):
        if value is not None:
            scores[i] = f"{value.mean}" + (f" ({value.std})" if value.std is not None else "")
    return (row.model, *scores, str(row.average), row.source)


def _other_row(runs: tuple[Result, ...]) -> tuple[Line, ...]:
    run, values = runs[0], [run.value for run in runs if run.value is not None]
    spread = half_width(values)
    mean = f"{statistics.fmean(values):.4g}" + (f" ± {spread:.2g}" if spread else "")
    seeds = ", ".join(str(run.seed) for run in runs)
    label = ", ".join((run.name, *run.options))
    return (run.other or "unknown", label, run.metric, mean, seeds)


def _named(run: Result, rest: str) -> tuple[str | Span, ...]:
    return (Span(run.path, "code"), f" {run.name}, seed {run.seed}: {rest}")


def _run(run: Result) -> Line:
    """All that is needed to make a run again."""
    known = (
        outcome(run),
        "" if run.majority_rate is None else f"majority class {percent(run.majority_rate)} %",
        "" if run.steps is None or run.status != "finished" else f"{run.steps:,} steps",
        "" if run.parameters is None else f"{run.parameters:,} parameters",
        run.device,
        run.config_digest and f"config {run.config_digest}",
        f"commit {run.commit or 'unknown'}",
    )
    command = (". ", Span(shlex.join(run.command), "code")) if run.command else ()
    return (*_named(run, ", ".join(filter(None, known))), *command)
