"""From runs to cells: which runs share one, what is counted, and what is only said."""

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
    """The runs of one arm on one task that are repetitions of each other.

    Attributes:
      finished, diverged: by seed; those that diverged are no part of the mean.
      footnotes: numbers of Table.footnotes, from 1.
    """

    finished: tuple[Result, ...]
    diverged: tuple[Result, ...]
    footnotes: tuple[int, ...]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies by seed, 0..1."""
        return [run.accuracy for run in self.finished if run.accuracy is not None]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.accuracies) if self.finished else None

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval of the mean over seeds; None for fewer than two."""
        if len(self.finished) < 2:
            return None
        from scipy.special import stdtrit  # here: it takes a tenth of a second

        n = len(self.accuracies)
        return float(stdtrit(n - 1, 0.975)) * statistics.stdev(self.accuracies) / n**0.5


@dataclass(frozen=True)
class Row:
    """One arm on the tasks.

    Attributes:
      label: the arm, what the commands changed, and what tells apart two setups of one cell.
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
      unfinished: runs without a result, never counted.
      repeated: runs of a seed that is counted already.
      remarks: one line each: files that cannot be read, repeated seeds, what else is left out.
    """

    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]
    unfinished: tuple[Result, ...]
    repeated: tuple[Result, ...]
    remarks: tuple[str, ...]


_RowKey = tuple[bool, str, tuple[str, ...], str, str]
_Setup = tuple[str, str, str]


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
    first: dict[tuple[str, ...], Result] = {}
    for run in sorted(results, key=lambda run: run.path):
        if not run.task:
            remarks.append(f"{run.path}: {run.name} is no task of the Long Range Arena; left out.")
        elif run.status == "unfinished":
            unfinished.append(run)
        else:
            key = (run.task, run.arm, str(run.reduced), run.setup, run.sha256, str(run.seed))
            kept = first.setdefault(key, run)
            if kept is run:
                runs.append(run)
            else:
                repeated.append(run)
                remarks.append(
                    f"{run.path} ({outcome(run)}) repeats {kept.path} ({outcome(kept)}): both are "
                    f"{run.name} with seed {run.seed}; counted once, {kept.path} is kept."
                )
    rows, footnotes = _rows(runs, remarks)
    return Table(rows, footnotes, tuple(unfinished), tuple(repeated), tuple(remarks))


def percent(value: float) -> str:
    """0.6275 as `62.75`."""
    return f"{100 * value:.2f}"


def outcome(run: Result) -> str:
    """What came out of a run, in words."""
    if run.accuracy is not None:
        return f"{percent(run.accuracy)} %"
    if run.status == "diverged":
        return "diverged" if run.steps is None else f"diverged at step {run.steps:,}"
    best = "no evaluation" if run.validation is None else f"{percent(run.validation)} %"
    return f"at step {run.steps or 0:,}, best validation accuracy so far: {best}"


def _rows(runs: list[Result], remarks: list[str]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows and the footnotes; where a task has several setups is added to the remarks."""
    # Of one setup written in two ways (alpha=3, alpha=3.0), one way names the row.
    options: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for run in runs:
        setup = (run.task, run.arm, run.setup)
        options[setup] = min(options.get(setup, run.options), run.options)
    sorted_runs: dict[_RowKey, dict[str, dict[_Setup, list[Result]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for run in runs:
        told = options[run.task, run.arm, run.setup]
        mark = "reduced" if run.reduced else "not as published" if run.notes else ""
        marked = bool(mark) or run.source != OFFICIAL
        key = (marked, run.arm, told, run.source, mark)
        sorted_runs[key][run.task][run.setup, run.sha256, run.notes].append(run)
    footnotes: dict[str, int] = {}
    rows: list[Row] = []
    for key, tasks in sorted(sorted_runs.items()):
        _, arm, told, source, mark = key
        label = ", ".join((arm or "default", *told))
        told_of_data = "" if source == OFFICIAL else f"{source or 'unknown'} data"
        marks = tuple(filter(None, (told_of_data, mark)))
        ordered = {task: tasks[task] for task in COLUMNS if task in tasks}
        single = {
            task: _cell(runs, footnotes)
            for task, setups in ordered.items()
            for runs in setups.values()
            if len(setups) == 1
        }
        if single:
            rows.append(Row(label, source, marks, single))
        for task, setups in ordered.items():
            if len(setups) == 1:
                continue
            remarks.append(
                f"{label} on {COLUMNS[task]} has {len(setups)} setups ({_difference(setups)}); each"
                " has a row of its own, and no average is taken over them."
            )
            for number, (setup, runs) in enumerate(sorted(setups.items()), start=1):
                digests = f"setup {setup[0]}, data {setup[1][:8] or 'unknown'}"
                name = f"{label} [{number} of {len(setups)}: {digests}]"
                rows.append(Row(name, source, marks, {task: _cell(runs, footnotes)}))
    return tuple(rows), tuple(footnotes)


def _difference(setups: Iterable[_Setup]) -> str:
    """In what the setups of one cell differ."""
    names = ("options", "data", "notes")
    parts = zip(names, zip(*setups, strict=True), strict=True)
    return " and ".join(name for name, values in parts if len(set(values)) > 1) + " differ"


def _cell(runs: list[Result], footnotes: dict[str, int]) -> Cell:
    """A cell, with its footnotes added to those there are."""
    run = runs[0]
    texts = [run.notes] if run.notes else []
    if run.reduced and not run.notes:
        texts.append("Reduced, as the name of the run says.")
    if run.source != OFFICIAL:
        texts.append(f"Data: {(run.detail or run.source or 'of unknown source').rstrip('.')}.")
    texts += [f"Seed {run.seed}: {run.lost}" for run in runs if run.lost]
    numbers = [footnotes.setdefault(text, len(footnotes) + 1) for text in texts]
    by_seed = sorted(runs, key=lambda run: run.seed)
    return Cell(
        tuple(run for run in by_seed if run.status == "finished"),
        tuple(run for run in by_seed if run.status == "diverged"),
        tuple(numbers),
    )
