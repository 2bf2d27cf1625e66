"""What came out of a sweep, as a document that JSON can hold."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssm_jax.files import parse_json
from ssm_jax.sweep.cells import Run

DIVERGED = "diverged.json"  # in the folder of a run that has no result and will have none
FAILED = "failed.json"  # of one that cannot be gone on with as it is; the next command tries again
SHARED = ("data", "examples", "steps", "parameters", "git", "versions", "devices")

Status = Literal["finished", "diverged", "failed", "unfinished", "missing"]


@dataclass(frozen=True)
class Found:
    """What is in the folder of a run.

    Attributes:
      status: missing if nothing is; unfinished if it can go on; failed if somebody has to look.
      document: summary.json of a finished run, the mark of a diverged or failed one, else empty.
    """

    status: Status
    document: Mapping[str, Any]


class DamagedResult(ValueError):  # noqa: N818 - it reads as what happened
    """The result of one run cannot be read; the others can."""


def look_at(path: Path, digest: str) -> Found:
    """As `read_run`; a run whose result is damaged has failed."""
    try:
        return read_run(path, digest)
    except DamagedResult as error:
        return Found("failed", {"error": str(error)})


def read_run(path: Path, digest: str) -> Found:
    """What is in the folder of a run.

    Args:
      path: the folder.
      digest: of the options that the run is to have, `config.digest`.

    Raises:
      DamagedResult: its file is damaged.
      ValueError: it is a run with other options.
    """
    statuses: tuple[tuple[str, Status], ...] = (
        ("summary.json", "finished"),
        (DIVERGED, "diverged"),
        (FAILED, "failed"),
    )
    for name, status in statuses:
        if status == "finished" and not (path / "DONE").exists():
            continue  # it goes on with its figures
        if not (path / name).exists():
            continue
        try:
            document = parse_json((path / name).read_text(encoding="utf-8"))
            found = document["config_digest"]
        except (ValueError, KeyError, TypeError):
            raise DamagedResult(
                f"{path / name} is damaged; delete the folder to run this cell again."
            ) from None
        if found != digest:
            raise ValueError(
                f"{path} holds a run with other options (config {found}, this sweep asks for "
                f"{digest}); choose another --folder, or give the options it was made with."
            )
        return Found(status, document)
    return Found("unfinished" if (path / "LOCK").exists() else "missing", {})


def document_of(
    runs: Sequence[Run],
    folder: Path,
    *,
    digest: Callable[[Run], str],
    metric: str,
    better: Literal["max", "min"] | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The results of a sweep.

    Args:
      runs: of the sweep.
      folder: has a folder for each.
      digest: of the options of a run.
      metric: of the test split, by name.
      better: whether more or less of it is better; None: neither.
      about: what stands at the head of the document: name, task, notes, command.

    Returns:
      `about`, "metric", "better", "split", and
      "options": {option: its values, in order};
      "seeds";
      "cells": of each its "options", "mean" and "std" (sample standard deviation; None for fewer
        than two) over the seeds that finished, their "n", "values" by seed, and the seeds that
        "diverged", or are "missing";
      "runs": of each its name, cell, seed, status, all test metrics, and config digest;
      "remarks": a line each on what the runs do not share, and on lost best checkpoints;
      and what all runs share: SHARED, as the first has it.

    Raises:
      ValueError: the metric is not among those of the runs; or as `read_run`.
    """
    found = {run.name: look_at(folder / run.name, digest(run)) for run in runs}
    finished = {name: f.document for name, f in found.items() if f.status == "finished"}
    for name, summary in finished.items():
        if metric not in summary["test"]:
            raise ValueError(
                f"{name} has no test metric {metric!r}; choose one of {', '.join(summary['test'])}."
            )
    seeds = list(dict.fromkeys(run.seed for run in runs))
    by_cell: dict[str, list[Run]] = {}
    for run in runs:
        by_cell.setdefault(json.dumps(run.cell), []).append(run)
    cells = []
    for same in by_cell.values():
        values = {
            str(run.seed): finished[run.name]["test"][metric]
            for run in same
            if run.name in finished
        }
        numbers = list(values.values())
        cells.append(
            {
                "options": dict(same[0].cell),
                "mean": statistics.fmean(numbers) if numbers else None,
                "std": statistics.stdev(numbers) if len(numbers) > 1 else None,
                "n": len(numbers),
                "values": values,
                "diverged": [r.seed for r in same if found[r.name].status == "diverged"],
                "missing": [
                    r.seed
                    for r in same
                    if found[r.name].status in ("missing", "unfinished", "failed")
                ],
            }
        )
    shared, remarks = _shared(list(finished.values()))
    remarks += [
        f"{name} failed: {' '.join(f.document['error'].split())}"
        for name, f in found.items()
        if f.status == "failed"
    ]
    remarks += [
        f"{name}: the best checkpoint, of step {summary['best_lost']['step']:,}, was lost; the "
        f"next best, of step {summary['best']['step']:,}, is tested."
        for name, summary in finished.items()
        if "best_lost" in summary
    ]
    return {
        **about,
        "metric": metric,
        "better": better,
        "split": "test",
        "options": {
            key: list(dict.fromkeys(run.cell[key] for run in runs)) for key in runs[0].cell
        },
        "seeds": seeds,
        "cells": cells,
        "remarks": remarks,
        **shared,
        "runs": [
            {
                "name": run.name,
                "options": dict(run.cell),
                "seed": run.seed,
                "status": found[run.name].status,
                "test": finished[run.name]["test"] if run.name in finished else None,
                "config_digest": digest(run),
            }
            for run in runs
        ],
    }


def _shared(summaries: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """What the runs have in common, and a remark for each thing that differs between them."""
    shared: dict[str, Any] = {}
    remarks = []
    for key in SHARED:
        values = [summary[key] for summary in summaries if key in summary]
        if not values:
            continue
        shared[key] = values[0]
        different = len({json.dumps(value, sort_keys=True) for value in values})
        if different > 1:
            remarks.append(f"the runs have {different} different {key}; the first run's is shown.")
    return shared, remarks
