"""A tree of arrays as a flat table of named leaves, and back: copies, checksums, comparison.

Knows nothing of how leaves are stored. The name of a leaf is its path, "params/blocks/0/ssm/A_im".

What a checkpoint says of itself: the document beside its arrays, sealed with a checksum.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ssm_jax.stop import EXIT_STORAGE
from ssm_jax.train.stamps import is_count


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path, in the tree's order.

    Raises:
      ValueError: if two leaves have one path, as {0: a, "0": b} would.
    """
    table: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if path in table:
            raise ValueError(f"two leaves of the state are both called {path!r}; rename one.")
        table[path] = leaf
    return table


def unflatten(target: Any, table: Mapping[str, Any]) -> Any:
    """A tree of the target's structure with the leaves of `table`, which has exactly its paths."""
    leaves = [table[path] for path in flatten(target)]
    return jax.tree.unflatten(jax.tree.structure(target), leaves)


def host_copy(path: str, leaf: Any) -> np.ndarray:
    """A copy of a leaf's values in this process's memory, bit for bit.

    A copy, not a view: a NumPy view of a CPU array keeps its buffer alive, so that the next train
    step cannot reuse the donated buffer and allocates a second state (seen with jax 0.10).

    Raises:
      ValueError: if part of the leaf lives on another host only.
    """
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        raise ValueError(
            f"cannot save {path}: it is sharded over several hosts ({leaf.sharding}); "
            "replicate the state over hosts, and shard over the devices of one host only."
        )
    return np.array(leaf, order="C")


def checksum(path: str, array: np.ndarray) -> int:
    """CRC-32 over path, dtype, shape and bytes (about 2 GB/s); shows any burst of up to 32 bits."""
    header = f"{path} {array.dtype.name} {array.shape}".encode()
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return zlib.crc32(values.data, zlib.crc32(header))


