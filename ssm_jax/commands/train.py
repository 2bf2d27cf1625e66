"""The commands that train: an experiment, a sweep of it, and stories about frequency bias."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm_jax.commands import start_jax
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag, parse
from ssm_jax.config.load import load_sweep
from ssm_jax.files import check_writable
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.sweep import runs_of

CURVES = 8  # settings whose curves one figure can tell apart

if TYPE_CHECKING:
    from ssm_jax.sweep.runs import Job


WANDB_FLAGS = (
    Flag("wandb_project", "project of Weights & Biases; if not given, $WANDB_PROJECT or ssm_jax"),
    Flag("wandb_entity", "team or user there"),
    Flag("wandb_group", "group of runs there"),
    Flag("wandb_tags", "tags there, with commas between them"),
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
    from ssm_jax.training.sinks import default_wandb, require_tensorboard
    from ssm_jax.training.workdir import Workdir

    fresh = "start anew: what is in --workdir moves to its subfolder old-1; give it once"
    accept = "continue though log or diagnostics are lost or damaged; keep what is sound"
    init = "begin with the parameters of another run: RUN, or RUN:STEP (default: best)"
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
        cli.DRY_RUN,
        Flag("init_from", init, kind=str),
        Flag("init_match", "regular expression of the parameters that are taken", ""),
        Flag("continue_from", go_on, kind=str),
        cli.COMPILED,
        Flag("fresh", fresh, False, bool),
        Flag("accept_log", accept, False, bool),
    )
    cfg, values, _ = cli.load(argv, flags=flags, about=train.__doc__, base=_config_of_parent)
    if values["dry_run"]:
        start_jax(values["compiled"])
        from ssm_jax.training.experiment import build
        from ssm_jax.training.runs.tables import print_plan

        where = {"data_dir": values["data_dir"], "files": values["from"]}
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
    from ssm_jax.training import loop

    names = ("data_dir", "wandb", "tensorboard", "profile", "fresh", "accept_log", *BEGIN)
    given = {name: values[name] for name in names} | {"wandb_options": options}
    summary = loop.train(cfg, workdir, files=values["from"], argv=[*called, *argv], **given)
    return EXIT_STOPPED if summary is None else 0


def _config_of_parent(given: Mapping[str, Any]) -> Any:
    """The config of the run that a command begins from; None if there is none."""
    if not (given.get("init_from") or given.get("continue_from")):
        return None
    from ssm_jax.training.parent import begin_from, config_of_run  # imports JAX

    begin = begin_from(
        given.get("init_from"), given.get("init_match", ""), given.get("continue_from")
    )
    return begin and config_of_run(begin.run, given.get("workdir"))


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
    is shown beside it.
    """
    flags = (
        Flag("configs", "experiments to run as they are, in the place of --config", [], words=True),
        Flag("folder", "has a folder for each run, and the results", kind=Path, writes="folder"),
        Flag("seeds", "runs of each cell, from --config.seed on", 1, int, least=1),
        Flag("metric", "what is shown of both splits; if not given, the task's first"),
        Flag("report_only", "run nothing; write tables and figure of what there is", False, bool),
        cli.DATA_DIR,
        cli.FROM,
        cli.COMPILED,
    )
    commands = _named(argv, flags, sweep.__doc__)
    values, several = next(iter(commands.values())).values, len(commands) > 1
    folder, seeds = values["folder"], values["seeds"]
    if folder is None:
        cli.fail("--folder is missing; give the folder of the sweep, such as --folder=runs/sweep.")
    if values["configs"] and not several and seeds == 1:
        word = values["configs"][0]
        cli.fail(f"{word} alone is one run; give --seeds=N, or --config={word} for its sweep().")
    parts = {}
    for label, (cfg, known, overrides) in commands.items():
        spec = known["config"]
        as_is = bool(known["configs"])
        cells = [{}] if as_is else load_sweep(spec, cfg, overrides, alone=seeds > 1)
        if both := [key for key in cells[0] if key in overrides]:
            raise ValueError(f"--config.{both[0]} is given and is swept; leave it out.")
        where = folder / re.sub(r"[^\w.,=+-]", "_", label) if several else folder
        parts[label] = where, runs_of(cells, range(cfg.seed, cfg.seed + seeds), overrides)
    if values["report_only"] and not folder.is_dir():
        raise ValueError(f"--folder={folder} does not exist; there is nothing to report.")
    if not values["report_only"]:
        start_jax(values["compiled"], usual=folder)
        from ssm_jax.sweep.runs import run_sweep

        for label, (where, runs) in parts.items():
            job = _job(commands[label], [*called, *argv], where)
            if not run_sweep(runs, commands[label].cfg, job):
                print("stopped; the same command goes on.", file=sys.stderr)
                return EXIT_STOPPED
    from ssm_jax.plots.sweep import draw_sweep
    from ssm_jax.sweep.results import document_of, joined
    from ssm_jax.sweep.tables import write_results
    from ssm_jax.training.record import published

    command = published([*called, *argv])
    documents = {
        label: document_of(runs, where, commands[label].cfg, command, values["metric"])
        for label, (where, runs) in parts.items()
    }
    (document,) = [joined(documents, command)] if several else documents.values()
    text = write_results(folder, document)
    ending = next(iter(commands.values())).cfg.figures_format
    draw_sweep(folder / f"sweep.{ending}", document)
    if len(document["cells"]) <= CURVES:
        _draw_curves(
            folder / f"curves.{ending}",
            [where / r.name for where, rs in parts.values() for r in rs],
        )
    print(text, end="")
    failed = [run["name"] for run in document["runs"] if run["status"] == "failed"]
    for name in failed:
        print(f"error: {name} failed; look into its log.txt.", file=sys.stderr)
    return 1 if failed else 0


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


