"""S4, A = diag(Lambda) - P P^*, diagonal plus low rank: its kernel, step and recurrence.

The bilinear rule, x_l = x_{l-1} + dt A (x_l + x_{l-1}) / 2 + dt B u_l, is that of a diagonal SSM
with a scalar signal w fed back:

    x_l = Lambda_bar x_{l-1} + gain (B u_l - P w_l),    w_l = P^* (x_l + x_{l-1}) / 2.

Over a block of T steps w solves a triangular Toeplitz system of order T, whose entries are taps of
an S4D kernel: the Woodbury identity in the time domain. With its solution the outputs and the last
state are products of powers of Lambda_bar, from exact angles, with the first state and the inputs.
S4 (arXiv:2111.00396) sums over roots of unity instead; docs/kernels.md compares them.
"""

from functools import partial
from operator import add
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels import blocks
from ssm_jax.kernels.arrays import in_one_type, one_program, sizes
from ssm_jax.kernels.blocks import block_length, rows, toeplitz
from ssm_jax.kernels.devices import materialize, on_any_mesh, on_cpu
from ssm_jax.kernels.discretize import discretize_bilinear, exponent
from ssm_jax.kernels.powers import halves, parts, powers, times
from ssm_jax.kernels.rules import Ruled


@on_any_mesh(lambda named: "." * (named["C_HN"].ndim - 2) + "HL")
@one_program
@in_one_type
def dplr_kernel(A_HN, P_HN, B_HN, C_HN, dt_H, length: int) -> Array:
    """Impulse response of H DPLR SSMs, k_h[l] = C A_bar^l B_bar, under the bilinear rule.

    A is Lambda, and the low-rank part - P P^* is in rad per unit of time too. C, B and P, complex,
    stand for vectors of 2N entries, the conjugates of the N stored ones being implied in all of
    them. Differentiable in all arguments, in both modes and to any order. The rest is as in
    `s4d_kernel`. Error in float32: below 5e-6 of the largest (see tests/kernels/test_dplr.py).
    """
    check_shapes("dplr_kernel", A_HN, P_HN, B_HN, C_HN, dt_H)
    if length < 1:
        raise ValueError(f"dplr_kernel: length must be at least 1, got {length}.")
    H, N = sizes("dplr_kernel", "A", A_HN, "HN", filled="HN")
    T = block_length(length)
    Q = -(-length // T)
    block = dplr_block(A_HN, P_HN, B_HN, C_HN.reshape(-1, H, N), dt_H, T)
    k_CHQT = [block.y_by_u_CHT[:, :, None]]  # the block of the impulse, then those after it
    if Q > 1:
        x_H12N = block.enter_B_HT2N[:, :1] - rows(block.w_by_u_HT[:, None], block.enter_P_HT2N)
        if on_cpu():
            added_QH12N = jnp.zeros((Q - 2, *x_H12N.shape), x_H12N.dtype)
            states_QH12N = block_starts(block, x_H12N, added_QH12N)
            states_HQ2N = jnp.moveaxis(states_QH12N[:, :, 0], 0, 1)
        else:
            states_HQ2N = doubled(block, x_H12N, Q - 1)
        k_CHQT.append(outputs_by_state(block, states_HQ2N))
    k_CHL = jnp.concatenate(k_CHQT, axis=2).reshape(-1, H, Q * T)[:, :, :length]
    return k_CHL.reshape(*C_HN.shape[:-2], H, length)


@one_program
@in_one_type
def dplr_step(x_BHN, u_BH, A_HN, P_HN, B_HN, C_HN, dt_H) -> tuple[Array, Array]:
    """One step of H DPLR SSMs: the next state x_BHN and the output y_BH, in O(N) per channel.

    The state moves by an increment, gain (Lambda x + B u - P w), so that what float32 rounds is
    small where a mode is slow. Arguments as in `dplr_recurrence`.
    """
    check_shapes("dplr_step", A_HN, P_HN, B_HN, C_HN, dt_H)
    B, H, _ = sizes("dplr_step", "x", x_BHN, "BHN")
    if x_BHN.shape != (B, *A_HN.shape) or u_BH.shape != (B, H) or C_HN.ndim != 2:
        raise ValueError(
            "dplr_step: x is (B, H, N), u is (B, H), A and C are (H, N); got "
            f"x {x_BHN.shape}, u {u_BH.shape}, A {A_HN.shape}, C {C_HN.shape}."
        )
    _, gain_HN = discretize_bilinear(A_HN, dt_H[:, None])

    def over_modes(a: Array) -> Array:  # and over their conjugates
        return 2 * jnp.sum(a.real, axis=-1)

    # (x_l + x_{l-1})/2 = gain/dt x_{l-1} + gain (B u_l - P w_l)/2, and P^* of it is w_l.
    seen_HN = P_HN.conj() * gain_HN
    f_H = 1 + over_modes(seen_HN * P_HN) / 2
    drive_BH = over_modes(seen_HN[None] * x_BHN) / dt_H[None]
    w_BH = (drive_BH + over_modes(seen_HN * B_HN)[None] / 2 * u_BH) / f_H[None]
    slope_BHN = A_HN[None] * x_BHN + B_HN[None] * u_BH[:, :, None] - P_HN[None] * w_BH[:, :, None]
    x_BHN = x_BHN + gain_HN[None] * slope_BHN
    return x_BHN, over_modes(C_HN[None] * x_BHN)


@on_any_mesh("BLH", "BHN")
@one_program
@in_one_type
def dplr_recurrence(
    u_BLH, A_HN, P_HN, B_HN, C_HN, dt_H, x0_BHN=None, lengths_B=None
) -> tuple[Array, Array]:
    """Run H DPLR SSMs from a state over a sequence, as `s4d_recurrence`. Differentiable.

    Equal to convolving with `dplr_kernel` where the state is zero, and to `dplr_step` after step.
    All work but Q = L / T products of the state with A_bar^T is parallel over the blocks. Error in
    float32: below 2e-5 of the largest value (see tests/kernels/test_dplr_recurrence.py).
    """
    B, L, H = sizes("dplr_recurrence", "u", u_BLH, "BLH", filled="LH")
    check_shapes("dplr_recurrence", A_HN, P_HN, B_HN, C_HN, dt_H)
    _, N = sizes("dplr_recurrence", "A", A_HN, "HN", filled="N")
    if A_HN.shape != (H, N) or C_HN.ndim != 2:
        raise ValueError(
            "dplr_recurrence: u is (B, L, H), A and C are (H, N); "
            f"got u {u_BLH.shape}, A {A_HN.shape}, C {C_HN.shape}."
        )
    T = block_length(L)
    # JAX must know that a symbolic length has at least two blocks.
    Q = L // T + 2 if jax.export.is_symbolic_dim(L) else -(-L // T)
    system = A_HN, P_HN, B_HN, C_HN, dt_H
    ends_B, u_HBL, x0_HBN, A_HN, P_HN, B_HN, C_HN, dt_H = blocks.begun(
        "dplr_recurrence", Q, u_BLH, x0_BHN, lengths_B, *system
    )
    block = dplr_block(A_HN, P_HN, B_HN, C_HN[None], dt_H, T)
    # An impulse at a later step does what one at the first does, later.
    w_by_u_HTT, y_by_u_HTT = toeplitz(block.w_by_u_HT), toeplitz(block.y_by_u_CHT[0])
    x_by_u_HT2N = block.enter_B_HT2N - rows(w_by_u_HTT, block.enter_P_HT2N)

    # Each block alone; the states that the blocks start from; the outputs by these and by u.
    u_HBQT = u_HBL.reshape(H, B, Q, T)
    x0_HB2N = jnp.concatenate(parts(x0_HBN), axis=-1)
    added_QHB2N = jnp.moveaxis(rows(u_HBQT[:, :, :-1], x_by_u_HT2N), 2, 0)
    x_HBQ2N = jnp.moveaxis(block_starts(block, x0_HB2N, added_QHB2N), 0, 2)
    y_HXT = outputs_by_state(block, x_HBQ2N.reshape(H, B * Q, 2 * N))[0]
    y_HXT += rows(u_HBQT.reshape(H, B * Q, T), y_by_u_HTT)

    # The last state: from the start of the block with the last step, over the r steps of it. The w
    # after them do not matter.
    block_B, r_B = blocks.last_block(ends_B, T)
    x_HB2N, u_HBT = (blocks.of_block(x, block_B) for x in (x_HBQ2N, u_HBQT))
    w_HBT = rows(x_HB2N, block.w_by_x_H2NT) + rows(u_HBT, w_by_u_HTT)
    by_u_HB2N = rows(blocks.last_steps(u_HBT, r_B, T), block.enter_B_HT2N)
    tail_HB2N = by_u_HB2N - rows(blocks.last_steps(w_HBT, r_B, T), block.enter_P_HT2N)
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], "bilinear")
    kept = times(halves(powers(z_HN, phase_HN, r_B)), halves(x_HB2N))
    state = jax.tree.map(add, kept, halves(tail_HB2N))
    return blocks.ended(y_HXT.reshape(H, B, Q * T), state, L)


