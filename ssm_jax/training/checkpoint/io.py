"""The folder of one saved step: written atomically in the background, read back and checked.

The only module that knows Orbax, of which it uses the free functions: its Checkpointer skips a save
while another is running, and lists a step whose save failed. A folder has two items: `state`, a
flat table of arrays by path, and `meta`, the document of `manifest`, with the checksum of each
array and of itself: Orbax returns wrong values after a bit flip in array data, without an error.

Orbax is imported by what saves or reads: commands that do neither start 0.2 s sooner.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import math
import os
import re
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ssm_jax.files import UNSUPPORTED
from ssm_jax.stop import interrupt_afterwards
from ssm_jax.training.checkpoint import manifest
from ssm_jax.training.checkpoint.manifest import (
    CheckpointError,
    Identity,
    Leaves,
    Meta,
    SaveError,
    StateMismatch,
)

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

Ranking = tuple[str, str]  # the metric that names the best step, and "max" or "min"

TEMPORARY = ".orbax-checkpoint-tmp"  # in the name of a folder that is not yet complete


def list_steps(directory: Path) -> list[int]:
    """The complete steps in a folder, ascending: its subfolders named by a plain number."""
    return sorted(
        int(path.name)
        for path in directory.iterdir()
        if path.is_dir() and path.name.isdecimal() and path.name == str(int(path.name))
    )


def ranked_steps(
    directory: Path,
    ranking: Ranking | None,
    identity: Identity | None = None,
    known: dict[int, Meta | None] | None = None,
) -> list[int]:
    """The steps on the disk that were evaluated with a finite metric, the best first.

    `identity`: only those of this run. `known` keeps the metas that were read between calls, None
    for one that cannot be read.
    """
    ranks, known = [], {} if known is None else known
    metric, mode = ranking or ("", "max")
    for step in list_steps(directory):
        if step not in known:
            try:
                known[step] = read_meta(directory / str(step))[0]
            except (CheckpointError, StateMismatch):
                known[step] = None
        meta = known[step]
        if meta is None or not meta.evaluated or (identity and identity.differences(meta)):
            continue
        value = meta.metrics.get(metric, math.nan)
        if math.isfinite(value):
            ranks.append((-value if mode == "max" else value, step))
    return [step for _, step in sorted(ranks)]


def write(path: Path, arrays: Mapping[str, np.ndarray], meta: Meta) -> ocp.v1.AsyncResponse[None]:
    """Start to write a step's folder, which must not exist; it gets its name when it is complete.

    The arrays are copied before this returns. `result()` of the response waits for the end and
    raises what went wrong.
    """
    import orbax.checkpoint as ocp

    versions = {"jax": jax.__version__, "orbax": ocp.__version__}
    document = manifest.seal(meta, manifest.describe(arrays), versions)
    # Orbax refuses arrays without elements; their shape and dtype say all there is.
    stored = {name: array for name, array in arrays.items() if array.size}
    _allow_for(path.parent)
    if jax.process_count() > 1:
        _write_alone()
    with contextlib.ExitStack() as open_until, _context(reading=False):
        alias = open_until.enter_context(plain(path))
        response = ocp.v1.save_checkpointables_async(alias, {"state": stored, "meta": document})
        weakref.finalize(response, open_until.pop_all().close)
    return response


def read_meta(path: Path) -> tuple[Meta, Leaves]:
    """The meta and the leaves of a step; raises as `manifest.unseal`."""
    if not path.is_dir():
        raise CheckpointError("its folder is not there")
    meta, described = manifest.unseal(_load(path, {"meta": None})["meta"])
    if path.name != str(meta.step):
        raise CheckpointError(f"it holds step {meta.step}, as if copied")
    return meta, described


def read_arrays(path: Path, described: Leaves) -> dict[str, np.ndarray]:
    """The arrays of a step in host memory; CheckpointError names one that is not as described."""
    arrays = {
        name: np.empty(tuple(leaf["shape"]), np.dtype(leaf["dtype"]))
        for name, leaf in described.items()
    }
    stored = {name: array for name, array in arrays.items() if array.size}
    arrays.update(_load(path, {"state": stored})["state"])
    if found := manifest.faults(arrays, described):
        more = f" (and {len(found) - 1} more leaves)" if len(found) > 1 else ""
        raise CheckpointError(f"{found[0]}{more}")
    return arrays


def read_state(path: Path, described: Leaves, target: Any, parts: Sequence[str] = ()) -> Any:
    """The state of a step, in the target's structure and on its devices; writes nothing.

    `parts` are the beginnings of the paths that the target has, such as "params"; (): all.

    The target is a tree of arrays or jax.ShapeDtypeStruct, whose `sharding` says where a leaf goes.
    CheckpointError: the arrays are damaged. StateMismatch: they are not those of the target.
    """
    table = manifest.flatten(target)
    wanted = {p: leaf for p, leaf in described.items() if not parts or p.split("/")[0] in parts}
    if lines := manifest.differences(wanted, table):
        if len(lines) > 10:
            lines[10:] = [f"and {len(lines) - 10} more"]
        listed = "\n  ".join(lines)
        raise StateMismatch(
            f"the state in {path} is not this program's:\n  {listed}\n"
            "Choose a new --workdir, or run the code that wrote it."
        )
    arrays = read_arrays(path, described)

    def place(name: str, leaf: Any) -> jax.Array:
        array, sharding = arrays[name], getattr(leaf, "sharding", None)
        if sharding is None:
            return jax.device_put(array)
        # Unlike device_put this needs no collective when the sharding spans hosts.
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    leaves = [place(name, leaf) for name, leaf in table.items()]
    return jax.tree.unflatten(jax.tree.structure(target), leaves)


def reason(error: BaseException) -> str:
    """The first line of an error, of bounded length, or its type; Orbax's errors have many."""
    return str(error).strip().split("\n")[0][:300] or type(error).__name__


