"""Sweeps: one experiment at every value of some options and with several seeds; and its results.

The results are a document for JSON, read from the folders of the runs, and tables made of it.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax import tables
from ssm_jax.config.check import fault_of
from ssm_jax.files import parse_json, replace_atomically, write_json
from ssm_jax.options import OPTIONS
from ssm_jax.tasks import find_task

DIVERGED = "diverged.json"  # in the folder of a run that has no result and will have none
FAILED = "failed.json"  # of one that cannot continue as it is; the next command tries again
SHARED = ("data", "examples", "steps", "parameters", "git", "versions", "devices")
PERCENT = ("accuracy",)  # metrics from 0 to 1 that are read in per cent
# Sections that say nothing in the name of an option
SECTIONS = ("model.", "data.", "train.", "optim.groups.", "optim.", "schedule.")

Status = Literal["finished", "diverged", "failed", "unfinished", "missing"]
ENDS: dict[str, Status] = {"summary.json": "finished", DIVERGED: "diverged", FAILED: "failed"}
AnyRun = TypeVar("AnyRun", bound="Run")
Document = Mapping[str, Any]  # as `document_of` makes it


@dataclass(frozen=True)
class Run:
    """One cell, the swept options by dotted key, with one seed.

    name: its folder in that of the sweep: `alpha=3,beta=0.5,seed=0`.
    given: options that the command of the sweep sets, see `config.override`.
    """

    cell: Mapping[str, Any]
    seed: int
    name: str
    given: tuple[str, ...] = field(default=(), kw_only=True)

    def config(self, cfg: ConfigDict) -> ConfigDict:
        """The experiment of this run, from that of the sweep."""
        cfg = cfg.copy_and_resolve_references()
        config_lib.override(cfg, {**self.cell, "seed": self.seed}, self.given)
        return cfg

    def status(self, cfg: ConfigDict, folder: Path) -> tuple[Status, Mapping[str, Any]]:
        """How it ended in the folder of a sweep of `cfg`, with its summary.json, or the mark of a
        diverged or failed one. One whose result is damaged has failed.

        An unfinished run can continue; of a failed one somebody has to look at log.txt. Raises
        ValueError if there is a run with other options.
        """
        path, digest = folder / self.name, config_lib.digest(self.config(cfg))
        done = (path / "DONE").exists()  # else its figures are missing
        for name, status in ENDS.items():
            file = path / name
            if not file.exists() or (status == "finished" and not done):
                continue
            try:
                document = parse_json(file.read_text(encoding="utf-8"))
                found = document["config_digest"]
            except (ValueError, KeyError, TypeError):
                error = f"{file} is damaged; delete the folder to run this cell again."
                return "failed", {"error": error}
            if found != digest:
                raise ValueError(
                    f"{path} holds a run with other options (config {found}, this sweep asks for "
                    f"{digest}); choose another --folder, or give the options it was made with."
                )
            return status, document
        return "unfinished" if (path / "LOCK").exists() else "missing", {}


def runs_of(
    cells: Sequence[Mapping[str, Any]], seeds: Iterable[int], given: Iterable[str] = ()
) -> list[Run]:
    """Every cell with every seed, all cells of the first seed first; `given` as in `Run`.

    Raises ValueError for two cells that would have one name, or a seed that JAX would cut.
    """
    seeds, given = list(seeds), tuple(given)
    for seed in seeds:
        if (fault := fault_of("seed", seed, OPTIONS["seed"])) is not None:
            raise ValueError(f"the last of {len(seeds)} seeds: {fault}")
    labels = short_names(cells[0])
    names: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        name = ",".join(f"{labels[key]}={shown(value)}" for key, value in cell.items())
        name = name.replace("/", "_")
        if name in names:
            raise ValueError(f"the cells {names[name]} and {cell} would both be called {name}.")
        names[name] = cell
    pairs = [(seed, name) for seed in seeds for name in names]
    return [Run(names[name], seed, f"{name},seed={seed}", given=given) for seed, name in pairs]


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Options as people call them: model.alpha is alpha, and model.beta.init is beta.

    Where two would be one, the keys stay as they are.
    """
    short = {}
    for key in keys:
        start = next((s for s in SECTIONS if key.startswith(s)), "")
        short[key] = key.removeprefix(start).removesuffix(".init")
    return short if len(set(short.values())) == len(short) else {key: key for key in short}