def check_shapes(name, A_HN, P_HN, B_HN, C_HN, dt_H) -> None:
    HN = A_HN.shape
    if P_HN.shape != HN or B_HN.shape != HN or C_HN.shape[-2:] != HN or dt_H.shape != HN[:1]:
        raise ValueError(
            f"{name}: A, P and B are (H, N), C ends in (H, N) and dt is (H,); got A {HN}, "
            f"P {P_HN.shape}, B {B_HN.shape}, C {C_HN.shape}, dt {dt_H.shape}."
        )


class DplrBlock(NamedTuple):
    """Maps of T steps, from the state x before them, [Re x, Im x], and an impulse u at the first.

    x moves to x * kept - (x w_by_x) enter_P.
    """

    kept_H2N: Array  # Lambda_bar^T
    w_by_x_H2NT: Array
    w_by_u_HT: Array
    enter_P_HT2N: Array  # the last state by w at step t
    enter_B_HT2N: Array  # the last state by an input at step t, without feedback
    y_by_x_CH2NT: Array  # without feedback
    y_by_w_CHT: Array  # by an impulse of w, with the sign of B
    y_by_u_CHT: Array  # the first T taps of the kernel


def dplr_block(A_HN, P_HN, B_HN, C_CHN, dt_H, T: int) -> DplrBlock:
    """Arguments as in `dplr_kernel`; T is a power of two."""
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], "bilinear")
    powers_HT2N = powers(z_HN, phase_HN, jnp.arange(T + 1, dtype=jnp.int32))
    powers_HT2N = materialize(powers_HT2N, dt_H[0])
    before_HT2N, after_HT2N = powers_HT2N[:, :-1], powers_HT2N[:, 1:]
    _, gain_HN = discretize_bilinear(A_HN, dt_H[:, None])

    def response(X_HN: Array, Y_HN: Array) -> Array:
        """2 Re sum_n X gain Lambda_bar^t Y, as (H, T)."""
        return blocks.taps(X_HN * gain_HN * Y_HN, before_HT2N)

    def midpoint(a_HT: Array) -> Array:
        """The mean of each term and the one before it."""
        return (a_HT + jnp.pad(a_HT[:, :-1], ((0, 0), (1, 0)))) / 2

    def seen(X_HN: Array, power_HT2N: Array) -> Array:
        """2 Re sum_n X Lambda_bar^t x of a state x, as a matrix (H, 2N, T)."""
        return jnp.swapaxes(blocks.readout_rows(X_HN, power_HT2N), 1, 2)

    def enter(Y_HN: Array) -> Array:
        """gain Lambda_bar^(T-1-t) Y: what step t leaves in the last state."""
        pair = times(parts((gain_HN * Y_HN)[:, None]), halves(before_HT2N[:, ::-1]))
        return jnp.concatenate(pair, axis=-1)

    # w f = what w would be without feedback: f = 1 + the taps from P to P^*, at midpoints.
    Pc_HN = P_HN.conj()
    solve_HTT = toeplitz(reciprocal(midpoint(response(Pc_HN, P_HN)).at[:, 0].add(1)))
    # Without feedback (x_l + x_{l-1})/2 is gain/dt x_{l-1}.
    w_by_x_H2NT = rows(seen(Pc_HN * gain_HN / dt_H[:, None], before_HT2N), solve_HTT)
    w_by_u_HT = rows(midpoint(response(Pc_HN, B_HN)), solve_HTT)

    y_by_w_CHT = jnp.stack([response(C_HN, P_HN) for C_HN in C_CHN])
    return DplrBlock(
        kept_H2N=powers_HT2N[:, -1],
        w_by_x_H2NT=w_by_x_H2NT,
        w_by_u_HT=w_by_u_HT,
        enter_P_HT2N=enter(P_HN),
        enter_B_HT2N=enter(B_HN),
        y_by_x_CH2NT=jnp.stack([seen(C_HN, after_HT2N) for C_HN in C_CHN]),
        y_by_w_CHT=y_by_w_CHT,
        y_by_u_CHT=jnp.stack(
            [
                response(C_HN, B_HN) - rows(w_by_u_HT, toeplitz(y_HT))
                for C_HN, y_HT in zip(C_CHN, y_by_w_CHT, strict=True)
            ]
        ),
    )


