"""Which steps of a padded batch are real."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def real_steps(lengths_B: Array, length: int) -> Array:
    """Boolean (B, L): true where a step is not padding."""
    return jnp.arange(length, dtype=lengths_B.dtype)[None, :] < lengths_B[:, None]


def without_padding(u_BLH: Array, lengths_B: Array | None) -> Array:
    """The input with zeros from lengths_B on; whatever stands there, NaN too, cannot leak."""
    if lengths_B is None:
        return u_BLH
    real_BL1 = real_steps(lengths_B, u_BLH.shape[1])[:, :, None]
    return jnp.where(real_BL1, u_BLH, jnp.zeros_like(u_BLH))