def shown(value: Any) -> str:
    """A value in a name or at an axis: 3.0 is 3."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def by_cell(runs: Sequence[AnyRun]) -> list[list[AnyRun]]:
    """The runs of each cell, in the order of the cells."""
    groups: dict[str, list[AnyRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.cell), []).append(run)
    return list(groups.values())


def document_of(
    runs: Sequence[Run],
    folder: Path,
    cfg: ConfigDict,
    command: Sequence[str],
    metric: str | None = None,
) -> dict[str, Any]:
    """The results of a sweep of `cfg`, whose folder has one for each run.

    `command` is what made them, `metric` one of the test split; None: the first of the task.

    Returns:
      "name", "task", "notes", "command"; "metric", its "better" (None: neither), "split";
      "selected_by", which chose checkpoints and ranks cells ("val accuracy"), "selected_better";
      "options": {option: its values, in order}; "seeds";
      "cells": of each its "options", "mean" and "std" (sample standard deviation; None for fewer
        than two) over the "n" seeds that finished, the mean "selected" of what "selected_by" names,
        "values" by seed, and the seeds that "diverged", or are "missing";
      "remarks": a line each on what the runs do not share, and on lost best checkpoints;
      what all runs share: SHARED, as the first has it;
      "runs": of each its name, cell, seed, status, all test metrics, and config digest.

    Raises:
      ValueError: the metric is not among those of the runs; or as `Run.status`.
    """
    task = find_task(cfg.task)
    metric = metric or task.headline
    found = {run.name: run.status(cfg, folder) for run in runs}
    finished = {name: summary for name, (end, summary) in found.items() if end == "finished"}
    for name, summary in finished.items():
        if metric not in summary["test"]:
            raise ValueError(
                f"{name} has no test metric {metric!r}; choose one of {', '.join(summary['test'])}."
            )
    shared, remarks = {}, []
    for key in SHARED:
        values = [summary[key] for summary in finished.values() if key in summary]
        different = len({json.dumps(value, sort_keys=True) for value in values})
        if different:
            shared[key] = values[0]
        if different > 1:
            remarks.append(f"the runs have {different} different {key}; the first run's is shown.")
    for name, (status, summary) in found.items():
        if status == "failed":
            remarks.append(f"{name} failed: {' '.join(summary['error'].split())}")
    for name, summary in finished.items():
        if "best_lost" in summary:
            lost, best = summary["best_lost"]["step"], summary["best"]["step"]
            remarks.append(
                f"{name}: the best checkpoint, of step {lost:,}, was lost; the next best, of step "
                f"{best:,}, is tested."
            )
    cells = []
    for same in by_cell(runs):
        ends = {run.seed: found[run.name][0] for run in same}
        done = {str(run.seed): finished[run.name] for run in same if run.name in finished}
        numbers = {seed: summary["test"][metric] for seed, summary in done.items()}
        chosen = [summary["best"]["value"] for summary in done.values()]
        cells.append(
            {
                "options": dict(same[0].cell),
                "mean": statistics.fmean(numbers.values()) if numbers else None,
                "std": statistics.stdev(numbers.values()) if len(numbers) > 1 else None,
                "selected": statistics.fmean(chosen) if chosen else None,
                "n": len(numbers),
                "values": numbers,
                "diverged": [seed for seed, end in ends.items() if end == "diverged"],
                "missing": [s for s, end in ends.items() if end not in ("finished", "diverged")],
            }
        )
    selected_by = next((summary["selected_by"] for summary in finished.values()), None)
    return {
        **{key: cfg[key] for key in ("name", "task", "notes")},
        "command": command,
        "metric": metric,
        "better": task.metrics.get(metric),
        "split": "test",
        "selected_by": selected_by,
        "selected_better": selected_by and task.metrics.get(selected_by.split()[-1]),
        "options": {key: list(dict.fromkeys(r.cell[key] for r in runs)) for key in runs[0].cell},
        "seeds": list(dict.fromkeys(run.seed for run in runs)),
        "cells": cells,
        "remarks": remarks,
        **shared,
        "runs": [
            {
                "name": run.name,
                "options": dict(run.cell),
                "seed": run.seed,
                "status": found[run.name][0],
                "test": finished[run.name]["test"] if run.name in finished else None,
                "config_digest": config_lib.digest(run.config(cfg)),
            }
            for run in runs
        ],
    }


def write_results(folder: Path, document: Document) -> str:
    """Write sweep.json, sweep.csv and sweep.md into the folder of a sweep; the text of the last."""
    text = to_markdown(document) + f"\n{caption(document)}\n"
    write_json(folder / "sweep.json", document)
    replace_atomically(folder / "sweep.csv", to_csv(document))
    replace_atomically(folder / "sweep.md", text)
    return text


def best_cell(document: Document) -> Mapping[str, Any] | None:
    """The cell that validation prefers, never the test split; None if its metric has no best."""
    found = [cell for cell in document["cells"] if cell.get("selected") is not None]
    if not found or document["selected_better"] is None:
        return None
    choose = max if document["selected_better"] == "max" else min
    return choose(found, key=lambda cell: cell["selected"])


def is_grid(document: Document) -> bool:
    """Whether the cells are every value of one option with every value of another."""
    sizes = [len(values) for values in document["options"].values()]
    return len(sizes) == 2 and len(document["cells"]) == sizes[0] * sizes[1]


def to_markdown(document: Document) -> str:
    """A table: of a grid one option down and one across, else a row for each cell.

    A cell in words is `81.2 ± 0.4 (3)`, with what diverged or is missing; the best is bold.
    """
    best, of, rows = best_cell(document), len(document["seeds"]), []
    labels = short_names(document["options"])
    for cell in document["cells"]:
        parts = []
        if cell["mean"] is not None:
            std = "" if cell["std"] is None else f" ± {number(document, cell['std'])} ({cell['n']})"
            parts.append(number(document, cell["mean"]) + std)
        for what in ("diverged", "missing"):
            if n := len(cell[what]):
                parts.append(what if n == of else f"{n} of {of} {what}")
        text = ", ".join(parts)
        options = [cell["options"][key] for key in labels]
        rows.append([*options, f"**{text}**" if cell is best else text])
    if not is_grid(document):
        head = [*labels.values(), metric_label(document)]
        return tables.to_markdown(head, [[*map(shown, row)] for row in rows])
    down, across = document["options"].values()
    texts = {(one, other): text for one, other, text in rows}
    lines = [[shown(row), *(texts[row, column] for column in across)] for row in down]
    return tables.to_markdown([" \\ ".join(labels.values()), *map(shown, across)], lines)


def metric_label(document: Document) -> str:
    """The metric with its unit."""
    metric = document["metric"]
    return f"{metric.replace('_', ' ')}{' (%)' if metric in PERCENT else ''}"


def number(document: Document, value: float) -> str:
    """A value of the metric, as a table shows it."""
    return f"{100 * value:.1f}" if document["metric"] in PERCENT else f"{value:.4g}"


def caption(document: Document) -> str:
    """What the numbers of the table are, in a line; and the remarks."""
    cells = document["cells"]
    counts = sorted({cell["n"] for cell in cells if cell["n"]}) or [0]
    seeds = " to ".join(dict.fromkeys((str(counts[0]), str(counts[-1]))))
    text = f"{metric_label(document)} on the {document['split']} split: mean of {seeds} seed"
    text += "" if counts == [1] else "s"
    if counts[-1] > 1:
        text += " ± standard deviation over them (their number in brackets)"
    for what, verb in (("diverged", "diverged and count in no mean"), ("missing", "are missing")):
        if n := sum(len(cell[what]) for cell in cells):
            text += f"; {n} of {len(document['runs'])} runs {verb}"
    if best_cell(document) is not None:
        text += f"; bold: the best mean {document['selected_by']}"
    return text + "." + "".join(f" Note: {remark}" for remark in document["remarks"])


def to_csv(document: Document) -> str:
    """A line for each cell: options, mean, standard deviation, and how many runs ended how."""
    options, metric = document["options"], document["metric"]
    rows = []
    for cell in document["cells"]:
        found = [*(cell["options"][key] for key in options), cell["mean"], cell["std"], cell["n"]]
        rows.append([*found, len(cell["diverged"]), len(cell["missing"])])
    head = (*options, metric, f"{metric}_std", "n", "diverged", "missing")
    return tables.to_csv(head, rows)
