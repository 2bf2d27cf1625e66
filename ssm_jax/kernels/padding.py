"""Lengths of the sequences of a padded batch: what they may be, and which steps are real."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


def checked_lengths(
    owner: str, lengths: ArrayLike | None, shape: tuple[int, ...], length: int
) -> Array | None:
    """Lengths as int32 in 0..L, of this shape; None stays None, which means L.

    Args:
      owner: who asks, for the message.
      lengths: integers of any type, in a JAX or NumPy array, a list or a tuple. 0 is a sequence
        without a step. Values outside 0..L are refused where they are known; where they are traced
        they count as the nearer of 0 and L.
      shape: what the array must have, (B,).
      length: L.

    Raises:
      TypeError: for numbers that are no integers.
      ValueError: for another shape, or a known value outside 0..L.
    """
    if lengths is None:
        return None
    array = _as_array(owner, lengths)
    if array.shape != shape:
        raise ValueError(f"{owner}: lengths must have the shape {shape}, got {array.shape}.")
    if not jnp.issubdtype(array.dtype, jnp.integer) and array.size:
        raise TypeError(f"{owner}: lengths must be integers, got {array.dtype}.")
    known = known_values(array)
    if known is not None:
        wrong = (known < 0) | (known > length)
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"{owner}: lengths must be in 0..{length}, the steps of the input; "
                f"got {known[place]} for example {', '.join(map(str, place))}."
            )
        return jnp.asarray(known.astype(np.int32))
    return clipped(jnp.asarray(array), 0, length)


def known_values(array: ArrayLike) -> np.ndarray | None:
    """The numbers of an array; None if it is traced, or not on this host as a whole."""
    if isinstance(array, jax.core.Tracer):
        return None
    if isinstance(array, Array) and not array.is_fully_addressable:
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


def real_steps(lengths_B: Array, length: int) -> Array:
    """Boolean (B, L): true where a step is not padding. The lengths are int32, see above."""
    return jnp.arange(length, dtype=lengths_B.dtype)[None, :] < lengths_B[:, None]


def without_padding(u_BLH: Array, lengths_B: Array | None) -> Array:
    """The input with zeros from lengths_B on; whatever stands there, NaN too, cannot leak."""
    if lengths_B is None:
        return u_BLH
    real_BL1 = real_steps(lengths_B, u_BLH.shape[1])[:, :, None]
    return jnp.where(real_BL1, u_BLH, jnp.zeros_like(u_BLH))


def _as_array(owner: str, lengths: ArrayLike) -> Array | np.ndarray:
    """Lists stay in NumPy, where int64 is no warning, unless a number in them is traced."""
    if isinstance(lengths, Array | np.ndarray):
        return lengths
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(lengths)):
        return jnp.asarray(lengths)
    try:
        return np.asarray(lengths)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{owner}: lengths must be one array of integers: {error}") from None
