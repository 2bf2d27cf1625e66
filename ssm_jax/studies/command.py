"""The command line of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ssm_jax import cli
from ssm_jax.data.recipe import default_data_dir
from ssm_jax.options import Flag


def load(argv: Sequence[str], name: str, *, about: str, flags: Sequence[Flag] = ()) -> cli.Command:
    """The options of `scripts/NAME.py`, whose experiment is configs/NAME.py unless told otherwise.

    Args:
      argv: the arguments.
      name: of the study, and of its task.
      about: head of `--help`.
      flags: besides --folder, --seeds and --data_dir.

    Raises:
      SystemExit: as `cli.load`; or for a config of another task, or no seed.
    """
    usual = f"configs/{name}.py"
    shared = (
        Flag(
            "folder",
            "where the runs and the results are",
            Path(f"runs/{name}"),
            kind=Path,
            writes="folder",
        ),
        Flag("seeds", "runs of each setting, from --config.seed on", 1, int),
        replace(cli.DATA_DIR, default=default_data_dir()),
    )
    if not any(word.startswith("--config=") or word == "--config" for word in argv):
        argv = [f"--config={usual}", *argv]
    command = cli.load(argv, flags=(*shared, *flags), about=about)
    if command.cfg.task != name:
        cli.fail(f"task={command.cfg.task!r} is not {name}; give a config such as {usual}.")
    if command.values["seeds"] < 1:
        cli.fail(f"--seeds={command.values['seeds']} must be at least 1.")
    return command
