"""The flags of `sweep --sampler`, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.load import load_search
from ssm_jax.sweep import Run, runs_of
from ssm_jax.sweep.plan import SAMPLERS, USUAL, Search
from ssm_jax.sweep.pruning import RULES

PRUNER = "median"  # of a search that says none
SEARCH_FLAGS = (
    Flag("sampler", "propose settings in a space, in the place of sweep()", choices=SAMPLERS),
    Flag(
        "search.OPTION",
        "its values for --sampler: 0.1..10, 0.1..10:log, 0.1..10:log:5 (five of them), or s4d,s5; "
        "adds to the search() of the file",
    ),
    Flag(
        "trials",
        f"proposals of all commands of the folder together; 0 is {USUAL}, or all of a grid",
        0,
        int,
        least=0,
    ),
    Flag(
        "pruner",
        f"rule that ends bad runs early: with --sampler, if not given, {PRUNER}; with --population "
        "none",
        choices=RULES,
    ),
    Flag(
        "storage",
        "database of a search on many machines, postgresql://USER:PASSWORD@HOST/NAME; without it, "
        "a file in the folder",
        "",
    ),
)


def search_of(command: cli.Command) -> Search | None:
    """What --sampler asks for; None without it."""
    cfg, values, overrides = command
    if values["sampler"] is None:
        given = [f"--search.{key}" for key in values.get("search", ())]
        given += [f"--{name}" for name in ("trials", "storage") if values[name]]
        given += ["--pruner"] if values["pruner"] and not values.get("population") else []
        if given:
            too = " or --population" if given == ["--pruner"] else ""
            raise ValueError(f"{given[0]} is of a search; give --sampler=optuna{too} too.")
        return None
    if values["configs"]:
        raise ValueError("--sampler searches for the settings of one experiment; give --config.")
    if values["run"] is not None:
        raise ValueError("--run is of a sweep whose runs are known; a search gives its own.")
    axes = load_search(values["config"], cfg, values.get("search", {}), overrides)
    seeds = range(cfg.seed, cfg.seed + values["seeds"])
    names = ("sampler", "pruner", "trials", "storage")
    asked = {name: values[name] for name in names}
    search = Search(axes, seeds=seeds, **asked | {"pruner": values["pruner"] or PRUNER})
    _ = search.points  # a grid without values says so now
    return search


def tried(search: Search, folder: Path, command: cli.Command) -> list[Run]:
    """The runs of a search that its folder has, each setting with all seeds."""
    from ssm_jax.sweep.ledger import runs_in

    found = runs_in(folder, list(search.axes), command.overrides)
    cells: dict[str, Mapping[str, Any]] = {}
    for run in found:
        cells.setdefault(run.name.rpartition("seed=")[0], run.cell)
    if not cells:
        raise ValueError(f"--folder={folder} has no run of this search; there is nothing to show.")
    return runs_of(list(cells.values()), search.seeds, command.overrides)
