"""ListOps expressions drawn shard by shard over the cores, each shard a file that survives a kill.

Run as a module this file is a worker: `python -m ssm_jax.data.shards SPEC FOLDER` reads shard
numbers from standard input and answers `done` to each. It imports NumPy and nothing heavier. A
worker is a plain subprocess rather than a multiprocessing one, because that would import the
caller's main script, and jax with it, once more in every worker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ssm_jax.data.listops import SPLITS
from ssm_jax.data.listops_generator import SHARD_ROWS, Spec, generate_shard
from ssm_jax.data.ragged import Ragged

# Up to this many tokens (2,000 expressions of full length, 0.7 s) no worker is worth its start.
_IN_PROCESS_TOKENS = 4_000_000


def cpu_count() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _load(path: Path) -> Ragged | None:
    """A finished shard, or None if there is none or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            shard = Ragged(arrays["tokens"], arrays["offsets"], arrays["targets"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return shard if len(shard) == SHARD_ROWS else None


def _finish(spec: Spec, folder: Path, shard: int) -> Ragged:
    """The shard's expressions; its file is read if it is whole, else written."""
    path = folder / f"{shard:06d}.npz"
    rows = _load(path)
    if rows is None:
        rows = generate_shard(spec, shard)
        temporary = folder / f"{shard:06d}.{os.getpid()}.tmp"
        with open(temporary, "wb") as file:
            np.savez(file, tokens=rows.tokens, offsets=rows.offsets, targets=rows.targets)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    return rows


def _run_workers(
    spec: Spec, folder: Path, shards: Iterable[int], workers: int, advance: Callable[[int], None]
) -> None:
    """Finish the shards in worker processes; each takes the next number when it is free."""
    numbers = iter(shards)
    lock = threading.Lock()
    faults: list[str] = []
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "ssm_jax.data.shards"]
    command += [json.dumps(dataclasses.asdict(spec)), str(folder)]

    def serve(worker: subprocess.Popen[str]) -> None:
        assert worker.stdin and worker.stdout and worker.stderr
        while not faults:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.write(f"{number}\n")
                worker.stdin.flush()
            if worker.stdout.readline().strip() != "done":
                trace = worker.stderr.read().strip().splitlines() or ["it was killed"]
                faults.append(trace[-1])
                break
            with lock:
                advance(SHARD_ROWS)
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.close()  # its signal to end; the kernel gives it too if we are killed

    # In a session of their own Ctrl-C reaches this process alone.
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        for _ in range(workers)
    ]
    threads = [threading.Thread(target=serve, args=(p,), daemon=True) for p in processes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    if faults:
        raise ValueError(f"a ListOps worker failed: {faults[0].removeprefix('ValueError: ')}")


def generate(
    spec: Spec, folder: Path, *, workers: int, advance: Callable[[int], None]
) -> dict[str, Ragged]:
    """The distinct expressions of every split, in the order of generation.

    Shards are taken in the order of their numbers and an expression that has been seen is dropped,
    so the result depends on `spec` alone, not on the workers nor on interruptions.

    Args:
      spec: what to generate.
      folder: where finished shards are and new ones go; made if missing.
      workers: processes, >= 1.
      advance: told of every 1,000 expressions that exist.

    Raises:
      ValueError: if there are not enough distinct expressions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = spec.sizes()
    total = sum(sizes.values())
    seen: set[bytes] = set()
    rows: list[tuple[bytes, int]] = []
    first, last = 0, -(-total // SHARD_ROWS)
    while len(rows) < total:
        before = len(rows)
        missing = [k for k in range(first, last) if _load(folder / f"{k:06d}.npz") is None]
        advance((last - first - len(missing)) * SHARD_ROWS)
        count = min(workers, len(missing))
        if count > 1 and len(missing) * SHARD_ROWS * spec.shorter_than > _IN_PROCESS_TOKENS:
            _run_workers(spec, folder, missing, count, advance)
        else:
            for k in missing:
                _finish(spec, folder, k)
                advance(SHARD_ROWS)
        for k in range(first, last):
            for tokens, target in _finish(spec, folder, k).rows():
                digest = hashlib.blake2b(tokens, digest_size=16).digest()
                if digest not in seen and len(rows) < total:
                    seen.add(digest)
                    rows.append((tokens, target))
        # Where 49 of 50 expressions repeat, the distinct ones are running out.
        if len(rows) < total and len(rows) - before < (last - first) * SHARD_ROWS // 50:
            raise ValueError(
                f"only {len(rows):,} distinct ListOps expressions found, {total:,} are asked for; "
                "ask for fewer, or for longer ones."
            )
        first, last = last, last + -(-(total - len(rows)) // SHARD_ROWS)
    bounds = np.cumsum([0, *sizes.values()]).tolist()
    return {
        split: Ragged.from_rows(rows[start:stop])
        for split, start, stop in zip(SPLITS, bounds[:-1], bounds[1:], strict=True)
    }


def _work() -> None:
    spec, folder = Spec(**json.loads(sys.argv[1])), Path(sys.argv[2])
    for line in sys.stdin:
        _finish(spec, folder, int(line))
        print("done", flush=True)


if __name__ == "__main__":
    _work()
