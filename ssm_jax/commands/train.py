"""The commands train, for one experiment, and aot, which compiles it for another machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssm_jax.commands import start_jax
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.files import check_writable
from ssm_jax.stop import EXIT_STOPPED

WANDB_FLAGS = (
    Flag("wandb_project", "project of Weights & Biases; if not given, $WANDB_PROJECT or ssm_jax"),
    Flag("wandb_entity", "team or user there"),
    Flag("wandb_group", "group of runs there"),
    Flag("wandb_tags", "tags there, with commas between them"),
)
INIT_FLAGS = (
    Flag(
        "init_from",
        "begin with parameters of another run: RUN, or RUN:STEP (default: best)",
        kind=str,
    ),
    Flag("init_match", "regular expression of the parameters that are taken", ""),
)
BEGIN = ("init_from", "init_match", "continue_from")


def train(argv: list[str], called: Sequence[str] = ("ssm-jax", "train")) -> int:
    """Train one experiment, or resume it.

        ssm-jax train --config=lra/listops --workdir=runs/listops
        ssm-jax train --config=my/experiment.py:small --workdir=runs/a --config.model.alpha=3

    The same command resumes a run that was stopped. It passes over damaged checkpoints, makes a
    lost record again and tests a run with a damaged result again, each with a warning. If the best
    checkpoint is lost, it tests the next best, and the summary says so. It stops at a log or
    diagnostics that are not what the run has written, and at a log without checkpoints: give
    --accept_log to continue with what there is, or --fresh to start anew; both keep the old files.

        ssm-jax train --continue_from=runs/a --workdir=runs/b --config.train.steps=4000
        ssm-jax train --config=my/experiment.py --workdir=runs/c --init_from=runs/a:best

    A new run begins from another: it goes on with its optimizer and step count, or takes its
    parameters. Its record names the other. Without --config it has the config of that run.
    """
    from ssm_jax.training.sinks import require_tensorboard
    from ssm_jax.training.workdir import Workdir

    cfg, values, _ = read(argv, train.__doc__)
    if values["dry_run"]:
        start_jax(values["compiled"])
        from ssm_jax.training.experiment import build
        from ssm_jax.training.parent import begin_from, begun
        from ssm_jax.training.plan import print_plan

        where = {"data_dir": values["data_dir"], "files": values["from"]}
        anew = values["fresh"] or values["workdir"] is None
        begin = begin_from(*(values[name] for name in BEGIN))
        cfg = begun(cfg, begin, values["workdir"] or Path(), anew=anew)
        print_plan(build(cfg, **where, look_only=True))
        return 0
    if (workdir := values["workdir"]) is None:
        cli.fail("--workdir is missing; give the folder of the run, such as --workdir=runs/a.")
    if values["tensorboard"]:
        require_tensorboard()
    options = {
        flag.name.removeprefix("wandb_"): values[flag.name]
        for flag in WANDB_FLAGS
        if values[flag.name]
    }
    if options and values["wandb"] == "disabled":
        cli.fail(f"--wandb_{next(iter(options))} goes with --wandb=online or --wandb=offline.")
    if "tags" in options:
        options["tags"] = [tag.strip() for tag in options["tags"].split(",")]
    if not Workdir(workdir).done:
        check_writable(workdir, "folder")
        Workdir(workdir).refuse_foreign()
    start_jax(values["compiled"])
    from ssm_jax.training import loop, processes

    processes.begin(values["wait_s"])

    names = ("data_dir", "wandb", "tensorboard", "profile", "fresh", "accept_log", *BEGIN)
    given = {name: values[name] for name in names} | {"wandb_options": options}
    summary = loop.train(cfg, workdir, files=values["from"], argv=[*called, *argv], **given)
    return EXIT_STOPPED if summary is None else 0


def read(argv: Sequence[str], about: str | None) -> cli.Command:
    """The experiment and the flags of a command line."""
    from ssm_jax.training.sinks import default_wandb

    fresh = "start anew: what is in --workdir moves to its subfolder old-1; give it once"
    accept = "continue though log or diagnostics are lost or damaged; keep what is sound"
    go_on = "go on from the whole state of another run: RUN, or RUN:STEP (default: newest)"
    flags = (
        cli.WORKDIR,
        cli.DATA_DIR,
        cli.FROM,
        replace(cli.WANDB, default=default_wandb()),
        *WANDB_FLAGS,
        Flag(
            "tensorboard", "also write files for TensorBoard, in WORKDIR/tensorboard", False, bool
        ),
        Flag(
            "profile",
            "trace that many steps after warm-up; show where the time goes",
            0,
            int,
            least=0,
        ),
        Flag(
            "wait_s",
            "seconds to wait at the start for the other processes of the run",
            60,
            int,
            least=1,
        ),
        cli.DRY_RUN,
        *INIT_FLAGS,
        Flag("continue_from", go_on, kind=str),
        cli.COMPILED,
        Flag("fresh", fresh, False, bool),
        Flag("accept_log", accept, False, bool),
    )
    return cli.load(argv, flags=flags, about=about, base=_config_of_parent)


def _config_of_parent(given: Mapping[str, Any]) -> Any:
    """The config of the run that a command begins from; None if there is none."""
    if not (given.get("init_from") or given.get("continue_from")):
        return None
    from ssm_jax.training.parent import begin_from, config_of_run  # imports JAX

    begin = begin_from(
        given.get("init_from"), given.get("init_match", ""), given.get("continue_from")
    )
    return begin and config_of_run(begin.run, given.get("workdir"))


WIDTH = 150  # where the output is no terminal: the kernels' names fit


def aot(argv: list[str], called: Sequence[str] = ("ssm-jax", "aot")) -> int:
    """Compile the steps of an experiment for an accelerator that is not there; show what they do.

        ssm-jax aot --config=lra/listops:s4d_ft --target=h200
        ssm-jax aot --config=lra/pathx:s4 --target=v5e:2x2 --devices=4 --out=pathx.json

    Shows memory, bytes moved and the time that those take at best, floating-point operations,
    kernels, FFTs, products with their precision, messages between devices, and what moves most.
    Nothing runs and no data are needed. Targets: h100, h200, and TPUs by their topology (v4:2x2x1,
    v5e:2x2, v5p:2x2x1, v6e:2x2). The extra `aot` has the compilers: pip install 'ssm-jax[aot]'.
    """
    from ssm_jax.accelerators import targets

    os.environ.update(targets.ENVIRONMENT)  # reading the config imports JAX
    flags = (
        Flag("target", "h100, h200, or a TPU with its topology, v5e:2x2"),
        Flag("devices", "devices over which the batch is split", 1, int, least=1),
        Flag("steps", "which steps to compile", "both", choices=("both", "train", "eval")),
        Flag("members", "of a population, all at once; 0: one run", 0, int, least=0),
        Flag("out", "file for the figures", kind=Path, writes="file", endings=(".json",)),
        Flag("hlo", "file for the optimized HLO; each step has its own", kind=Path, writes="file"),
        cli.DATA_DIR,
        cli.FROM,
    )
    with targets.quiet():
        command = cli.load(argv, flags=flags, about=aot.__doc__)
    values = command.values
    if not values["target"]:
        cli.fail("--target is missing; give an accelerator, such as --target=h200.")
    target = targets.find_target(values["target"])
    targets.require_compiler(target)
    from rich.console import Console

    from ssm_jax.accelerators import planned
    from ssm_jax.training.record import write_result

    steps = ("train", "eval") if values["steps"] == "both" else (values["steps"],)
    where = {"data_dir": values["data_dir"], "files": values["from"]}
    ways = {"steps": steps, "members": values["members"], **where}
    with targets.quiet():
        found, texts = planned.planned(command.cfg, target, values["devices"], **ways)
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(width=width, highlight=False, markup=False)
    for part in planned.shown(found):
        console.print(part)
    if (to := values["out"]) is not None:
        write_result(to, found, [*called, *argv])
    if (to := values["hlo"]) is not None:
        for name, text in texts.items():
            to.with_suffix(f".{name}{to.suffix}").write_text(text, encoding="utf-8")
    if line := planned.beyond_memory(found, target):
        raise RuntimeError(line)
    return 0