def outputs_by_state(block: DplrBlock, x_HX2N: Array) -> Array:
    """The outputs (C, H, X, T) of blocks that start at the states x, without inputs."""
    w_HXT = rows(x_HX2N, block.w_by_x_H2NT)
    maps = zip(block.y_by_x_CH2NT, block.y_by_w_CHT, strict=True)
    return jnp.stack([rows(x_HX2N, by_x) - rows(w_HXT, toeplitz(by_w)) for by_x, by_w in maps])


@Ruled
def reciprocal(f_HT: Array) -> Array:
    """g with f * g = 1, 0, 0, ... by Newton's method, which doubles the known terms of g.

    T is a power of two. Not jax.lax.linalg.triangular_solve: on CPUs batches of it that run at the
    same time in the pool of threads may each wait for the other's threads for ever (jaxlib 0.10.2).
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


def moved(block: DplrBlock, x_HX2N: Array) -> Array:
    """The states x after a block without inputs."""
    kept = times(halves(block.kept_H2N[:, None]), halves(x_HX2N))
    fed_back_HX2N = rows(rows(x_HX2N, block.w_by_x_H2NT), block.enter_P_HT2N)
    return jnp.concatenate(kept, axis=-1) - fed_back_HX2N


def doubled(block: DplrBlock, x_H12N: Array, Q: int) -> Array:
    """x and where 1, .., Q - 1 blocks move it, as (H, Q, 2N), for accelerators.

    In log2(Q) products with the matrix of a block, of two, of four, .., which are few launches:
    `block_starts` has one for each part of each step of its loop, 1,900 more for a step of ListOps.
    """
    H, _, N2 = x_H12N.shape
    eye_H2N2N = jnp.broadcast_to(jnp.eye(N2, dtype=x_H12N.dtype), (H, N2, N2))
    over_H2N2N, x_HX2N = moved(block, eye_H2N2N), x_H12N
    while x_HX2N.shape[1] < Q:
        over_H2N2N = over_H2N2N if x_HX2N.shape[1] == 1 else rows(over_H2N2N, over_H2N2N)
        x_HX2N = jnp.concatenate([x_HX2N, rows(x_HX2N, over_H2N2N)], axis=1)
    return x_HX2N[:, :Q]


def block_starts(block: DplrBlock, x0_HB2N: Array, added_QHB2N: Array) -> Array:
    """x_0 and all x_{q+1} = (x_q moved on by a block) + added_q, as (Q + 1, H, B, 2N).

    Stated as a linear system, so that the gradient by the block is one product over all q;
    differentiated, jax.lax.scan would add up one for each q.
    """

    def difference(x_QHB2N: Array) -> Array:  # x_q - moved(x_{q-1}), for all q in one product
        Q, H, B, N2 = x_QHB2N[:-1].shape
        before_HX2N = jnp.moveaxis(x_QHB2N[:-1], 0, 1).reshape(H, Q * B, N2)
        moved_QHB2N = jnp.moveaxis(moved(block, before_HX2N).reshape(H, Q, B, N2), 1, 0)
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
        return along(partial(moved, block), b_QHB2N[0], b_QHB2N[1:], False)

    def transpose_solve(_, b_QHB2N):
        _, transposed = jax.vjp(partial(moved, block), b_QHB2N[-1])
        return along(lambda x: transposed(x)[0], b_QHB2N[-1], b_QHB2N[:-1], True)

    right_QHB2N = jnp.concatenate([x0_HB2N[None], added_QHB2N])
    return jax.lax.custom_linear_solve(difference, right_QHB2N, solve, transpose_solve)
