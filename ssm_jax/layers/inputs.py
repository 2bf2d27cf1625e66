"""What layers, norms and models take: arrays of their axes, ids, keys, and the types of both.

And `as_one_program`, by which they run on what they have taken.

The rule of types is that of `kernels/arrays.py`, where the parameters count as arguments. What
does not fit raises in the name of its owner: a TypeError for another kind of value, a ValueError
for another shape or range.
"""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels.arrays import clipped, complex_of, computed_in, in_a_program, known_values

Module = TypeVar("Module", bound=nnx.Module)

OWN = ("ssm_jax", "flax")  # packages whose modules only compute
RAW_KEYS = ((2,), (4,))  # shapes of raw keys by JAX's generators


def checked_input(owner: str, x: ArrayLike, axes: str, channels: int) -> Array:
    """A JAX array of floats, integers or booleans with the axes "(B, L, H)", H = channels.

    The axes may be given as "BLH".
    """
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise TypeError(f"{owner}: the input must be an array of numbers: {first}") from None
    if not jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.kind not in "iub":
        raise TypeError(f"{owner}: the input must be real, got {x.dtype}.")
    names = axes.strip("()").split(", ") if "(" in axes else [*axes]
    if x.ndim != len(names) or x.shape[-1] != channels or ("L" in names and x.shape[1] < 1):
        least = "L >= 1 and " if "L" in names else ""
        wanted = f"({', '.join(names)}) with {least}{names[-1]} = {channels}"
        raise ValueError(f"{owner}: the input must be {wanted}, got {x.shape}.")
    return x


def checked_ids(owner: str, what: str, ids: ArrayLike, n: int, axes: tuple[str, ...]) -> Array:
    """Integers in 0..n-1 of any type as int32; `axes` names theirs: ("example", "step").

    Others are refused where they are known, with the place of the first. Where they are traced they
    become n, for which a look-up (`jnp.take`) gives NaN.
    """
    ids = ids if isinstance(ids, Array) else np.asarray(ids)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{owner}: each {what} must be an integer, got {ids.dtype}.")
    known = known_values(ids)
    if known is None:
        ids_or_less = clipped(jnp.asarray(ids), -1, n)
        return jnp.where(ids_or_less < 0, jnp.int32(n), ids_or_less)
    outside = np.argwhere((known < 0) | (known >= n)).tolist()
    if outside:
        where = ", ".join(f"{axis} {i}" for axis, i in zip(axes, outside[0], strict=True))
        got = known[tuple(outside[0])]
        raise ValueError(f"{owner}: the {what} at {where} must be in 0..{n - 1}, got {got}.")
    return jnp.asarray(known.astype(np.int32))


def checked_key(owner: str, key: Array | None) -> Array | None:
    """A single key, typed or raw, or None."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    raw = dtype == np.uint32 and key is not None and key.shape in RAW_KEYS
    if key is None or raw or (typed and key.ndim == 0):
        return key
    got = type(key).__name__ if dtype is None else f"{dtype} of the shape {key.shape}"
    raise ValueError(f"{owner}: key must be a single key, as jax.random.key makes it, got {got}.")


def check_rngs(owner: str, rngs: Any) -> None:
    """Refuse what is not random numbers as Flax has them, with "params" or a default stream."""
    if not callable(getattr(rngs, "params", None)):
        streams = f" of {', '.join(rngs) or 'no stream'}" if isinstance(rngs, nnx.Rngs) else ""
        raise TypeError(
            f'{owner}: rngs must be flax.nnx.Rngs with a stream "params", such as nnx.Rngs(0), '
            f"got {type(rngs).__name__}{streams}."
        )


def checked_integer(owner: str, what: str, value: Any) -> int:
    """An integer of any type as Python's."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:  # also of an array of one integer
        pass
    raise TypeError(f"{owner}: {what} must be an integer, got {value!r}.")


def checked_scale(
    owner: str, step_scale: ArrayLike, steps: tuple[int, ...]
) -> float | Array | None:
    """A scale as a Python number where it is one and known, else as a JAX array; None for 1.

    It is one number, or one for each of the steps.
    """
    scale = step_scale if isinstance(step_scale, Array) else np.asarray(step_scale)
    is_real = any(jnp.issubdtype(scale.dtype, kind) for kind in (jnp.integer, jnp.floating))
    if scale.shape not in ((), steps) or not is_real:
        got = f"{scale.dtype} of the shape {scale.shape}"
        raise ValueError(
            f"{owner}: step_scale must be one real number, or those of the steps, {steps}; "
            f"got {got}."
        )
    known = known_values(scale)
    if known is not None:
        with np.errstate(over="ignore"):
            narrow = known.astype(np.float32)  # in which it is computed
        wrong = np.argwhere(~((narrow > 0) & np.isfinite(narrow))).tolist()
        if wrong:
            got = f"{float(known[tuple(wrong[0])]):g}" + (
                f" at {tuple(wrong[0])}" if scale.ndim else ""
            )
            raise ValueError(f"{owner}: step_scale must be positive and finite, got {got}.")
        if not scale.ndim:
            return None if known == 1 else float(known)
        scale = known.astype(np.float64)  # an integer of 64 bits would wrap
    return jnp.asarray(scale)


