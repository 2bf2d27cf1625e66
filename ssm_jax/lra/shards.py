"""Generated data drawn shard by shard over the cores, each shard a file that survives a kill."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

import numpy as np

from ssm_jax.files import replace_atomically

Arrays = dict[str, np.ndarray]


class Sharded(Protocol):
    """A specification of generated data: it can be pickled, and its module imports no JAX."""

    title: ClassVar[str]  # what the data are called
    compress: ClassVar[bool]  # whether the file of a shard is worth it

    def rows(self, shard: int) -> int: ...  # examples in a shard
    def arrays(self, shard: int) -> Arrays: ...  # them by name; they depend on nothing else
    def check(self, shard: int, arrays: Arrays) -> None: ...  # ValueError: no whole shard

    def check_whole(self, **bounds: tuple[int, int]) -> None:
        """Refuse options that are no whole numbers within their bounds by a ValueError."""
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(
                    f"{self.title} {name}={value!r} must be a whole number from {low} to {high}."
                )


def load(spec: Sharded, folder: Path, shard: int) -> Arrays | None:
    """A finished shard, or None if there is none or it is damaged."""
    path = folder / f"{shard:06d}.npz"
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # np.load compares no checksum of a cut array
                return None
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        spec.check(shard, arrays)
    except Exception:  # what an archive of chance bytes raises is documented nowhere
        return None
    return arrays


def finish(spec: Sharded, folder: Path, shard: int) -> Arrays:
    """The arrays of a shard; its file is read if it is whole, else written."""
    arrays = load(spec, folder, shard)
    if arrays is None:
        arrays = spec.arrays(shard)
        save: Callable[..., None] = np.savez_compressed if spec.compress else np.savez
        replace_atomically(folder / f"{shard:06d}.npz", lambda file: save(file, **arrays))
    return arrays


def fill(
    spec: Sharded,
    folder: Path,
    shards: range,
    workers: int,
    advance: Callable[[int], None],
    *,
    alone: int = 1,
) -> Iterator[Arrays]:
    """Finish all these shards, and return their arrays, in the order of their numbers.

    Finished ones are kept in `folder`; `advance` is called with the number of each shard's examples
    once they exist. Up to `alone` missing shards are not worth the start of a worker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in shards if load(spec, folder, shard) is None]
    for shard in set(shards).difference(missing):
        advance(spec.rows(shard))
    if workers > 1 and len(missing) > max(alone, 1):
        run_workers(spec, folder, missing, min(workers, len(missing)), advance)
        missing = []
    for shard in missing:
        finish(spec, folder, shard)
        advance(spec.rows(shard))
    return (finish(spec, folder, shard) for shard in shards)


def run_workers(
    spec: Sharded, folder: Path, shards: Iterable[int], workers: int, advance: Callable[[int], None]
) -> None:
    """Finish the shards in worker processes; each takes the next number when it is free.

    Workers import NumPy and what the specification needs. They end when this process ends, however
    it ends, and a Ctrl-C reaches this process alone.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    pool = ProcessPoolExecutor(workers, context, _end_with_parent, (theirs,))
    try:
        with _bare_workers():
            futures = {pool.submit(_finish, spec, folder, shard): shard for shard in shards}
        theirs.close()
        for future in as_completed(futures):
            future.result()
            advance(spec.rows(futures[future]))
    except BrokenProcessPool:
        raise ValueError(f"a {spec.title} worker failed: it was killed") from None
    except (ValueError, OSError) as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        text = f"a {spec.title} worker failed: {kind}{error}"
        if type(error) is OSError and error.errno:
            raise OSError(error.errno, text) from None
        raise ValueError(text) from None
    finally:
        mine.close()  # workers that are still at work end at once
        pool.shutdown(cancel_futures=True)


def _finish(*arguments: object) -> None:
    finish(*arguments)  # type: ignore[arg-type]  # whose arrays are not sent back


def _end_with_parent(parent: Connection) -> None:
    """End this worker when the other end of a pipe is closed, as it is by a kill -9 too."""

    def wait() -> None:
        parent.poll(None)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _bare_workers() -> Iterator[None]:
    """Spawn processes that do not import the caller's main script, and that no Ctrl-C reaches.

    That script may import JAX, or, without a guard, do its work once more.
    """
    main, names = vars(sys.modules["__main__"]), ("__spec__", "__file__")
    kept = {name: main[name] for name in names if name in main}
    main.update(dict.fromkeys(names))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for name in names:
            del main[name]
        main.update(kept)


def write_mapped(path: Path, shape: tuple[int, int], blocks: Iterable[np.ndarray]) -> np.ndarray:
    """The read-only map of a .npy file of uint8, written in blocks of rows, whole or not at all."""

    # Written like any file: where the disk is full, writing through a map kills the process.
    def write(file: BinaryIO) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.uint8).data)
        written = file.tell() - start
        if written != shape[0] * shape[1]:
            raise ValueError(f"{path} was to have the shape {shape}, but has {written:,} bytes.")

    replace_atomically(path, write)
    return np.load(path, mmap_mode="r", allow_pickle=False)
