"""Which waves a state space model learns, under four settings of alpha and beta.

    python scripts/waves.py                                    # minutes on two CPU cores
    python scripts/waves.py --config=configs/waves.py:full     # the official size, for a GPU

Each setting and seed is a run of scripts/train.py in a folder of its own; a finished one is not
trained again, so the command can be stopped and given again. At the end: errors.png (error of each
wave over training), table.md and results.json.

Exit codes: 0 finished, 2 wrong input, 74 the storage failed or is full, 75 stopped on request (the
same command goes on).
"""

from __future__ import annotations

import sys

from ssm_jax import stop

if __name__ == "__main__":
    stop.catch_signals()  # the imports take a moment

from ssm_jax.config import cli
from ssm_jax.stories.runs import load


def main(argv: list[str]) -> int:
    cfg, values, overrides = load(argv, "waves", about=__doc__ or "")
    from ssm_jax.kernels.cpu import keep_freed_memory

    keep_freed_memory()
    from ssm_jax.stories.waves import run as waves  # after the options: JAX takes a second
    from ssm_jax.sweep.runs import Job

    job = Job(
        folder=values["folder"],
        data_dir=values["data_dir"],
        files=None,
        spec=values["config"],
        overrides=overrides,
        argv=["scripts/waves.py", *argv],
    )
    return waves.run_story(cfg, values["seeds"], job)


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
