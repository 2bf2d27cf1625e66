"""A search whose training is played: folders, locks, logs and signals are real, numbers are made.

Run as a program it starts commands of `ssm-jax sweep` with such training: `Commands` in the test.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from ssm_jax import config as config_lib
from ssm_jax.stop import EXIT_STOPPED, StopRequest
from ssm_jax.training.workdir import Workdir

PAUSE_S = 0.0  # before each evaluation
CONFIG = """
from ssm_jax import config as config_lib

def get_config(arg=""):
    cfg = config_lib.default()
    cfg.name = "played"
    cfg.train.steps, cfg.train.eval_every = 9, 1
    return cfg

def search():
    return {"model.alpha": "0.1..10:log"}
"""


def accuracy(cfg, step):
    """Best at alpha = 1, and rising."""
    worse = abs(math.log10(cfg.model.alpha)) + abs(cfg.model.dropout - 0.2)
    return (1 - worse / 2) * step / (step + 2) + cfg.seed / 1000


def build(cfg, **_):
    return SimpleNamespace(cfg=cfg, total_steps=cfg.train.steps, eval_every=cfg.train.eval_every)


def train(experiment, path, request):
    """A run whose state is its step; each that begins or goes on adds a line to `writers`."""
    cfg = experiment.cfg
    with Workdir(path), StopRequest() as stop:
        if (path / "DONE").exists():
            return 0
        saved = path / "checkpoints"
        saved.mkdir(exist_ok=True)
        if not (path / "record.json").exists():
            (path / "record.json").write_text(
                json.dumps(
                    {
                        "config": config_lib.flatten(cfg),
                        "seed": cfg.seed,
                        "started": datetime.datetime.now(datetime.UTC).isoformat(),
                    }
                )
            )
        if cfg.model.alpha > 9:
            raise FloatingPointError("loss is nan at step 1")
        start = max([0, *(int(step.name) for step in saved.iterdir())])
        with (path / "log.txt").open("a") as log:
            log.write(f"writer {os.getpid()} from {start}\n")
        for step in range(start + 1, cfg.train.steps + 1):
            time.sleep(PAUSE_S)
            value = accuracy(cfg, step)
            row = {"step": step, "kind": "val", "accuracy": value, "loss": 1 - value}
            with (path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            (saved / str(step)).mkdir()
            if request.watch is not None and step < cfg.train.steps and request.watch(step, value):
                return EXIT_STOPPED
            if stop.requested and step < cfg.train.steps:
                return EXIT_STOPPED
        result = {
            "test": {"accuracy": value / 2, "loss": 1.0},
            "val": {"accuracy": value, "loss": 1.0},
            "selected_by": "val accuracy",
            "best": {"step": step, "value": value},
            "steps": step,
            "parameters": 100,
            "config_digest": config_lib.digest(cfg),
        }
        (path / "summary.json").write_text(json.dumps(result))
        (path / "DONE").touch()
    return 0


def play(setattr):
    """Have commands play their training."""
    from ssm_jax.commands import sweep
    from ssm_jax.sweep import runs

    setattr(runs, "train_and_evaluate", train)
    setattr(runs, "build", build)
    setattr(sweep, "start_jax", lambda *_, **__: None)


class Commands:
    """Commands of `ssm-jax sweep` in a folder, each a process, without a start of Python for each.

    They take 0.1 s for each evaluation, and a worker silent for 3 s for dead.
    """

    def __init__(self):
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, folder: Path, *argv: str) -> int:
        """Start one; its process number. What it says is added to said.txt."""
        self._server.stdin.write(json.dumps([str(folder), *argv]) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def wait(self, pid: int) -> int:
        """Wait for the end of one; its exit code, or minus the signal that ended it."""
        self._server.stdin.write(f"{pid}\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait()


def serve():
    """Read commands, a line each, and fork for each of them."""
    from ssm_jax.commands import sweep
    from ssm_jax.config.ending import run_main
    from ssm_jax.plots import sweep as _
    from ssm_jax.sweep import search as _  # noqa: F401, F811
    from ssm_jax.sweep import study

    global PAUSE_S
    play(setattr)
    PAUSE_S, study.HEARTBEAT_S, study.GRACE_S = 0.1, 1, 3
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, int):
            code = os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1])
            print(code, flush=True)
            continue
        folder, *argv = asked
        if pid := os.fork():
            print(pid, flush=True)
            continue
        os.chdir(folder)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.argv = ["ssm-jax", *argv]
        run_main(sweep.sweep)


if __name__ == "__main__":
    serve()
