"""What a DPLR SSM (dplr.py) does in a block of T steps: the matrices, and moving on by blocks.

S4: an SSM whose state matrix is diagonal plus low rank, A = diag(Lambda) - P P^*.

The bilinear rule, x_l = x_{l-1} + dt A (x_l + x_{l-1}) / 2 + dt B u_l, is that of a diagonal SSM
with a scalar signal w fed back:

    x_l = Lambda_bar x_{l-1} + gain (B u_l - P w_l),    w_l = P^* (x_l + x_{l-1}) / 2.

Over a block of T steps w solves a triangular Toeplitz system of order T, whose entries are taps of
an S4D kernel; this is the Woodbury identity in the time domain. With its solution the outputs and
the last state are products of powers of Lambda_bar, which come from exact angles, with the first
state and the inputs. So a state moves on by T steps at once, without a product with A_bar.

S4 (arXiv:2111.00396) sums over the modes at the L-th roots of unity instead. What it gets there is
the kernel only if C (I - A_bar^L) stands for C: a parameter that is tied to one length and one dt,
from which the step has to find C again. The blocks are exact at every length with the plain C, so
kernel, recurrence and step have one set of parameters. They need no root of unity where s is
infinite, no array of (H, N, L) elements, and less time.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.arrays import in_one_type
from ssm_jax.kernels.cpu import materialize
from ssm_jax.kernels.diagonal import (
    block_length,
    halves,
    parts,
    powers,
    product,
    readout_rows,
    real_row,
    times,
    toeplitz,
)
from ssm_jax.kernels.discretize import discretize_bilinear, exponent
from ssm_jax.kernels.rules import Ruled
from ssm_jax.kernels.sharding import on_any_mesh


class Move(NamedTuple):
    """x to x * kept - (x w_by_x) enter_P: a state [Re x, Im x] moves on by T steps."""

    kept_H2N: Array  # Lambda_bar^T
    w_by_x_H2NT: Array
    enter_P_HT2N: Array


class Block(NamedTuple):
    """What T steps make of the state x before them and of an impulse u at their first step."""

    move: Move
    w_by_u_HT: Array
    enter_B_HT2N: Array  # the last state by an input at step t, without feedback
    y_by_x_CH2NT: Array  # the outputs by x, without feedback
    y_by_w_CHT: Array  # by an impulse of w, with the sign of B
    y_by_u_CHT: Array  # with feedback: the first T taps of the kernel


def dplr_block(
    A_HN: Array, P_HN: Array, B_HN: Array, C_CHN: Array, dt_H: Array, steps: int
) -> Block:
    """Arguments as in `dplr_kernel`, steps being T, a power of two."""
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], "bilinear")
    powers_HT2N = powers(z_HN, phase_HN, jnp.arange(steps + 1, dtype=jnp.int32))
    powers_HT2N = materialize(powers_HT2N, dt_H[0])
    before_HT2N, after_HT2N = powers_HT2N[:, :-1], powers_HT2N[:, 1:]
    _, gain_HN = discretize_bilinear(A_HN, dt_H[:, None])

    def taps(X_HN: Array, Y_HN: Array) -> Array:
        """Of the S4D kernel 2 Re sum_n X gain Lambda_bar^t Y, as (H, T)."""
        weight_H12N = real_row(X_HN * gain_HN * Y_HN)
        return product(before_HT2N, weight_H12N, contract=(2, 2))[:, :, 0]

    def enter(Y_HN: Array) -> Array:
        pair = times(parts((gain_HN * Y_HN)[:, None]), halves(before_HT2N[:, ::-1]))
        return jnp.concatenate(pair, axis=-1)

    # w f = what w would be without feedback; (x_l + x_{l-1})/2 would be gain/dt x_{l-1}.
    Pc_HN = P_HN.conj()
    solve_HTT = toeplitz(reciprocal(_midpoint(taps(Pc_HN, P_HN)).at[:, 0].add(1)))
    seen_HT2N = readout_rows(Pc_HN * gain_HN / dt_H[:, None], before_HT2N)
    w_by_x_H2NT = rows(jnp.swapaxes(seen_HT2N, 1, 2), solve_HTT)
    w_by_u_HT = rows(_midpoint(taps(Pc_HN, B_HN)), solve_HTT)
    y_by_w_CHT = jnp.stack([taps(C_HN, P_HN) for C_HN in C_CHN])
    return Block(
        Move(powers_HT2N[:, -1], w_by_x_H2NT, enter(P_HN)),
        w_by_u_HT,
        enter(B_HN),
        jnp.stack([jnp.swapaxes(readout_rows(C_HN, after_HT2N), 1, 2) for C_HN in C_CHN]),
        y_by_w_CHT,
        jnp.stack(
            [
                taps(C_HN, B_HN) - rows(w_by_u_HT, toeplitz(y_HT))
                for C_HN, y_HT in zip(C_CHN, y_by_w_CHT, strict=True)
            ]
        ),
    )


def outputs_by_state(block: Block, x_HX2N: Array) -> Array:
    """The outputs (C, H, X, T) of blocks that start at the states x, without inputs."""
    w_HXT = rows(x_HX2N, block.move.w_by_x_H2NT)
    return jnp.stack(
        [
            rows(x_HX2N, by_x_H2NT) - rows(w_HXT, toeplitz(by_w_HT))
            for by_x_H2NT, by_w_HT in zip(block.y_by_x_CH2NT, block.y_by_w_CHT, strict=True)
        ]
    )


def _midpoint(a_HT: Array) -> Array:
    """The mean of each term and the one before it."""
    return (a_HT + jnp.pad(a_HT[:, :-1], ((0, 0), (1, 0)))) / 2


def rows(a: Array, matrix_HIJ: Array) -> Array:
    """a (H, ..., I) times a matrix per channel, as (H, ..., J)."""
    flat = product(a.reshape(a.shape[0], -1, a.shape[-1]), matrix_HIJ, contract=(2, 1))
    return flat.reshape(*a.shape[:-1], matrix_HIJ.shape[-1])


@Ruled
def reciprocal(f_HT: Array) -> Array:
    """g with f * g = 1, 0, 0, ... by Newton's method, which doubles the known terms of g.

    T is a power of two. Not jax.lax.linalg.triangular_solve: on CPUs batches of it that run side by
    side in the pool of threads may each wait for the other's threads for ever (jaxlib 0.10.2).
    """
    g_HT = 1 / f_HT[:, :1]
    while (known := g_HT.shape[-1]) < f_HT.shape[-1]:
        error_HT = rows(g_HT, toeplitz(f_HT[:, : 2 * known])[:, :known, known:])
        g_HT = jnp.concatenate([g_HT, -rows(error_HT, toeplitz(g_HT))], axis=-1)
    return g_HT


@reciprocal.defjvp
def _reciprocal_jvp(primals, tangents):
    """dg = - g * g * df."""
    g_HT = reciprocal(*primals)
    return g_HT, -rows(tangents[0], toeplitz(rows(g_HT, toeplitz(g_HT))))


def _moved(move: Move, x_HX2N: Array) -> Array:
    kept = times(halves(move.kept_H2N[:, None]), halves(x_HX2N))
    return jnp.concatenate(kept, axis=-1) - rows(rows(x_HX2N, move.w_by_x_H2NT), move.enter_P_HT2N)


def block_starts(move: Move, x0_HB2N: Array, added_QHB2N: Array) -> Array:
    """x_0 and all x_{q+1} = (x_q moved on by a block) + added_q, as (Q + 1, H, B, 2N).

    Stated as a linear system, so that the gradient by `move` is one product over all q;
    differentiated, jax.lax.scan would add up one for each q.
    """

    def difference(x_QHB2N: Array) -> Array:
        Q, H, B, N2 = x_QHB2N[:-1].shape
        before_HX2N = jnp.moveaxis(x_QHB2N[:-1], 0, 1).reshape(H, Q * B, N2)
        moved_QHB2N = jnp.moveaxis(_moved(move, before_HX2N).reshape(H, Q, B, N2), 1, 0)
        return x_QHB2N - jnp.pad(moved_QHB2N, ((1, 0), (0, 0), (0, 0), (0, 0)))

    def along(function, start_HB2N, added_QHB2N, reverse):
        """start, then function(x) + added for each q."""
        if added_QHB2N.shape[0] == 0:  # no step, which a scan under jax.disable_jit refuses
            return start_HB2N[None]

        def advance(x_HB2N, added_HB2N):
            x_HB2N = function(x_HB2N) + added_HB2N
            return x_HB2N, x_HB2N

        _, x_QHB2N = jax.lax.scan(advance, start_HB2N, added_QHB2N, reverse=reverse)
        ends = (x_QHB2N, start_HB2N[None]) if reverse else (start_HB2N[None], x_QHB2N)
        return jnp.concatenate(ends)

    def solve(_, b_QHB2N):
        return along(lambda x: _moved(move, x), b_QHB2N[0], b_QHB2N[1:], False)

    def transpose_solve(_, b_QHB2N):
        _, transposed = jax.vjp(lambda x: _moved(move, x), b_QHB2N[-1])
        return along(lambda x: transposed(x)[0], b_QHB2N[-1], b_QHB2N[:-1], True)

    right_QHB2N = jnp.concatenate([x0_HB2N[None], added_QHB2N])
    return jax.lax.custom_linear_solve(difference, right_QHB2N, solve, transpose_solve)


@on_any_mesh(lambda named: "." * (named["C_HN"].ndim - 2) + "HL")
@in_one_type
def dplr_kernel(
    A_HN: Array, P_HN: Array, B_HN: Array, C_HN: Array, dt_H: Array, length: int
) -> Array:
    """Impulse response of H DPLR SSMs, k_h[l] = C A_bar^l B_bar, under the bilinear rule.

    C, B and P stand for vectors of 2N entries, the conjugates of the N stored ones being implied in
    all of them. Differentiable in all arguments, in both modes and to any order.

    Args:
      A_HN: Lambda, the diagonal part: complex, in rad per unit of time, Re A <= 0.
      P_HN: complex; the low-rank part is - P P^*, in rad per unit of time.
      B_HN: complex input vector.
      C_HN: complex read-out; axes before H are allowed and lead the result, as in (C, H, N) -> (C,
        H, L).
      dt_H: real step in units of time, positive.
      length: number of taps L, at least 1.

    Returns:
      Real k_HL, or with C's leading axes before it. Error in float32: below 5e-6 of its largest
      value (see tests/kernels/test_dplr.py).

    Raises:
      ValueError: if the shapes do not fit, or length < 1.
    """
    check_shapes("dplr_kernel", A_HN, P_HN, B_HN, C_HN, dt_H)
    if length < 1:
        raise ValueError(f"dplr_kernel: length must be at least 1, got {length}.")
    H, N = A_HN.shape
    T = block_length(length)
    Q = -(-length // T)
    block = dplr_block(A_HN, P_HN, B_HN, C_HN.reshape(-1, H, N), dt_H, T)
    k_CHQT = [block.y_by_u_CHT[:, :, None]]  # the block of the impulse, then those after it
    if Q > 1:
        x_H12N = block.enter_B_HT2N[:, :1] - rows(block.w_by_u_HT[:, None], block.move.enter_P_HT2N)
        added_QH12N = jnp.zeros((Q - 2, *x_H12N.shape), x_H12N.dtype)
        states_QH12N = block_starts(block.move, x_H12N, added_QH12N)
        k_CHQT.append(outputs_by_state(block, jnp.moveaxis(states_QH12N[:, :, 0], 0, 1)))
    k_CHL = jnp.concatenate(k_CHQT, axis=2).reshape(-1, H, Q * T)[:, :, :length]
    return k_CHL.reshape(*C_HN.shape[:-2], H, length)


def check_shapes(name, A_HN, P_HN, B_HN, C_HN, dt_H) -> None:
    HN = A_HN.shape
    if P_HN.shape != HN or B_HN.shape != HN or C_HN.shape[-2:] != HN or dt_H.shape != HN[:1]:
        raise ValueError(
            f"{name}: A, P and B are (H, N), C ends in (H, N) and dt is (H,); got A {HN}, "
            f"P {P_HN.shape}, B {B_HN.shape}, C {C_HN.shape}, dt {dt_H.shape}."
        )


@in_one_type
def dplr_step(
    x_BHN: Array,
    u_BH: Array,
    A_HN: Array,
    P_HN: Array,
    B_HN: Array,
    C_HN: Array,
    dt_H: Array,
) -> tuple[Array, Array]:
    """One step of H DPLR SSMs: the next state and the output, in O(N) per channel.

    The state moves by an increment, gain (Lambda x + B u - P w), so that what float32 rounds is
    small where a mode is slow. Arguments as in `dplr_recurrence`.

    Returns:
      x_BHN, y_BH.
    """
    check_shapes("dplr_step", A_HN, P_HN, B_HN, C_HN, dt_H)
    _, gain_HN = discretize_bilinear(A_HN, dt_H[:, None])
    # (x_l + x_{l-1})/2 = gain/dt x_{l-1} + gain (B u_l - P w_l)/2, and P^* of it is w_l.
    seen_HN = P_HN.conj() * gain_HN
    f_H = 1 + _real_sum(seen_HN * P_HN) / 2
    drive_BH = _real_sum(seen_HN[None] * x_BHN) / dt_H[None]
    w_BH = (drive_BH + _real_sum(seen_HN * B_HN)[None] / 2 * u_BH) / f_H[None]
    slope_BHN = A_HN[None] * x_BHN + B_HN[None] * u_BH[:, :, None] - P_HN[None] * w_BH[:, :, None]
    x_BHN = x_BHN + gain_HN[None] * slope_BHN
    return x_BHN, _real_sum(C_HN[None] * x_BHN)


def _real_sum(a: Array) -> Array:
    """The sum over the N modes and their conjugates."""
    return 2 * jnp.sum(a.real, axis=-1)
