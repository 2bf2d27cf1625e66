r"""S4: an SSM whose state matrix is diagonal plus low rank, A = diag(Lambda) - P P^*.

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

import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.diagonal import block_length
from ssm_jax.kernels.discretize import discretize_bilinear
from ssm_jax.kernels.dplr_block import block_starts, dplr_block, outputs_by_state, rows
from ssm_jax.kernels.sharding import on_any_mesh
from ssm_jax.kernels.types import in_one_type


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
