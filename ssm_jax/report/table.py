"""From runs to cells: which runs share one, what is counted, and what a report says of them."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple

from ssm_jax.lra.published import COLUMNS
from ssm_jax.report.results import Result
from ssm_jax.spread import half_width

OFFICIAL = "official"


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
    runs, others, unfinished, repeated = [], [], [], []
    first: dict[tuple, Result] = {}
    for run in sorted(results, key=lambda run: run.path):
        key = (run.task, run.variant, run.reduced, run.setup, run.data, run.seed)
        if run.status == "unfinished":
            unfinished.append(run)
        elif not run.task and run.status == "diverged":
            remarks.append(f"{run.path}: {run.name}, seed {run.seed}, {outcome(run)}; left out.")
        elif (kept := first.setdefault(key, run)) is not run:
            repeated.append(run)
            remarks.append(
                f"{run.path} ({outcome(run)}) repeats {kept.path} ({outcome(kept)}): both are "
                f"{run.name} with seed {run.seed}; counted once, {kept.path} is kept."
            )
        elif run.task:
            runs.append(run)
        else:
            others.append(run)
    rows, footnotes = _rows(runs, remarks)
    setups = _grouped(others, lambda run: (run.other, run.name, run.setup, run.data, run.metric))
    labels = [", ".join((same[0].name, *same[0].options)) for _, same in setups]
    for label in dict.fromkeys(label for label in labels if labels.count(label) > 1):
        keys = [key for (key, _), own in zip(setups, labels, strict=True) if own == label]
        parts = zip(("task", "name", "options", "data", "metric"), *keys, strict=True)
        differ = " and ".join(name for name, *values in parts if len(set(values)) > 1)
        n = len(keys)
        remarks.append(f"{label} has {n} setups ({differ} differ); each has rows of its own.")
    by_seed = tuple(tuple(sorted(same, key=attrgetter("seed"))) for _, same in setups)
    return Table(rows, footnotes, by_seed, tuple(unfinished), tuple(repeated), tuple(remarks))


def _grouped(
    runs: Iterable[Result], key: Callable[[Result], tuple]
) -> list[tuple[tuple, list[Result]]]:
    """The runs that have the same key, by that key."""
    groups: dict[tuple, list[Result]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return sorted(groups.items())


def _rows(runs: list[Result], remarks: list[str]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows and the footnotes; tasks with several setups are added to the remarks."""
    # Of one setup written in two ways (alpha=3, alpha=3.0), one way names the row.
    setups = _grouped(runs, lambda run: (run.task, run.variant, run.setup))
    options = {setup: min(run.options for run in same) for setup, same in setups}

    def row_of(run: Result) -> tuple:
        mark = "reduced" if run.reduced else "not as published" if run.notes else ""
        changed = options[run.task, run.variant, run.setup]
        return bool(mark) or run.source != OFFICIAL, run.variant, changed, run.source, mark

    footnotes: dict[str, int] = {}
    rows: list[Row] = []
    for (_, variant, changed, source, mark), same in _grouped(runs, row_of):
        label = ", ".join((variant or "default", *changed))
        data = "" if source == OFFICIAL else f"{source or 'unknown'} data"
        marks = tuple(filter(None, (data, mark)))
        single, several = {}, {}
        for task in COLUMNS:
            of_task = (run for run in same if run.task == task)
            groups = _grouped(of_task, lambda run: (run.setup, run.data, run.notes))
            if len(groups) == 1:
                single[task] = _cell(groups[0][1], footnotes)
            elif groups:
                several[task] = groups
        if single:
            rows.append(Row(label, source, marks, single))
        for task, groups in several.items():
            n = len(groups)
            parts = zip(("options", "data", "notes"), *(setup for setup, _ in groups), strict=True)
            differ = " and ".join(name for name, *values in parts if len(set(values)) > 1)
            remarks.append(
                f"{label} on {COLUMNS[task]} has {n} setups ({differ} differ); each has a row of "
                "its own, and no average is taken over them."
            )
            for i, ((setup, named, _), repetitions) in enumerate(groups, start=1):
                name = f"{label} [{i} of {n}: setup {setup}, data {named[:8] or 'unknown'}]"
                rows.append(Row(name, source, marks, {task: _cell(repetitions, footnotes)}))
    return tuple(rows), tuple(footnotes)


def _cell(runs: list[Result], footnotes: dict[str, int]) -> Cell:
    """A cell, with its footnotes added to those there are."""
    run = runs[0]
    notes = [run.notes] if run.notes else []
    if run.reduced and not run.notes:
        notes.append("Reduced, as the name of the run says.")
    if run.source != OFFICIAL:
        details = dict.fromkeys(each.detail for each in runs if each.detail)
        known = "; ".join(details) or run.source or "of unknown source"
        notes.append(f"Data: {known.rstrip('.')}.")
    notes += [f"Seed {run.seed}: {run.lost}" for run in runs if run.lost]
    numbers = tuple(footnotes.setdefault(note, len(footnotes) + 1) for note in notes)
    by_seed = sorted(runs, key=attrgetter("seed"))
    finished = tuple(run for run in by_seed if run.status == "finished")
    diverged = tuple(run for run in by_seed if run.status == "diverged")
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
    if not run.task:
        return f"at step {run.steps or 0:,}"
    best = "no evaluation" if run.validation is None else f"{percent(run.validation)} %"
    return f"at step {run.steps or 0:,}, best validation accuracy so far: {best}"
