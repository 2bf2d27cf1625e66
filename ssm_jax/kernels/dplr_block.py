"""What a DPLR SSM (dplr.py) does in a block of T steps: the matrices, and moving on by blocks."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.blockwise import (
    halves,
    parts,
    product,
    readout_rows,
    real_row,
    times,
    toeplitz,
)
from ssm_jax.kernels.diagonal import powers
from ssm_jax.kernels.discretize import discretize_bilinear, exponent
from ssm_jax.kernels.materialize import materialize
from ssm_jax.kernels.ruled import Ruled


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
