"""The runs of a study: a sweep with a fixed list of cells, reopened to be shown.

The command line of a study.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from ssm_jax import config as config_lib
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.data.prepare import default_data_dir
from ssm_jax.files import parse_json, replace_atomically, write_json
from ssm_jax.sweep.cells import Run, runs_of
from ssm_jax.sweep.results import look_at
from ssm_jax.sweep.run import run_sweep, share_compiled
from ssm_jax.tables import to_markdown, to_screen
from ssm_jax.train.experiment import Experiment, build
from ssm_jax.train.record import published
from ssm_jax.train.workdir import Workdir

Rows = Sequence[Sequence[str]]
Cell = Mapping[str, Any]  # swept options by dotted key, as in `sweep()` of an experiment file


@dataclass(frozen=True)
class Place:
    """Where a study is, and what made it.

    Attributes:
      folder: has a folder for each run, and the results.
      data_dir, files: see `experiment.build`.
      spec: FILE.py[:ARG] of the experiment; overrides: what the command changed of it.
      argv: the command.
    """

    folder: Path
    data_dir: Path
    files: Path | None
    spec: str
    overrides: Mapping[str, Any]
    argv: Sequence[str]


@dataclass(frozen=True, eq=False)
class Finished:
    """A run that is done.

    Attributes:
      cell, seed: which.
      path: its folder.
    """

    cell: Cell
    seed: int
    path: Path
    _build: Any

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        return parse_json(Workdir(self.path).summary.read_text())

    @functools.cached_property
    def experiment(self) -> Experiment:
        return self._build()


def run_cells(
    cfg: ConfigDict, cells: Sequence[Cell], seeds: int, place: Place
) -> list[Finished] | None:
    """Train every cell with every seed, one after the other; finished runs are not trained again.

    Args:
      cfg: of the study; cells change copies of it.
      cells, seeds: each cell is trained with the seeds from cfg.seed on.
      place: see there.

    Returns:
      The runs; None if stopped on request: the same command goes on.

    Raises:
      ValueError: a run diverged, has other options, or is being made by another process.
    """

    def build_run(cfg: ConfigDict) -> Experiment:
        return build(cfg, data_dir=place.data_dir, files=place.files)

    def command(run: Run) -> list[str]:
        return run.command(place.spec, place.overrides, (place.folder / run.name).as_posix())

    place.folder.mkdir(parents=True, exist_ok=True)
    share_compiled(place.folder)
    runs = runs_of(cells, range(cfg.seed, cfg.seed + seeds))
    if not run_sweep(runs, cfg, place.folder, build=build_run, command=command):
        return None
    finished = []
    for run in runs:
        path, own = place.folder / run.name, run.config(cfg)
        status = look_at(path, config_lib.digest(own)).status
        if status != "finished":
            raise ValueError(
                f"{path} is {status}, and the study shows all of its runs; look into its log.txt."
            )
        finished.append(Finished(run.cell, run.seed, path, functools.partial(build_run, own)))
    return finished


def cells_of(runs: Sequence[Finished]) -> list[dict[str, Any]]:
    """Of each cell {"alpha", "beta", "mean": test metrics, "seeds": those of each seed}."""
    tests: dict[tuple[float, float], dict[str, dict[str, float]]] = {}
    for run in runs:
        key = run.cell["model.alpha"], run.cell["model.beta.init"]
        tests.setdefault(key, {})[str(run.seed)] = run.summary["test"]
    return [
        {
            "alpha": alpha,
            "beta": beta,
            "mean": {
                name: float(np.mean([test[name] for test in by_seed.values()]))
                for name in next(iter(by_seed.values()))
            },
            "seeds": by_seed,
        }
        for (alpha, beta), by_seed in tests.items()
    ]


def document(
    runs: Sequence[Finished], cells: Sequence[Mapping[str, Any]], notes: str, argv: Sequence[str]
) -> dict[str, Any]:
    """The results of a study with where they come from, as JSON can hold them."""
    shared = ("steps", "data", "git", "versions", "devices")
    return published(
        {
            "notes": notes,
            "cells": cells,
            "command": list(argv),
            **{key: runs[0].summary[key] for key in shared},
        }
    )


def publish(
    folder: Path, results: Mapping[str, Any], title: str, head: Sequence[str], rows: Rows
) -> None:
    """Write results.json and table.md, and print the table."""
    write_json(folder / "results.json", results)
    replace_atomically(folder / "table.md", to_markdown(head, rows))
    Console().print(to_screen(head, rows, title=title))


def load(argv: Sequence[str], name: str, *, about: str, flags: Sequence[Flag] = ()) -> cli.Command:
    """The options of `scripts/NAME.py`, whose experiment is configs/NAME.py unless told otherwise.

    Args:
      argv: the arguments.
      name: of the study, and of its task.
      about: head of `--help`.
      flags: besides --folder, --seeds and --data_dir.

    Raises:
      SystemExit: as `cli.load`; or for a config of another task, or no seed.
    """
    usual = f"configs/{name}.py"
    shared = (
        Flag(
            "folder",
            "where the runs and the results are",
            Path(f"runs/{name}"),
            kind=Path,
            writes="folder",
        ),
        Flag("seeds", "runs of each setting, from --config.seed on", 1, int),
        replace(cli.DATA_DIR, default=default_data_dir()),
    )
    if not any(word.startswith("--config=") or word == "--config" for word in argv):
        argv = [f"--config={usual}", *argv]
    command = cli.load(argv, flags=(*shared, *flags), about=about)
    if command.cfg.task != name:
        cli.fail(f"task={command.cfg.task!r} is not {name}; give a config such as {usual}.")
    if command.values["seeds"] < 1:
        cli.fail(f"--seeds={command.values['seeds']} must be at least 1.")
    return command
