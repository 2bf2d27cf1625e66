"""S4 as a recurrence over a sequence: outputs and final state, in the blocks of dplr.py.

All work but Q = L / T products of the state with A_bar^T is parallel over the blocks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels.blockwise import (
    halves,
    last_block,
    last_steps,
    parts,
    plus,
    times,
    toeplitz,
)
from ssm_jax.kernels.diagonal import block_length, powers
from ssm_jax.kernels.discretize import exponent
from ssm_jax.kernels.dplr import check_shapes
from ssm_jax.kernels.dplr_block import block_starts, dplr_block, outputs_by_state, rows
from ssm_jax.kernels.padding import checked_lengths
from ssm_jax.kernels.sharding import on_any_mesh, vary_alike
from ssm_jax.kernels.types import in_one_type


@on_any_mesh("BLH", "BHN")
@in_one_type
def dplr_recurrence(
    u_BLH: Array,
    A_HN: Array,
    P_HN: Array,
    B_HN: Array,
    C_HN: Array,
    dt_H: Array,
    x0_BHN: Array | None = None,
    lengths_B: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Run H DPLR SSMs from a state over a sequence. Differentiable.

    Equal to convolving with `dplr_kernel` where the state is zero, and to `dplr_step` after step.

    Args:
      u_BLH: real input, L at least 1.
      A_HN, P_HN, B_HN, C_HN, dt_H: as in `dplr_kernel`, C without leading axes.
      x0_BHN: complex state before the first step; None: zero.
      lengths_B: after how many steps of each sequence the state is returned, see
        `padding.checked_lengths`; None: L.

    Returns:
      y_BLH, and the complex state x_BHN after lengths_B steps. Error in float32: below 2e-5 of the
      largest value (see tests/kernels/test_dplr_recurrence.py).

    Raises:
      ValueError: if the shapes do not fit.
    """
    B, L, H = u_BLH.shape
    N = A_HN.shape[-1]
    check_shapes("dplr_recurrence", A_HN, P_HN, B_HN, C_HN, dt_H)
    if L < 1 or A_HN.shape != (H, N) or C_HN.ndim != 2:
        raise ValueError(
            "dplr_recurrence: u is (B, L, H) with L >= 1, A and C are (H, N); "
            f"got u {u_BLH.shape}, A {A_HN.shape}, C {C_HN.shape}."
        )
    if x0_BHN is None:
        x0_BHN = jnp.zeros((B, H, N), A_HN.dtype)
    elif x0_BHN.shape != (B, H, N):
        raise ValueError(f"dplr_recurrence: x0 must be {(B, H, N)}, got {x0_BHN.shape}.")
    u_BLH, A_HN, P_HN, B_HN, C_HN, dt_H, x0_BHN = vary_alike(
        u_BLH, A_HN, P_HN, B_HN, C_HN, dt_H, x0_BHN
    )
    lengths_B = checked_lengths("dplr_recurrence", lengths_B, (B,), L)
    lengths_B = jnp.full((B,), L, jnp.int32) if lengths_B is None else lengths_B
    T = block_length(L)
    # Of a symbolic length JAX has to know that there are a block and another.
    Q = L // T + 2 if jax.export.is_symbolic_dim(L) else -(-L // T)
    block = dplr_block(A_HN, P_HN, B_HN, C_HN[None], dt_H, T)
    # An impulse at a later step does what one at the first does, later.
    w_by_u_HTT, y_by_u_HTT = toeplitz(block.w_by_u_HT), toeplitz(block.y_by_u_CHT[0])
    x_by_u_HT2N = block.enter_B_HT2N - rows(w_by_u_HTT, block.move.enter_P_HT2N)

    u_BLH = jnp.pad(u_BLH, ((0, 0), (0, Q * T - L), (0, 0)))
    u_HBQT = jnp.moveaxis(u_BLH, 2, 0).reshape(H, B, Q, T)
    x0_HB2N = jnp.moveaxis(jnp.concatenate(parts(x0_BHN), axis=-1), 1, 0)
    added_QHB2N = jnp.moveaxis(rows(u_HBQT[:, :, :-1], x_by_u_HT2N), 2, 0)
    x_HBQ2N = jnp.moveaxis(block_starts(block.move, x0_HB2N, added_QHB2N), 0, 2)
    y_HPT = outputs_by_state(block, x_HBQ2N.reshape(H, B * Q, 2 * N))[0]  # P = B Q blocks
    y_HPT += rows(u_HBQT.reshape(H, B * Q, T), y_by_u_HTT)
    y_BLH = jnp.moveaxis(y_HPT.reshape(H, B, Q * T), 0, 2)[:, :L]

    # From the start of the block with the last step, over the r steps of it. What w is after them
    # does not matter.
    block_B, r_B = last_block(lengths_B, T)
    x_HB2N, u_HBT = (
        jnp.take_along_axis(a, block_B[None, :, None, None], axis=2)[:, :, 0]
        for a in (x_HBQ2N, u_HBQT)
    )
    w_HBT = rows(x_HB2N, block.move.w_by_x_H2NT) + rows(u_HBT, w_by_u_HTT)

    def entered(s_HBT: Array, enter_HT2N: Array) -> Array:
        tail_BTH = last_steps(jnp.moveaxis(s_HBT, 0, 2), r_B, T)
        return rows(jnp.moveaxis(tail_BTH, 2, 0), enter_HT2N)

    entered_HB2N = entered(u_HBT, block.enter_B_HT2N) - entered(w_HBT, block.move.enter_P_HT2N)
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], "bilinear")
    kept = times(halves(powers(z_HN, phase_HN, r_B)), halves(x_HB2N))
    x_re, x_im = plus(kept, halves(entered_HB2N))
    return y_BLH, jnp.moveaxis(x_re + 1j * x_im, 0, 1)


@on_any_mesh("BLH")
@in_one_type
def dplr_anticausal(
    u_BLH: Array, A_HN: Array, P_HN: Array, B_HN: Array, C_HN: Array, dt_H: Array
) -> Array:
    """y_t = sum_j k[j] u_{t+1+j}: the future inputs alone, without the present (OC-12).

    Arguments as in `dplr_recurrence`; the state after the last step is zero.
    """
    y_BLH, _ = dplr_recurrence(u_BLH[:, ::-1], A_HN, P_HN, B_HN, C_HN, dt_H)
    return jnp.pad(y_BLH[:, ::-1][:, 1:], ((0, 0), (0, 1), (0, 0)))
