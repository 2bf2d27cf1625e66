"""Step sizes dt at initialization."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax import ranges


def log_uniform(key: Array, shape: tuple[int, ...], low: float, high: float) -> Array:
    """Draws whose logarithm is uniform in [log low, log high], float32.

    Raises:
      ValueError: unless 0 < low <= high < infinity.
    """
    if not (ranges.POSITIVE.holds(low) and ranges.POSITIVE.holds(high) and low <= high):
        raise ValueError(
            f"log_uniform: needs 0 < low <= high, got low={low}, high={high}; "
            "of a layer they are dt_min and dt_max."
        )
    u = jax.random.uniform(key, shape, jnp.float32)
    return jnp.exp(u * (math.log(high) - math.log(low)) + math.log(low))


def inverse_softplus(y: Array) -> Array:
    """x with log(1 + e^x) = y, for y > 0: x = y + log(1 - e^-y), accurate for small y."""
    return y + jnp.log(-jnp.expm1(-y))


# dt of its parameter, and the inverse (OC-5)
DT_TRANSFORMS = {"softplus": (jax.nn.softplus, inverse_softplus), "exp": (jnp.exp, jnp.log)}
