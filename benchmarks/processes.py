"""One run in one process and in two: its numbers, its time, and what the loss of one costs.

    python -m benchmarks.processes --config=tests/training/tiny.py --folder=runs/pair --out=...

Two processes have two virtual devices each, one process has four, over the CPUs of this machine.
The same run is made undisturbed by one and by two, and then by two once for each of `LOSSES`: a
signal to one of them when the log has come half way, the end of the others, and the same command
again. Choose a run that takes a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.ending import run_main

ROOT = Path(__file__).resolve().parents[1]
ENTRY = "from ssm_jax.commands import main; main()"
LOSSES = (
    (signal.SIGKILL, 0),
    (signal.SIGKILL, 1),
    (signal.SIGSTOP, 1),
    (signal.SIGTERM, 0),
    (signal.SIGTERM, 1),
)


def start(log: Path, port: int, index: int, words: Sequence[str], count: int = 2) -> Any:
    """`ssm-jax train WORDS` as one of `count` processes, with what it says in `log`.

    The proxy leads nowhere, as on a cluster whose way to the others is not through it.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={4 // count}"
    given = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    env = {**os.environ, **given, "http_proxy": "http://127.0.0.1:9"}
    if count > 1:
        env |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(index),
        }
    command = [sys.executable, "-c", ENTRY, "train", *words]
    with log.open("ab") as file:
        return subprocess.Popen(command, env=env, cwd=ROOT, stdout=file, stderr=file)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
    return port


@contextlib.contextmanager
def together(folder: Path, words: Sequence[str], count: int = 2) -> Iterator[list[Any]]:
    """The processes of one run, with logs in folder/0.txt and so on; none is left at the end."""
    port = free_port()
    every = [start(folder / f"{index}.txt", port, index, words, count) for index in range(count)]
    try:
        yield every
    finally:
        for process in every:
            process.kill()
            process.wait()


def codes(every: Sequence[Any], timeout: float = 600) -> list[int]:
    """The exit codes of processes, once all have ended."""
    return [process.wait(timeout) for process in every]


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's log."""
    path = run / "metrics.jsonl"
    content = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in content.splitlines(True) if line.endswith(b"\n")]


def wait_for_step(run: Path, step: int, every: Sequence[Any]) -> float:
    """The time when the log of a run has come so far; RuntimeError if a process has ended."""
    while max((row["step"] for row in rows_of(run)), default=0) < step:
        if any(process.poll() is not None for process in every):
            raise RuntimeError(f"{run}: a process ended before step {step}.")
        time.sleep(0.02)
    return time.monotonic()


def apart(run: Path, reference: Path) -> float:
    """The greatest difference of two logs, relative where a number is above 1.

    ValueError: they have other lines.
    """
    rows, expected = rows_of(run), rows_of(reference)
    heads = [[(r["step"], r["kind"], *sorted(r)) for r in each] for each in (rows, expected)]
    if heads[0] != heads[1]:
        raise ValueError(f"{run} has other lines of metrics than {reference}.")
    return max(
        abs(ours[name] - value) / max(1.0, abs(value))
        for ours, theirs in zip(rows, expected, strict=True)
        for name, value in theirs.items()
        if isinstance(value, float)
    )


def saved_steps(run: Path) -> list[int]:
    """The steps that a run has on the disk."""
    found = (run / "checkpoints").iterdir()
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def lose(folder: Path, words: Sequence[str], number: signal.Signals, index: int, step: int) -> Any:
    """Send a signal to one of two processes when their log is at a step, and start them again.

    Returns the seconds until the others had ended, and until the log was as far again.
    """
    folder.mkdir(parents=True)
    run, words = folder / "run", [*words, f"--workdir={folder / 'run'}"]
    with together(folder, words) as both:
        sent = wait_for_step(run, step, both)
        both[index].send_signal(number)
        others = codes([process for place, process in enumerate(both) if place != index])
        seconds = time.monotonic() - sent
        own = None if number == signal.SIGSTOP else both[index].wait(600)
    reached, saved = rows_of(run)[-1]["step"], saved_steps(run)[-1]
    begun = time.monotonic()
    with together(folder, words) as both:
        again = wait_for_step(run, reached + 1, both) - begun
        ended = codes(both)
    return {
        "signal": number.name, "to_process": index, "code": own, "code_of_the_others": others[0],
        "seconds_to_end": round(seconds, 2), "reached": reached, "saved": saved,
        "seconds_to_be_there_again": round(again, 2), "codes_at_the_end": ended,
    }  # fmt: skip


def measure(folder: Path, words: Sequence[str], step: int) -> dict[str, Any]:
    """The run by one process, by two, and by two after each loss."""
    from ssm_jax.training.logs import read_metrics

    runs = []
    for count in (1, 2):
        place = folder / f"by_{count}"
        place.mkdir(parents=True)
        run, begun = place / "run", time.monotonic()
        with together(place, [*words, f"--workdir={run}"], count) as every:
            if codes(every) != [0] * count:
                raise RuntimeError((place / "0.txt").read_text()[-2000:])
        rates = [row["steps_per_second"] for row in read_metrics(run / "timing.jsonl")]
        runs.append(
            {
                "processes": count,
                "devices": 4,
                "seconds": round(time.monotonic() - begun, 1),
                "steps": rows_of(run)[-1]["step"],
                "ms_per_step": 1e3 / sorted(rates)[len(rates) // 2],
                "apart": apart(run, folder / "by_1/run"),
            }
        )
        print(json.dumps(runs[-1]), flush=True)
    lost = []
    for number, index in LOSSES:
        place = folder / f"{number.name}_{index}"
        found = lose(place, words, number, index, step)
        lost.append({**found, "apart": apart(place / "run", folder / "by_1/run")})
        print(json.dumps(lost[-1]), flush=True)
    return {"runs": runs, "lost": lost}


def main(argv: list[str]) -> int:
    flags = (
        Flag("folder", "new folder for the runs", kind=Path, writes="folder"),
        Flag("step", "of the log at which a process is lost", 60, int, least=1),
        Flag("out", "file for the result, JSON", kind=Path, writes="file"),
        cli.DATA_DIR,
    )
    cfg, values, _ = cli.load(argv, flags=flags, about=__doc__ or "")
    folder, out = values["folder"], values["out"]
    if folder is None or out is None:
        cli.fail("give --folder, a new one, and --out.")
    if (folder / "by_1").exists():
        cli.fail(f"{folder} has runs in it; choose a new --folder.")
    own = ("--folder", "--step", "--out")
    words = [word for word in argv if word.partition("=")[0] not in own]
    from ssm_jax.files import write_json
    from ssm_jax.training.record import made_by, without_folders

    found = measure(folder, words, values["step"])
    kept = made_by(["python", "-m", "benchmarks.processes", *argv])
    write_json(out, without_folders({"config": cfg.name, **found, **kept, "seed": cfg.seed}))
    return 0


if __name__ == "__main__":
    run_main(main)
