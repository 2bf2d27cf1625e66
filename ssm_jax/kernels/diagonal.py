"""Pieces that the block-wise recurrences share: products, and complex arithmetic in real parts.

Products of complex64 are slow on CPUs, so complex arrays are pairs of real ones, or lie side by
side on a last axis of 2N.

The convolution kernel of a diagonal SSM (S4D), without an (H, N, L) array.

    k_h[l] = 2 Re sum_n w_hn e^{z_hn l},    w = C gain,  z = log A_bar

(S4D, arXiv:2206.11893). A step is l = qT + r with T near sqrt(L), and e^{zl} =
e^{zqT} e^{zr}. So the kernel is one product of real matrices per channel,

    k_h[qT + r] = sum_n U_hqn P_hrn,
    U = [2 Re(w e^{zqT}), -2 Im(w e^{zqT})],    P = [Re e^{zr}, Im e^{zr}],

over 2N columns, and only O(H N sqrt(L)) exponentials are taken. Its transposes are products with
the same factors: the backward pass takes no exponential.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.arrays import in_one_type
from ssm_jax.kernels.cpu import materialize
from ssm_jax.kernels.discretize import DISCRETIZE, exponent, power_parts
from ssm_jax.kernels.phase import Phase
from ssm_jax.kernels.rules import Ruled, linear_map
from ssm_jax.kernels.sharding import on_any_mesh

Pair = tuple[Array, Array]  # real and imaginary parts


def parts(x: Array) -> Pair:
    return x.real, x.imag


def halves(x: Array) -> Pair:
    """Real and imaginary halves of an array whose last axis is 2N."""
    N = x.shape[-1] // 2
    return x[..., :N], x[..., N:]


def both(function: Callable[[Array], Array], x: Pair) -> Pair:
    return function(x[0]), function(x[1])


def plus(a: Pair, b: Pair) -> Pair:
    return a[0] + b[0], a[1] + b[1]


def times(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def product(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """Batched over H. HIGHEST, or accelerators round the operands to TF32."""
    dims = (((contract[0],), (contract[1],)), ((0,), (0,)))
    return jax.lax.dot_general(a, b, dims, precision=jax.lax.Precision.HIGHEST)


def real_row(w_HN: Array) -> Array:
    """[2 Re w, -2 Im w] as (H, 1, 2N): its product with [Re p, Im p] is 2 Re(w p)."""
    return jnp.concatenate([2 * w_HN.real, -2 * w_HN.imag], axis=-1)[:, None]


def readout_rows(C_HN: Array, power_HT2N: Array) -> Array:
    """[2 Re(C p), -2 Im(C p)] as (H, T, 2N)."""
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


def last_block(lengths_B: Array, T: int) -> tuple[Array, Array]:
    """The block with the last step of each length, and how many steps the length has in it.

    1..T; block 0 and 0 for the length 0.
    """
    block_B = jnp.maximum(lengths_B - 1, 0) // T
    return block_B, lengths_B - T * block_B


def last_steps(u_BLH: Array, lengths_B: Array, T: int) -> Array:
    """The steps of the last block up to each length, at the end of T steps that are else zero."""
    t_1T = jnp.arange(T, dtype=lengths_B.dtype)[None, :] - T
    index_BT = jnp.maximum(lengths_B[:, None] + t_1T, 0)
    u_BTH = jnp.take_along_axis(u_BLH, index_BT[:, :, None], axis=1)
    inside_BT1 = (t_1T >= -last_block(lengths_B, T)[1][:, None])[:, :, None]
    return jnp.where(inside_BT1, u_BTH, jnp.zeros_like(u_BTH))


def block_length(length: int) -> int:
    """T: the power of two next above sqrt(length); the optimum is flat from half to twice that.

    64 for a length that stays a symbol, as it may in `jax.export`.
    """
    if jax.export.is_symbolic_dim(length):
        return 64
    return 1 << math.ceil(math.log2(max(length, 1)) / 2)


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
      discretization: "zoh" or "bilinear".

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
    k_CHL = _sum_of_powers(w_CHN, z_HN, phase_HN, length)
    return k_CHL.reshape(*C_HN.shape[:-2], H, length)


@Ruled
def powers(z_HN: Array, phase_HN: Phase, steps_T: Array) -> Array:
    """[Re e^{zl}, Im e^{zl}] for the int32 steps l, as (H, T, 2N); differentiable as its parts.

    The derivative is taken of the whole array: XLA would compute the parts a second time for it.
    """
    phase_H1N = Phase(*(part[:, None, :] for part in phase_HN))
    parts = power_parts(z_HN[:, None, :], phase_H1N, steps_T[None, :, None])
    return jnp.concatenate(parts, axis=-1)


@powers.defjvp
def _powers_jvp(primals, tangents):
    z_HN, _, steps_T = primals
    power_HT2N = powers(*primals)
    re, im = jnp.split(power_HT2N, 2, axis=-1)
    lz_HTN = tangents[0][:, None] * steps_T[None, :, None].astype(z_HN.real.dtype)
    parts = lz_HTN.real * re - lz_HTN.imag * im, lz_HTN.real * im + lz_HTN.imag * re
    return power_HT2N, jnp.concatenate(parts, axis=-1)


def _weighted(w_CHN: Array, re_HNQ: Array, im_HNQ: Array) -> Array:
    """U = [2 Re(w e^{zqT}), -2 Im(w e^{zqT})] as (H, 2N, C Q)."""
    w_HNC1 = jnp.moveaxis(w_CHN, 0, 2)[:, :, :, None]
    re_HN1Q, im_HN1Q = re_HNQ[:, :, None], im_HNQ[:, :, None]
    u_re = w_HNC1.real * re_HN1Q - w_HNC1.imag * im_HN1Q
    u_im = w_HNC1.real * im_HN1Q + w_HNC1.imag * re_HN1Q
    U_H2NCQ = jnp.concatenate([2 * u_re, -2 * u_im], axis=1)
    H, N2, C, Q = U_H2NCQ.shape
    return U_H2NCQ.reshape(H, N2, C * Q)


def _product(a: Array, b: Array) -> Array:
    """sum_j a[h, j, r] b[h, c, j]. HIGHEST, or accelerators round the operands to TF32 (1e-3).

    All three products have this form, because XLA's CPU backend runs it on all cores and others on
    one (H = 128, N = 64, L = 16384, two cores: 12 ms against 17).
    """
    dims = (((1,), (2,)), ((0,), (0,)))
    return jax.lax.dot_general(a, b, dims, precision=jax.lax.Precision.HIGHEST)


Steps = tuple[Array, Array]  # first steps of the blocks, and the steps within one


def _factors(z_HN: Array, phase_HN: Phase, steps: Steps) -> tuple[tuple[Array, Array], Array]:
    """e^{zqT} in parts (H, N, Q), and P."""
    start_Q, inner_T = steps
    phase_HN1 = Phase(*(part[:, :, None] for part in phase_HN))
    starts = power_parts(z_HN[:, :, None], phase_HN1, start_Q[None, None, :])
    return starts, powers(z_HN, phase_HN, inner_T)


@Ruled
def _sum_of_powers_blocks(w_CHN: Array, z_HN: Array, phase_HN: Phase, steps: Steps) -> Array:
    starts, inner_HT2N = _factors(z_HN, phase_HN, steps)
    return _product(_weighted(w_CHN, *starts), inner_HT2N)  # (H, C Q, T)


@_sum_of_powers_blocks.defjvp
def _sum_of_powers_jvp(primals, tangents):
    w_CHN, z_HN, phase_HN, steps = primals
    starts, inner_HT2N = _factors(z_HN, phase_HN, steps)
    k_HPT = _product(_weighted(w_CHN, *starts), inner_HT2N)
    residuals = w_CHN, starts, inner_HT2N, steps
    return k_HPT, linear_map(_forward, _backward, residuals, tangents[:2])


def _forward(residuals, tangents):
    """dk by dw and dz: d/dz of e^{zl} is l e^{zl}."""
    w_CHN, starts, inner_HT2N, (start_Q, inner_T) = residuals
    dw_CHN, dz_HN = tangents

    def slope(parts, dz, steps):
        re, im = parts
        dz_re, dz_im = steps.astype(re.dtype) * dz.real, steps.astype(re.dtype) * dz.imag
        return dz_re * re - dz_im * im, dz_re * im + dz_im * re

    dstarts = slope(starts, dz_HN[:, :, None], start_Q[None, None, :])
    inner = jnp.split(inner_HT2N, 2, axis=-1)
    dinner = slope(inner, dz_HN[:, None, :], inner_T[None, :, None])
    dU_H2NP = _weighted(dw_CHN, *starts) + _weighted(w_CHN, *dstarts)
    dinner_HT2N = jnp.concatenate(dinner, axis=-1)
    return _product(dU_H2NP, inner_HT2N) + _product(_weighted(w_CHN, *starts), dinner_HT2N)


def _backward(residuals, dk_HPT):
    """dw and dz by dk, with products alone: as the powers are at hand, no exponential is taken."""
    w_CHN, (re_HNQ, im_HNQ), inner_HT2N, (start_Q, inner_T) = residuals
    C, H, N = w_CHN.shape
    dinner_HT2N = _product(dk_HPT, _weighted(w_CHN, re_HNQ, im_HNQ))
    dU_H2NCQ = _product(inner_HT2N, dk_HPT).reshape(H, 2 * N, C, -1)

    du_re, du_im = 2 * dU_H2NCQ[:, :N], -2 * dU_H2NCQ[:, N:]
    re_HN1Q, im_HN1Q = re_HNQ[:, :, None], im_HNQ[:, :, None]
    dw_re_HNC = jnp.sum(du_re * re_HN1Q + du_im * im_HN1Q, axis=3)
    dw_im_HNC = jnp.sum(du_im * re_HN1Q - du_re * im_HN1Q, axis=3)
    w_HNC1 = jnp.moveaxis(w_CHN, 0, 2)[:, :, :, None]
    dre_HNQ = jnp.sum(du_re * w_HNC1.real + du_im * w_HNC1.imag, axis=2)
    dim_HNQ = jnp.sum(du_im * w_HNC1.real - du_re * w_HNC1.imag, axis=2)

    def exponent_gradient(re, im, dre, dim, steps, axis):
        """d/dz of e^{zl} is l e^{zl}."""
        steps = steps.astype(re.dtype)
        dz_re = jnp.sum(steps * (re * dre + im * dim), axis=axis)
        dz_im = jnp.sum(steps * (re * dim - im * dre), axis=axis)
        return dz_re, dz_im

    outer = exponent_gradient(re_HNQ, im_HNQ, dre_HNQ, dim_HNQ, start_Q[None, None, :], 2)
    re_HTN, im_HTN = jnp.split(inner_HT2N, 2, axis=-1)
    dre_HTN, dim_HTN = jnp.split(dinner_HT2N, 2, axis=-1)
    inner = exponent_gradient(re_HTN, im_HTN, dre_HTN, dim_HTN, inner_T[None, :, None], 1)
    # JAX's cotangent of a complex number x + iy is d/dx - i d/dy.
    dw_CHN = jnp.moveaxis(dw_re_HNC - 1j * dw_im_HNC, 2, 0)
    dz_HN = (outer[0] + inner[0]) - 1j * (outer[1] + inner[1])
    return dw_CHN, dz_HN


def _sum_of_powers(w_CHN: Array, z_HN: Array, phase_HN: Phase, length: int) -> Array:
    """2 Re sum_n w e^{zl} for l < length, as (C, H, L)."""
    C, H, _ = w_CHN.shape
    T = block_length(length)
    Q = -(-length // T)
    steps = (jnp.arange(Q, dtype=jnp.int32) * T, jnp.arange(T, dtype=jnp.int32))
    k_HPT = _sum_of_powers_blocks(w_CHN, z_HN, phase_HN, steps)
    k_HCL = k_HPT.reshape(H, C, Q * T)[:, :, :length]
    return jnp.moveaxis(k_HCL, 1, 0)
