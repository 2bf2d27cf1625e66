"""Training on a file that is larger than memory: how much of it a process holds."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.startup import environment_of_a_start

STEPS, LENGTH, CHANNELS = 20, 16_000, 4
SINES = (0.002, 0.01, 0.05, 0.2)  # turns per step: the class of a series is the one it has
WATCHED_S = 0.2  # between two looks at a process
TRAIN = (
    f"train --config=arrays --from=series --config.train.steps={STEPS} --config.batch_size=4 "
    "--config.model.depth=1 --config.model.d_model=32 --config.model.d_state=16"
)


def measure_large_file(gigabytes: float) -> Iterator[dict[str, Any]]:
    """Two starts of a training on one file of so many GB, in a temporary folder.

    The first looks at every value once, and keeps what it found. A model of one block of 32
    channels trains 20 steps of 4 series; 64 series are evaluated.

    Returns:
      For each start the seconds `wall_s`; the peaks of the memory that is the process's own,
      `own_mib`, and of the pages of files that it has mapped, `mapped_mib`, which the system takes
      back when others need memory. From /proc, so on Linux alone.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = _write_series(folder / "series", gigabytes)
        for start in ("first", "second"):
            argv = [sys.executable, "-c", "from ssm_jax.commands import main; main()"]
            argv += [*TRAIN.split(), "--config.train.epochs=0", "--config.figures=false"]
            argv += ["--config.log.diagnostics=false", "--config.data.n_val=64"]
            argv += ["--config.data.n_test=64", f"--workdir={start}", "--data_dir=data"]
            with (folder / "said.txt").open("w") as said:
                begun = time.perf_counter()
                process = subprocess.Popen(
                    argv, cwd=folder, env=environment_of_a_start(), stderr=said, stdout=said
                )
                peaks = _peaks(process)
                seconds = time.perf_counter() - begun
            if process.returncode:
                lines = (folder / "said.txt").read_text().strip().splitlines()
                raise ValueError(f"ssm-jax {TRAIN}: {lines[-1]}")
            about = {"command": f"ssm-jax {TRAIN}", "start": start, "file_gb": round(size / 1e9, 2)}
            yield {**about, "steps": STEPS, "wall_s": round(seconds, 1), **peaks}


def _write_series(folder: Path, gigabytes: float) -> int:
    """Write x.npy and y.npy: noise, one of 64 kinds, with a sine; the bytes of x."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    n = max(128, round(gigabytes * 1e9 / (4 * LENGTH * CHANNELS)))
    y_n = rng.integers(0, len(SINES), n)
    noise = rng.standard_normal((64, LENGTH, CHANNELS), dtype=np.float32)
    sines = np.sin(2 * np.pi * np.outer(SINES, np.arange(LENGTH))).astype(np.float32)
    np.save(folder / "y.npy", y_n)
    x = np.lib.format.open_memmap(
        folder / "x.npy", mode="w+", dtype=np.float32, shape=(n, LENGTH, CHANNELS)
    )
    for start in range(0, n, 500):
        which = y_n[start : start + 500]
        x[start : start + 500] = noise[rng.integers(0, 64, which.size)] + sines[which, :, None]
    x.flush()
    return int(x.nbytes)


def _peaks(process: subprocess.Popen[bytes]) -> dict[str, int]:
    """Wait for a process; the most memory that it was seen to have, in MiB."""
    most = {"RssAnon": 0, "RssFile": 0}
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:  # it has ended meanwhile
            continue
        for key, _, value in (line.partition(":") for line in lines):
            if key in most:
                most[key] = max(most[key], int(value.split()[0]))
        time.sleep(WATCHED_S)
    return {"own_mib": most["RssAnon"] // 1024, "mapped_mib": most["RssFile"] // 1024}
