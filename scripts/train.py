"""Train one experiment, or go on with it.

    python scripts/train.py --config=configs/lra/listops.py --workdir=runs/listops

The same command goes on where a run was stopped. It passes over damaged checkpoints, makes a lost
record again and tests a run with a damaged result again, each with a warning. If the best
checkpoint is lost, it tests the next best, and the summary says so. It stops at a log or
diagnostics that are not what the run has written, and at a log without checkpoints: give
--accept_log to go on with what there is, or --fresh to start anew; both keep the old files.

Exit codes: 0 finished, 1 diverged, 2 wrong input, 74 the storage failed or is full (what was saved
is kept), 75 stopped on request (the same command goes on).
"""

from __future__ import annotations

import sys
from dataclasses import replace

from ssm_jax import stop

if __name__ == "__main__":
    stop.catch_signals()  # the imports take a moment

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.data.prepare import default_data_dir
from ssm_jax.files import check_writable
from ssm_jax.train.logs import default_wandb
from ssm_jax.train.workdir import Workdir

FRESH = Flag(
    "fresh",
    "start anew: what is in --workdir moves to its subfolder old-1; give it once",
    False,
    bool,
)
ACCEPT_LOG = Flag(
    "accept_log",
    "go on though log or diagnostics are lost or damaged; keep what is sound",
    False,
    bool,
)


def main(argv: list[str]) -> int:
    wandb = replace(cli.WANDB, default=default_wandb())
    data_dir = replace(cli.DATA_DIR, default=default_data_dir())
    flags = (cli.WORKDIR, data_dir, cli.FROM, wandb, cli.DRY_RUN, FRESH, ACCEPT_LOG)
    cfg, values, _ = cli.load(argv, flags=flags, about=__doc__ or "")
    if values["from"] is not None and cfg.data.source in ("generated", "photographs"):
        with cfg.unlocked():
            cfg.data.source = "official"
    if values["workdir"] is None and not values["dry_run"]:
        cli.fail("--workdir is missing; give the folder of the run, such as --workdir=runs/a.")
    if not values["dry_run"] and not Workdir(values["workdir"]).done:
        check_writable(values["workdir"], "folder")

    from ssm_jax.kernels.cpu import keep_freed_memory

    keep_freed_memory()
    from ssm_jax.train import experiment as experiment_lib
    from ssm_jax.train.loop import train_and_evaluate

    experiment = experiment_lib.build(cfg, data_dir=values["data_dir"], files=values["from"])
    if values["dry_run"]:
        from ssm_jax.train.console import print_plan

        print_plan(experiment)
        return 0
    return train_and_evaluate(
        experiment,
        values["workdir"],
        wandb=values["wandb"],
        argv=["scripts/train.py", *argv],
        fresh=values["fresh"],
        accept_log=values["accept_log"],
    )


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
