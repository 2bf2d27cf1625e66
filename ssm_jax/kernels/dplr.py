r"""S4: an SSM whose state matrix is diagonal plus low rank, A = diag(Lambda) - P P^*.

The bilinear rule, x_l = x_{l-1} + dt A (x_l + x_{l-1}) / 2 + dt B u_l, is that of a diagonal SSM
with a scalar signal w fed back:

    x_l = Lambda_bar x_{l-1} + gain (B u_l - P w_l),    w_l = P^* (x_l + x_{l-1}) / 2.

Over a block of T steps w solves a triangular Toeplitz system of order T, whose entries are taps of
an S4D kernel; this is the Woodbury identity in the time domain. Once it is solved, the outputs, the
last state and w are products of powers of Lambda_bar, which come from exact angles, with the first
state and the inputs. Among these matrices is A_bar^T, dense, found without a single product with
A_bar. From block to block the state is multiplied by it.

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

from ssm_jax.kernels.diagonal import block_length
from ssm_jax.kernels.discretize import discretize_bilinear, exponent
from ssm_jax.kernels.materialize import materialize
from ssm_jax.kernels.recurrence import (
    _halves,
    _parts,
    _powers,
    _product,
    _readout,
    _real_row,
    _shifted,
    _times,
)


def dplr_kernel(
    A_HN: Array, P_HN: Array, B_HN: Array, C_HN: Array, dt_H: Array, length: int
) -> Array:
    """Impulse response of H DPLR SSMs, k_h[l] = C A_bar^l B_bar, under the bilinear rule.

    C, B and P stand for vectors of 2N entries, the conjugates of the N stored ones being implied in
    all of them. Differentiable in all arguments, in reverse mode.

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
    k_CHT = block.y_CHGT[:, :, 2 * N]
    x_H12N = block.x_HG2N[:, 2 * N :]
    added_QH12N = jnp.zeros((max(Q - 2, 0), *x_H12N.shape), x_H12N.dtype)
    starts_QH12N = block_starts(block.x_HG2N[:, : 2 * N], x_H12N, added_QH12N)
    x_HQ2N = jnp.moveaxis(starts_QH12N[:, :, 0], 0, 1)
    later_CHQT = jnp.stack([rows(x_HQ2N, y_HGT[:, : 2 * N]) for y_HGT in block.y_CHGT])
    k_CHQT = jnp.concatenate([k_CHT[:, :, None], later_CHQT], axis=2)
    k_CHL = k_CHQT.reshape(-1, H, (Q + (Q == 1)) * T)[:, :, :length]
    return k_CHL.reshape(*C_HN.shape[:-2], H, length)


def check_shapes(name, A_HN, P_HN, B_HN, C_HN, dt_H) -> None:
    HN = A_HN.shape
    if P_HN.shape != HN or B_HN.shape != HN or C_HN.shape[-2:] != HN or dt_H.shape != HN[:1]:
        raise ValueError(
            f"{name}: A, P and B are (H, N), C ends in (H, N) and dt is (H,); got A {HN}, "
            f"P {P_HN.shape}, B {B_HN.shape}, C {C_HN.shape}, dt {dt_H.shape}."
        )


class Block(NamedTuple):
    """What T steps do, by rows G = 2N + 1: of each real number [Re x, Im x] of the state before
    them, and of an impulse at the first step."""

    w_HGT: Array  # to the signal that is fed back
    y_CHGT: Array  # to the outputs
    x_HG2N: Array  # to the state after them
    enter_B_HT2N: Array  # without feedback: to that state, of an input at step t that enters by B
    enter_P_HT2N: Array  # by P


