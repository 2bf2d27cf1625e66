"""Evaluate a checkpoint of a run on a split; the run may be going on meanwhile.

    python scripts/evaluate.py --workdir=runs/a                      # best checkpoint, test split
    python scripts/evaluate.py --workdir=runs/a --split=val --step=1200 --out=runs/a/eval_val.json

Prints accuracy, confusion and accuracy by length; --out has them as JSON, with their provenance.

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
        replace(cli.WORKDIR, help="folder of the run; it is only read"),
        Flag("split", "examples to evaluate", "test", choices=("train", "val", "test")),
        Flag("step", "checkpoint: best, newest, or a number", "best"),
        Flag("out", "file for the result, JSON", kind=Path, writes="file"),
        replace(cli.DATA_DIR, default=default_data_dir()),
        replace(cli.FROM, help="official files of the run: an archive or a folder"),
    )
    values = cli.load_flags(argv, flags=flags, about=__doc__ or "")
    workdir, out = values["workdir"], values["out"]
    if workdir is None:
        cli.fail("--workdir is missing; give the folder of a run, such as --workdir=runs/a.")
    if out is not None and (out.suffix != ".json" or out.name in ("record.json", "summary.json")):
        cli.fail(f"--out={out} does not fit: it must be another .json than those of a run.")

    from ssm_jax.files import write_json
    from ssm_jax.train.runs.evaluate import evaluate_run  # after the options: JAX takes a second
    from ssm_jax.train.runs.tables import print_evaluation

    result = evaluate_run(
        workdir,
        split=values["split"],
        step=values["step"],
        data_dir=values["data_dir"],
        files=values["from"],
        argv=["scripts/evaluate.py", *argv],
    )
    print_evaluation(result)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, result)
        print(f"the result is in {out}.")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
