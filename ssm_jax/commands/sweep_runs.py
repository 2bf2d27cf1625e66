"""The runs that a command line of `sweep` asks for, and its search."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm_jax import config as config_lib
from ssm_jax.commands.train import INIT_FLAGS
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag, convert, parse
from ssm_jax.config.load import faults_of, load_search, load_sweep
from ssm_jax.sweep import PLAN, SAMPLERS, USUAL, Run, Search, runs_of
from ssm_jax.sweep.pruning import RULES

if TYPE_CHECKING:
    from ssm_jax.sweep.runs import Job

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
WITH_POPULATION = ("members", "memory", "vmap", "own_order")
FLAGS = (
    Flag("configs", "experiments to run as they are, in the place of --config", [], words=True),
    Flag("folder", "has a folder for each run, and the results", kind=Path, writes="folder"),
    Flag("seeds", "runs of each cell, from --config.seed on; or their seeds, as in 3,5,8", "1"),
    Flag("run", "make this run alone, counted from 0, and no tables; for arrays of jobs", kind=int),
    Flag("metric", "what is shown of both splits; if not given, the task's first"),
    Flag("population", "train runs that differ in starts, seeds and rates as one", False, bool),
    Flag("members", "of a population, at most; 0: as many as fit", 0, int, least=0),
    Flag("memory", "GiB of a device for a population; 0: nine tenths of it", 0.0, float, least=0),
    Flag("vmap", "members computed at a time; 0: all, on a CPU one", 0, int, least=0),
    Flag("own_order", "of batches for each seed; else that of the first seed", False, bool),
    Flag("report_only", "run nothing; write tables and figure of what there is", False, bool),
    Flag("status", "run nothing; show how far all runs are, here and as a page", False, bool),
    cli.DATA_DIR,
    cli.FROM,
    *INIT_FLAGS,
    *SEARCH_FLAGS,
    cli.COMPILED,
)
Parts = Mapping[str, tuple[Path, list[Run]]]  # of each experiment its folder and its runs


def planned(argv: list[str], about: str | None) -> tuple[dict[str, cli.Command], Parts]:
    """The experiments of a command line by name, and their runs; nothing is read or written."""
    commands = _named(argv, about)
    values, several = next(iter(commands.values())).values, len(commands) > 1
    if values["population"]:
        commands = {label: _one_order(command) for label, command in commands.items()}
    elif idle := [name for name in WITH_POPULATION if values[name]]:
        cli.fail(f"--{idle[0]} goes with --population.")
    folder, seeds, run = values["folder"], len(seeds_of(values["seeds"], 0)), values["run"]
    if folder is None:
        cli.fail("--folder is missing; give the folder of the sweep, such as --folder=runs/sweep.")
    given = next(iter(commands.values())).overrides
    if "seed" in given and "," in values["seeds"]:
        cli.fail(
            f"--config.seed={given['seed']} and --seeds={values['seeds']} both say which seeds; "
            "leave one out."
        )
    if values["configs"] and not several and seeds == 1:
        word = values["configs"][0]
        cli.fail(f"{word} alone is one run; give --seeds=N, or --config={word} for its sweep().")
    parts: dict[str, tuple[Path, list[Run]]] = {}
    for label, (cfg, known, overrides) in commands.items():
        spec = known["config"]
        as_is = bool(known["configs"])
        cells: list[dict[str, Any]] = [{}]
        if (search := search_of(commands[label])) is not None:
            if values["population"]:
                cli.fail("--sampler proposes one run after the other; leave --population out.")
            # the first that there could be: the others are proposed as it goes
            cells = [{key: axis.fit(axis.ends()[0]) for key, axis in search.axes.items()}]
        elif not as_is:
            cells = load_sweep(spec, cfg, overrides, alone=seeds > 1)
        if both := [key for key in cells[0] if key in overrides]:
            raise ValueError(f"--config.{both[0]} is given and is swept; leave it out.")
        _check_comparable(cfg, cells, search, values["metric"])
        where = folder / re.sub(r"[^\w.,=+-]", "_", label) if several else folder
        parts[label] = where, runs_of(cells, seeds_of(known["seeds"], cfg.seed), overrides)
    if several:
        from ssm_jax.sweep.results import check_joined, compared_by

        check_joined({k: compared_by(c.cfg, values["metric"]) for k, c in commands.items()})
    for other in ("report_only", "population"):
        if run is not None and values[other]:
            cli.fail(f"--run and --{other} are both given; leave one out.")
    size = sum(len(runs) for _, runs in parts.values())
    if run is not None and not 0 <= run < size:
        cli.fail(f"--run={run} is none of the {size} runs, which count from 0 to {size - 1}.")
    return commands, parts


def _check_comparable(
    cfg: Any, cells: Sequence[Mapping[str, Any]], search: Search | None, asked: str | None
) -> None:
    """Refuse runs that have no metric in common to be shown by, or to be ranked by in a search."""
    from ssm_jax.tasks import find_task

    swept = {key: [cell[key] for cell in cells] for key in cells[0]}
    if search is not None:
        swept = {key: list(axis.values) for key, axis in search.axes.items()}
    for key in ("train.select_metric", "train.select_split"):
        if len(set(swept.get(key, ()))) > 1:
            raise ValueError(f"{key} is what runs are compared by; give one for all of them.")
    known = {name: find_task(name).metrics for name in swept.get("task", [cfg.task])}

    def check(metric: str, what: str, flag: str) -> None:
        lacking = [name for name, metrics in known.items() if metric not in metrics]
        # One that no task names may be among what its summary adds
        if not lacking or metric == "loss" or (asked == metric and len(lacking) == len(known)):
            return
        first, *others = known.values()
        shared = [name for name in first if all(name in metrics for metrics in others)] or ["loss"]
        raise ValueError(
            f"the {what} {metric}, which task={lacking[0]} does not have; give {flag}="
            f"{f' or {flag}='.join(shared)}, or sweep tasks that share it."
        )

    if search is not None:
        check(cfg.train.select_metric, "search ranks by", "--config.train.select_metric")
    check(asked or find_task(cfg.task).headline, "sweep shows", "--metric")


def check_same(commands: Mapping[str, cli.Command], parts: Parts, search: Search | None) -> None:
    """Refuse, before anything is written, a folder of runs or of a search of other options."""
    for label, (where, runs) in parts.items():
        cfg = commands[label].cfg
        if search is None:
            for run in runs:
                run.check(cfg, where)
        elif (where / PLAN).exists():
            search.agree(where, config_lib.digest(cfg), "")


def seeds_of(text: str, first: int) -> Sequence[int]:
    """The seeds that --seeds asks for: so many, from the first on, or those that it lists."""
    listed = [word for word in text.split(",") if word]
    try:
        numbers = [convert(word, int) for word in listed]
    except ValueError as error:
        cli.fail(f"--seeds={text} does not fit: {error}, or several with commas between them.")
    if "," not in text:
        if not numbers or numbers[0] < 1:
            cli.fail(f"--seeds={text} must be at least 1.")
        return range(first, first + numbers[0])
    if not numbers or len(set(numbers)) < len(numbers):
        cli.fail(f"--seeds={text} must be different seeds.")
    return numbers


def _one_order(command: cli.Command) -> cli.Command:
    """The experiment with one order of the training examples for all seeds, unless asked for."""
    cfg, values, overrides = command
    seeds = seeds_of(values["seeds"], cfg.seed)
    if values["own_order"] or len(seeds) == 1 or "data.order_seed" in overrides:
        return command
    order = {"data.order_seed": seeds[0]}
    return command._replace(cfg=config_lib.altered(cfg, order), overrides=overrides | order)


def _named(argv: list[str], about: str | None) -> dict[str, cli.Command]:
    """The experiment of --config, or those of several configs, by name or by FILE.py:ARG."""
    given, _ = parse(argv, (cli.CONFIG, *FLAGS))
    words = given.get("configs", [])
    if words and "config" in given:
        cli.fail(f"--config={given['config']} and {words[0]} are both given; leave one out.")
    argvs = [[f"--config={word}", *argv] for word in words] or [argv]
    commands = [cli.load(each, flags=FLAGS, about=about, group="search") for each in argvs]
    names = [command.cfg.name for command in commands]
    if len(set(names)) < len(names):
        names = [command.values["config"] for command in commands]
    if again := [name for name in names if names.count(name) > 1]:
        cli.fail(f"the config {again[0]} is given twice; give --seeds=N to run it several times.")
    return dict(zip(names, commands, strict=True))


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
    seeds = seeds_of(values["seeds"], cfg.seed)
    names = ("sampler", "pruner", "trials", "storage")
    asked = {name: values[name] for name in names}
    search = Search(axes, seeds=seeds, **asked | {"pruner": values["pruner"] or PRUNER})
    _ = search.points  # a grid without values says so now
    return search


def tried(search: Search, folder: Path, command: cli.Command, *, ended: bool = False) -> list[Run]:
    """The runs of a search that its folder has, each setting with all seeds; where one was pruned
    or has diverged, the others are not made.

    ValueError if there are none; `ended`: all proposals were made, so all were passed over.
    """
    from ssm_jax.sweep.standing import runs_in

    found = runs_in(folder, list(search.axes), command.overrides)
    cells: dict[str, Mapping[str, Any]] = {}
    for run in found:
        cells.setdefault(run.name.rpartition("seed=")[0], run.cell)
    if not cells and ended:
        first = {key: axis.fit(axis.ends()[0]) for key, axis in search.axes.items()}
        faults = faults_of(command.cfg, first, command.overrides)
        why = faults[0].rstrip(".") if faults else "the lines above say why"
        raise ValueError(
            f"all proposals ({search.size}) were passed over: {why}; change the search, and give "
            "another --folder."
        )
    if not cells:
        raise ValueError(f"--folder={folder} has no run of this search; there is nothing to show.")
    runs = runs_of(list(cells.values()), search.seeds, command.overrides)
    ends = {run.name: run.status(command.cfg, folder)[0] for run in runs}
    over = [run.cell for run in runs if ends[run.name] in ("diverged", "pruned")]
    return [run for run in runs if ends[run.name] != "missing" or run.cell not in over]


def job_of(command: cli.Command, words: Sequence[str], folder: Path) -> Job:
    """Where the runs of a command are, and what made them."""
    from ssm_jax.sweep.runs import Job

    _, values, overrides = command
    where = folder, values["data_dir"], values.get("from")
    return Job(*where, values["config"], overrides, words)
