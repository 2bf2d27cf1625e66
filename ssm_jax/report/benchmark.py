"""The benchmark of docs/benchmark.md in a report: runs of configs/uea.py beside published rows.

Published are a mean over five seeds and, in brackets, their population standard deviation, in
percent; of PPG the squared error times 100. The mark P: the numbers were computed from the result
files of the authors, or are in the table of their own repository; S: they were read in a
transcription of the paper. A number without brackets has a spread that we did not compute.
"""

import csv
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from ssm_jax.pages import Content, element, grid
from ssm_jax.report.results import Result
from ssm_jax.spread import deviation, welch

SETS = {
    "EigenWorms": "EigenWorms",
    "EthanolConcentration": "Ethanol",
    "Heartbeat": "Heartbeat",
    "MotorImagery": "MotorImagery",
    "SelfRegulationSCP1": "SCP1",
    "SelfRegulationSCP2": "SCP2",
    "PPG": "PPG",
}
N = 5  # seeds of a published number
SAYS = (
    "Test accuracy in percent, of PPG the mean squared error times 100: the mean over the seeds, "
    "in brackets their population standard deviation. Published (P: from the authors' result files "
    "or repository, S: from a transcription of the paper) are five seeds, each with a test part of "
    "its own, of 36 to 85 series. * is another experiment: a command changed options, or it is "
    "reduced. "
)
MARKED = "Bold is better than each other row of its column by more than the noise (Welch, 95 %)."
NOT_MARKED = "No row is better than each other of its column by more than the noise (Welch, 95 %)."


class Score(NamedTuple):
    """What several seeds have on a set."""

    shown: str
    mean: float
    std: float | None  # population standard deviation
    n: int
    counts: bool = True  # against others: False for another experiment


class Row(NamedTuple):
    """A model on the sets."""

    model: str
    scores: Mapping[str, Score]
    source: str


def published() -> list[Row]:
    """The published rows, as printed."""
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        return [_published(row) for row in csv.DictReader(file)]


def _published(row: Mapping[str, str]) -> Row:
    scores = {}
    for name in SETS:
        mean, _, std = row[name].rstrip(")").partition("(")
        if mean != "-":
            shown = f"{Decimal(mean)}" + (f" ({Decimal(std)})" if std else "")
            scores[name] = Score(shown, float(mean), float(std) if std else None, N)
    return Row(row["model"], scores, f"{row['mark']}: {row['source']}")


def named(run: Result) -> tuple[str, str] | None:
    """Set and variant of a run of the benchmark."""
    found = re.fullmatch(r"uea/(\w+):(.+)", run.name)
    return (found[1], found[2]) if found else None


def metric_of(name: str) -> str:
    """What the benchmark counts on a set."""
    return "mse" if name == "PPG" else "accuracy"


def ours(groups: Iterable[Sequence[Result]]) -> list[Row]:
    """Rows of the runs of the benchmark; `groups` are the seeds of each setup, with results."""
    rows: dict[str, dict[str, Score]] = {}
    for runs in groups:
        run = runs[0]
        if (about := named(run)) and (score := _score(runs, metric_of(about[0]))):
            label = ", ".join((about[1], *run.options)) + ("" if score.counts else "*")
            cell = label, about[0]
            while cell[1] in rows.get(cell[0], {}):  # another setup of the same name
                cell = cell[0] + "'", cell[1]
            rows.setdefault(cell[0], {})[cell[1]] = score
    return [Row(label, scores, "here") for label, scores in rows.items()]


def _score(runs: Sequence[Result], metric: str) -> Score | None:
    run = runs[0]
    if any(metric not in each.scores for each in runs):
        return None
    values = [100 * each.scores[metric][1] for each in runs]
    mean, n = statistics.fmean(values), len(values)
    std = deviation(values, statistics.pstdev)
    shown = f"{mean:.2f}" + (f" ({std:.2f})" if n > 1 else "") + f", n = {n}"
    own = not (run.options or run.notes or run.reduced)
    return Score(shown, mean, std if n > 1 else None, n, own)


def ahead(name: str, rows: Sequence[Row]) -> Row | None:
    """The row that is better on a set than each other one by more than the noise, if one is."""
    there = [row for row in rows if name in row.scores and row.scores[name].counts]
    sign = -1 if name == "PPG" else 1
    if len(there) < 2:
        return None
    best = max(there, key=lambda row: sign * row.scores[name].mean)
    one = best.scores[name]
    for row in there:
        other = row.scores[name]
        width = welch((one.std, one.n), (other.std, other.n))
        # not >, as a mean may be NaN
        if row is not best and (width is None or not abs(one.mean - other.mean) > width):
            return None
    return best


def elements(groups: Iterable[Sequence[Result]], *, beside: bool) -> Iterator[Element]:
    """The table of the benchmark, if there are runs of it; with published rows beside them."""
    if not (own := ours(groups)):
        return
    sets = {name: None for row in own for name in row.scores}
    names = [*(n for n in SETS if n in sets), *(n for n in sets if n not in SETS)]
    others = published() if beside and any(name in SETS for name in sets) else []
    best = {name: ahead(name, [*own, *others]) for name in names}
    yield element("h2", "The benchmark of LinOSS and others")
    yield element("p", SAYS + (MARKED if any(best.values()) else NOT_MARKED))

    def cells(row: Row) -> list[Content]:
        def cell(name: str) -> Content:
            score = row.scores.get(name)
            shown = score.shown if score else "-"
            return element("strong", shown) if best[name] is row else shown

        return [row.model, *map(cell, names), row.source]

    shown = {"These runs": map(cells, own)}
    if others:
        shown["Published"] = map(cells, others)
    yield grid("numbers", ("Model", *(SETS.get(n, n) for n in names), "Source"), shown)
