"""Generated data drawn shard by shard over the cores, each shard a file that survives a kill.

A specification is a dataclass of JSON values, `Spec` in the module of its generator. That module
also has

    TITLE, how the data are called; COMPRESS, whether a shard's file is to be compressed;
    shard_arrays(spec, shard), what is in the file, by name;
    check_arrays(spec, shard, arrays), a ValueError if they are not a whole shard;

and `spec.rows(shard)` is the number of examples in a shard.

Run as a module this file is a worker: `python -m ssm_jax.lra.shards MODULE SPEC FOLDER` reads
shard numbers from standard input and answers `done` to each. It imports NumPy and nothing heavier
than its generator does. A worker is a plain subprocess rather than a multiprocessing one, because
that would import the caller's main script, and jax with it, once more in every worker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol

import numpy as np

from ssm_jax.files import replace_atomically


class Spec(Protocol):
    """What to generate; see the head of this file."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def rows(self, shard: int) -> int:
        """Examples in a shard."""


def _generator(spec: Spec) -> ModuleType:
    return sys.modules[type(spec).__module__]


def _load(spec: Spec, folder: Path, shard: int) -> dict[str, np.ndarray] | None:
    """A finished shard, or None if there is none or it is damaged."""
    path = folder / f"{shard:06d}.npz"
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # np.load compares no checksum of a cut array
                return None
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        _generator(spec).check_arrays(spec, shard, arrays)
    except Exception:  # what an archive of chance bytes raises is documented nowhere
        return None
    return arrays


def finish(spec: Spec, folder: Path, shard: int) -> dict[str, np.ndarray]:
    """The arrays of a shard; its file is read if it is whole, else written."""
    arrays = _load(spec, folder, shard)
    if arrays is None:
        generator = _generator(spec)
        arrays = generator.shard_arrays(spec, shard)
        write = np.savez_compressed if generator.COMPRESS else np.savez
        path = folder / f"{shard:06d}.npz"
        replace_atomically(path, lambda file: write(file, **arrays))
    return arrays


def _run_workers(
    spec: Spec, folder: Path, shards: Iterable[int], workers: int, advance: Callable[[int], None]
) -> None:
    """Finish the shards in worker processes; each takes the next number when it is free."""
    numbers = iter(shards)
    lock = threading.Lock()
    faults: list[str] = []
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "ssm_jax.lra.shards"]
    command += [type(spec).__module__, json.dumps(dataclasses.asdict(spec)), str(folder)]

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
                advance(spec.rows(number))
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
        fault = faults[0].removeprefix("ValueError: ")
        if number := re.match(r"OSError: \[Errno (\d+)\]", fault):
            raise OSError(int(number[1]), f"a {_generator(spec).TITLE} worker failed: {fault}")
        raise ValueError(f"a {_generator(spec).TITLE} worker failed: {fault}")


def fill(
    spec: Spec,
    folder: Path,
    shards: range,
    workers: int,
    advance: Callable[[int], None],
    *,
    alone: int = 1,
) -> None:
    """See that all these shards are in the folder, which is made if missing.

    Args:
      spec: what to generate.
      folder: where finished shards are and new ones go.
      shards: their numbers.
      workers: processes, >= 1.
      advance: told of every shard's examples once they exist.
      alone: up to so many missing shards are not worth the start of a worker.

    Raises:
      ValueError: if a worker fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    for shard in shards:
        if _load(spec, folder, shard) is None:
            missing.append(shard)
        else:
            advance(spec.rows(shard))
    count = min(workers, len(missing))
    if count > 1 and len(missing) > alone:
        _run_workers(spec, folder, missing, count, advance)
    else:
        for shard in missing:
            finish(spec, folder, shard)
            advance(spec.rows(shard))


def _work() -> None:
    generator = importlib.import_module(sys.argv[1])
    spec, folder = generator.Spec(**json.loads(sys.argv[2])), Path(sys.argv[3])
    for line in sys.stdin:
        finish(spec, folder, int(line))
        print("done", flush=True)


if __name__ == "__main__":
    _work()