def describe(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """What a checkpoint promises of each leaf: shape, dtype and checksum; JSON-able."""
    return {
        path: {
            "shape": list(array.shape),
            "dtype": array.dtype.name,
            "crc32": checksum(path, array),
        }
        for path, array in arrays.items()
    }


def empty_like(described: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Unset arrays of the described shapes and dtypes."""
    return {
        path: np.empty(tuple(leaf["shape"]), np.dtype(leaf["dtype"]))
        for path, leaf in described.items()
    }


def faults(
    arrays: Mapping[str, np.ndarray], described: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """The leaves that are not what was promised, one line each; empty if all are."""
    found = []
    for path, leaf in described.items():
        array = arrays.get(path)
        if array is None:
            found.append(f"{path}: missing")
        elif (list(array.shape), array.dtype.name) != (leaf["shape"], leaf["dtype"]):
            found.append(
                f"{path}: read {array.dtype.name}{array.shape}, "
                f"saved {leaf['dtype']}{tuple(leaf['shape'])}"
            )
        elif checksum(path, array) != leaf["crc32"]:
            found.append(f"{path}: checksum differs")
    return found


def differences(described: Mapping[str, Mapping[str, Any]], target: Mapping[str, Any]) -> list[str]:
    """How the described leaves differ from those a program expects, one line each.

    Args:
      described: path -> shape, dtype (of a checkpoint).
      target: path -> array or jax.ShapeDtypeStruct or number (of the program).
    """
    lines = []
    for path in [*described, *(path for path in target if path not in described)]:
        stored = expected = "nothing"
        if path in described:
            stored = f"{described[path]['dtype']}{tuple(described[path]['shape'])}"
        if path in target:
            leaf = target[path]
            dtype = np.dtype(leaf.dtype) if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
            expected = f"{dtype.name}{np.shape(leaf)}"
        if stored != expected:
            lines.append(f"{path}: checkpoint has {stored}, this program expects {expected}")
    return lines


def place(array: np.ndarray, target: Any) -> jax.Array:
    """The array on the devices of the target leaf; on the default device if it names none."""
    sharding = getattr(target, "sharding", None)
    if sharding is None:
        return jax.device_put(array)
    # Unlike device_put this needs no collective when the sharding spans hosts.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


_FORMAT = 1  # of the document; raise it when a field changes its meaning


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or is not what was written."""


class SaveError(CheckpointError):
    """A checkpoint could not be written: the storage failed or is full."""

    exit_code = EXIT_STORAGE


class ConfigMismatch(ValueError):  # noqa: N818 - it reads as what happened
    """The checkpoint belongs to a run with other options or other data."""


class StateMismatch(ValueError):  # noqa: N818
    """The checkpoint is sound, but the program's state has other leaves, shapes or dtypes."""


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a checkpoint says besides its arrays; all JSON-able.

    Attributes:
      step: optimizer steps done.
      identity: the flat options that the run's numbers depend on.
      data_fingerprint: changes if and only if the data change.
      evaluated: whether the state was evaluated at this step.
      metrics: results of that evaluation, empty if there was none.
      best: the loop's own note of the best evaluation so far, {"step": ..., "value": ...}, or None.
      extra: whatever else the loop needs to go on.
    """

    step: int
    identity: dict[str, Any]
    data_fingerprint: str
    evaluated: bool
    metrics: dict[str, float]
    best: dict[str, Any] | None
    extra: dict[str, Any]


def seal(
    meta: Meta, described: Mapping[str, Mapping[str, Any]], versions: Mapping[str, str]
) -> dict[str, Any]:
    """The JSON document of a checkpoint.

    Args:
      meta: what the run says.
      described: shape, dtype and checksum of every leaf by path.
      versions: of the libraries that write.
    """
    content = {
        "format": _FORMAT,
        "meta": dataclasses.asdict(meta),
        "leaves": dict(described),
        "versions": dict(versions),
        "saved_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    content = json.loads(json.dumps(content))  # as it will read back: tuples are lists
    return {**content, "crc32": document_checksum(content)}


def unseal(document: Any) -> tuple[Meta, dict[str, dict[str, Any]]]:
    """The meta and the described leaves of a document.

    Raises:
      CheckpointError: the document is not as it was sealed.
      StateMismatch: it is, but by a version of this program that wrote another format.
    """
    if not isinstance(document, dict) or "crc32" not in document:
        raise CheckpointError("its meta document is incomplete")
    content = {key: value for key, value in document.items() if key != "crc32"}
    if document_checksum(content) != document["crc32"]:
        raise CheckpointError("the checksum of its meta document differs")
    if content.get("format") != _FORMAT:
        raise StateMismatch(
            f"the checkpoint has format {content.get('format')}, this program reads {_FORMAT}; "
            "use the version of ssm_jax that wrote it."
        )
    if fault := _fault(content):
        raise CheckpointError(f"its meta document is sound but has {fault}")
    return Meta(**content["meta"]), content["leaves"]


_KINDS: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "identity": dict,
    "data_fingerprint": str,
    "evaluated": bool,
    "metrics": dict,
    "best": (dict, type(None)),
    "extra": dict,
}


def _fault(content: Mapping[str, Any]) -> str | None:
    """What in a document no `seal` of this format makes, though its checksum is right; or None."""
    meta, leaves = content.get("meta"), content.get("leaves")
    if not isinstance(meta, dict) or meta.keys() != _KINDS.keys():
        return "other fields than a checkpoint's"
    for name, kinds in _KINDS.items():
        if not isinstance(meta[name], kinds) or (name == "step" and not is_count(meta[name])):
            return f"{name}={meta[name]!r:.60}"
    best = meta["best"]
    if best is not None and not (
        is_count(best.get("step")) and is_number(best.get("value")) and math.isfinite(best["value"])
    ):
        return f"best={best!r:.60}"
    if not all(map(is_number, meta["metrics"].values())):
        return f"metrics={meta['metrics']!r:.60}"
    if not isinstance(leaves, dict):
        return "no table of leaves"
    for path, leaf in leaves.items():
        if not _is_leaf(leaf):
            return f"the leaf {path}: {leaf!r:.60}"
    return None


def _is_leaf(leaf: Any) -> bool:
    if not isinstance(leaf, dict) or leaf.keys() != {"shape", "dtype", "crc32"}:
        return False
    try:
        known = isinstance(leaf["dtype"], str) and np.dtype(leaf["dtype"]).name == leaf["dtype"]
    except TypeError:
        known = False
    if not known:
        return False
    shape = leaf["shape"]
    return isinstance(shape, list) and all(map(is_count, shape)) and is_count(leaf["crc32"])


def is_number(value: Any) -> bool:
    """Whether JSON has read a number; true and false are none."""
    return type(value) in (int, float)


def document_checksum(content: Mapping[str, Any]) -> int:
    """CRC-32 of a JSON document, whatever the order of its entries."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def other_run(meta: Meta, identity: Mapping[str, Any], data_fingerprint: str) -> list[str]:
    """How the run of a checkpoint differs from one with these options and data, one line each."""
    lines = []
    for key in sorted(meta.identity.keys() | identity.keys()):
        theirs, ours = (known.get(key, "not an option") for known in (meta.identity, identity))
        if theirs != ours:
            lines.append(f"{key}: checkpoint {theirs}, this run {ours}")
    if meta.data_fingerprint != data_fingerprint:
        lines.append(f"data: checkpoint {meta.data_fingerprint}, this run {data_fingerprint}")
    return lines


def refuse_other_run(
    meta: Meta, identity: Mapping[str, Any], data_fingerprint: str, where: object
) -> None:
    """Raise unless a checkpoint belongs to a run with these options and data.

    Raises:
      ConfigMismatch: one line per differing option, and what to do.
    """
    if lines := other_run(meta, identity, data_fingerprint):
        same_data = meta.data_fingerprint == data_fingerprint
        other = "drop the override" if same_data else "bring the same options and data back"
        listed = "\n  ".join(lines)
        raise ConfigMismatch(
            f"{where} was trained with other options:\n  {listed}\n"
            f"Choose a new --workdir, or {other}."
        )
