"""The convolution kernel of a diagonal SSM (S4D, arXiv:2206.11893), without an (H, N, L) array.

    k_h[l] = 2 Re sum_n w_hn e^{z_hn l},    w = C gain,  z = log A_bar

A step is l = qT + r, T near sqrt(L), and e^{zl} = e^{zqT} e^{zr}: a product of real matrices,

    k_h[qT + r] = sum_n U_hqn E_hrn,    over 2N columns
    U = [2 Re(w e^{zqT}), -2 Im(w e^{zqT})],    E = [Re e^{zr}, Im e^{zr}],

with O(H N sqrt(L)) exponentials. Its transposes are products with the same factors. Products of
complex64 are slow on CPUs: complex arrays are pairs of reals, or [Re, Im] on a last axis of 2N.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.arrays import in_one_type
from ssm_jax.kernels.cpu import materialize
from ssm_jax.kernels.discretize import DISCRETIZE, ReIm, exponent, power_parts, slope_of_power
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.rules import Ruled, linear_map
from ssm_jax.kernels.sharding import on_any_mesh

Steps = tuple[Array, Array]  # first steps of the blocks, and the steps within one


@on_any_mesh(lambda named: "." * (named["C_HN"].ndim - 2) + "HL")
@in_one_type
def s4d_kernel(
    A_HN: Array, C_HN: Array, dt_H: Array, length: int, discretization: str = "zoh"
) -> Array:
    """Impulse response of H diagonal SSMs: k_h[l] = 2 Re sum_n C_hn gain_hn A_bar_hn^l.

    B = 1 is folded into C. Dot products run at full float32 precision on every backend.
    Differentiable in A, C and dt to any order, also where Re A = 0 and where A = 0.

    Args:
      A_HN: complex eigenvalues in rad per unit of time, Re A <= 0; the N conjugates are implied.
      C_HN: complex read-out; axes before H are allowed and lead the result, as in (C, H, N) -> (C,
        H, L).
      dt_H: real step in units of time, positive.
      length: number of taps L, at least 1.
      discretization: one of `discretize.DISCRETIZE`.

    Returns:
      Real k_HL, or with C's leading axes before it. Error in float32: some 1e-6 of its largest
      value, at any length below 2^22 and any alpha (see tests/kernels/test_diagonal.py).

    Raises:
      ValueError: if the shapes do not fit, length < 1, or the discretization is unknown.
    """
    if C_HN.shape[-2:] != A_HN.shape or dt_H.shape != A_HN.shape[:1]:
        raise ValueError(
            "s4d_kernel: A is (H, N), C ends in (H, N) and dt is (H,); "
            f"got A {A_HN.shape}, C {C_HN.shape}, dt {dt_H.shape}."
        )
    if length < 1:
        raise ValueError(f"s4d_kernel: length must be at least 1, got {length}.")
    H, N = A_HN.shape
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], discretization)
    _, gain_HN = DISCRETIZE[discretization](A_HN, dt_H[:, None])
    w_CHN = C_HN.reshape(-1, H, N) * gain_HN[None, :, :]
    w_CHN, z_HN, phase_HN = materialize((w_CHN, z_HN, phase_HN), dt_H[0])
    T = block_length(length)
    Q = -(-length // T)
    steps = (jnp.arange(Q, dtype=jnp.int32) * T, jnp.arange(T, dtype=jnp.int32))
    k_HXT = _sums_of_powers(w_CHN, z_HN, phase_HN, steps)  # X = C Q
    k_HCL = k_HXT.reshape(H, len(w_CHN), Q * T)[:, :, :length]
    return jnp.moveaxis(k_HCL, 1, 0).reshape(*C_HN.shape[:-2], H, length)


@Ruled
def _sums_of_powers(w_CHN: Array, z_HN: Array, phase_HN: Phase, steps: Steps) -> Array:
    starts, E_HT2N = _factors(z_HN, phase_HN, steps)
    return product(_weighted(w_CHN, starts), E_HT2N, FAST)


@_sums_of_powers.defjvp
def _sums_of_powers_jvp(primals, tangents):
    w_CHN, z_HN, phase_HN, steps = primals
    starts, E_HT2N = _factors(z_HN, phase_HN, steps)
    k_HXT = product(_weighted(w_CHN, starts), E_HT2N, FAST)
    return k_HXT, linear_map(_forward, _backward, (w_CHN, starts, E_HT2N, steps), tangents[:2])


def _factors(z_HN: Array, phase_HN: Phase, steps: Steps) -> tuple[ReIm, Array]:
    """e^{zqT} as two (H, N, Q), and E."""
    phase_HN1 = Phase(*(part[:, :, None] for part in phase_HN))
    starts = power_parts(z_HN[:, :, None], phase_HN1, steps[0][None, None, :])
    return starts, powers(z_HN, phase_HN, steps[1])


def _weighted(w_CHN: Array, starts: ReIm) -> Array:
    """U as (H, 2N, C Q)."""
    w_HNC1 = jnp.moveaxis(w_CHN, 0, 2)[:, :, :, None]
    re, im = times(parts(w_HNC1), jax.tree.map(lambda x_HNQ: x_HNQ[:, :, None], starts))
    U_H2NCQ = jnp.concatenate([2 * re, -2 * im], axis=1)
    H, N2, C, Q = U_H2NCQ.shape
    return U_H2NCQ.reshape(H, N2, C * Q)


def _forward(residuals, tangents):
    """dk by dw and dz."""
    w_CHN, starts, E_HT2N, (start_Q, inner_T) = residuals
    dw_CHN, dz_HN = tangents
    dstarts = slope_of_power(starts, dz_HN[:, :, None], start_Q[None, None, :])
    dE = slope_of_power(halves(E_HT2N), dz_HN[:, None, :], inner_T[None, :, None])
    dU_H2NX = _weighted(dw_CHN, starts) + _weighted(w_CHN, dstarts)
    dE_HT2N = jnp.concatenate(dE, axis=-1)
    return product(dU_H2NX, E_HT2N, FAST) + product(_weighted(w_CHN, starts), dE_HT2N, FAST)


def _backward(residuals, dk_HXT):
    """dw and dz by dk, with products alone: the powers are known, so no exponential is taken."""
    w_CHN, starts, E_HT2N, (start_Q, inner_T) = residuals
    C, H, N = w_CHN.shape
    dE_HT2N = product(dk_HXT, _weighted(w_CHN, starts), FAST)
    dU_H2NCQ = product(E_HT2N, dk_HXT, FAST).reshape(H, 2 * N, C, len(start_Q))
    # From U = 2 w e^{zqT} to w and e^{zqT}; then from both powers to z: d/dz e^{zl} = l e^{zl}.
    du = 2 * dU_H2NCQ[:, :N], -2 * dU_H2NCQ[:, N:]
    starts_HN1Q = jax.tree.map(lambda x_HNQ: x_HNQ[:, :, None], starts)
    w_HNC1 = jnp.moveaxis(w_CHN, 0, 2)[:, :, :, None]
    dw_re, dw_im = (jnp.sum(x, axis=3) for x in _times_conj(du, starts_HN1Q))
    dstarts = jax.tree.map(lambda x: jnp.sum(x, axis=2), _times_conj(du, parts(w_HNC1)))

    def by_z(power: ReIm, dpower: ReIm, steps: Array, axis: int) -> list[Array]:
        steps = steps.astype(power[0].dtype)
        return [jnp.sum(steps * x, axis=axis) for x in _times_conj(dpower, power)]

    outer = by_z(starts, dstarts, start_Q[None, None, :], axis=2)
    inner = by_z(halves(E_HT2N), halves(dE_HT2N), inner_T[None, :, None], axis=1)
    # JAX's cotangent of a complex number x + iy is d/dx - i d/dy.
    dw_CHN = jnp.moveaxis(dw_re - 1j * dw_im, 2, 0)
    return dw_CHN, (outer[0] + inner[0]) - 1j * (outer[1] + inner[1])


@Ruled
def powers(z_HN: Array, phase_HN: Phase, steps_T: Array) -> Array:
    """[Re e^{zl}, Im e^{zl}] for the int32 steps l, as (H, T, 2N); differentiable as its parts."""
    phase_H1N = Phase(*(part[:, None, :] for part in phase_HN))
    power = power_parts(z_HN[:, None, :], phase_H1N, steps_T[None, :, None])
    return jnp.concatenate(power, axis=-1)


@powers.defjvp
def _powers_jvp(primals, tangents):  # of the whole: XLA would compute the parts again for it
    power_HT2N = powers(*primals)
    slope = slope_of_power(halves(power_HT2N), tangents[0][:, None], primals[2][None, :, None])
    return power_HT2N, jnp.concatenate(slope, axis=-1)


def parts(x: Array) -> ReIm:
    return x.real, x.imag


def halves(x: Array) -> ReIm:
    """Of an array whose last axis is 2N."""
    N = x.shape[-1] // 2
    return x[..., :N], x[..., N:]


def times(a: ReIm, b: ReIm) -> ReIm:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _times_conj(a: ReIm, b: ReIm) -> ReIm:
    return a[0] * b[0] + a[1] * b[1], a[1] * b[0] - a[0] * b[1]


def rows_of_real_part(w: ReIm) -> Array:
    """[2 Re w, -2 Im w]: its product with [Re p, Im p] is 2 Re(w p)."""
    return jnp.concatenate([2 * w[0], -2 * w[1]], axis=-1)


# sum_j a[h, j, r] b[h, c, j]: XLA's CPU backend runs this form on all cores and others on one
# (H = 128, N = 64, L = 16384, two cores: 12 ms against 17).
FAST = (1, 2)


def product(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """A product of matrices for each channel. HIGHEST, or accelerators round to TF32 (1e-3)."""
    dims = (((contract[0],), (contract[1],)), ((0,), (0,)))
    return jax.lax.dot_general(a, b, dims, precision=jax.lax.Precision.HIGHEST)


def toeplitz(k_HT: Array) -> Array:
    """M[h, j, t] = k[t - j], zero for t < j: rows of length 2T, read with the period 2T - 1.

    No gather, whose derivative would be a scatter.
    """
    H, T = k_HT.shape
    row_HT = jnp.concatenate([k_HT, jnp.zeros_like(k_HT)], axis=-1)
    rows = jnp.broadcast_to(row_HT[:, None], (H, T, 2 * T)).reshape(H, 2 * T * T)
    return rows[:, : T * (2 * T - 1)].reshape(H, T, 2 * T - 1)[:, :, :T]


def block_length(length: int) -> int:
    """T: the power of two next above sqrt(length); the optimum is flat from half to twice that."""
    if jax.export.is_symbolic_dim(length):  # a length that stays a symbol, as in `jax.export`
        return 64
    return 1 << math.ceil(math.log2(max(length, 1)) / 2)
