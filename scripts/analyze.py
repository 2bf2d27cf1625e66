"""Explain a checkpoint: what its layers do to frequencies, and what training changed.

    python scripts/analyze.py runs/a                           # the best checkpoint
    python scripts/analyze.py runs/a/checkpoints/1200 --out=runs/a_1200

Prints for each layer: variation and energy of its transfer function by frequency band before and
after training, how far the poles moved, beta, and where the poles' gradient comes from. Figures and
all numbers (analysis.json) go to --out. The run may be going on meanwhile; nothing else is written.

Exit codes: 0 done, 1 a damaged checkpoint, 2 wrong input.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.data.prepare import default_data_dir


def main(argv: list[str]) -> int:
    flags = (
        Flag(
            "out",
            "folder for figures and numbers; else WORKDIR/analysis",
            kind=Path,
            writes="folder",
        ),
        Flag("gradient", "take the gradient of one batch of training", True, bool),
        replace(cli.DATA_DIR, default=default_data_dir()),
        replace(cli.FROM, help="official files of the run: an archive or a folder"),
    )
    words = Flag("checkpoint", "the folder of a run, or WORKDIR/checkpoints/STEP", kind=Path)
    values = cli.load_flags(argv, flags=flags, about=__doc__ or "", words=words)
    if len(values["checkpoint"]) > 1:
        cli.fail(f"give one checkpoint, got {len(values['checkpoint'])}.")

    from ssm_jax.train.runs.analyze import analyze  # after the options: JAX takes a second
    from ssm_jax.train.runs.tables import print_analysis

    result, paths = analyze(
        Path(values["checkpoint"][0]),
        out=values["out"],
        gradient=values["gradient"],
        data_dir=values["data_dir"],
        files=values["from"],
        argv=["scripts/analyze.py", *argv],
    )
    print_analysis(result)
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
