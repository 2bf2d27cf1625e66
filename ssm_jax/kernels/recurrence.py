"""S4D and S4 as recurrences: outputs and final state, in parallel over blocks of steps.

A sequence is cut into Q blocks of T steps. From its start x_{qT} a block needs only products with
powers of A_bar, which all blocks share. Of S4D, with z = log A_bar and the kernel's first T taps k,

    x_{l+1}  = A_bar x_l + gain u_l,    y_l = 2 Re sum_n C_n x_{n,l+1},
    x_{qT+T} = e^{zT} x_{qT} + gain sum_t e^{z(T-1-t)} u_{qT+t}
    y_{qT+t} = 2 Re sum_n C_n e^{z(t+1)} x_{qT} + sum_{j <= t} k[t-j] u_{qT+j}.

So the memory is O(B H N L / T), and the outputs take L (4 N + T) multiplications per sequence and
channel. Powers over many steps come from exact angles: no error of repeated multiplication grows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels.arrays import checked_lengths, in_one_type
from ssm_jax.kernels.cpu import materialize
from ssm_jax.kernels.diagonal import (
    block_length,
    halves,
    parts,
    powers,
    product,
    rows_of_real_part,
    times,
    toeplitz,
)
from ssm_jax.kernels.discretize import DISCRETIZE, ReIm, exponent
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
      A_HN, C_HN, dt_H, discretization: as in `s4d_kernel`, C without leading axes.
      x0_BHN: complex state before the first step; None: zero.
      lengths_B: after how many steps of each sequence the state is returned, see
        `arrays.checked_lengths`; None: L.

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
    x0_BHN = _first_state("s4d_recurrence", x0_BHN, (B, H, N), A_HN)
    u_BLH, A_HN, C_HN, dt_H, x0_BHN = vary_alike(u_BLH, A_HN, C_HN, dt_H, x0_BHN)
    lengths_B = _ends("s4d_recurrence", lengths_B, B, L)
    T = block_length(L)
    Q = -(-L // T)
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], discretization)
    _, gain_HN = DISCRETIZE[discretization](A_HN, dt_H[:, None])
    powers_HT2N = powers(z_HN, phase_HN, jnp.arange(T + 1, dtype=jnp.int32))
    powers_HT2N = materialize(powers_HT2N, dt_H[0])
    before_HT2N, after_HT2N = powers_HT2N[:, :T], powers_HT2N[:, 1:]

    # Each block alone: what it adds to the state. Then the states that the blocks start from.
    u_HBL = _channels_first(u_BLH, Q * T)
    u_HXT = u_HBL.reshape(H, B * Q, T)
    added_HX2N = product(u_HXT, before_HT2N[:, ::-1], contract=(2, 1))
    added = times(parts(gain_HN[:, None, None]), halves(added_HX2N.reshape(H, B, Q, 2 * N)))
    x0 = parts(jnp.moveaxis(x0_BHN, 1, 0))
    starts = _block_starts(x0, added, z_HN, phase_HN, T)
    # The outputs: by the state at the start, and by the inputs of the block.
    start_HX2N = jnp.concatenate(starts, axis=-1).reshape(H, B * Q, 2 * N)
    readout_HT2N = rows_of_real_part(times(parts(C_HN[:, None]), halves(after_HT2N)))
    by_start_HXT = product(start_HX2N, readout_HT2N, contract=(2, 2))
    weight_H12N = rows_of_real_part(parts(C_HN * gain_HN))[:, None]
    k_HT = product(before_HT2N, weight_H12N, contract=(2, 2))[:, :, 0]
    y_HXT = by_start_HXT + product(u_HXT, toeplitz(k_HT), contract=(2, 1))

    # The last state: from the start of the block with the last step, over the r steps of it.
    block_B, r_B = _last_block(lengths_B, T)
    tail_HB2N = product(_last_steps(u_HBL, lengths_B, T), before_HT2N[:, ::-1], contract=(2, 1))
    tail = times(parts(gain_HN[:, None]), halves(tail_HB2N))
    first = _map(lambda x_HBQN: _of_block(x_HBQN, block_B), starts)
    kept = times(halves(powers(z_HN, phase_HN, r_B)), first)
    y_BLH = jnp.moveaxis(y_HXT.reshape(H, B, Q * T), 0, 2)[:, :L]
    return y_BLH, _state(kept, tail)


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
    All work but Q = L / T products of the state with A_bar^T is parallel over the blocks.

    Args:
      A_HN, P_HN, B_HN, C_HN, dt_H: as in `dplr_kernel`, C without leading axes.
      u_BLH, x0_BHN, lengths_B: as in `s4d_recurrence`, and so are the results. Error in float32:
        below 2e-5 of the largest value (see tests/kernels/test_dplr_recurrence.py).

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
    x0_BHN = _first_state("dplr_recurrence", x0_BHN, (B, H, N), A_HN)
    u_BLH, A_HN, P_HN, B_HN, C_HN, dt_H, x0_BHN = vary_alike(
        u_BLH, A_HN, P_HN, B_HN, C_HN, dt_H, x0_BHN
    )
    lengths_B = _ends("dplr_recurrence", lengths_B, B, L)
    T = block_length(L)
    # JAX must know that a symbolic length has at least two blocks.
    Q = L // T + 2 if jax.export.is_symbolic_dim(L) else -(-L // T)
    block = dplr_block(A_HN, P_HN, B_HN, C_HN[None], dt_H, T)
    # An impulse at a later step does what one at the first does, later.
    w_by_u_HTT, y_by_u_HTT = toeplitz(block.w_by_u_HT), toeplitz(block.y_by_u_CHT[0])
    x_by_u_HT2N = block.enter_B_HT2N - rows(w_by_u_HTT, block.enter_P_HT2N)

    # Each block alone; the states that the blocks start from; the outputs by these and by u.
    u_HBQT = _channels_first(u_BLH, Q * T).reshape(H, B, Q, T)
    x0_HB2N = jnp.moveaxis(jnp.concatenate(parts(x0_BHN), axis=-1), 1, 0)
    added_QHB2N = jnp.moveaxis(rows(u_HBQT[:, :, :-1], x_by_u_HT2N), 2, 0)
    x_HBQ2N = jnp.moveaxis(block_starts(block, x0_HB2N, added_QHB2N), 0, 2)
    y_HXT = outputs_by_state(block, x_HBQ2N.reshape(H, B * Q, 2 * N))[0]
    y_HXT += rows(u_HBQT.reshape(H, B * Q, T), y_by_u_HTT)

    # The last state: from the start of the block with the last step, over the r steps of it. The w
    # after them do not matter.
    block_B, r_B = _last_block(lengths_B, T)
    x_HB2N, u_HBT = _of_block(x_HBQ2N, block_B), _of_block(u_HBQT, block_B)
    w_HBT = rows(x_HB2N, block.w_by_x_H2NT) + rows(u_HBT, w_by_u_HTT)
    by_u_HB2N = rows(_last_steps(u_HBT, r_B, T), block.enter_B_HT2N)
    tail_HB2N = by_u_HB2N - rows(_last_steps(w_HBT, r_B, T), block.enter_P_HT2N)
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], "bilinear")
    kept = times(halves(powers(z_HN, phase_HN, r_B)), halves(x_HB2N))
    y_BLH = jnp.moveaxis(y_HXT.reshape(H, B, Q * T), 0, 2)[:, :L]
    return y_BLH, _state(kept, halves(tail_HB2N))


@on_any_mesh("BLH")
@in_one_type
def s4d_anticausal(
    u_BLH: Array, A_HN: Array, C_HN: Array, dt_H: Array, *, discretization: str = "zoh"
) -> Array:
    """y_t = sum_j k[j] u_{t+1+j}: the future inputs alone, without the present (OC-12).

    Arguments as in `s4d_recurrence`; the state after the last step is zero.
    """
    y_BLH, _ = s4d_recurrence(u_BLH[:, ::-1], A_HN, C_HN, dt_H, discretization=discretization)
    return _ahead(y_BLH)


@on_any_mesh("BLH")
@in_one_type
def dplr_anticausal(
    u_BLH: Array, A_HN: Array, P_HN: Array, B_HN: Array, C_HN: Array, dt_H: Array
) -> Array:
    """As `s4d_anticausal`, with the arguments of `dplr_recurrence`."""
    return _ahead(dplr_recurrence(u_BLH[:, ::-1], A_HN, P_HN, B_HN, C_HN, dt_H)[0])


def _ahead(y_BLH: Array) -> Array:
    """Outputs of the reversed sequence, in time and without those by the present input."""
    return jnp.pad(y_BLH[:, ::-1][:, 1:], ((0, 0), (0, 1), (0, 0)))


def _block_starts(x0: ReIm, added: ReIm, z_HN: Array, phase_HN: Phase, T: int) -> ReIm:
    """The states x_0 .. x_{Q-1} of x_{q+1} = e^{zT} x_q + added_q, over axis 2 of (H, B, Q, N).

    In groups of S blocks, S near sqrt(Q), so no rounded multiplier is used more than S or Q / S
    times in a row.
    """
    H, B, Q, N = added[0].shape
    S = block_length(Q)
    G = -(-Q // S)
    over_blocks = powers(z_HN, phase_HN, T * jnp.arange(S + 1, dtype=jnp.int32))
    power = _map(lambda p: jnp.moveaxis(p, 1, 0), halves(over_blocks))  # (S + 1, H, N)

    def blocks_first(x_HBQN: Array) -> Array:
        """(S, H, B, G, N), with zeros for the blocks that the last group lacks."""
        x_HBQN = jnp.pad(x_HBQN, ((0, 0), (0, 0), (0, G * S - Q), (0, 0)))
        return jnp.moveaxis(x_HBQN.reshape(H, B, G, S, N), 3, 0)

    def scan(start: ReIm, added: ReIm, power: ReIm) -> tuple[ReIm, ReIm]:
        """The last state, and those before each element of `added`."""
        return jax.lax.scan(lambda x, new: (_plus(times(power, x), new), x), start, added)

    # From zero within all groups at once.
    zero = jnp.zeros_like(added[0], shape=(H, B, G, N))
    one_block = _map(lambda p: p[1][:, None, None], power)
    group, within = scan((zero, zero), _map(blocks_first, added), one_block)
    # From group to group.
    one_group = _map(lambda p: p[S][:, None], power)
    _, begin = scan(x0, _map(lambda x: jnp.moveaxis(x, 2, 0), group), one_group)
    # Add the state that each group begins with, moved on by exact powers.
    to_block = _map(lambda p: p[:S, :, None, None], power)
    carried = times(to_block, _map(lambda x: jnp.moveaxis(x, 0, 2)[None], begin))
    states = _plus(within, carried)  # (S, H, B, G, N)
    return _map(lambda x: jnp.moveaxis(x, 0, 3).reshape(H, B, G * S, N)[:, :, :Q], states)


_map = jax.tree.map


def _plus(a: ReIm, b: ReIm) -> ReIm:
    return a[0] + b[0], a[1] + b[1]


def _first_state(owner: str, x0_BHN: Array | None, shape: tuple[int, ...], like: Array) -> Array:
    if x0_BHN is None:
        return jnp.zeros(shape, like.dtype)
    if x0_BHN.shape != shape:
        raise ValueError(f"{owner}: x0 must be {shape}, got {x0_BHN.shape}.")
    return x0_BHN


def _ends(owner: str, lengths: ArrayLike | None, batch: int, length: int) -> Array:
    lengths_B = checked_lengths(owner, lengths, (batch,), length)
    return jnp.full((batch,), length, jnp.int32) if lengths_B is None else lengths_B


def _channels_first(u_BLH: Array, length: int) -> Array:
    """(H, B, length), padded with zeros."""
    u_BLH = jnp.pad(u_BLH, ((0, 0), (0, length - u_BLH.shape[1]), (0, 0)))
    return jnp.moveaxis(u_BLH, 2, 0)


def _last_block(lengths_B: Array, T: int) -> tuple[Array, Array]:
    """The block with the last step of each length, and how many steps the length has in it.

    1..T; block 0 and 0 for the length 0.
    """
    block_B = jnp.maximum(lengths_B - 1, 0) // T
    return block_B, lengths_B - T * block_B


def _of_block(x_HBQ: Array, block_B: Array) -> Array:
    return jnp.take_along_axis(x_HBQ, block_B[None, :, None, None], axis=2)[:, :, 0]


def _last_steps(u_HBL: Array, lengths_B: Array, T: int) -> Array:
    """The steps of the last block up to each length, at the end of T steps that are else zero."""
    t_1T = jnp.arange(T, dtype=lengths_B.dtype)[None, :] - T
    index_BT = jnp.maximum(lengths_B[:, None] + t_1T, 0)
    u_HBT = jnp.take_along_axis(u_HBL, index_BT[None], axis=2)
    inside_BT = t_1T >= -_last_block(lengths_B, T)[1][:, None]
    return jnp.where(inside_BT[None], u_HBT, jnp.zeros_like(u_HBT))


def _state(kept: ReIm, tail: ReIm) -> Array:
    """The complex sum, as (B, H, N)."""
    x_re, x_im = _plus(kept, tail)
    return jnp.moveaxis(x_re + 1j * x_im, 0, 1)
