"""The commands that tell a story about frequency bias: denoise, waves and one-pole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssm_jax.commands import start_jax, write_result
from ssm_jax.commands.train import job_of
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag


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
    cfg, values, _ = command
    if values["from"] is not None:
        cfg.data.source = "official"
    start_jax(values["folder"])
    job = job_of(command, [*called, *argv])
    from ssm_jax.stories.denoise import run

    settings = run.GRID if values["grid"] else run.STORY
    return run.run_story(cfg, settings, values["seeds"], job)


def waves(argv: list[str], called: Sequence[str] = ("ssm-jax", "waves")) -> int:
    """Show which waves a state space model learns, under four settings of alpha and beta.

        ssm-jax waves                         # minutes on two CPU cores
        ssm-jax waves --config=waves:full     # the official size, for a GPU

    Each setting and seed is a run of `ssm-jax train` in a folder of its own; a finished one is not
    trained again, so the command can be stopped and given again. At the end: errors.png (error of
    each wave over training), table.md and results.json.
    """
    command = _load("waves", argv, waves.__doc__)
    start_jax(command.values["folder"])
    job = job_of(command, [*called, *argv])
    from ssm_jax.stories.waves import run

    return run.run_story(command.cfg, command.values["seeds"], job)


def _load(name: str, argv: Sequence[str], about: str | None, *more: Flag) -> cli.Command:
    """The options of a story, whose experiment is its shipped config unless another is given.

    Raises:
      SystemExit: as `cli.load`; or for a config of another task, or no seed.
    """
    usual, folder = f"configs/{name}.py", Path(f"runs/{name}")
    flags = (
        Flag("folder", "where the runs and the results are", folder, kind=Path, writes="folder"),
        Flag("seeds", "runs of each setting, from --config.seed on", 1, int),
        cli.DATA_DIR,
        *more,
    )
    if not any(word.partition("=")[0] == "--config" for word in argv):
        argv = [f"--config={name}", *argv]
    command = cli.load(argv, flags=flags, about=about)
    if command.cfg.task != name:
        cli.fail(f"task={command.cfg.task!r} is not {name}; give a config such as {usual}.")
    if command.values["seeds"] < 1:
        cli.fail(f"--seeds={command.values['seeds']} must be at least 1.")
    return command


def one_pole(argv: list[str], called: Sequence[str] = ("ssm-jax", "one-pole")) -> int:
    """Train one pole towards a target at a distance: the |s - y|^-2 law, and what beta does.

        ssm-jax one-pole --out=results/theory/one_pole.json

    The pole is -0.5 + i with residue 1 + i; see ssm_jax/stories/one_pole.py for the three targets.
    Beside the JSON file a figure of the same name is written. Some seconds on a CPU.
    """
    usual = Path("runs/one_pole.json")
    flags = (Flag("out", "file for the results, JSON", usual, kind=Path, writes="file"),)
    out = cli.load_flags(argv, flags=flags, about=one_pole.__doc__)["out"]
    if out.suffix != ".json":
        cli.fail(f"--out={out} does not fit: it must be a .json.")
    from ssm_jax.plots import save
    from ssm_jax.stories.one_pole import measure, one_pole_figure

    results = measure()
    write_result(out, results, [*called, *argv])
    save(out.with_suffix(".png"), one_pole_figure, results)
    for kind, label in (("bands", "band"), ("wishes", "wish")):
        for found in results[kind]:
            print(
                f"{label} beta {found['beta']:4}: slope {found['slope']:.3f}, "
                f"law {found['law']:.1f}; gradient within {found['worst_gradient_error']:.0e}"
            )
    print(f"arrival: slope {results['arrival']['slope']:.3f}; {out}, {out.with_suffix('.png')}")
    return 0
