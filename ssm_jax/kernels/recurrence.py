"""A diagonal SSM (S4D) as a recurrence: outputs and final state, in parallel over blocks of steps.

    x_{l+1} = A_bar x_l + gain u_l,    y_l = 2 Re sum_n C_n x_{n,l+1},    z = log A_bar

A sequence is cut into Q blocks of T steps. From its start x_{qT} a block needs only products with
powers of A_bar, which are shared by all blocks:

    x_{qT+T}     = e^{zT} x_{qT} + gain sum_t e^{z(T-1-t)} u_{qT+t}
    y_{qT+t}     = 2 Re sum_n C_n e^{z(t+1)} x_{qT} + sum_{j <= t} k[t-j] u_{qT+j}

k being the kernel's first T taps. The starts are found on two levels, of about sqrt(Q) steps each.
So the memory is O(B H N L / T), and the outputs take L (4 N + T) multiplications per sequence and
channel, in three products of real matrices. Powers of A_bar over many steps come from exact angles:
the error does not grow as that of multiplying by A_bar again and again.

S4 as a recurrence over a sequence: outputs and final state, in the blocks of dplr.py.

All work but Q = L / T products of the state with A_bar^T is parallel over the blocks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels.arrays import checked_lengths, in_one_type
from ssm_jax.kernels.cpu import materialize
from ssm_jax.kernels.diagonal import (
    Pair,
    block_length,
    both,
    halves,
    last_block,
    last_steps,
    parts,
    plus,
    powers,
    product,
    readout_rows,
    real_row,
    times,
    toeplitz,
)
from ssm_jax.kernels.discretize import DISCRETIZE, exponent
from ssm_jax.kernels.dplr import block_starts, check_shapes, dplr_block, outputs_by_state, rows
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.sharding import on_any_mesh, vary_alike


@on_any_mesh("BLH", "BHN")
@in_one_type
def s4d_recurrence(
    u_BLH: Array,
    A_HN: Array,
    C_HN: Array,
    dt_H: Array,
    x0_BHN: Array | None = None,
    lengths_B: ArrayLike | None = None,
    *,
    discretization: str = "zoh",
) -> tuple[Array, Array]:
    """Run H diagonal SSMs from a state over a sequence; B = 1 is folded into C.

    Equal to convolving with `s4d_kernel` where the state is zero. Differentiable.

    Args:
      u_BLH: real input, L at least 1.
      A_HN: complex eigenvalues in rad per unit of time, Re A <= 0; the N conjugates are implied.
      C_HN: complex read-out.
      dt_H: real step in units of time, positive.
      x0_BHN: complex state before the first step; None: zero.
      lengths_B: after how many steps of each sequence the state is returned, see
        `padding.checked_lengths`; None: L.
      discretization: "zoh", "bilinear" or "none".

    Returns:
      y_BLH, and the complex state x_BHN after lengths_B steps. Error in float32: some 1e-6 of the
      largest value, at any length below 2^22 (see tests/kernels/test_recurrence.py).

    Raises:
      ValueError: if the shapes do not fit, or the discretization is unknown.
    """
    B, L, H = u_BLH.shape
    N = A_HN.shape[-1]
    if L < 1 or A_HN.shape != (H, N) or C_HN.shape != (H, N) or dt_H.shape != (H,):
        raise ValueError(
            "s4d_recurrence: u is (B, L, H) with L >= 1, A and C are (H, N) and dt is (H,); "
            f"got u {u_BLH.shape}, A {A_HN.shape}, C {C_HN.shape}, dt {dt_H.shape}."
        )
    if x0_BHN is None:
        x0_BHN = jnp.zeros((B, H, N), A_HN.dtype)
    elif x0_BHN.shape != (B, H, N):
        raise ValueError(f"s4d_recurrence: x0 must be {(B, H, N)}, got {x0_BHN.shape}.")
    u_BLH, A_HN, C_HN, dt_H, x0_BHN = vary_alike(u_BLH, A_HN, C_HN, dt_H, x0_BHN)
    lengths_B = checked_lengths("s4d_recurrence", lengths_B, (B,), L)
    lengths_B = jnp.full((B,), L, jnp.int32) if lengths_B is None else lengths_B
    T = block_length(L)
    Q = -(-L // T)
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], discretization)
    _, gain_HN = DISCRETIZE[discretization](A_HN, dt_H[:, None])
    powers_HT2N = powers(z_HN, phase_HN, jnp.arange(T + 1, dtype=jnp.int32))
    powers_HT2N = materialize(powers_HT2N, dt_H[0])
    before_HT2N, after_HT2N = powers_HT2N[:, :T], powers_HT2N[:, 1:]

    u_BLH = jnp.pad(u_BLH, ((0, 0), (0, Q * T - L), (0, 0)))
    u_HPT = jnp.moveaxis(u_BLH, 2, 0).reshape(H, B * Q, T)  # P = B Q blocks
    added_HP2N = product(u_HPT, before_HT2N[:, ::-1], contract=(2, 1))
    added = times(parts(gain_HN[:, None, None]), halves(added_HP2N.reshape(H, B, Q, 2 * N)))
    x0 = parts(jnp.moveaxis(x0_BHN, 1, 0))
    starts = _block_starts(x0, added, z_HN, phase_HN, T)
    state_HP2N = jnp.concatenate(starts, axis=-1).reshape(H, B * Q, 2 * N)
    carried_HPT = product(state_HP2N, readout_rows(C_HN, after_HT2N), contract=(2, 2))
    k_HT = product(before_HT2N, real_row(C_HN * gain_HN), contract=(2, 2))[:, :, 0]
    y_HPT = carried_HPT + product(u_HPT, toeplitz(k_HT), contract=(2, 1))
    y_BLH = jnp.moveaxis(y_HPT.reshape(H, B, Q * T), 0, 2)[:, :L]

    # From the start of the block with the last step, over the r steps of it.
    block_B, r_B = last_block(lengths_B, T)
    tail_HBT = jnp.moveaxis(last_steps(u_BLH, lengths_B, T), 2, 0)
    tail_HB2N = product(tail_HBT, before_HT2N[:, ::-1], contract=(2, 1))
    block_1B11 = block_B[None, :, None, None]
    first = both(lambda x: jnp.take_along_axis(x, block_1B11, axis=2)[:, :, 0], starts)
    tail = times(parts(gain_HN[:, None]), halves(tail_HB2N))
    x_re, x_im = plus(times(halves(powers(z_HN, phase_HN, r_B)), first), tail)
    return y_BLH, jnp.moveaxis(x_re + 1j * x_im, 0, 1)


@on_any_mesh("BLH")
@in_one_type
def s4d_anticausal(
    u_BLH: Array, A_HN: Array, C_HN: Array, dt_H: Array, *, discretization: str = "zoh"
) -> Array:
    """y_t = sum_j k[j] u_{t+1+j}: the future inputs alone, without the present (OC-12).

    Arguments as in `s4d_recurrence`; the state after the last step is zero.
    """
    y_BLH, _ = s4d_recurrence(u_BLH[:, ::-1], A_HN, C_HN, dt_H, discretization=discretization)
    return jnp.pad(y_BLH[:, ::-1][:, 1:], ((0, 0), (0, 1), (0, 0)))


def _block_starts(x0: Pair, added: Pair, z_HN: Array, phase_HN: Phase, T: int) -> Pair:
    """The states x_0 .. x_{Q-1} of x_{q+1} = e^{zT} x_q + added_q, over axis 2 of (H, B, Q, N).

    In groups of S blocks, S near sqrt(Q): from zero within all groups at once, then from group to
    group, and what a group begins with is added with exact powers. So no rounded multiplier is used
    more than S or Q / S times in a row.
    """
    H, B, Q, N = added[0].shape
    S = block_length(Q)
    G = -(-Q // S)
    power_HS2N = powers(z_HN, phase_HN, T * jnp.arange(S + 1, dtype=jnp.int32))
    power_SHN = both(lambda p: jnp.moveaxis(p, 1, 0), halves(power_HS2N))

    def scan(start: Pair, added: Pair, power: Pair) -> tuple[Pair, Pair]:
        """The last state, and those before each element of `added`."""
        return jax.lax.scan(lambda x, new: (plus(times(power, x), new), x), start, added)

    zero_HBGN = jnp.zeros_like(added[0], shape=(H, B, G, N))
    group_HBGN, within_SHBGN = scan(
        (zero_HBGN, zero_HBGN),
        both(lambda x: _blocks_first(x, G, S), added),
        both(lambda p: p[1][:, None, None], power_SHN),
    )
    _, begin_GHBN = scan(
        x0,
        both(lambda x: jnp.moveaxis(x, 2, 0), group_HBGN),
        both(lambda p: p[S][:, None], power_SHN),
    )
    carried_SHBGN = times(
        both(lambda p: p[:S, :, None, None], power_SHN),
        both(lambda x: jnp.moveaxis(x, 0, 2)[None], begin_GHBN),
    )
    states_SHBGN = plus(within_SHBGN, carried_SHBGN)
    return both(lambda x: jnp.moveaxis(x, 0, 3).reshape(H, B, G * S, N)[:, :, :Q], states_SHBGN)


def _blocks_first(x_HBQN: Array, G: int, S: int) -> Array:
    """(S, H, B, G, N), with zeros for the blocks that the last group lacks."""
    H, B, Q, N = x_HBQN.shape
    x_HBQN = jnp.pad(x_HBQN, ((0, 0), (0, 0), (0, G * S - Q), (0, 0)))
    return jnp.moveaxis(x_HBQN.reshape(H, B, G, S, N), 3, 0)


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
