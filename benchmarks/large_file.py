"""Training, and one lambda_max, on a file larger than memory: how much of it a process holds."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter

from benchmarks.startup import environment_of_a_start

STEPS, LENGTH, CHANNELS = 20, 16_000, 4
SINES = (0.002, 0.01, 0.05, 0.2)  # turns per step: the class of a series is the one it has
WATCHED_S = 0.2  # between two looks at a process
TRAIN = (
    f"train --config=arrays --from=series --config.train.steps={STEPS} --config.batch_size=4 "
    "--config.model.depth=1 --config.model.d_model=32 --config.model.d_state=16"
)

ROWS, EIGENVALUE = 300, 16_384  # written at three places of the file of lambda_max, and its L
FIND = (
    "import json, numpy as np; from ssm_jax.analysis import lambda_max; "
    "found = lambda_max(np.load('x.npy', mmap_mode='r')); print(json.dumps({'lambda_max': "
    "found.mean, 'steps': found.steps, 'converged': found.converged, 'error': found.error}))"
)


def measure_lambda_max(gigabytes: float) -> Iterator[dict[str, Any]]:
    """`lambda_max` of sequences of 16,384 steps in one file of so many GB, in a temporary folder.

    Most of the file are zeros, which take no place on the disk but are read as any others; the
    first, middle and last sequences are AR(1) noise. So the eigenvalue is known: it is that of the
    products of those alone.

    Returns:
      The two eigenvalues, the steps of the iteration, and time and memory as `measure_large_file`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, L = Path(name), EIGENVALUE
        n = max(3 * ROWS, round(gigabytes * 1e9 / (4 * L)))
        x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, shape=(n, L))
        noise = np.random.default_rng(0).standard_normal((3 * ROWS, L))
        rows = lfilter([1], [1, -0.9], noise).astype(np.float32)
        for part, start in zip(np.split(rows, 3), (0, n // 2, n - ROWS), strict=True):
            x[start : start + ROWS] = part
        x.flush()
        exact = np.linalg.eigvalsh(rows.astype(float) @ rows.T.astype(float))[-1] / n
        with (folder / "said.txt").open("w") as said:
            begun = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-c", FIND], cwd=folder, env=environment_of_a_start(), stdout=said
            )
            peaks = _peaks(process)
            seconds = time.perf_counter() - begun
        if process.returncode:
            raise ValueError(f"lambda_max ended with {process.returncode}.")
        found = json.loads((folder / "said.txt").read_text())
        size = {"file_gb": round(x.nbytes / 1e9, 2), "sequences": n, "length": L}
        about = {"command": "ssm_jax.analysis.lambda_max", **size}
        yield {**about, **found, "exact": float(exact), "wall_s": round(seconds, 1), **peaks}


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
