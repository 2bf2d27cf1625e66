"""What a report says, in order, as the elements of its HTML page."""

import shlex
import statistics
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from xml.etree.ElementTree import Element

from ssm_jax.lra.published import ANCHORS, COLUMNS, Published
from ssm_jax.pages import Content, element, grid, listed
from ssm_jax.report import benchmark
from ssm_jax.report.results import Result
from ssm_jax.report.table import OFFICIAL, Cell, Row, Table, outcome, percent
from ssm_jax.spread import half_width

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
OTHERS = ("Task", "Run", "Metric", "Validation", "Test", "Seeds")
OTHERS_SAY = (
    "At the checkpoint that was chosen: the mean over the seeds ± half of its 95 % interval "
    "(Student t), and the least .. the most."
)


def has_arena(table: Table) -> bool:
    """Whether a report is of the Long Range Arena: it has runs of it, or none of other tasks."""
    unfinished = any(run.task for run in table.unfinished)
    return bool(table.rows or unfinished or not _other_tasks(table))


def title_of(table: Table) -> str:
    """The title of a report: the Arena, or the other tasks that are in it."""
    tasks = ", ".join(_other_tasks(table))
    return "Long Range Arena" if has_arena(table) else f"Results: {tasks}"


def _other_tasks(table: Table) -> list[str]:
    """The tasks of runs that are not of the Arena, each once."""
    runs = [*(runs[0] for runs in table.others), *table.unfinished]
    return list(dict.fromkeys(run.other or "unknown" for run in runs if not run.task))


def elements(table: Table, published: bool) -> Iterator[Element]:
    """The report below its title: h2, p, ul, ol, and a div around each table; with the published
    rows if they are wanted."""
    arena, beside = has_arena(table), published
    published = published and arena
    if arena:
        yield element("p", INTRO)
    groups: dict[str, Iterable[Sequence[Content]]] = {}
    if table.rows:
        groups["These runs"] = map(_our_row, table.rows)
    elif arena:
        yield element("p", "No run has a result.")
    if published:
        groups["Published"] = map(_published_row, ANCHORS)
    if groups:
        yield grid("numbers", ("Model", *COLUMNS.values(), "Avg", "Source"), groups)
    if any(row.marks for row in table.rows):
        yield element("p", NOT_COMPARABLE)
    if table.footnotes:
        yield listed("ol", table.footnotes)
    if published:
        yield element("p", LEGEND)
    if table.others:
        if arena:
            yield element("h2", "Other tasks")
        yield element("p", OTHERS_SAY)
        rows = [row for runs in table.others for row in _other_rows(runs)]
        yield grid("words", OTHERS, {"": rows})
        yield from benchmark.elements(table.others, beside=beside)
    if table.unfinished:
        yield element("h2", "Unfinished runs, not counted")
        yield listed("ul", (_named(run, outcome(run)) for run in table.unfinished))
    if table.remarks:
        yield element("h2", "Remarks")
        yield listed("ul", table.remarks)
    if table.rows:
        cells = [(r.name, COLUMNS[k], cell) for r in table.rows for k, cell in r.cells.items()]
        yield element("h2", "Seeds")
        yield listed("ul", (_seeds(*cell) for cell in cells))
        yield element("h2", "Data")
        head = ("Model", "Task", "Source", "sha256", "Detail")
        yield grid("words", head, {"": (_data_row(*cell) for cell in cells)})
        yield element("h2", "Runs")
        yield listed("ul", (_described(run) for _, _, cell in cells for run in cell.runs))


def _our_row(row: Row) -> list[Content]:
    name = element("strong", row.label + ("*" if row.marks else ""))
    average: list[Element] = []
    if row.average is not None:
        average.append(element("strong", percent(row.average)))
        if row.n_diverged:
            average.append(element("small", f"{row.n_diverged} diverged", class_="bad"))
    cells = (_cell(row.cells[task]) if task in row.cells else "" for task in COLUMNS)
    source = "here, official data" if row.source == OFFICIAL else "here"
    return [[name, *(element("small", mark) for mark in row.marks)], *cells, average, source]


def _cell(cell: Cell) -> list[Content]:
    n_finished, n_diverged = len(cell.finished), len(cell.diverged)
    shown: list[Content] = []
    shown.append("-" if cell.mean is None else element("strong", percent(cell.mean)))
    if cell.half_width is not None:
        shown.append(f" ± {percent(cell.half_width)}")
    if n_finished:
        shown.append(element("small", f"n = {n_finished}"))
    if cell.footnotes:
        word = "note" if len(cell.footnotes) == 1 else "notes"
        shown.append(element("small", f"{word} {', '.join(map(str, cell.footnotes))}"))
    if n_diverged:
        text = f"{n_diverged} of {n_finished + n_diverged} diverged"
        shown.append(element("small", text, class_="bad"))
    return shown


def _published_row(row: Published) -> list[str]:
    scores = []
    for task in COLUMNS:
        score = row.scores.get(task)
        if score is None:
            scores.append("x" if task in row.scores else "-")
        else:
            scores.append(f"{score.mean}" + (f" ({score.std})" if score.std is not None else ""))
    return [row.model, *scores, str(row.average), row.source]


def _other_rows(runs: Sequence[Result]) -> list[list[str]]:
    """A row for each metric that runs of no LRA task are shown by."""
    run, seeds = runs[0], ", ".join(str(run.seed) for run in runs)
    about = [run.other or "unknown", ", ".join((run.name, *run.options))]
    return [
        [*about, name, *(_over([run.scores[name][i] for run in runs]) for i in (0, 1)), seeds]
        for name in run.scores
        if all(name in other.scores for other in runs)
    ]


def _over(values: Sequence[float | None]) -> str:
    """`0.812 ± 0.02 (0.8 .. 0.82)`: the mean, half of its 95 % interval, the least and the most."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    width = half_width(known)
    behind = "" if width is None else f" ± {width:.2g} ({min(known):.4g} .. {max(known):.4g})"
    return f"{statistics.fmean(known):.4g}{behind}"


def _seeds(name: str, task: str, cell: Cell) -> list[Content]:
    by_seed = sorted(cell.runs, key=attrgetter("seed"))
    outcomes = "; ".join(f"seed {run.seed}: {outcome(run)}" for run in by_seed)
    return [element("strong", f"{name}, {task}"), f": {outcomes}"]


def _data_row(name: str, task: str, cell: Cell) -> list[Content]:
    hashes = ", ".join(dict.fromkeys(run.sha256[:12] for run in cell.runs if run.sha256))
    details = "; ".join(dict.fromkeys(run.detail for run in cell.runs))
    source = cell.runs[0].source or "unknown"
    return [name, task, source, element("code", hashes) if hashes else "", details]


def _named(run: Result, rest: str) -> list[Content]:
    return [element("code", run.path), f" {run.name}, seed {run.seed}: {rest}"]


def _described(run: Result) -> list[Content]:
    """All that is needed to make a run again."""
    known = [outcome(run)]
    if run.majority_rate is not None:
        known.append(f"majority class {percent(run.majority_rate)} %")
    if run.steps is not None and run.status == "finished":
        known.append(f"{run.steps:,} steps")
    if run.parameters is not None:
        known.append(f"{run.parameters:,} parameters")
    if run.device:
        known.append(run.device)
    if run.config_digest:
        known.append(f"config {run.config_digest}")
    known.append(f"commit {run.commit or 'unknown'}")
    described = _named(run, ", ".join(known))
    if run.command:
        described += [". ", element("code", shlex.join(run.command))]
    return described