def dplr_block(
    A_HN: Array, P_HN: Array, B_HN: Array, C_CHN: Array, dt_H: Array, steps: int
) -> Block:
    """The matrices of a block; arguments as in `dplr_kernel`, steps being T."""
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], "bilinear")
    powers_HT2N = _powers(z_HN, phase_HN, jnp.arange(steps + 1, dtype=jnp.int32))
    powers_HT2N = materialize(powers_HT2N, dt_H[0])
    before_HT2N, after_HT2N = powers_HT2N[:, :-1], powers_HT2N[:, 1:]
    _, gain_HN = discretize_bilinear(A_HN, dt_H[:, None])

    def taps(X_HN: Array, Y_HN: Array) -> Array:
        """Of the S4D kernel 2 Re sum_n X gain Lambda_bar^t Y, as (H, T)."""
        weight_H12N = _real_row(X_HN * gain_HN * Y_HN)
        return _product(before_HT2N, weight_H12N, contract=(2, 2))[:, :, 0]

    def enter(Y_HN: Array) -> Array:
        pair = _times(_parts((gain_HN * Y_HN)[:, None]), _halves(before_HT2N[:, ::-1]))
        return jnp.concatenate(pair, axis=-1)

    def givens(by_state_H2NX: Array, by_impulse_HX: Array) -> Array:
        return jnp.concatenate([by_state_H2NX, by_impulse_HX[:, None]], axis=1)

    def outputs(C_HN: Array) -> Array:
        open_HGT = givens(jnp.swapaxes(_readout(C_HN, after_HT2N), 1, 2), taps(C_HN, B_HN))
        return open_HGT - rows(w_HGT, _shifted(taps(C_HN, P_HN)))

    # w f = what w would be with the loop open. (x_l + x_{l-1})/2 without w is gain/dt x_{l-1}.
    Pc_HN = P_HN.conj()
    f_HT = _midpoint(taps(Pc_HN, P_HN)).at[:, 0].add(1)
    seen_HT2N = _readout(Pc_HN * gain_HN / dt_H[:, None], before_HT2N)
    open_HGT = givens(jnp.swapaxes(seen_HT2N, 1, 2), _midpoint(taps(Pc_HN, B_HN)))
    w_HGT = rows(open_HGT, _shifted(reciprocal(f_HT)))
    one_12N2N = jnp.eye(powers_HT2N.shape[-1], dtype=powers_HT2N.dtype)[None]
    kept_H2N2N = jnp.concatenate(_times(_halves(powers_HT2N[:, -1:]), _halves(one_12N2N)), axis=-1)
    enter_B_HT2N, enter_P_HT2N = enter(B_HN), enter(P_HN)
    x_HG2N = givens(kept_H2N2N, enter_B_HT2N[:, 0]) - rows(w_HGT, enter_P_HT2N)
    y_CHGT = jnp.stack([outputs(C_HN) for C_HN in C_CHN])
    return Block(w_HGT, y_CHGT, x_HG2N, enter_B_HT2N, enter_P_HT2N)


@jax.custom_vjp
def reciprocal(f_HT: Array) -> Array:
    """g with f * g = 1, 0, 0, ... by Newton's method, which doubles the known terms of g.

    Not jax.lax.linalg.triangular_solve: on CPUs two batched ones at a time wait for each other for
    ever if there are two threads (jaxlib 0.10.2).
    """
    terms = f_HT.shape[-1]
    g_HT = 1 / f_HT[:, :1]
    while (known := g_HT.shape[-1]) < terms:
        ahead_HT = f_HT[:, : 2 * known]
        error_HT = rows(g_HT, _shifted(ahead_HT)[:, :known, known:])
        g_HT = jnp.concatenate([g_HT, -rows(error_HT, _shifted(g_HT))], axis=-1)
    return g_HT


def _reciprocal_forward(f_HT):
    g_HT = reciprocal(f_HT)
    return g_HT, g_HT


def _reciprocal_backward(g_HT, dg_HT):
    """df = -g g * dg with time reversed."""
    square_HT = rows(g_HT, _shifted(g_HT))
    return (-rows(dg_HT, jnp.swapaxes(_shifted(square_HT), 1, 2)),)


reciprocal.defvjp(_reciprocal_forward, _reciprocal_backward)


def _midpoint(a_HT: Array) -> Array:
    """The mean of each term and the one before it."""
    return (a_HT + jnp.pad(a_HT[:, :-1], ((0, 0), (1, 0)))) / 2


def rows(a: Array, matrix_HIJ: Array) -> Array:
    """a (H, ..., I) times a matrix per channel, as (H, ..., J)."""
    product = _product(a.reshape(a.shape[0], -1, a.shape[-1]), matrix_HIJ, contract=(2, 1))
    return product.reshape(*a.shape[:-1], matrix_HIJ.shape[-1])


@jax.custom_vjp
def block_starts(matrix_H2N2N: Array, x0_HB2N: Array, added_QHB2N: Array) -> Array:
    """x_0 and all x_{q+1} = x_q M + added_q, as (Q + 1, H, B, 2N).

    The gradient by M is one product over all q; jax.lax.scan would add up one matrix per q.
    """

    def advance(x_HB2N, added_HB2N):
        x_HB2N = rows(x_HB2N, matrix_H2N2N) + added_HB2N
        return x_HB2N, x_HB2N

    _, later_QHB2N = jax.lax.scan(advance, x0_HB2N, added_QHB2N)
    return jnp.concatenate([x0_HB2N[None], later_QHB2N])


def _block_starts_forward(matrix_H2N2N, x0_HB2N, added_QHB2N):
    states_QHB2N = block_starts(matrix_H2N2N, x0_HB2N, added_QHB2N)
    return states_QHB2N, (matrix_H2N2N, states_QHB2N[:-1])


def _block_starts_backward(residuals, d_QHB2N):
    matrix_H2N2N, before_QHB2N = residuals
    transposed = jnp.swapaxes(matrix_H2N2N, 1, 2)
    d_QHB2N = block_starts(transposed, d_QHB2N[-1], d_QHB2N[-2::-1])[::-1]
    x_HX2N, d_HX2N = (
        jnp.moveaxis(a, 0, 1).reshape(a.shape[1], -1, a.shape[-1])
        for a in (before_QHB2N, d_QHB2N[1:])
    )
    return _product(x_HX2N, d_HX2N, contract=(1, 1)), d_QHB2N[0], d_QHB2N[1:]


block_starts.defvjp(_block_starts_forward, _block_starts_backward)


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
