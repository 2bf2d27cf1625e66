"""What CPUs want otherwise than accelerators, and arrays that are split over devices.

The batch may be split, the channels, or both; never the time. A program learns how from:

    jax.shard_map    a device sees its part alone; values vary over the mesh axes (`vary_alike`)
    Explicit axes    the type of an array says how it is split (`on_any_mesh`)
    Auto axes        XLA's partitioner decides, after the program is traced. Of `jax.set_mesh` one
                     axis is known, by its name: DATA_AXIS splits the batch (`per_device`)
"""

import ctypes
import inspect
import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

PLATFORMS = ("cpu", "gpu", "tpu")
DATA_AXIS = "data"  # the mesh axis over which a batch is split
ON_CHIP = 2**24  # bytes of padded inputs, of which a TPU has the spectra on the chip

Call = TypeVar("Call", bound=Callable)
Tree = TypeVar("Tree")
Axes = str | tuple[str, ...] | None  # of a mesh, that split one axis of an array

# Both are parts of the key by which JAX keeps programs: none is taken for that of another value.
# Mesh axes that split the batch and the channels, where the type of an array does not say it.
_split = jax.make_user_context((DATA_AXIS, None))
_asked_for = jax.make_user_context(None)  # a platform


def backend() -> str:
    """The platform that a program is being made for: "cpu", "gpu" or "tpu".

    That of `compiling_for`, else of the devices of the mesh in force, which need not be those of
    this machine, else of JAX's default devices.
    """
    if asked := _asked_for.value:
        return str(asked)
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device is not None else jax.default_backend()


def compiling_for(platform: str) -> AbstractContextManager[None]:
    """A context in which programs are made for "cpu", "gpu" or "tpu", whatever this machine has."""
    if platform not in PLATFORMS:
        raise ValueError(f"unknown platform {platform!r}; choose one of {', '.join(PLATFORMS)}.")
    return _asked_for(platform)


def on_cpu() -> bool:
    """Whether programs are made for a CPU; `on_gpu` has the table of what differs."""
    return backend() == "cpu"


def on_gpu() -> bool:
    """Whether programs are made for a GPU (`backend`). The forms that differ, with the reasons:

    On CPUs (times of two cores)

    fft_conv      takes even and odd bins apart: a gradient takes four fifths (results/bench);
    s4d_kernel    has the modes last in the factors of its products, so that the sums of its
                  gradient run along them, which at L = 2048 takes less time;
                  on an H200 ListOps s4d_ft would have 30 kernels and 0.15 GiB more;
    scan_parts    loops over the steps of blocks, where each step of a loop is no launch;
    look_up       adds rows in place for its gradient, in the order of the steps;
    apply_blocks  is unrolled: XLA copies what a loop keeps for the backward pass, 84 ms against 60
                  for a step of 4 x 64 channels at L = 64;
    usual_at_once  is one member of a population: its arrays fit the caches, its bits are those of a
                  single run, and there are no launches to save;
    materialize   is a wall.

    On accelerators

    dplr_kernel   doubles the states of its blocks, where a loop would be 1,900 of the 3,000 kernels
                  of a step of ListOps s4;
    scan_parts    is a tree of groups of 8 steps, where a loop over the steps of blocks would be a
                  launch for each. A gradient of `mimo_scan` (B = 50, L = 2048, H = 128, N = 8)
                  moves 505 MiB in 44 kernels on an H200, and in pairs 603 in 54; a step of ListOps
                  s5 on a v5e 17.0 GiB in 6,053 operations, and in pairs 16.7 in 7,720;
    mimo_scan     has one read-out for both directions: there are more outputs than states;
    s4d_kernel    has multiples of 16 blocks, whose products Triton tiles: jaxlib 0.10.2 gives up on
                  those of 2 x 63 blocks, "Couldn't find output tile sizes that satisfy hlo";
    look_up       has a product for its gradient: on GPUs a scatter adds by atomics, in any order,
                  and two runs would differ in the last bits. It costs one kernel and 4.5 MiB.

    On TPUs

    some_at_once  takes the spectra of some sequences at a time, which then stay on the chip: a step
                  of ListOps s4d_ft on a v5e moves 13.8 GiB, and with all at once 46.0;
    _swapped      joins two slices: libtpu 0.0.42.1 ends the process where it fuses a reversal
                  (fusion_emitter.cc), which S5 of Text and Pathfinder met.

    On GPUs, which take as long as they read and write, with GiB that XLA plans for a step of
    ListOps s4d_ft on an H200, batch 32

    fft_conv, over_channels  have the channels first: nothing is transposed between FFTs and
                  products, and GLU is one product. Not so on TPUs: the plan of that step for a v5e
                  had more bytes than before, by a tenth;
    fft_conv, gelu, gated, gated_linear  have rules, which read once what JAX's derivatives read in
                  parts, and keep inputs instead of slopes: with the line above 16.3 -> 12.2;
    apply_blocks  guesses the means of batch norms, whose statistics then take one pass: 17.3 ->
                  16.9 for ListOps s5;
    _normalized_jvp  has one complex sum for both sums of its gradient. Where there are two XLA
                  takes neither in the pass that makes the cotangent, and writes that down;
    pool          sums in parts, or the last features are written down: 0.1 GiB of ListOps s5;
    apply_blocks  is unrolled: 23.9 -> 17.5. XLA fills what a loop keeps with zeros and then copies
                  into it. For TPUs it does not, and a loop compiles in two thirds of the time.
    """
    return backend() == "gpu"


