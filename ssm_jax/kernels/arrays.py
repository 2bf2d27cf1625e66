"""The types that kernels and layers compute in and return; lengths of sequences, and padding.

Computed in float64 where an argument has 64 bits, else in float32: also 16-bit floats, integers and
booleans. What is made of an input has its float type; of integers and booleans the computed one.
"""

import inspect
import operator
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels.phase import Phase

Call = TypeVar("Call", bound=Callable)

COUNTS = ("lengths_B", "bins_F")  # integers that stay integers
# How the names of real arrays begin
REAL = ("u_", "dt", "omega_", "beta_", "k_", "reverse_kernel_", "gain_", "skip_")
SIZES = ("length", "n_fft", "n")  # integers that a program is made for


def in_one_type(function: Call) -> Call:
    """A decorator: arrays of any types are computed in one, and returned as said above.

    The input is an argument u, else the first one. Complex results keep the computed type.
    TypeError, by the function's name, for what is no array and for a size that is no integer;
    ValueError for one without axes where its name has some, and for a phase not of the shape of z.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        _refuse(function.__name__, signature, bound.arguments)
        _refuse_shapes(function.__name__, bound.arguments)
        kinds, named = Array | np.ndarray | Phase, bound.arguments.items()
        kept = (*COUNTS, *SIZES)
        numbers = {name: x for name, x in named if isinstance(x, kinds) and name not in kept}
        # As JAX arrays: without x64 never of 64 bits.
        types = {
            name: jax.dtypes.canonicalize_dtype(x.rest.dtype if isinstance(x, Phase) else x.dtype)
            for name, x in numbers.items()
        }
        real = computed_in(*types.values())
        for name, x in numbers.items():
            if isinstance(x, Phase):
                bound.arguments[name] = Phase(x.ticks, jnp.asarray(x.rest, real))
            else:
                kind = complex_of(real) if jnp.iscomplexobj(x) else real
                bound.arguments[name] = jnp.asarray(x, kind)
        # Reals times complex numbers are meant, whatever the user's setting is.
        with jax.numpy_dtype_promotion("standard"):
            result = function(*bound.args, **bound.kwargs)
        of_input = [t for name, t in types.items() if name.startswith("u_")] or [*types.values()]
        returned = returned_in(of_input[0] if of_input else real, real)
        return jax.tree.map(
            lambda y: y.astype(returned) if jnp.issubdtype(y.dtype, jnp.floating) else y, result
        )

    return call  # type: ignore[return-value]


def _refuse(owner: str, signature: inspect.Signature, arguments: Mapping[str, Any]) -> None:
    """Raise for what is no array, no real one, or no integer, where its name says that it is."""
    for name, x in arguments.items():
        parameter = signature.parameters[name]
        said, _, axes = name.rpartition("_")
        is_array, wanted = isinstance(x, Array | np.ndarray), ""
        if (x is None and parameter.default is None) or name == "lengths_B":
            continue
        if name in SIZES:
            checked_size(owner, name, x)
        elif name.startswith("phase_"):
            wanted = "" if isinstance(x, Phase) else "the phase of z"
        elif axes.isupper() or parameter.annotation is Array:
            if not is_array:
                wanted = "an array of JAX or NumPy"
            elif name.startswith(REAL) and jnp.iscomplexobj(x):
                wanted = "real"
        if wanted:
            got = f"{x.dtype} of the shape {x.shape}" if is_array else f"{x!r:.40}"
            raise TypeError(f"{owner}: {said or name} must be {wanted}, got {got}.")


def _refuse_shapes(owner: str, arguments: Mapping[str, Any]) -> None:
    """Raise for what a function would fail on, or broadcast, before it can look at the shapes."""
    for name, x in arguments.items():
        said, _, axes = name.rpartition("_")
        if name.startswith("phase_"):
            wanted, got = arguments[f"z_{axes}"].shape, [np.shape(part) for part in x]
            if got != [wanted, wanted]:
                ticks_and_rest = f"ticks {got[0]} and rest {got[1]}"
                raise ValueError(
                    f"{owner}: phase must have the shape of z, {wanted}, got {ticks_and_rest}."
                )
        elif axes.isupper() and isinstance(x, Array | np.ndarray) and x.ndim == 0:
            raise ValueError(f"{owner}: {said} is ({', '.join(axes)}), got {x.shape}.")


def checked_size(owner: str, name: str, size: Any) -> None:
    """Raise TypeError for what is no integer, of any type, and no length that stays a symbol."""
    try:
        jax.export.is_symbolic_dim(size) or operator.index(size)
    except TypeError:
        is_array = isinstance(size, Array | np.ndarray)
        got = f"{size.dtype} of the shape {size.shape}" if is_array else f"{size!r:.40}"
        raise TypeError(f"{owner}: {name} must be an integer, got {got}.") from None


def in_a_program() -> bool:
    """Whether a program is being made, as under `jax.jit`: there, even a constant is traced."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def one_program(function: Call) -> Call:
    """A decorator: a call outside of `jax.jit` is compiled as a whole.

    Else JAX would compile each of its operations, and run them in turn. Lengths are checked before:
    in a program their values are not known.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        named = signature.bind(*args, **kwargs).arguments
        if in_a_program():
            return function(*args, **kwargs)
        kinds = Array | np.ndarray | Phase
        u_BLH, lengths = named.get("u_BLH"), named.get("lengths_B")
        if lengths is not None and isinstance(u_BLH, Array | np.ndarray) and u_BLH.ndim == 3:
            B, L, _ = u_BLH.shape
            named["lengths_B"] = checked_lengths(function.__name__, lengths, (B,), L)
        arrays = {k: x for k, x in named.items() if isinstance(x, kinds) and k not in SIZES}
        static = tuple((k, x) for k, x in named.items() if k not in arrays)
        try:
            hash(static)
        except TypeError:  # lists: the function refuses them or not
            return function(*args, **kwargs)
        return _compiled(function, static, arrays)

    return call  # type: ignore[return-value]


@partial(jax.jit, static_argnums=(0, 1))
def _compiled(function, static, arrays):
    return function(**dict(static), **arrays)


def sizes(owner: str, name: str, array: Array, axes: str, filled: str = "") -> tuple[int, ...]:
    """The shape of an array that must have these axes, such as "BLH"; `filled` are not empty."""
    if array.ndim != len(axes) or any(array.shape[axes.index(axis)] < 1 for axis in filled):
        least = " with " + " and ".join(f"{axis} >= 1" for axis in filled) if filled else ""
        raise ValueError(f"{owner}: {name} is ({', '.join(axes)}){least}, got {array.shape}.")
    return array.shape


def computed_in(*numbers: Any) -> np.dtype:
    """The float type to compute with these arrays, or numbers of these types, in; None is none."""
    types = [getattr(x, "dtype", x) for x in numbers if x is not None]
    is_wide = any(t in (jnp.float64, jnp.complex128) for t in types)
    return jnp.dtype(jnp.float64 if is_wide else jnp.float32)


def returned_in(x: Any, computed: Any) -> np.dtype:
    """The float type of what is made of an input x, or of one of the type x."""
    kind = getattr(x, "dtype", x)
    return jnp.dtype(kind if jnp.issubdtype(kind, jnp.floating) else computed)


def complex_of(real: Any) -> np.dtype:
    """complex64 of float32, complex128 of float64."""
    return jnp.dtype(jnp.complex128 if real == jnp.float64 else jnp.complex64)


def known_values(array: ArrayLike) -> np.ndarray | None:
    """The numbers of an array; None if it is traced, or not on this host as a whole."""
    traced = isinstance(array, jax.core.Tracer)
    if traced or (isinstance(array, Array) and not array.is_fully_addressable):
        return None
    return np.asarray(array)


def clipped(array: Array, low: int, high: int) -> Array:
    """Integers of any type as int32, those outside low..high as the nearer of the two."""
    info = jnp.iinfo(array.dtype)
    if info.min < low:
        array = jnp.maximum(array, jnp.asarray(low, array.dtype))
    if jax.export.is_symbolic_dim(high):
        array = jnp.minimum(array.astype(jnp.int32), jnp.asarray(high, jnp.int32))
    elif info.max > high:
        array = jnp.minimum(array, jnp.asarray(high, array.dtype))
    return array.astype(jnp.int32)


def checked_lengths(
    owner: str, lengths: ArrayLike | None, shape: tuple[int, ...], length: int
) -> Array | None:
    """Lengths of padded sequences as int32 in 0..L, of this shape; None stays None, which means L.

    They are integers of any type, in an array, a list or a tuple; of others it raises. Traced ones
    outside 0..L count as the nearer of 0 and L.
    """
    if lengths is None:
        return None
    array: Array | np.ndarray
    if isinstance(lengths, Array | np.ndarray):
        array = lengths
    elif any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(lengths)):
        array = jnp.asarray(lengths)
    else:  # in NumPy, where int64 is no warning
        try:
            array = np.asarray(lengths)
        except ValueError as error:  # lists of different lengths
            raise ValueError(f"{owner}: lengths must be one array of integers: {error}") from None
    if array.shape != shape:
        raise ValueError(f"{owner}: lengths must have the shape {shape}, got {array.shape}.")
    if not jnp.issubdtype(array.dtype, jnp.integer) and array.size:
        raise TypeError(f"{owner}: lengths must be integers, got {array.dtype}.")
    known = known_values(array)
    if known is None:
        return clipped(jnp.asarray(array), 0, length)
    wrong = np.argwhere((known < 0) | (known > length))
    if len(wrong):
        raise ValueError(
            f"{owner}: lengths must be in 0..{length}, the steps of the input; "
            f"got {known[tuple(wrong[0])]} for example {', '.join(map(str, wrong[0]))}."
        )
    return jnp.asarray(known.astype(np.int32))


def real_steps(lengths_B: Array, length: int) -> Array:
    """Boolean (B, L): true where a step is not padding. The lengths are int32, see above."""
    return jnp.arange(length, dtype=lengths_B.dtype)[None, :] < lengths_B[:, None]


def without_padding(u_BLH: Array, lengths_B: Array | None) -> Array:
    """The input with zeros from lengths_B on; whatever stands there, NaN too, cannot leak."""
    if lengths_B is None:
        return u_BLH
    real_BL = real_steps(lengths_B, u_BLH.shape[1])
    real_BL1 = real_BL.reshape(*real_BL.shape, *(1,) * (u_BLH.ndim - 2))
    return jnp.where(real_BL1, u_BLH, jnp.zeros_like(u_BLH))
