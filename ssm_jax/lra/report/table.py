"""From runs to cells: which runs share one, what is counted, and what is only remarked."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ssm_jax.lra.published import COLUMNS
from ssm_jax.lra.report.results import Result

OFFICIAL = "official"


@dataclass(frozen=True)
class Cell:
    """The runs of one arm on one task that are repetitions of each other, by seed.

    Those that diverged are no part of the mean; footnotes are numbers in Table.footnotes, from 1.
    """

    finished: tuple[Result, ...]
    diverged: tuple[Result, ...]
    footnotes: tuple[int, ...]

    @property
    def runs(self) -> tuple[Result, ...]:
        return (*self.finished, *self.diverged)

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies by seed, 0..1."""
        return [run.accuracy for run in self.finished if run.accuracy is not None]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.accuracies) if self.finished else None

    @property
    def half_width(self) -> float | None:
        return half_width(self.accuracies)


def half_width(values: list[float]) -> float | None:
    """Half of the 95 % interval of a mean, by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # here: it takes a tenth of a second

    return float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / len(values) ** 0.5


@dataclass(frozen=True)
class Row:
    """One arm on the tasks.

    Attributes:
      label: the arm, what the commands changed, and what tells two setups of one cell apart.
      source: of the data of all its cells.
      marks: why it cannot be compared with the published rows; none if it can.
      cells: by key of COLUMNS.
    """

    label: str
    source: str
    marks: tuple[str, ...]
    cells: Mapping[str, Cell]

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


@dataclass(frozen=True)
class Table:
    """All that a report says.

    Attributes:
      rows: comparable ones first.
      footnotes: what is reduced, where data that are not official come from, and seeds whose best
        checkpoint was lost.
      others: the seeds of each setup of a task that is not of the Arena.
      unfinished: runs without a result, never counted.
      repeated: runs of a seed that is counted already.
      remarks: one line each: files that cannot be read, repeated seeds, what else is left out.
    """

    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]
    others: tuple[tuple[Result, ...], ...]
    unfinished: tuple[Result, ...]
    repeated: tuple[Result, ...]
    remarks: tuple[str, ...]


def tabulate(results: Iterable[Result], faults: Iterable[str] = ()) -> Table:
    """Sort runs into cells.

    A cell holds repetitions: one task, arm, setup, data and notes, and different seeds. Runs that
    are reduced, that have notes, or whose data are not official are in rows of their own. A task
    with several setups has a row for each, and none of them enters an average.

    Args:
      results: of `collect`, in any order.
      faults: one line each.
    """
    remarks = list(faults)
    runs, unfinished, repeated = [], [], []
    others: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    first: dict[tuple[str, ...], Result] = {}
    for run in sorted(results, key=lambda run: run.path):
        key = (run.task, run.arm, str(run.reduced), run.setup, run.sha256, str(run.seed))
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
    by_seed = [tuple(sorted(same, key=lambda run: run.seed)) for _, same in sorted(others.items())]
    lists = (tuple(unfinished), tuple(repeated))
    return Table(rows, footnotes, tuple(by_seed), *lists, tuple(remarks))


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


def _rows(runs: list[Result], remarks: list[str]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows and the footnotes; tasks with several setups are added to the remarks."""
    # Of one setup written in two ways (alpha=3, alpha=3.0), one way names the row.
    options: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for run in runs:
        setup = (run.task, run.arm, run.setup)
        options[setup] = min(options.get(setup, run.options), run.options)
    arms: dict[tuple, dict[str, dict[tuple, list[Result]]]] = defaultdict(dict)
    for run in runs:
        mark = "reduced" if run.reduced else "not as published" if run.notes else ""
        changed = options[run.task, run.arm, run.setup]
        key = (bool(mark) or run.source != OFFICIAL, run.arm, changed, run.source, mark)
        setups = arms[key].setdefault(run.task, {})
        setups.setdefault((run.setup, run.sha256, run.notes), []).append(run)
    footnotes: dict[str, int] = {}
    rows: list[Row] = []
    for (_, arm, changed, source, mark), tasks in sorted(arms.items()):
        label = ", ".join((arm or "default", *changed))
        data = "" if source == OFFICIAL else f"{source or 'unknown'} data"
        marks = tuple(filter(None, (data, mark)))
        ordered = [(task, tasks[task]) for task in COLUMNS if task in tasks]
        single = {
            task: _cell(runs, footnotes)
            for task, setups in ordered
            for runs in setups.values()
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
            for i, (setup, runs) in enumerate(sorted(setups.items()), start=1):
                digests = f"setup {setup[0]}, data {setup[1][:8] or 'unknown'}"
                name = f"{label} [{i} of {n}: {digests}]"
                rows.append(Row(name, source, marks, {task: _cell(runs, footnotes)}))
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
    runs = sorted(runs, key=lambda run: run.seed)
    finished, diverged = (
        tuple(run for run in runs if run.status == status) for status in ("finished", "diverged")
    )
    return Cell(finished, diverged, numbers)
