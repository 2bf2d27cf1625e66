"""The command sweep: an experiment at every value of some options, or several experiments."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm_jax import config as config_lib
from ssm_jax.commands import start_jax, sweep_status
from ssm_jax.commands.sweep_runs import FLAGS, Parts, check_same, job_of, planned, search_of, tried
from ssm_jax.config import cli
from ssm_jax.config.load import beside
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.sweep import runs_of

if TYPE_CHECKING:
    from ssm_jax.sweep import Search
    from ssm_jax.training.parent import Begin

CURVES = 8  # settings whose curves one figure can tell apart


def sweep(argv: list[str], called: Sequence[str] = ("ssm-jax", "sweep")) -> int:
    """Run an experiment with some seeds, at every value of the options that its file sweeps.

        ssm-jax sweep --config=ablation/image:reduced --folder=runs/ablation
        ssm-jax sweep --config=listops_small --seeds=3 --folder=runs/seeds
        ssm-jax sweep packaged:PLAID,s4d packaged:PLAID,s5 --seeds=3 --folder=runs/plaid

    The file may define sweep() next to get_config(): a list of {option: value}; without it, the
    experiment is run as it is. Configs without --config are run as they are, whatever they sweep,
    into one table. Each cell and
    seed is a run of its own in the folder; one that diverges or fails is marked and the next
    begins. The same command resumes a stopped sweep, and several commands may share a folder. At
    the end the folder has sweep.md, sweep.csv and sweep.json, for one or two options sweep.png, and
    for up to eight settings curves.png. The validation split chooses the best cell; the test split
    is shown beside it. With --init_from all runs begin with the parameters of another run, which
    the record of each names.

        ssm-jax sweep --config=ablation/image:reduced --folder=runs/ablation --run=7
        ssm-jax sweep --config=ablation/image:reduced --folder=runs/ablation --report_only

    --run makes one run of the list, for schedulers that give each of an array of jobs its number
    (`ssm-jax launch` writes such jobs); --report_only then writes the tables.

        ssm-jax sweep --config=listops_small --sampler=optuna --search.model.alpha=0.1..10:log
            --search.model.beta.init=-1,0,1 --trials=40 --folder=runs/search

    With --sampler Optuna proposes the settings, in the space of a function search() of the file and
    of the flags --search.OPTION, by what validation says; --pruner ends bad runs early.

        ssm-jax sweep --status --folder=runs/ablation

    --status shows how far all runs are, also while other commands make them, and writes
    progress.html, a page with a table to sort and the heat map.

        ssm-jax sweep --config=ablation/image:reduced --folder=runs/ablation --population

    --population trains runs that differ in starts, seeds, learning rates and weight decay as one
    program, as many at a time as fit into memory. Each ends as the folder of an ordinary run. With
    --pruner those that are worse than the others on validation end early.
    """
    argv = sweep_status.remembered(argv, FLAGS)
    commands, parts = planned(argv, sweep.__doc__)
    command = next(iter(commands.values()))
    search = search_of(command)
    # Cells of a search are found as it goes: their FILE.py:NAME is beside the config all the time
    with contextlib.nullcontext() if search is None else beside(command.values["config"]):
        return _sweep(commands, parts, search, [*called, *argv], argv)


def _sweep(
    commands: Mapping[str, cli.Command],
    parts: Parts,
    search: Search | None,
    words: Sequence[str],
    argv: Sequence[str],
) -> int:
    """Run what is planned and show it; `words` is the command, which gave `argv`."""
    values, several = next(iter(commands.values())).values, len(commands) > 1
    folder = values["folder"]
    commands, begin = _begun(commands, parts, values)
    if (values["report_only"] or values["status"]) and not folder.is_dir():
        raise ValueError(f"--folder={folder} does not exist; there is nothing to report.")
    if values["status"]:
        sweep_status.show(commands, parts, search)
        return 0
    if not values["report_only"]:
        check_same(commands, parts, search)
    if values["run"] is not None:
        parts = _alone(parts, values["run"])
    if not values["report_only"]:
        start_jax(values["compiled"], usual=folder)
        from ssm_jax.sweep.population import Size, begun, run_populations
        from ssm_jax.sweep.runs import check_metric, run_sweep

        for label, (where, runs) in parts.items() if values["metric"] else ():
            job = job_of(commands[label], words, where)
            if search is not None:  # its cells are not known, and not all can be had
                runs = runs_of([{}], search.seeds[:1])
            check_metric(runs, commands[label].cfg, job, values["metric"])
        sweep_status.remember(folder, argv, FLAGS)
        size = Size(values["members"], int(values["memory"] * 2**30), values["vmap"])
        for label, (where, runs) in parts.items():
            job = replace(job_of(commands[label], words, where), begin=begin)
            if search is not None:
                from ssm_jax.sweep.search import run_search

                finished = run_search(search, commands[label].cfg, job)
            elif values["population"]:
                finished = run_populations(
                    runs, commands[label].cfg, job, size, values["pruner"] or "none"
                )
            elif unfinished := [path for path, _ in begun(where)]:
                raise ValueError(
                    f"{unfinished[0]} holds the states of runs that are trained as one; add "
                    "--population to go on, or delete it to train them anew, one by one."
                )
            else:
                finished = run_sweep(runs, commands[label].cfg, job)
            if not finished:
                print("stopped; the same command goes on.", file=sys.stderr)
                return EXIT_STOPPED
    if values["run"] is not None:
        return _end_of(commands, parts)
    from ssm_jax.plots.sweep import draw_sweep
    from ssm_jax.sweep import shown_address
    from ssm_jax.sweep.results import best_first, document_of, joined
    from ssm_jax.sweep.tables import write_results
    from ssm_jax.training.record import without_folders

    if search is not None:
        ended = not values["report_only"]
        parts = {
            k: (where, tried(search, where, commands[k], ended=ended))
            for k, (where, _) in parts.items()
        }
    if storage := values["storage"]:  # sweep.json may be published
        words = [word.replace(storage, shown_address(storage)) for word in words]
    command = without_folders(words)
    documents = {
        label: document_of(runs, where, commands[label].cfg, command, values["metric"])
        for label, (where, runs) in parts.items()
    }
    (document,) = [joined(documents, command)] if several else documents.values()
    if search is not None:
        document["cells"] = best_first(document)
    text = write_results(folder, document)
    ending = next(iter(commands.values())).cfg.figures_format
    if search is None or search.points:
        draw_sweep(folder / f"sweep.{ending}", document)
    if len(document["cells"]) <= CURVES:
        _draw_curves(
            folder / f"curves.{ending}",
            [where / r.name for where, rs in parts.values() for r in rs],
        )
    for label, (where, runs) in parts.items():
        sweep_status.write(commands[label], where, runs, search)
    print(text, end="")
    failed = [run["name"] for run in document["runs"] if run["status"] == "failed"]
    for name in failed:
        print(f"error: {name} failed; look into its log.txt.", file=sys.stderr)
    return 1 if failed else 0


def _alone(parts: Parts, number: int) -> Parts:
    """The run of that number in the list of all, in its place."""
    places = [(label, where, run) for label, (where, runs) in parts.items() for run in runs]
    label, where, run = places[number]
    return {label: (where, [run])}


def _end_of(commands: Mapping[str, cli.Command], parts: Parts) -> int:
    """The exit code for how the only run of the parts has ended, as `train` has it.

    One that another command is making is EXIT_STOPPED: come back when that has ended.
    """
    ((label, (where, (run,))),) = parts.items()
    status, found = run.status(commands[label].cfg, where)
    if status in ("diverged", "failed"):
        print(f"error: {run.name} {status}: {found['error']}", file=sys.stderr)
        return 1
    if status in ("unfinished", "missing"):
        print(f"{run.name}: another process is at it; the same command goes on.", file=sys.stderr)
        return EXIT_STOPPED
    print(f"{run.name}: {status}")
    return 0


def _begun(
    commands: Mapping[str, cli.Command], parts: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[dict[str, cli.Command], Begin | None]:
    """The experiments as they begin from the run of --init_from, and what is asked of that.

    Runs of the folder that have begun from it say which state it was: that of all the others too.
    """
    runs = [where / run.name for where, several in parts.values() for run in several]
    old = [run for run in runs if (run / "start").is_dir()]
    if values["sampler"] and not old:
        old = [path.parent for path in sorted(values["folder"].glob("*/start"))]
    if not (old or values["init_from"] or values["init_match"]):
        return dict(commands), None
    from ssm_jax.training.parent import begin_from, find_parent, idle_with  # imports JAX

    begin = begin_from(values["init_from"], values["init_match"], None)
    swept = [key for _, several in parts.values() for key in several[0].cell]
    learned = [c.cfg.model.beta.learn for c in commands.values()]
    learns_beta = all(learned) and "model.beta.learn" not in swept
    if begin and (idle := idle_with(begin, swept, learns_beta=learns_beta)):
        raise ValueError(
            f"{', '.join(idle)} is swept and acts at initialization, and --init_from takes all "
            "parameters, so all cells would be one run; take fewer by --init_match, or leave it."
        )
    if (parent := find_parent(begin, (old or runs)[0])) is None:
        return dict(commands), begin
    change = {"parent": parent.state}
    made = {
        label: command._replace(cfg=config_lib.altered(command.cfg, change))
        for label, command in commands.items()
    }
    return made, begin


def _draw_curves(path: Path, runs: Sequence[Path]) -> None:
    """Draw the curves of those runs of a sweep that have begun."""
    from ssm_jax.plots import save
    from ssm_jax.plots.compare import compare_figure
    from ssm_jax.sweep.compare import curves_of, settings_of

    try:
        if begun := [run for run in runs if (run / "record.json").exists()]:
            save(path, compare_figure, *curves_of(settings_of(begun)))
    except ValueError as error:  # one is damaged, which is no reason to show no table
        print(f"warning: {path} is not drawn: {error}", file=sys.stderr)
