"""Arrays that are split over devices: the batch, the channels, or both; never the time.

Where it stands how an array is split, and of what a program can know it:

    jax.shard_map    a device sees its part alone; values vary over the mesh axes (`vary_alike`)
    Explicit axes    the type of an array says how it is split (`on_any_mesh`)
    Auto axes        XLA's partitioner decides, after the program is traced. Of `jax.set_mesh` one
                     axis is known, by its name: DATA_AXIS splits the batch (`per_device`)
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

DATA_AXIS = "data"  # the mesh axis over which a batch is split

Call = TypeVar("Call", bound=Callable)
Axes = str | tuple[str, ...] | None  # of a mesh, that split one axis of an array

# What splits the batch and the channels, where the type of an array does not say it.
_split: ContextVar[tuple[Axes, Axes]] = ContextVar("split", default=(DATA_AXIS, None))


def per_device(function: Callable[..., Array], u: Array, *of_channels: Array) -> Array:
    """`function(u, *of_channels)`, on each device's part if it is known how u is split.

    XLA's partitioner does not split an FFT over its batch: left to itself it gathers the whole
    array on every device.

    Args:
      function: of arrays as these, channel by channel.
      u: (B, L, H). An axis that the devices do not divide is not split.
      of_channels: arrays whose first axis is H.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = {name: mesh.shape[name] for name in mesh.auto_axes}

    def dividing(axes: Axes, size: int) -> Axes:
        axes = tuple(name for name in _names(axes) if name in free)
        devices = math.prod(free[name] for name in axes)
        return axes if devices > 1 and size % devices == 0 else None

    batch, channels = _split.get()
    batch, channels = dividing(batch, u.shape[0]), dividing(channels, u.shape[2])
    if batch is channels is None:
        return function(u, *of_channels)
    split = PartitionSpec(batch, None, channels)
    specs = (split, *(PartitionSpec(channels) for _ in of_channels))
    on_each = jax.shard_map(function, in_specs=specs, out_specs=split, axis_names=set(free))
    return on_each(u, *of_channels)


def on_any_mesh(*outputs: str | Callable[[dict[str, Any]], str]) -> Callable[[Call], Call]:
    """A decorator: arrays may be split over mesh axes that are Explicit.

    The function runs as if the axes were Auto, so that it need not say how each of its reshapes
    and products is split. Arguments are known by the suffixes of their names, as in u_BLH.

    Args:
      outputs: axes of the result, as "BLH", or of each of several results; or a function that
        gives them of the arguments by name. They are split as those of the arguments.

    Raises:
      ValueError: from the function, if the axis L of an argument is known to be split.
    """

    def decorate(function: Call) -> Call:
        names = tuple(inspect.signature(function).parameters)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            named = dict(zip(names, args, strict=False)) | kwargs
            axes = dict(_axes(function, tuple(named.items())))
            leaves, tree = jax.tree.flatten((args, kwargs))
            arrays = [leaf for leaf in leaves if isinstance(leaf, Array)]
            mesh = next((m for m in map(_mesh, arrays) if m.explicit_axes), None)
            if mesh is None:
                return function(*args, **kwargs)

            def with_auto_axes(*arrays: Array) -> Any:
                given = iter(arrays)
                args, kwargs = jax.tree.unflatten(
                    tree, [next(given) if isinstance(leaf, Array) else leaf for leaf in leaves]
                )
                token = _split.set((axes.get("B"), axes.get("H")))
                try:
                    return function(*args, **kwargs)
                finally:
                    _split.reset(token)

            out = tuple(
                NamedSharding(mesh, PartitionSpec(*(axes.get(letter) for letter in letters)))
                for letters in (o if isinstance(o, str) else o(named) for o in outputs)
            )
            out_sharding = out if len(out) > 1 else out[0]
            explicit = mesh.explicit_axes
            in_auto = jax.sharding.auto_axes(
                with_auto_axes, axes=explicit, out_sharding=out_sharding
            )
            return in_auto(*arrays)

        return call  # type: ignore[return-value]

    return decorate


def vary_alike(*trees: Any) -> Any:
    """The trees of arrays, each varying over all axes of a `jax.shard_map` over which one varies.

    A loop needs that of what it carries, and so does a custom derivative of its arguments.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return trees
    zeros = [jnp.zeros_like(leaf, shape=(), dtype=jnp.int8) for leaf in jax.tree.leaves(trees)]
    zero = sum(zeros[1:], zeros[0])  # a sum varies over all that its terms vary over
    return jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), trees)


def of_rows(fft: Callable[..., Array], x: Array, n: int | None = None) -> Array:
    """`fft(x, n)` of the last axis, as that of a matrix.

    XLA's partitioner spreads the FFT of an array with more axes over the time, and ends the process
    where the parts are short. And on CPUs its programs may give an FFT an array that does not lie
    in rows, which is an error when they run.
    """
    y = fft(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), n)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def _names(axes: Axes) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)


def _mesh(x: Array) -> Any:
    return jax.typeof(x).sharding.mesh


def _axes(function: Callable, arguments: tuple[tuple[str, Any], ...]) -> Iterator[tuple[str, Axes]]:
    """(letter, what splits that axis) of the arguments that are arrays; L may not be split."""
    for name, x in arguments:
        if not isinstance(x, Array):
            continue
        sharding = jax.typeof(x).sharding if isinstance(x, jax.core.Tracer) else x.sharding
        if not isinstance(sharding, NamedSharding):
            continue
        letters = name.rpartition("_")[2]
        spec = (*sharding.spec, *(None,) * (x.ndim - len(sharding.spec)))
        for letter, axes in zip(reversed(letters), reversed(spec), strict=False):
            if letter == "L" and axes:
                owner = arguments[0][1].NAME if arguments[0][0] == "self" else function.__name__
                raise ValueError(
                    f"{owner}: the sequence axis of {name} {x.shape} is split over the mesh axis "
                    f"{axes!r}, and each step needs the ones before it; split the batch or the "
                    "channels."
                )
            if axes:
                yield letter, axes