def scale_in(dtype: Any, scale: float | Array | None) -> float | Array:
    """What `checked_scale` gave, in the type to compute in where it is an array."""
    if scale is None:
        return 1.0
    return scale.astype(dtype) if isinstance(scale, Array) else scale


def checked_starts(owner: str, starts: ArrayLike | None, steps: tuple[int, ...]) -> Array | None:
    """Where sequences begin, boolean, of these steps; None stays None."""
    if starts is None:
        return None
    starts = starts if isinstance(starts, Array) else np.asarray(starts)
    if starts.dtype != bool or starts.shape != steps:
        got = f"{starts.dtype} of the shape {starts.shape}"
        raise ValueError(
            f"{owner}: starts must be booleans {steps}, true where a sequence begins; got {got}."
        )
    return jnp.asarray(starts)


def checked_state(owner: str, state: ArrayLike, shape: tuple[int, ...]) -> Array:
    """An array of this shape, of any type."""
    try:
        state = jnp.asarray(state)
    except (TypeError, ValueError):
        got = type(state).__name__
        raise TypeError(f"{owner}: the state must be an array {shape}, got {got}.") from None
    if state.shape != shape:
        raise ValueError(f"{owner}: the state must be {shape}, got {state.shape}.")
    return state


def as_complex(re: Array, im: Array) -> Array:
    """re + i im in the complex type to compute in, whatever the setting of promotion is."""
    dtype = computed_in(re, im)
    return jax.lax.complex(re.astype(dtype), im.astype(dtype))


def from_ri(x_ri: Array) -> Array:
    """The complex numbers whose real and imaginary parts are on the last axis."""
    return as_complex(x_ri[..., 0], x_ri[..., 1])


def as_one_program(
    method: Callable[..., Any], module: nnx.Module, *args: Any, **static: Any
) -> Any:
    """`method(module, *args, **static)`, compiled as a whole where it is called by itself.

    Outside of `jax.jit` JAX runs operation by operation, and compiles each: the first call of S4D,
    128 channels on 4 x 1,024 steps, took 9.7 s and later ones 0.6 s; as one program 1.9 s and
    0.02 s. Within a program that is being compiled nothing is done, nor for a module with a class
    from outside: what its methods do besides computing, a program would do once.
    """
    if in_a_program() or any(
        type(part).__module__.partition(".")[0] not in OWN for _, part in nnx.iter_modules(module)
    ):
        return method(module, *args, **static)
    graphdef, variables = nnx.split(module)
    try:
        hash(graphdef)
    except TypeError:  # who made the module may have given it a list or a set to keep
        return method(module, *args, **static)
    result, moved = _one_program(method, graphdef, tuple(static.items()), variables, args)
    nnx.update(module, moved)
    return result


@partial(jax.jit, static_argnums=(0, 1, 2))
def _one_program(method, graphdef, static, variables, args):
    """The result, and what has `moved`."""
    module = nnx.merge(graphdef, variables)
    before = untrained(module)
    result = method(module, *args, **dict(static))
    return result, moved(module, before)


def untrained(module: nnx.Module) -> dict[Any, Array]:
    """By path, what a module has besides parameters: batch statistics, counts, keys, knobs."""
    state = nnx.state(module, nnx.Not(nnx.Param))
    return dict(nnx.traversals.flatten_mapping(nnx.to_pure_dict(state)))


def moved(module: nnx.Module, before: dict[Any, Array]) -> dict[Any, Any]:
    """What of `untrained` is another array than before, as `nnx.update` takes it."""
    after = untrained(module)
    paths = (path for path, x in before.items() if after.get(path, x) is not x)
    return dict(nnx.traversals.unflatten_mapping({path: after[path] for path in paths}))


def in_type(module: Module, *inputs: Array | None) -> tuple[Module, np.dtype]:
    """A module whose numbers are of the type to compute with these inputs in, and that type.

    The module itself, where they are already; else a copy, through which the gradient passes.
    """
    numbers = jax.tree.leaves(nnx.state(module))
    dtype = computed_in(*inputs, *numbers)

    def kind(x: Array) -> Any:
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            return complex_of(dtype)
        return dtype if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype

    if all(x.dtype == kind(x) for x in numbers):
        return module, dtype
    graphdef, variables = nnx.split(module)
    return nnx.merge(graphdef, jax.tree.map(lambda x: x.astype(kind(x)), variables)), dtype


def dropout(x_BLH: Array, rate: float, key: Array | None, *, tied: bool) -> Array:
    """Zero entries with probability `rate` < 1 and scale the others by 1 / (1 - rate).

    Without a key nothing is dropped. Tied: one draw per sequence and channel for all time steps.
    """
    if key is None or rate == 0:
        return x_BLH
    B, L, *others = x_BLH.shape
    keep = jax.random.bernoulli(key, 1 - rate, (B, 1 if tied else L, *others))
    return jnp.where(keep, x_BLH / (1 - rate), jnp.zeros_like(x_BLH))
