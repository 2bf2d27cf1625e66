"""Show that a run that is killed again and again ends in the very numbers of one that is not.

    python -m benchmarks.resume --config=configs/listops_small.py --folder=runs/check --kills=12
    python -m benchmarks.resume --config=tests/training/tiny.py --folder=runs/spoilt --what=damage

Trains twice in subprocesses: once undisturbed, and once stopped at `--kills` moments spread over
the run (half of them SIGKILL, the others SIGTERM, Ctrl-C, SIGUSR1, SIGHUP) and started again by the
same command. Then compares every line of metrics.jsonl, every leaf of the last checkpoint, and the
test result, to the bit. --what=damage spoils each file of a run in turn, and lets each of its
writes find the disk full, instead (damage.py); choose a run of seconds for it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from benchmarks.processes import rows_of
from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.ending import run_main

SIGNALS = (
    signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGUSR1,
    signal.SIGKILL, signal.SIGHUP,
)  # fmt: skip
TRAIN = Path(__file__).parents[1] / "scripts/train.py"


def train_command(options: list[str], workdir: Path) -> list[str]:
    """The command that starts the run, and continues it."""
    return [sys.executable, str(TRAIN), *options, f"--workdir={workdir}"]


def last_step(workdir: Path) -> int:
    """The newest step in the run's log, 0 if there is none."""
    return max((row["step"] for row in rows_of(workdir)), default=0)


def interrupt_at(
    options: list[str], workdir: Path, step: int, delay: float, number: signal.Signals
) -> dict[str, Any]:
    """Start the run, send the signal `delay` s after its log has reached `step`, await its end."""
    log = (workdir.parent / f"{workdir.name}.log").open("ab")
    process = subprocess.Popen(
        train_command(options, workdir),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    while process.poll() is None and last_step(workdir) < step:
        time.sleep(0.01)
    time.sleep(delay)
    alive = process.poll() is None
    if alive:
        os.kill(process.pid, number)
    code = process.wait()
    log.close()
    return {
        "signal": number.name if alive else None,
        "asked_at_step": step,
        "last_logged_step": last_step(workdir),
        "exit_code": code,
    }


def newest_leaves(workdir: Path) -> tuple[int, dict[str, Any]]:
    """The newest checkpoint's step, and its leaves' shapes, dtypes and verified checksums."""
    from ssm_jax.training.checkpoint import io

    step = io.list_steps(workdir / "checkpoints")[-1]
    path = (workdir / "checkpoints" / str(step)).absolute()
    described = io.read_meta(path)[1]
    io.read_arrays(path, described)
    return step, described


def compare(reference: Path, killed: Path) -> dict[str, Any]:
    """Compare two finished runs bit by bit."""
    lines = [(path / "metrics.jsonl").read_bytes() for path in (reference, killed)]
    tests = [
        json.loads((path / "summary.json").read_text())["test"] for path in (reference, killed)
    ]
    leaves = [newest_leaves(path) for path in (reference, killed)]
    return {
        "metrics_equal": lines[0] == lines[1],
        "metrics_lines": lines[0].count(b"\n"),
        "leaves_equal": leaves[0] == leaves[1],
        "leaves": len(leaves[0][1]),
        "test_equal": tests[0] == tests[1],
    }


def check_resume(options: list[str], folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Run the experiment twice and compare.

    Args:
      options: of scripts/train.py, without the workdir.
      folder: gets the folders `reference` and `killed`; both must be new.
      kills: how often to interrupt.
      seed: of the moments.

    Raises:
      ValueError: if the folder is in use.
      RuntimeError: if the undisturbed run, or the last one, does not finish.
    """
    reference, killed = folder / "reference", folder / "killed"
    for path in (reference, killed):
        if path.exists():
            raise ValueError(f"{path} exists; choose a new --folder.")
    folder.mkdir(parents=True, exist_ok=True)

    def finish(workdir: Path) -> None:
        done = subprocess.run(train_command(options, workdir), capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(
                f"training ended with code {done.returncode}:\n{done.stderr[-2000:]}"
            )

    finish(reference)
    record = json.loads((reference / "summary.json").read_text())
    total = record["steps"]
    draw = random.Random(seed)
    events = []
    for i in range(kills):
        step = round((i + draw.random()) * total / kills)
        delay = draw.choice((0.0, 0.0, draw.uniform(0, 0.2), draw.uniform(0, 2)))
        events.append(interrupt_at(options, killed, step, delay, SIGNALS[i % len(SIGNALS)]))
        print(json.dumps(events[-1]), flush=True)
    finish(killed)
    interrupted = [event for event in events if event["signal"]]
    names = [event["signal"] for event in interrupted]
    compared = compare(reference, killed)
    return {
        "steps": total,
        "kills": len(interrupted),
        "signals": {name: names.count(name) for name in sorted(set(names))},
        **compared,
        "equal": all(value for key, value in compared.items() if key.endswith("_equal")),
        "events": events,
        **{key: record[key] for key in ("git", "versions", "devices", "data", "seed")},
    }


def check_damage(cfg: ConfigDict, data_dir: Path, folder: Path, argv: list[str]) -> dict[str, Any]:
    """Spoil a run in every way; see `damage_matrix`.

    Args:
      cfg: of the run.
      data_dir: where its data are, or are put.
      folder: gets the runs and must be new.
      argv: the command, for the result.
    """
    from benchmarks.damage import damage_matrix
    from ssm_jax.training.experiment import build
    from ssm_jax.training.record import made_by

    experiments = []
    for seed in (cfg.seed, cfg.seed + 1):
        own = cfg.copy_and_resolve_references()
        own.seed = seed
        experiments.append(build(own, data_dir=data_dir))
    start = time.monotonic()
    found = damage_matrix(*experiments, folder / "runs")
    kept = {**made_by(["python", "-m", "benchmarks.resume", *argv]), "seed": cfg.seed}
    return {**found, "seconds": round(time.monotonic() - start, 1), **kept}


def main(argv: list[str]) -> int:
    flags = (
        Flag("folder", "new folder for the runs", kind=Path, writes="folder"),
        Flag("what", "what is done to the run", "kills", choices=("kills", "damage")),
        Flag("kills", "how often to interrupt", 12, int),
        Flag("seed", "of the moments of interruption", 0, int),
        cli.DATA_DIR,
    )
    # A shell starts background jobs that ignore Ctrl-C, and their children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cfg, values, _ = cli.load(argv, flags=flags, about=__doc__ or "")
    folder = values["folder"]
    if folder is None:
        cli.fail("--folder is missing; give a new folder, such as --folder=runs/check.")
    if values["what"] == "damage":
        result = check_damage(cfg, values["data_dir"], folder, argv)
        told = "; ".join(f"{n} {outcome}" for outcome, n in result["outcomes"].items())
        told = f"{len(result['cases'])} cases: {told}."
    else:
        own = ("--folder", "--kills", "--seed", "--what")
        options = [word for word in argv if word.partition("=")[0] not in own]
        result = check_resume(options, folder, values["kills"], values["seed"])
        told = (
            f"{result['kills']} interruptions of {result['steps']} steps: "
            f"{result['metrics_lines']} lines of metrics, {result['leaves']} leaves and the test "
            f"result are {'equal to the bit' if result['equal'] else 'NOT equal'}."
        )
    result = {"config": cfg.name, **result}
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(told)
    return 0 if result.get("equal", result.get("right")) else 1


if __name__ == "__main__":
    run_main(main)
