"""How long a person waits for a command: whole processes, with and without kept programs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import of_children, summary

STEPS = 2  # of training: what takes the time is all that comes before, and the evaluation
TRAIN = f"train --config=arrays --from=mine.npz --config.train.steps={STEPS}"
HELP, FIRST, AGAIN, OFF = "", "compiled", "kept", "--compiled=off"
STARTS = (
    ("--help", HELP),
    ("train --help", HELP),
    (TRAIN, FIRST),
    (TRAIN, AGAIN),
    (TRAIN, OFF),
)


def measure_start(words: str, programs: str, n: int) -> dict[str, Any]:
    """A start of `ssm-jax` to its end, n times, after one that is not counted.

    Args:
      words: what follows ssm-jax. Training is of 60 series of 128 steps and two channels, in a
        folder of its own each time, without figures.
      programs: "kept" finds the programs that an earlier start compiled, "compiled" finds none and
        keeps them, "--compiled=off" compiles them and keeps nothing.

    Returns:
      Seconds `wall_s`, and `processor_s` of all threads, which others on the machine do not change
      much: median, least and largest.
    """
    argv = [sys.executable, "-c", "from ssm_jax.commands import main; main()", *words.split()]
    environment = environment_of_a_start()
    wall, processor = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_series(folder / "mine.npz")
        for i in range(1 + n):
            more = []
            if programs:
                kept = {FIRST: f"programs{i}", AGAIN: "programs", OFF: "off"}[programs]
                more = ["--config.train.epochs=0", "--config.figures=false", f"--compiled={kept}"]
                more += [f"--workdir=run{i}", "--data_dir=data"]
            before, start = of_children(), time.perf_counter()
            done = subprocess.run(
                [*argv, *more], cwd=folder, env=environment, capture_output=True, text=True
            )
            wall.append(time.perf_counter() - start)
            processor.append(of_children() - before)
            if done.returncode:
                raise ValueError(f"ssm-jax {words}: {done.stderr.strip().splitlines()[-1]}")
    shown = {"started": f"ssm-jax {words}", "programs": programs or "none"}
    over = {"wall_s": summary(wall[1:], 1), "processor_s": summary(processor[1:], 1)}
    return {**shown, **over, "rounds": n}


def environment_of_a_start() -> dict[str, str]:
    """Variables of a process in which this ssm_jax is found, and none of its own folders."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for name in ("JAX_COMPILATION_CACHE_DIR", "SSM_JAX_DATA_DIR"):
        environment.pop(name, None)
    return environment


def _write_series(path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.normal(size=(60, 128, 2)), y=np.arange(60) % 2)
