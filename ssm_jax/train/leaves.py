"""A tree of arrays as a flat table of named leaves, and back: copies, checksums, comparison.

Knows nothing of how leaves are stored. The name of a leaf is its path, "params/blocks/0/ssm/A_im".
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


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
