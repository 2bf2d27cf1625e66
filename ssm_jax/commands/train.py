"""The commands that train an experiment: one run of it, or a sweep."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm_jax import config as config_lib
from ssm_jax.commands import start_jax
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.load import load_sweep
from ssm_jax.files import check_writable
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.sweep import Run, runs_of

if TYPE_CHECKING:
    from ssm_jax.sweep.runs import Job

FRESH = Flag(
    "fresh",
    "start anew: what is in --workdir moves to its subfolder old-1; give it once",
    False,
    bool,
)
ACCEPT_LOG = Flag(
    "accept_log",
    "go on though log or diagnostics are lost or damaged; keep what is sound",
    False,
    bool,
)


def train(argv: list[str], called: Sequence[str] = ("ssm-jax", "train")) -> int:
    """Train one experiment, or go on with it.

        ssm-jax train --config=lra/listops --workdir=runs/listops
        ssm-jax train --config=lra/listops:s5 --workdir=runs/s5 --config.model.alpha=3
        ssm-jax train --config=my/experiment.py --workdir=runs/mine --dry_run

    The same command goes on where a run was stopped. It passes over damaged checkpoints, makes a
    lost record again and tests a run with a damaged result again, each with a warning. If the best
    checkpoint is lost, it tests the next best, and the summary says so. It stops at a log or
    diagnostics that are not what the run has written, and at a log without checkpoints: give
    --accept_log to go on with what there is, or --fresh to start anew; both keep the old files.

    Exit codes: 0 finished, 1 diverged, 2 wrong input, 74 the storage failed or is full (what was
    saved is kept), 75 stopped on request (the same command goes on).
    """
    from ssm_jax.train.logs import default_wandb
    from ssm_jax.train.workdir import Workdir

    wandb = replace(cli.WANDB, default=default_wandb())
    flags = (cli.WORKDIR, cli.DATA_DIR, cli.FROM, wandb, cli.DRY_RUN, FRESH, ACCEPT_LOG)
    cfg, values, _ = cli.load(argv, flags=flags, about=getdoc(train) or "")
    if values["from"] is not None and cfg.data.source in ("generated", "photographs"):
        cfg.data.source = "official"
    workdir = values["workdir"]
    if workdir is None and not values["dry_run"]:
        cli.fail("--workdir is missing; give the folder of the run, such as --workdir=runs/a.")
    if not values["dry_run"] and not Workdir(workdir).done:
        check_writable(workdir, "folder")

    start_jax()
    if values["dry_run"]:
        from ssm_jax.train.experiment import build
        from ssm_jax.train.runs.tables import print_plan

        print_plan(build(cfg, data_dir=values["data_dir"], files=values["from"]))
        return 0
    from ssm_jax.train.loop import run_experiment

    summary = run_experiment(
        cfg,
        workdir,
        data_dir=values["data_dir"],
        files=values["from"],
        wandb=values["wandb"],
        argv=[*called, *argv],
        fresh=values["fresh"],
        accept_log=values["accept_log"],
    )
    return EXIT_STOPPED if summary is None else 0


FOLDER = Flag(
    "folder", "folder of the sweep, with a folder for each run", kind=Path, writes="folder"
)
SEEDS = Flag("seeds", "runs of each cell, from --config.seed on", 1, int)
METRIC = Flag("metric", "what is shown, of those on the test split; if not given, the task's first")
REPORT_ONLY = Flag(
    "report_only", "run nothing; write the tables and the figure of what there is", False, bool
)


def sweep(argv: list[str], called: Sequence[str] = ("ssm-jax", "sweep")) -> int:
    """Run an experiment at every value of the options that its file sweeps, with some seeds.

        ssm-jax sweep --config=ablation/image:reduced --folder=runs/ablation

    The file defines sweep() beside get_config(): a list of {option: value}. Each cell and seed is a
    run of its own in the folder; one that diverges or fails is marked and the next begins. The same
    command goes on where it was stopped, and several such commands may share a folder. At the end
    the folder has sweep.md, sweep.csv, sweep.json and, for one or two options, sweep.png.

    Exit codes: 0 finished, 1 a run cannot be restored, 2 wrong input, 74 the storage failed or is
    full, 75 stopped on request (the same command goes on).
    """
    flags = (FOLDER, SEEDS, METRIC, REPORT_ONLY, cli.DATA_DIR, cli.FROM)
    command = cli.load(argv, flags=flags, about=getdoc(sweep) or "")
    cfg, values, _ = command
    folder = values["folder"]
    if folder is None:
        cli.fail("--folder is missing; give the folder of the sweep, such as --folder=runs/sweep.")
    runs = _runs_asked(command)
    if values["report_only"] and not folder.is_dir():
        raise ValueError(f"--folder={folder} does not exist; there is nothing to report.")
    if not values["report_only"]:
        start_jax(compiled=False)
        from ssm_jax.sweep.runs import run_sweep, share_compiled

        share_compiled(folder)
        if not run_sweep(runs, cfg, job_of(command, [*called, *argv])):
            print("stopped; the same command goes on.", file=sys.stderr)
            return EXIT_STOPPED
    document = _report(runs, command, [*called, *argv])
    failed = [run["name"] for run in document["runs"] if run["status"] == "failed"]
    for name in failed:
        print(f"error: {name} failed; look into its log.txt.", file=sys.stderr)
    return 1 if failed else 0


def job_of(command: cli.Command, words: Sequence[str]) -> Job:
    """Where the runs of a command are, and what made them."""
    from ssm_jax.sweep.runs import Job

    values = command.values
    return Job(
        folder=values["folder"],
        data_dir=values["data_dir"],
        files=values.get("from"),
        spec=values["config"],
        overrides=command.overrides,
        argv=words,
    )


def _runs_asked(command: cli.Command) -> list[Run]:
    """The runs of the sweep.

    Raises:
      ValueError: cells that cannot be, or options that are swept and given as well.
    """
    cfg, values, overrides = command
    cells = load_sweep(values["config"], cfg)
    both = [key for key in cells[0] if key in overrides]
    if both:
        raise ValueError(f"--config.{both[0]} is given and is swept; leave it out.")
    if values["seeds"] < 1:
        raise ValueError(f"--seeds={values['seeds']} must be at least 1.")
    return runs_of(cells, range(cfg.seed, cfg.seed + values["seeds"]))


def _report(runs: list[Run], command: cli.Command, words: list[str]) -> dict[str, Any]:
    """Write the tables and the figure into the folder; the document that they show."""
    from ssm_jax.files import replace_atomically, write_json
    from ssm_jax.plots.heatmap import draw_sweep
    from ssm_jax.sweep.results import caption, document_of, to_csv, to_markdown
    from ssm_jax.tasks import find_task
    from ssm_jax.train.record import published

    cfg, values, _ = command
    folder, task = values["folder"], find_task(cfg.task)
    metric = values["metric"] or task.headline
    document = document_of(
        runs,
        folder,
        digest=lambda run: config_lib.digest(run.config(cfg)),
        metric=metric,
        metrics=task.metrics,
        about={
            "name": cfg.name,
            "task": cfg.task,
            "notes": cfg.notes,
            "command": published(words),
        },
    )
    write_json(folder / "sweep.json", document)
    replace_atomically(folder / "sweep.csv", to_csv(document))
    text = to_markdown(document) + f"\n{caption(document)}\n"
    replace_atomically(folder / "sweep.md", text)
    draw_sweep(folder / "sweep.png", document)
    print(text, end="")
    return document
