"""The runs of a study: one for each setting and seed, each in a folder of its own."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ssm_jax.train.console import say
from ssm_jax.train.experiment import Experiment, build
from ssm_jax.train.loop import EXIT_DONE, train_and_evaluate
from ssm_jax.train.record import published
from ssm_jax.train.workdir import Workdir


@dataclass(frozen=True)
class Cell:
    """One setting of the options.

    Attributes:
      items: what differs from the config of the study, (dotted key, value) each.
    """

    items: tuple[tuple[str, Any], ...]

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.items)

    @property
    def name(self) -> str:
        """Such as "alpha=1,beta=0": it names the folder too."""
        return ",".join(f"{_short(key)}={_text(value)}" for key, value in self.items)


def _short(key: str) -> str:
    return key.removesuffix(".init").rsplit(".", 1)[-1]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
      cell: its setting.
      seed: of parameters and order.
      experiment: rebuilt from its config.
      path: its folder.
    """

    cell: Cell
    seed: int
    experiment: Experiment
    path: Path

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        return json.loads(Workdir(self.path).summary.read_text())


def run_cells(
    cfg: ConfigDict,
    cells: Sequence[Cell],
    *,
    seeds: int,
    folder: Path,
    data_dir: Path,
    files: Path | None,
    argv: Sequence[str],
) -> Iterator[Run | int]:
    """Train every cell with every seed, one after the other; finished runs are only reopened.

    Args:
      cfg: of the study; cells change copies of it.
      cells, seeds: each cell is trained with the seeds from cfg.seed on.
      folder: a run is in folder/CELL/seedN.
      data_dir, files: see `experiment.build`.
      argv: the command, for the records.

    Yields:
      Runs; or, as the last thing, the exit code of one that was stopped on request.
    """
    # The cells are one program with different numbers: compiled once, and not again next time.
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute() / ".compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    for seed in range(cfg.seed, cfg.seed + seeds):
        for cell in cells:
            own = cfg.copy_and_resolve_references()
            with own.unlocked():
                own.update_from_flattened_dict({**cell.options, "seed": seed})
                own.name = f"{cfg.name}:{cell.name}"
            path = folder / cell.name / f"seed{seed}"
            say(f"== {cell.name}, seed {seed}")
            experiment = build(own.lock(), data_dir=data_dir, files=files)
            code = train_and_evaluate(experiment, path, argv=argv)
            if code != EXIT_DONE:
                yield code
                return
            yield Run(cell, seed, experiment, path)


def cells_of(runs: Sequence[Run]) -> dict[Cell, dict[str, Any]]:
    """Of each cell {"cell": name, "mean": test metrics, "seeds": those of each seed}."""
    tests: dict[Cell, dict[str, dict[str, float]]] = {}
    for run in runs:
        tests.setdefault(run.cell, {})[str(run.seed)] = run.summary["test"]
    return {
        cell: {
            "cell": cell.name,
            "mean": {
                name: float(np.mean([test[name] for test in by_seed.values()]))
                for name in next(iter(by_seed.values()))
            },
            "seeds": by_seed,
        }
        for cell, by_seed in tests.items()
    }


def document(
    runs: Sequence[Run], cells: Sequence[Mapping[str, Any]], notes: str, argv: Sequence[str]
) -> dict[str, Any]:
    """The results of a study with where they come from, as JSON can hold them."""
    first = runs[0].summary
    return published(
        {
            "notes": notes,
            "cells": cells,
            "steps": runs[0].experiment.total_steps,
            "command": list(argv),
            **{key: first[key] for key in ("data", "git", "versions", "devices")},
        }
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
