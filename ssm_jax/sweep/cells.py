"""The runs of a sweep: which there are, and what each is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from ssm_jax.analysis.sweep_table import short_names, shown
from ssm_jax.config_check import seed_fault


@dataclass(frozen=True)
class Run:
    """One cell with one seed.

    Attributes:
      cell: the swept options by dotted key.
      seed: of the run.
      name: its folder in that of the sweep: `alpha=3,beta=0.5,seed=0`.
    """

    cell: Mapping[str, Any]
    seed: int
    name: str

    def config(self, cfg: ConfigDict) -> ConfigDict:
        """The experiment of this run, from that of the sweep."""
        cfg = cfg.copy_and_resolve_references()
        cfg.update_from_flattened_dict({**self.cell, "seed": self.seed})
        return cfg

    def command(self, spec: str, overrides: Mapping[str, Any], folder: str) -> list[str]:
        """The command that makes this run by itself.

        Args:
          spec: FILE.py[:ARG] of the experiment.
          overrides: of the sweep's command, by dotted key.
          folder: of the run.
        """
        options = {**overrides, **self.cell, "seed": self.seed}
        words = [f"--config.{key}={value}" for key, value in options.items()]
        return ["scripts/train.py", f"--config={spec}", *words, f"--workdir={folder}"]


def runs_of(cells: Sequence[Mapping[str, Any]], seeds: Iterable[int]) -> list[Run]:
    """Every cell with every seed, all cells of the first seed first.

    Raises:
      ValueError: for two cells that would have one name, or a seed that JAX would cut.
    """
    seeds = list(seeds)
    for seed in seeds:
        if (fault := seed_fault("seed", seed)) is not None:
            raise ValueError(f"the last of {len(seeds)} seeds: {fault}")
    labels = short_names(cells[0])
    names: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        name = ",".join(f"{labels[key]}={shown(value)}" for key, value in cell.items())
        name = name.replace("/", "_")
        if name in names:
            raise ValueError(f"the cells {names[name]} and {cell} would both be called {name}.")
        names[name] = cell
    return [
        Run(cell, seed, f"{name},seed={seed}") for seed in seeds for name, cell in names.items()
    ]
