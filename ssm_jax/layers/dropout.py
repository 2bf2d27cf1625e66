"""Dropout as a function: its key comes with the call, so that there is nothing to checkpoint."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def dropout(x_BLH: Array, rate: float, key: Array | None, *, tied: bool) -> Array:
    """Zero entries with probability `rate` and scale the others by 1 / (1 - rate).

    Args:
      x_BLH: any real array of three axes.
      rate: 0 <= rate < 1.
      key: None: no dropout, as in evaluation.
      tied: one draw per sequence and channel, the same for all time steps.
    """
    if key is None or rate == 0:
        return x_BLH
    B, L, H = x_BLH.shape
    keep = jax.random.bernoulli(key, 1 - rate, (B, 1 if tied else L, H))
    return jnp.where(keep, x_BLH / (1 - rate), jnp.zeros_like(x_BLH))


def checked_key(owner: str, key: Array | None) -> Array | None:
    """A single key, typed or raw, or None.

    Raises:
      ValueError: for an array of keys, or what is no key.
    """
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if key is None or (dtype is not None and key.ndim == (0 if typed else 1)):
        return key
    shape = type(key).__name__ if dtype is None else f"the shape {key.shape}"
    raise ValueError(f"{owner}: key must be a single key, as jax.random.key makes it, got {shape}.")


def split_or_none(key: Array | None, num: int) -> list[Array | None]:
    """`num` keys, or as many None."""
    return [None] * num if key is None else list(jax.random.split(key, num))