def _named(argv: list[str], flags: Sequence[Flag], about: str | None) -> dict[str, cli.Command]:
    """The experiment of --config, or those of several configs, by name or by FILE.py:ARG."""
    given, _ = parse(argv, (cli.CONFIG, *flags))
    words = given.get("configs", [])
    if words and "config" in given:
        cli.fail(f"--config={given['config']} and {words[0]} are both given; leave one out.")
    argvs = [[f"--config={word}", *argv] for word in words] or [argv]
    commands = [cli.load(each, flags=flags, about=about) for each in argvs]
    names = [command.cfg.name for command in commands]
    if len(set(names)) < len(names):
        names = [command.values["config"] for command in commands]
    if again := [name for name in names if names.count(name) > 1]:
        cli.fail(f"the config {again[0]} is given twice; give --seeds=N to run it several times.")
    return dict(zip(names, commands, strict=True))


def _job(command: cli.Command, words: Sequence[str], folder: Path) -> Job:
    """Where the runs of a command are, and what made them."""
    from ssm_jax.sweep.runs import Job

    _, values, overrides = command
    where = folder, values["data_dir"], values.get("from")
    return Job(*where, values["config"], overrides, words)


def _start(command: cli.Command, words: Sequence[str]) -> Job:
    """Start JAX for the runs of a command; where they are, and what made them."""
    start_jax(command.values["compiled"], usual=command.values["folder"])
    return _job(command, words, command.values["folder"])


def denoise(argv: list[str], called: Sequence[str] = ("ssm-jax", "denoise")) -> int:
    """See a frequency bias strengthened, weakened and reversed: train denoisers, show what passes.

        ssm-jax denoise                       # four settings of the knobs: a few minutes
        ssm-jax denoise --grid                # all 20 settings of the paper
        ssm-jax denoise --config=denoise:full --from=img_align_celeba.zip

    Each setting and seed is a run of `ssm-jax train` in a folder of its own; a finished one is not
    trained again, so the command can be stopped and given again. At the end: images.png (outputs
    for striped images), gains.png (the operators against frequency), table.md and results.json.
    """
    grid = Flag("grid", "all settings of the paper instead of four", False, bool)
    command = _load("denoise", argv, denoise.__doc__, grid, cli.FROM)
    job = _start(command, [*called, *argv])
    from ssm_jax.stories.denoise import run

    settings = run.GRID if command.values["grid"] else run.STORY
    return run.run_story(command.cfg, settings, command.values["seeds"], job)


def waves(argv: list[str], called: Sequence[str] = ("ssm-jax", "waves")) -> int:
    """Show which waves a state space model learns, under four settings of alpha and beta.

        ssm-jax waves                         # minutes on two CPU cores
        ssm-jax waves --config=waves:full     # the official size, for a GPU

    Each setting and seed is a run of `ssm-jax train` in a folder of its own; a finished one is not
    trained again, so the command can be stopped and given again. At the end: errors.png (error of
    each wave over training), table.md and results.json.
    """
    command = _load("waves", argv, waves.__doc__)
    job = _start(command, [*called, *argv])
    from ssm_jax.stories.waves import run

    return run.run_story(command.cfg, command.values["seeds"], job)


def _load(name: str, argv: Sequence[str], about: str | None, *more: Flag) -> cli.Command:
    """The options of a story, whose experiment is its shipped config unless another is given."""
    folder, about_it = Path(f"runs/{name}"), "where the runs and the results are"
    flags = (
        Flag("folder", about_it, folder, Path, writes="folder"),
        Flag("seeds", "runs of each setting, from --config.seed on", 1, int, least=1),
        cli.DATA_DIR,
        cli.COMPILED,
        *more,
    )
    if not any(word.partition("=")[0] == "--config" for word in argv):
        argv = [f"--config={name}", *argv]
    command = cli.load(argv, flags=flags, about=about)
    if (task := command.cfg.task) != name:
        cli.fail(f"task={task!r} is not {name}; give a config such as configs/{name}.py.")
    return command


def one_pole(argv: list[str], called: Sequence[str] = ("ssm-jax", "one-pole")) -> int:
    """Train one pole towards a target at a distance: the |s - y|^-2 law, and what beta does.

        ssm-jax one-pole --out=results/theory/one_pole.json

    The pole is -0.5 + i with residue 1 + i; see ssm_jax/stories/one_pole.py for the three targets.
    A figure of the same name is written next to the JSON file. Some seconds on a CPU.
    """
    to = Flag("out", "file for the results, JSON", Path("runs/one_pole.json"), Path, writes="file")
    out = cli.load_flags(argv, flags=(to,), about=one_pole.__doc__)["out"]
    if out.suffix != ".json":
        cli.fail(f"--out={out} does not fit: it must be a .json.")
    from ssm_jax.plots import save
    from ssm_jax.stories.one_pole import describe, measure, one_pole_figure
    from ssm_jax.training.record import write_result

    results = measure()
    write_result(out, results, [*called, *argv])
    save(out.with_suffix(".png"), one_pole_figure, results)
    print(f"{describe(results)}; {out}, {out.with_suffix('.png')}")
    return 0
