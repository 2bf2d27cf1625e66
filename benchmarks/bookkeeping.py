"""What a sweep costs beside its runs: 200 runs that train nothing, and all else is real.

    python -m benchmarks.bookkeeping --runs=200 --out=results/bench/sweep_cpu.json

Each run takes its folder's lock and writes ten evaluations, a record and a result. The same runs
without a sweep are measured first, and taken off. Run it from the root of the repository.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ssm_jax import config as config_lib
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.ending import run_main
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.training.workdir import Workdir

STEPS = 10
CONFIG = """
from ssm_jax import config as config_lib

def get_config(arg=""):
    cfg = config_lib.default()
    cfg.name, cfg.train.steps, cfg.train.eval_every = "bookkeeping", {steps}, 1
    return cfg

def sweep():
    return [{{"model.alpha": 1 + i / 1000}} for i in range({runs})]
"""


def train(experiment: Any, path: Path, request: Any) -> int:
    """A run without training: its value follows from alpha."""
    cfg = experiment.cfg
    with Workdir(path):
        record = {"config": config_lib.flatten(cfg), "seed": cfg.seed}
        (path / "record.json").write_text(json.dumps(record))
        for step in range(1, STEPS + 1):
            value = step / (STEPS + abs(cfg.model.alpha - 1))
            row = {"step": step, "kind": "val", "accuracy": value, "loss": 1 - value}
            with (path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            if request.watch is not None and step < STEPS and request.watch(step, value):
                return EXIT_STOPPED
        found = {"accuracy": value, "loss": 1 - value}
        summary = {"test": found, "val": found, "selected_by": "val accuracy", "steps": STEPS}
        summary |= {"best": {"step": STEPS, "value": value}, "parameters": 1}
        summary |= {"config_digest": config_lib.digest(cfg)}
        (path / "summary.json").write_text(json.dumps(summary))
        (path / "DONE").touch()
    return 0


def measure(runs: int) -> dict[str, Any]:
    """What each way takes for each run, the run itself taken off; and to show how far all are."""
    from ssm_jax.commands import sweep as command
    from ssm_jax.config.load import load_config
    from ssm_jax.sweep import runs as runs_lib

    def build(cfg: Any, **_: Any) -> Any:
        return SimpleNamespace(cfg=cfg, total_steps=STEPS, eval_every=1)

    runs_lib.train_and_evaluate, runs_lib.build = train, build  # type: ignore[assignment]
    command.start_jax = lambda *_, **__: None  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        Path("e.py").write_text(CONFIG.format(steps=STEPS, runs=runs))
        space = ["--search.model.alpha=0.1..10:log", f"--trials={runs}"]
        usual = ["--config=e.py", "--config.figures_format=svg"]
        ways = {
            "sweep": [*usual, "--folder=sweep"],
            "sweep --status": [*usual, "--folder=sweep", "--status"],
            "search, random": [*usual, "--folder=random", "--sampler=optuna:random", *space],
            "search, tpe": [*usual, "--folder=tpe", "--sampler=optuna:tpe", *space],
        }
        cfg = load_config("e.py")

        def alone() -> None:
            for i in range(runs):
                own = cfg.copy_and_resolve_references()
                own.model.alpha = 1 + i / 1000
                path = Path("alone") / str(i)
                path.mkdir(parents=True)
                train(build(own), path, SimpleNamespace(watch=None))

        bare = _timed(alone)
        found: dict[str, Any] = {
            "runs": runs,
            "evaluations": STEPS,
            "run_itself_ms": _per(bare, runs),
        }
        for way, argv in ways.items():
            took = _timed(lambda argv=argv: command.sweep(argv))  # type: ignore[misc]
            if way.endswith("--status"):
                found[way] = {"wall_s": took[0], "processor_s": took[1]}
            else:
                beside = took[0] - bare[0], took[1] - bare[1]
                found[way] = {"beside_a_run_ms": _per(beside, runs)}
    return found


def _timed(call: Any) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        call()
    return time.perf_counter() - wall, time.process_time() - processor


def _per(took: tuple[float, float], runs: int) -> dict[str, float]:
    return {"wall": 1000 * took[0] / runs, "processor": 1000 * took[1] / runs}


def main(argv: list[str]) -> int:
    from ssm_jax.training.record import write_result

    flags = (
        Flag("runs", "runs of each sweep", 200, int, least=2),
        Flag("out", "file for the results, as JSON", kind=Path, writes="file"),
    )
    values = cli.load_flags(argv, flags=flags, about=__doc__)
    found = measure(values["runs"]) | {"load": os.getloadavg()[0]}
    print(json.dumps(found, indent=2))
    if values["out"] is not None:
        write_result(values["out"], found, ["python", "-m", "benchmarks.bookkeeping", *argv])
    return 0


if __name__ == "__main__":
    run_main(main)
