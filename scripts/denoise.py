"""See a frequency bias strengthened, weakened and reversed: train denoisers, show what passes.

    python scripts/denoise.py                       # four settings of the knobs: two minutes
    python scripts/denoise.py --grid                # all 20 settings of the paper
    python scripts/denoise.py --config=configs/denoise.py:full --from=img_align_celeba.zip

Each setting and seed is a run of scripts/train.py in a folder of its own; a finished one is not
trained again, so the command can be stopped and given again. At the end: images.png (outputs for
striped images), gains.png (the operators against frequency), table.md and results.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ssm_jax import cli
from ssm_jax.data.recipe import default_data_dir
from ssm_jax.heap import keep_freed_memory
from ssm_jax.options import Flag

CONFIG = "configs/denoise.py"
FLAGS = (
    Flag("folder", "where the runs and the results are", Path("runs/denoise"), kind=Path),
    Flag("seeds", "how many seeds of each setting", 1, int),
    Flag("grid", "all settings of the paper instead of four", False, bool),
    cli.FROM,
    replace(cli.DATA_DIR, default=default_data_dir()),
)


def main(argv: list[str]) -> int:
    if not any(word.startswith("--config=") for word in argv):
        argv = [f"--config={CONFIG}", *argv]
    cfg, values, _ = cli.load(argv, flags=FLAGS, about=__doc__ or "")
    if cfg.task != "denoise":
        cli.fail(f"task={cfg.task!r} is no image denoising; give a config such as {CONFIG}.")
    if values["seeds"] < 1:
        cli.fail(f"--seeds={values['seeds']} must be at least 1.")
    if values["from"] is not None:
        with cfg.unlocked():
            cfg.data.source = "official"

    keep_freed_memory()
    from ssm_jax.studies.denoise import GRID, STORY, run_study  # JAX takes a second

    return run_study(
        cfg,
        GRID if values["grid"] else STORY,
        seeds=values["seeds"],
        folder=values["folder"],
        data_dir=values["data_dir"],
        files=values["from"],
        argv=["scripts/denoise.py", *argv],
    )


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
