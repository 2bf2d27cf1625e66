"""Pieces that the block-wise recurrences share: products, and complex arithmetic in real parts.

Products of complex64 are slow on CPUs, so complex arrays are pairs of real ones, or lie side by
side on a last axis of 2N.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

Pair = tuple[Array, Array]  # real and imaginary parts


def parts(x: Array) -> Pair:
    return x.real, x.imag


def halves(x: Array) -> Pair:
    """Real and imaginary halves of an array whose last axis is 2N."""
    N = x.shape[-1] // 2
    return x[..., :N], x[..., N:]


def both(function: Callable[[Array], Array], x: Pair) -> Pair:
    return function(x[0]), function(x[1])


def plus(a: Pair, b: Pair) -> Pair:
    return a[0] + b[0], a[1] + b[1]


def times(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def product(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """Batched over H. HIGHEST, or accelerators round the operands to TF32."""
    dims = (((contract[0],), (contract[1],)), ((0,), (0,)))
    return jax.lax.dot_general(a, b, dims, precision=jax.lax.Precision.HIGHEST)


def real_row(w_HN: Array) -> Array:
    """[2 Re w, -2 Im w] as (H, 1, 2N): its product with [Re p, Im p] is 2 Re(w p)."""
    return jnp.concatenate([2 * w_HN.real, -2 * w_HN.imag], axis=-1)[:, None]


def readout_rows(C_HN: Array, power_HT2N: Array) -> Array:
    """[2 Re(C p), -2 Im(C p)] as (H, T, 2N)."""
    re, im = times(parts(C_HN[:, None]), halves(power_HT2N))
    return jnp.concatenate([2 * re, -2 * im], axis=-1)


def toeplitz(k_HT: Array) -> Array:
    """M[h, j, t] = k[t - j], zero for t < j: rows of length 2T, read with the period 2T - 1.

    No gather, whose derivative would be a scatter.
    """
    H, T = k_HT.shape
    row_HT = jnp.concatenate([k_HT, jnp.zeros_like(k_HT)], axis=-1)
    rows = jnp.broadcast_to(row_HT[:, None], (H, T, 2 * T)).reshape(H, 2 * T * T)
    return rows[:, : T * (2 * T - 1)].reshape(H, T, 2 * T - 1)[:, :, :T]


def last_block(lengths_B: Array, T: int) -> tuple[Array, Array]:
    """The block with the last step of each length, and how many steps the length has in it.

    1..T; block 0 and 0 for the length 0.
    """
    block_B = jnp.maximum(lengths_B - 1, 0) // T
    return block_B, lengths_B - T * block_B


def last_steps(u_BLH: Array, lengths_B: Array, T: int) -> Array:
    """The steps of the last block up to each length, at the end of T steps that are else zero."""
    t_1T = jnp.arange(T, dtype=lengths_B.dtype)[None, :] - T
    index_BT = jnp.maximum(lengths_B[:, None] + t_1T, 0)
    u_BTH = jnp.take_along_axis(u_BLH, index_BT[:, :, None], axis=1)
    inside_BT1 = (t_1T >= -last_block(lengths_B, T)[1][:, None])[:, :, None]
    return jnp.where(inside_BT1, u_BTH, jnp.zeros_like(u_BTH))
