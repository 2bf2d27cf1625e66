"""Sweeps: one experiment at every value of some options and with several seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config.check import seed_fault

# Sections that say nothing in the name of an option
SECTIONS = ("model.", "data.", "train.", "optim.groups.", "optim.", "schedule.")


@dataclass(frozen=True)
class Run:
    """One cell with one seed.

    Attributes:
      cell: the swept options by dotted key.
      seed: of the run.
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


def runs_of(
    cells: Sequence[Mapping[str, Any]], seeds: Iterable[int], given: Iterable[str] = ()
) -> list[Run]:
    """Every cell with every seed, all cells of the first seed first; `given` as in `Run`.

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
        Run(cell, seed, f"{name},seed={seed}", given=tuple(given))
        for seed in seeds
        for name, cell in names.items()
    ]


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
