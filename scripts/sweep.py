"""Run an experiment at every value of the options that its file sweeps, with some seeds.

    python scripts/sweep.py --config=configs/ablation/image.py:reduced --folder=runs/ablation

The file defines sweep() beside get_config(): a list of {option: value}. Each cell and seed is a run
of its own in the folder; one that diverges or fails is marked and the next begins. The same command
goes on where it was stopped, and several such commands may share a folder. At the end the folder
has sweep.md, sweep.csv, sweep.json and, for one or two options, sweep.png.

Exit codes: 0 finished, 1 a run cannot be restored, 2 wrong input, 74 the storage failed or is full,
75 stopped on request (the same command goes on).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssm_jax import stop

if __name__ == "__main__":
    stop.catch_signals()  # the imports take a moment

from ssm_jax import config as config_lib
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.load import load_sweep
from ssm_jax.data.prepare import default_data_dir
from ssm_jax.sweep import Run, runs_of

FLAGS = (
    Flag("folder", "folder of the sweep, with a folder for each run", kind=Path, writes="folder"),
    Flag("seeds", "runs of each cell, from --config.seed on", 1, int),
    Flag("metric", "what is shown, of those on the test split; if not given, the task's first"),
    Flag(
        "report_only", "run nothing; write the tables and the figure of what there is", False, bool
    ),
)


def runs_asked(command: cli.Command) -> list[Run]:
    """The runs of the sweep.

    Raises:
      ValueError: cells that cannot be, or options that are swept and given as well.
    """
    cfg, values, overrides = command
    cells = load_sweep(values["config"], cfg)
    both = [key for key in cells[0] if key in overrides]
    if both:
        raise ValueError(f"--config.{both[0]} is given and is swept; leave it out.")
    if values["seeds"] < 1:
        raise ValueError(f"--seeds={values['seeds']} must be at least 1.")
    return runs_of(cells, range(cfg.seed, cfg.seed + values["seeds"]))


def report(runs: list[Run], command: cli.Command, argv: list[str]) -> dict[str, Any]:
    """Write the tables and the figure into the folder; the document that they show."""
    from ssm_jax.files import replace_atomically, write_json
    from ssm_jax.plots.heatmap import draw_sweep
    from ssm_jax.sweep.results import caption, document_of, to_csv, to_markdown
    from ssm_jax.tasks import TASKS
    from ssm_jax.train.record import published

    cfg, values, _ = command
    folder, metrics = values["folder"], TASKS[cfg.task].metrics
    metric = values["metric"] or TASKS[cfg.task].headline
    document = document_of(
        runs,
        folder,
        digest=lambda run: config_lib.digest(run.config(cfg)),
        metric=metric,
        metrics=metrics,
        about={
            "name": cfg.name,
            "task": cfg.task,
            "notes": cfg.notes,
            "command": published(["scripts/sweep.py", *argv]),
        },
    )
    write_json(folder / "sweep.json", document)
    replace_atomically(folder / "sweep.csv", to_csv(document))
    text = to_markdown(document) + f"\n{caption(document)}\n"
    replace_atomically(folder / "sweep.md", text)
    draw_sweep(folder / "sweep.png", document)
    print(text, end="")
    return document


def main(argv: list[str]) -> int:
    data_dir = replace(cli.DATA_DIR, default=default_data_dir())
    command = cli.load(argv, flags=(*FLAGS, data_dir, cli.FROM), about=__doc__ or "")
    cfg, values, overrides = command
    folder = values["folder"]
    if folder is None:
        cli.fail("--folder is missing; give the folder of the sweep, such as --folder=runs/sweep.")
    runs = runs_asked(command)
    if values["report_only"] and not folder.is_dir():
        raise ValueError(f"--folder={folder} does not exist; there is nothing to report.")
    if not values["report_only"]:
        from ssm_jax.kernels.cpu import keep_freed_memory

        keep_freed_memory()
        from ssm_jax.sweep.runs import Job, run_sweep, share_compiled  # JAX takes a second

        job = Job(
            folder=folder,
            data_dir=values["data_dir"],
            files=values["from"],
            spec=values["config"],
            overrides=overrides,
            argv=["scripts/sweep.py", *argv],
        )
        share_compiled(folder)
        finished = run_sweep(runs, cfg, job)
        if not finished:
            print("stopped; the same command goes on.", file=sys.stderr)
            return 75
    failed = [
        run["name"] for run in report(runs, command, argv)["runs"] if run["status"] == "failed"
    ]
    for name in failed:
        print(f"error: {name} failed; look into its log.txt.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
