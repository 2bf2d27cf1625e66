"""See a frequency bias strengthened, weakened and reversed: train denoisers, show what passes.

    python scripts/denoise.py                       # four settings of the knobs: two minutes
    python scripts/denoise.py --grid                # all 20 settings of the paper
    python scripts/denoise.py --config=configs/denoise.py:full --from=img_align_celeba.zip

Each setting and seed is a run of scripts/train.py in a folder of its own; a finished one is not
trained again, so the command can be stopped and given again. At the end: images.png (outputs for
striped images), gains.png (the operators against frequency), table.md and results.json.

Exit codes: 0 finished, 2 wrong input, 74 the storage failed or is full, 75 stopped on request (the
same command goes on).
"""

from __future__ import annotations

import sys

from ssm_jax import stop

if __name__ == "__main__":
    stop.catch_signals()  # the imports take a moment

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.stories.runs import load

GRID = Flag("grid", "all settings of the paper instead of four", False, bool)


def main(argv: list[str]) -> int:
    cfg, values, overrides = load(argv, "denoise", about=__doc__ or "", flags=(GRID, cli.FROM))
    if values["from"] is not None:
        with cfg.unlocked():
            cfg.data.source = "official"

    from ssm_jax.kernels.cpu import keep_freed_memory

    keep_freed_memory()
    from ssm_jax.stories.denoise import run as denoise  # after the options: JAX takes a second
    from ssm_jax.sweep.runs import Job

    job = Job(
        folder=values["folder"],
        data_dir=values["data_dir"],
        files=values["from"],
        spec=values["config"],
        overrides=overrides,
        argv=["scripts/denoise.py", *argv],
    )
    settings = denoise.GRID if values["grid"] else denoise.STORY
    return denoise.run_story(cfg, settings, values["seeds"], job)


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
