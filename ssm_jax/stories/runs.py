"""The runs of a story: a sweep with a fixed list of cells, reopened to be shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from ssm_jax.files import replace_atomically, write_json
from ssm_jax.progress import say
from ssm_jax.sweep import Run, by_cell, runs_of, short_names
from ssm_jax.sweep.results import lost_best, shared_of
from ssm_jax.sweep.runs import Job, run_sweep
from ssm_jax.sweep.standing import progress_of
from ssm_jax.tables import Columns, cells, to_markdown, to_screen
from ssm_jax.training.loop import EXIT_DONE
from ssm_jax.training.record import without_folders

SHARED = ("steps", "data", "git", "versions", "devices")
About = tuple[Mapping[str, Any], list[str]]


@dataclass(frozen=True, eq=False)
class FinishedRun(Run):
    """A run that is done, in the folder `path`."""

    path: Path
    summary: Mapping[str, Any]


def train(
    cfg: ConfigDict, settings: Sequence[Mapping[str, Any]], seeds: int, job: Job
) -> list[FinishedRun] | None:
    """The runs of every setting, with the seeds from cfg.seed on; None if stopped on request.

    Finished runs are not trained again. One that diverged or has other options is a ValueError.
    """
    runs = runs_of(settings, range(cfg.seed, cfg.seed + seeds))
    if not run_sweep(runs, cfg, job):
        return None
    finished = []
    for run in runs:
        path, (end, summary) = job.folder / run.name, run.status(cfg, job.folder)
        if end != "finished":
            busy = progress_of([run], job.folder, cfg).count("running") > 0
            now = "being trained by another process" if busy else end
            then = "give the command again when it is done" if busy else "look into its log.txt"
            raise ValueError(f"{path} is {now}, and the study shows all of its runs; {then}.")
        finished.append(FinishedRun(run.cell, run.seed, run.name, path, summary))
    return finished


def by_setting(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """Of each setting its options by short name ("alpha", "beta"), and test metrics: "mean", and
    "seeds", those of each seed."""
    found = []
    for same in by_cell(runs):
        seeds = {str(run.seed): run.summary["test"] for run in same}
        tests = list(seeds.values())
        mean = {name: float(np.mean([test[name] for test in tests])) for name in tests[0]}
        names, cell = short_names(same[0].cell), same[0].cell
        knobs = {names[key]: value for key, value in cell.items()}
        found.append({**knobs, "mean": mean, "seeds": seeds})
    return found


def with_spread(metric: str, show: Callable[[float], str]) -> Callable[[Mapping[str, Any]], str]:
    """A column for cells of `by_setting`: the mean, and the least and most of several seeds; "-"
    where there is none."""

    def column(cell: Mapping[str, Any]) -> str:
        if metric not in cell["mean"]:
            return "-"
        found = [test[metric] for test in cell["seeds"].values()]
        spread = f" ({show(min(found))} .. {show(max(found))})" if len(found) > 1 else ""
        return show(cell["mean"][metric]) + spread

    return column


def about(runs: Sequence[FinishedRun]) -> About:
    """What runs share, as the first has it; and lines on what they do not, and on lost best
    checkpoints."""
    summaries = {run.name: run.summary for run in runs}
    who, end = "the runs have", "the first run's is shown"
    shared, remarks = shared_of([*summaries.values()], who, end, SHARED)
    return shared, remarks + lost_best(summaries)


def publish(
    job: Job,
    known: About,
    notes: str,
    settings: Sequence[Mapping[str, Any]],
    columns: Columns,
    title: str,
    *figures: str,
    **more: Any,
) -> int:
    """Write results.json and table.md into the folder of the job, and print the table.

    `known` is of `about`, `settings` are what was found, of `by_setting` with more entries;
    `columns` show one of them; `figures` are the names of those in the folder, `more` is of all
    settings. Returns the exit code.
    """
    shared, remarks = known
    results = {"notes": notes, "cells": settings, "command": list(job.argv), "remarks": remarks}
    rows = cells(columns, settings)
    write_json(job.folder / "results.json", without_folders({**results, **shared, **more}))
    said = "".join(f"\nNote: {remark}\n" for remark in remarks)
    replace_atomically(job.folder / "table.md", to_markdown(columns, rows) + said)
    Console(markup=False, emoji=False).print(to_screen(columns, rows, title=title))
    for remark in remarks:
        say(f"Note: {remark}")
    shown = f"{'figures' if len(figures) > 1 else 'figure'} and table: {job.folder}"
    say(f"{shown}/{', '.join((*figures, 'table.md', 'results.json'))}")
    return EXIT_DONE