def materialize(tree: Tree, guard: Array) -> Tree:
    """`tree`, computed once: on CPUs after a wall against recomputation, which costs a copy.

    XLA fuses cheap arithmetic into each of its consumers and so computes it again for each, and for
    each element of a broadcast. On CPUs that costs more than writing the value down: a gradient of
    two S4D kernels, H = 128, N = 64, L = 2048, takes 37 ms, and 25 with a wall between the numbers
    of a mode and their powers. `jax.lax.optimization_barrier` is no wall there: XLA removes it
    before it fuses. A conditional is one, if its condition holds always and the compiler cannot
    know that: guard == guard, for a real number that every device has, such as an entry of a
    parameter. Where it is NaN, so is the result, and integers are 0. The gradient meets it too.
    """

    def nothing(tree):
        return jax.tree.map(
            lambda x: jnp.full_like(x, jnp.nan if jnp.issubdtype(x.dtype, jnp.inexact) else 0), tree
        )

    return jax.lax.cond(guard == guard, lambda tree: tree, nothing, tree) if on_cpu() else tree


def computed_again(tree: Tree) -> Tree:
    """`tree`, from which a backward pass computes again what the forward pass made of it.

    Else XLA sees that both compute the same, and keeps that as well.
    """
    return jax.lax.optimization_barrier(tree)


def keep_freed_memory() -> bool:
    """Let this process keep the blocks that it frees, up to 1 GiB each, for its next allocations.

    XLA's CPU backend allocates the temporary memory of a step anew. glibc gives such large blocks
    back to the system, which clears them page by page when the next step touches them: 160,000 page
    faults, and a fifth of the processor time of the official ListOps step at batch 8. Call this
    before JAX starts its threads; memory stays at its peak. Returns whether the allocator is
    glibc's and took the settings.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = {  # by their numbers in glibc's malloc.h
        -8: 1,  # M_ARENA_MAX: the other arenas are cut in pieces of 64 MiB
        -3: 1 << 30,  # M_MMAP_THRESHOLD: larger blocks are given back as before
        -1: -1,  # M_TRIM_THRESHOLD: never
        -2: 64 << 20,  # M_TOP_PAD
    }
    return all([mallopt(name, value) == 1 for name, value in settings.items()])


def per_device(function: Callable[..., Array], u: Array, *of_channels: Array) -> Array:
    """`function(u, *of_channels)`, on each device's part if it is known how u, (B, L, H), is split.

    XLA's partitioner does not split an FFT over its batch: left to itself it gathers the whole
    array on every device. The function acts channel by channel, the first axis of `of_channels` is
    H, and an axis of u that the devices do not divide is not split.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = {name: mesh.shape[name] for name in mesh.auto_axes}

    def dividing(axes: Axes, size: int) -> Axes:
        names = (axes,) if isinstance(axes, str) else axes or ()
        names = tuple(name for name in names if name in free)
        devices = math.prod(free[name] for name in names)
        return names if devices > 1 and size % devices == 0 else None

    batch, channels = map(dividing, _split.value, (u.shape[0], u.shape[2]))
    if batch is channels is None:
        return function(u, *of_channels)
    split = PartitionSpec(batch, None, channels)
    specs = (split, *(PartitionSpec(channels) for _ in of_channels))
    on_each = jax.shard_map(function, in_specs=specs, out_specs=split, axis_names=set(free))
    return on_each(u, *of_channels)


