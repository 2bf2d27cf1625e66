"""Which waves a state space model learns, under four settings of alpha and beta.

    python scripts/waves.py                                    # minutes on two CPU cores
    python scripts/waves.py --config=configs/waves.py:full     # the official size, for a GPU

Each setting and seed is a run of scripts/train.py in a folder of its own; a finished one is not
trained again, so the command can be stopped and given again. At the end: errors.png (error of each
wave over training), table.md and results.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ssm_jax import cli
from ssm_jax.data.recipe import default_data_dir
from ssm_jax.heap import keep_freed_memory
from ssm_jax.options import Flag

CONFIG = "configs/waves.py"
FLAGS = (
    Flag("folder", "where the runs and the results are", Path("runs/waves"), kind=Path),
    Flag("seeds", "how many seeds of each setting", 1, int),
    replace(cli.DATA_DIR, default=default_data_dir()),
)


def main(argv: list[str]) -> int:
    if not any(word.startswith("--config=") for word in argv):
        argv = [f"--config={CONFIG}", *argv]
    cfg, values, _ = cli.load(argv, flags=FLAGS, about=__doc__ or "")
    if cfg.task != "waves":
        cli.fail(f"task={cfg.task!r} is no wave regression; give a config such as {CONFIG}.")
    if values["seeds"] < 1:
        cli.fail(f"--seeds={values['seeds']} must be at least 1.")

    keep_freed_memory()
    from ssm_jax.studies.waves import run_study  # after the options: importing JAX takes a second

    return run_study(
        cfg,
        seeds=values["seeds"],
        folder=values["folder"],
        data_dir=values["data_dir"],
        argv=["scripts/waves.py", *argv],
    )


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