def get_ready() -> None:
    """Import what saving takes; an ImportError is to come before a step is trained."""
    _context(reading=False)


@contextlib.contextmanager
def plain(path: Path) -> Iterator[Path]:
    """A path to the same place that Orbax can take; ValueError where there is no way round.

    Orbax and TensorStore read names as patterns ("[a]", "*") and as addresses ("gs:"), drop
    backslashes, and refuse what is no UTF-8.
    """
    if re.search(r"[*?\[\]\\:]", str(path)) is None and str(path).isprintable():
        yield path
        return
    if not os.path.isdir("/proc/self/fd"):
        raise ValueError(
            f"checkpoints cannot be kept in {path.parent}: choose a name without * ? [ ] : \\ and "
            "control characters."
        )
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}") / path.name
    finally:
        os.close(descriptor)


def _load(path: Path, items: dict[str, Any]) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    jax.devices()  # JAX without a device is no damage of the folder
    try:
        # Orbax would call a folder damaged that it was kept from reading by Ctrl-C.
        with plain(path) as alias, interrupt_afterwards(), _context(reading=True):
            return ocp.v1.load_checkpointables(alias, items)
    # Of a damaged folder Orbax raises at least seven types, a bare Exception among them.
    except Exception as error:
        why = f"{type(error).__name__}: {reason(error)}"
        raise CheckpointError(f"cannot be read ({why})") from error


@functools.cache
def _allow_for(folder: Path) -> None:
    """Let TensorStore do without locks of files and syncs of folders where there are none."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            return
    finally:
        os.close(handle)
    # Orbax has no option for it. A save is in a folder of its own until it is complete, so a lock
    # in it keeps nobody out; after a power cut the checksums tell what did not reach the disk.
    import orbax.checkpoint as ocp

    try:
        from orbax.checkpoint._src.serialization import tensorstore_utils

        context: dict[str, Any] = tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT
    except (ImportError, AttributeError) as error:  # a private place
        raise SaveError(
            f"this file system cannot lock files or sync folders, and Orbax {ocp.__version__} "
            "cannot do without; choose another --workdir, or the version of Orbax in "
            "pyproject.toml."
        ) from error
    context.update(file_io_sync=False, file_io_locking={"mode": "lockfile"})


@functools.cache
def _write_alone() -> None:
    """Let one process write though there are others: Orbax would ask them all for the path."""
    import orbax.checkpoint as ocp

    try:
        from orbax.checkpoint.experimental.v1._src.saving import execution

        if not callable(execution._check_directory_consistency):
            raise AttributeError("_check_directory_consistency")
        execution._check_directory_consistency = lambda directory: None
    except (ImportError, AttributeError) as error:  # a private place
        raise SaveError(
            f"Orbax {ocp.__version__} cannot write in one of several processes; take the version "
            "in pyproject.toml."
        ) from error


@functools.cache
def _context(*, reading: bool) -> ocp.v1.Context:
    import orbax.checkpoint as ocp

    _silence()
    context = ocp.v1.Context()
    # By name, or Orbax takes the document for a tree of arrays: 9 files for 49 bytes.
    registry = ocp.v1.handlers.local_registry()
    registry.add(ocp.v1.handlers.JsonHandler, checkpointable_name="meta")
    context.checkpointables.registry = registry
    # Each process reads for itself, and one writes. By default all wait for each other inside a
    # load or a save, and one whose disk fails leaves the others hanging.
    context.multiprocessing.primary_host = jax.process_index()
    context.multiprocessing.active_processes = {jax.process_index()}
    if not reading:
        # Weights hardly compress (12.9 to 11.9 MB), and a save takes 200 ms of CPU instead of 150.
        context.array.saving.use_compression = False
    return context


def _silence() -> None:
    """Drop what is printed of a save or an error besides the error itself."""
    # A save logs about 20 lines.
    logging.getLogger("absl").addFilter(lambda found: "orbax" not in Path(found.pathname).parts)
    # Of a damaged folder TensorStore fails to read many leaves. Orbax raises the first error, and
    # asyncio prints a traceback for each of the others.
    logging.getLogger("asyncio").addFilter(
        lambda found: '" driver: ' not in str(found.exc_info[1] if found.exc_info else None)
    )
    # When a save has failed, TensorStore's threads still answer to the loop that was closed, and
    # print a traceback each.
    hook, late = sys.unraisablehook, (RuntimeError, "Event loop is closed")

    def unless_late(found: Any) -> None:
        if (found.exc_type, str(found.exc_value)) != late:
            hook(found)

    sys.unraisablehook = unless_late
