"""A function of a batch, on each device's part of it."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array
from jax.sharding import PartitionSpec

DATA_AXIS = "data"  # the mesh axis over which a batch is split


def per_device(function: Callable[..., Array], batch: int) -> Callable[..., Array]:
    """`function(u, *shared)` on each device's part of u, if `jax.set_mesh` has a data axis.

    XLA's partitioner does not split an FFT over its batch: left to itself it gathers the whole
    batch on every device.

    Args:
      function: of an array whose first axis is the batch, and of arrays that all devices share.
      batch: length of that axis. If the devices do not divide it, nothing is split.
    """
    devices = dict(jax.sharding.get_abstract_mesh().shape).get(DATA_AXIS, 1)
    if devices == 1 or batch % devices:
        return function
    split = PartitionSpec(DATA_AXIS)

    def on_each(u: Array, *shared: Array) -> Array:
        specs = (split, *(PartitionSpec() for _ in shared))
        return jax.shard_map(function, in_specs=specs, out_specs=split)(u, *shared)

    return on_each