def some_at_once(function: Callable[..., Array], padding: int = 1) -> Callable[..., Array]:
    """`function(u, *shared)`, on a TPU for some sequences u at a time, as many as divide the batch.

    What it makes of up to ON_CHIP bytes of `u`, times its padding, then stays on the chip.
    """

    def in_slices(u: Array, *shared: Array) -> Array:
        if any(map(jax.export.is_symbolic_dim, u.shape)):
            return function(u, *shared)
        each = padding * math.prod(u.shape[1:]) * u.dtype.itemsize
        most = max(1, ON_CHIP // each)
        if most >= len(u):
            return function(u, *shared)
        size = next(size for size in range(most, 0, -1) if len(u) % size == 0)
        u, *shared = vary_alike(u, *shared)
        slices = u.reshape(-1, size, *u.shape[1:])
        y = jax.lax.map(lambda u: function(u, *shared), slices)
        return y.reshape(len(u), *y.shape[2:])

    return in_slices if backend() == "tpu" else function


def on_any_mesh(*outputs: str | Callable[[dict[str, Any]], str]) -> Callable[[Call], Call]:
    """A decorator: arrays may be split over mesh axes that are Explicit, but not along L.

    The function runs as if the axes were Auto, so that it need not say how each of its reshapes
    and products is split. Arguments are known by the suffixes of their names, as in u_BLH. So are
    the `outputs`, by axes as "BLH", or a function that gives them of the arguments by name.
    """

    def decorate(function: Call) -> Call:
        names = tuple(inspect.signature(function).parameters)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            named = dict(zip(names, args, strict=False)) | kwargs
            axes = _axes_of(function, named)
            leaves, tree = jax.tree.flatten((args, kwargs))
            arrays = [leaf for leaf in leaves if isinstance(leaf, Array)]
            meshes = (jax.typeof(x).sharding.mesh for x in arrays)
            mesh = next((mesh for mesh in meshes if mesh.explicit_axes), None)
            if mesh is None:
                return function(*args, **kwargs)

            def with_auto_axes(*arrays: Array) -> Any:
                new = iter(arrays)
                replaced = [next(new) if isinstance(leaf, Array) else leaf for leaf in leaves]
                args, kwargs = jax.tree.unflatten(tree, replaced)
                with _split((axes.get("B"), axes.get("H"))):
                    return function(*args, **kwargs)

            out = tuple(
                NamedSharding(mesh, PartitionSpec(*map(axes.get, letters)))
                for letters in (o if isinstance(o, str) else o(named) for o in outputs)
            )
            options = {"axes": mesh.explicit_axes, "out_sharding": out if len(out) > 1 else out[0]}
            return jax.sharding.auto_axes(with_auto_axes, **options)(*arrays)

        return call  # type: ignore[return-value]

    return decorate


def _axes_of(function: Callable, named: dict[str, Any]) -> dict[str, Axes]:
    """Mesh axes by the letter of the axis of an argument that they split; L may not be split."""
    found: dict[str, Axes] = {}
    for name, x in named.items():
        if not isinstance(x, Array):
            continue
        sharding = jax.typeof(x).sharding if isinstance(x, jax.core.Tracer) else x.sharding
        if not isinstance(sharding, NamedSharding):
            continue
        spec = (*sharding.spec, *(None,) * (x.ndim - len(sharding.spec)))
        letters = name.rpartition("_")[2]
        if letters in ("BLH", "BH"):  # of a layer: its own axes
            whole = getattr(named.get("self"), "INPUT", "BLH")
            letters = whole if letters == "BLH" else whole.replace("L", "")
        split = {c: axes for c, axes in zip(letters[::-1], spec[::-1], strict=False) if axes}
        if "L" in split:
            owner = named["self"].NAME if "self" in named else function.__name__
            raise ValueError(
                f"{owner}: the sequence axis of {name} {x.shape} is split over the mesh axis "
                f"{split['L']!r}, and each step needs the ones before it; split the batch or the "
                "channels."
            )
        found |= split
    return found


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
