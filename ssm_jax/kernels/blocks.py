"""What the recurrences of S4D and S4 share: blocks of T steps, and products by channel.

A step is l = qT + r, with T near sqrt(L). Powers have the shape (H, T, 2N), see `powers.py`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.kernels.arrays import checked_lengths, sizes
from ssm_jax.kernels.devices import vary_alike
from ssm_jax.kernels.powers import ReIm, halves, parts, times


def block_length(length: int) -> int:
    """T: the power of two next above sqrt(length); the optimum is flat from half to twice that."""
    if jax.export.is_symbolic_dim(length):  # a length that stays a symbol, as in `jax.export`
        return 64
    return 1 << math.ceil(math.log2(max(length, 1)) / 2)


def begun(owner: str, Q: int, u_BLH: Array, x0_BHN: Any, lengths: Any, *system: Array) -> Any:
    """(lengths_B, u_HBL in Q whole blocks, x0_HBN, *system), checked and filled in."""
    B, L, H = u_BLH.shape
    shape = B, H, system[0].shape[-1]
    if x0_BHN is None:
        x0_BHN = jnp.zeros(shape, system[0].dtype)
    if x0_BHN.shape != shape:
        raise ValueError(f"{owner}: x0 must be {shape}, got {x0_BHN.shape}.")
    u_BLH, x0_BHN, *system = vary_alike(u_BLH, x0_BHN, *system)
    lengths_B = checked_lengths(owner, lengths, (B,), L)
    if lengths_B is None:
        lengths_B = jnp.full((B,), L, jnp.int32)
    u_BLH = jnp.pad(u_BLH, ((0, 0), (0, Q * block_length(L) - L), (0, 0)))
    return lengths_B, jnp.moveaxis(u_BLH, 2, 0), jnp.moveaxis(x0_BHN, 1, 0), *system


def last_block(lengths_B: Array, T: int) -> tuple[Array, Array]:
    """The block with the last step of each length, and its steps there, 1..T; 0 and 0 for 0."""
    block_B = jnp.maximum(lengths_B - 1, 0) // T
    return block_B, lengths_B - T * block_B


def of_block(x_HBQ: Array, block_B: Array) -> Array:
    return jnp.take_along_axis(x_HBQ, block_B[None, :, None, None], axis=2)[:, :, 0]


def last_steps(u_HBL: Array, lengths_B: Array, T: int) -> Array:
    """The steps of the last block up to each length, at the end of T steps that are else zero."""
    t_1T = jnp.arange(T, dtype=lengths_B.dtype)[None, :] - T
    index_BT = jnp.maximum(lengths_B[:, None] + t_1T, 0)
    u_HBT = jnp.take_along_axis(u_HBL, index_BT[None], axis=2)
    inside_BT = t_1T >= -last_block(lengths_B, T)[1][:, None]
    return jnp.where(inside_BT[None], u_HBT, jnp.zeros_like(u_HBT))


def anticausal(recurrence: Callable, u_BLH: Array, *system: Array, **rule: Any) -> Array:
    """y_t = sum_j k[j] u_{t+1+j}: the future inputs alone, without the present (OC-12).

    By `s4d_recurrence` or `dplr_recurrence`, whose arguments these are; the state after the last
    step is zero.
    """
    if not isinstance(u_BLH, Array | np.ndarray):
        raise TypeError(f"anticausal: u must be an array of JAX or NumPy, got {u_BLH!r:.40}.")
    sizes("anticausal", "u", u_BLH, "BLH", filled="LH")
    y_BLH, _ = recurrence(u_BLH[:, ::-1], *system, **rule)
    return jnp.pad(y_BLH[:, ::-1][:, 1:], ((0, 0), (0, 1), (0, 0)))


def ended(y_HBL: Array, state: ReIm, length: int) -> tuple[Array, Array]:
    """(y_BLH, x_BHN), of the outputs of whole blocks and the last state (H, B, N)."""
    re, im = state
    return jnp.moveaxis(y_HBL, 0, 2)[:, :length], jnp.moveaxis(re + 1j * im, 0, 1)


# sum_j a[h, j, r] b[h, c, j]: XLA's CPU backend runs this form on all cores and others on one
# (H = 128, N = 64, L = 16384, two cores: 12 ms against 17).
FAST = (1, 2)


def product(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """A product of matrices for each channel. HIGHEST, or accelerators round to TF32 (1e-3)."""
    dims = (((contract[0],), (contract[1],)), ((0,), (0,)))
    return jax.lax.dot_general(a, b, dims, precision=jax.lax.Precision.HIGHEST)


def rows(a: Array, matrix: Array) -> Array:
    """a (H, ..., I) times a matrix (H, I, J) per channel, as (H, ..., J)."""
    flat = product(a.reshape(a.shape[0], -1, a.shape[-1]), matrix, contract=(2, 1))
    return flat.reshape(*a.shape[:-1], matrix.shape[-1])


def taps(w_HN: Array, power_HT2N: Array) -> Array:
    """2 Re sum_n w p of the powers p, as (H, T)."""
    weight_H12N = jnp.concatenate([2 * w_HN.real, -2 * w_HN.imag], axis=-1)[:, None]
    return product(power_HT2N, weight_H12N, contract=(2, 2))[:, :, 0]


def readout_rows(C_HN: Array, power_HT2N: Array) -> Array:
    """[2 Re(C p), -2 Im(C p)] as (H, T, 2N): its product with [Re x, Im x] is 2 Re(C p x)."""
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
