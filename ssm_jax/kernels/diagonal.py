r"""The convolution kernel of a diagonal SSM (S4D), without an (H, N, L) array.

    k_h[l] = 2 Re sum_n w_hn e^{z_hn l},    w = C gain,  z = log A_bar

(S4D, arXiv:2206.11893). A step is l = qT + r with T near sqrt(L), and e^{zl} =
e^{zqT} e^{zr}. So the kernel is one product of real matrices per channel,

    k_h[qT + r] = sum_n U_hqn P_hrn,
    U = [2 Re(w e^{zqT}), -2 Im(w e^{zqT})],    P = [Re e^{zr}, Im e^{zr}],

over 2N columns, and only O(H N sqrt(L)) exponentials are taken. Its transposes are products with
the same factors: the backward pass takes no exponential. n is the last axis of both operands, the
one that is summed over.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.discretize import DISCRETIZE, exponent
from ssm_jax.kernels.materialize import materialize
from ssm_jax.kernels.phase import Phase, cos_sin, multiply


def block_length(length: int) -> int:
    """T: the power of two next above sqrt(length); the optimum is flat from half to twice that."""
    return 1 << math.ceil(math.log2(max(length, 1)) / 2)


def s4d_kernel(
    A_HN: Array, C_HN: Array, dt_H: Array, length: int, discretization: str = "zoh"
) -> Array:
    """Impulse response of H diagonal SSMs: k_h[l] = 2 Re sum_n C_hn gain_hn A_bar_hn^l.

    B = 1 is folded into C. Dot products run at full float32 precision on every backend.
    Differentiable in A, C and dt in reverse mode, also where Re A = 0 and where A = 0.

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


def powers(z_HN: Array, phase_HN: Phase, steps_T: Array) -> Array:
    """[Re e^{zl}, Im e^{zl}] for the int32 steps l, as (H, T, 2N)."""
    phase_H1N = Phase(phase_HN.ticks[:, None, :], phase_HN.rest[:, None, :])
    l_T1 = steps_T[None, :, None]
    decay_HTN = jnp.exp(z_HN.real[:, None, :] * l_T1.astype(z_HN.real.dtype))
    cos_HTN, sin_HTN = cos_sin(multiply(phase_H1N, l_T1))
    return jnp.concatenate([decay_HTN * cos_HTN, decay_HTN * sin_HTN], axis=-1)


def _halves(x: Array) -> tuple[Array, Array]:
    """Real and imaginary halves of an array whose last axis is 2N."""
    N = x.shape[-1] // 2
    return x[..., :N], x[..., N:]


def _weighted(w_CHN: Array, starts_HQ2N: Array) -> Array:
    """U = [2 Re(w e^{zqT}), -2 Im(w e^{zqT})] as (H, C Q, 2N)."""
    re_HQN, im_HQN = _halves(starts_HQ2N)
    w_HC1N = jnp.moveaxis(w_CHN, 0, 1)[:, :, None, :]
    u_re = w_HC1N.real * re_HQN[:, None] - w_HC1N.imag * im_HQN[:, None]
    u_im = w_HC1N.real * im_HQN[:, None] + w_HC1N.imag * re_HQN[:, None]
    U_HCQ2N = jnp.concatenate([2 * u_re, -2 * u_im], axis=-1)
    H, C, Q, N2 = U_HCQ2N.shape
    return U_HCQ2N.reshape(H, C * Q, N2)


def _product(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """Batched over H. HIGHEST, or accelerators round the operands to TF32 (1e-3 of the kernel)."""
    dims = (((contract[0],), (contract[1],)), ((0,), (0,)))
    return jax.lax.dot_general(a, b, dims, precision=jax.lax.Precision.HIGHEST)


@jax.custom_vjp
def _sum_of_powers_blocks(w_CHN: Array, z_HN: Array, phase_HN: Phase, steps) -> Array:
    return _forward(w_CHN, z_HN, phase_HN, steps)[0]


def _forward(w_CHN, z_HN, phase_HN, steps):
    start_Q, inner_T = steps
    starts_HQ2N = powers(z_HN, phase_HN, start_Q)
    inner_HT2N = powers(z_HN, phase_HN, inner_T)
    k_HCQT = _product(_weighted(w_CHN, starts_HQ2N), inner_HT2N, contract=(2, 2))
    return k_HCQT, (w_CHN, starts_HQ2N, inner_HT2N, steps)


def _backward(residuals, dk_HCQT):
    w_CHN, starts_HQ2N, inner_HT2N, (start_Q, inner_T) = residuals
    C, H, N = w_CHN.shape
    Q = start_Q.shape[0]
    U_HCQ2N = _weighted(w_CHN, starts_HQ2N)
    dU_HCQ2N = _product(dk_HCQT, inner_HT2N, contract=(2, 1)).reshape(H, C, Q, 2 * N)
    dinner_HT2N = _product(dk_HCQT, U_HCQ2N, contract=(1, 1))

    du_re, minus_du_im = _halves(2 * dU_HCQ2N)
    du_im = -minus_du_im
    re_HQN, im_HQN = _halves(starts_HQ2N)
    w_HC1N = jnp.moveaxis(w_CHN, 0, 1)[:, :, None, :]
    dw_re = jnp.sum(du_re * re_HQN[:, None] + du_im * im_HQN[:, None], axis=2)
    dw_im = jnp.sum(du_im * re_HQN[:, None] - du_re * im_HQN[:, None], axis=2)
    dstart_re = jnp.sum(du_re * w_HC1N.real + du_im * w_HC1N.imag, axis=1)
    dstart_im = jnp.sum(du_im * w_HC1N.real - du_re * w_HC1N.imag, axis=1)

    def exponent_gradient(power_HT2N, dpower_re, dpower_im, steps_T):
        """d/dz of e^{zl} is l e^{zl}."""
        p_re, p_im = _halves(power_HT2N)
        l_T1 = steps_T[None, :, None].astype(p_re.dtype)
        dz_re = jnp.sum(l_T1 * (p_re * dpower_re + p_im * dpower_im), axis=1)
        dz_im = jnp.sum(l_T1 * (p_re * dpower_im - p_im * dpower_re), axis=1)
        return dz_re, dz_im

    outer = exponent_gradient(starts_HQ2N, dstart_re, dstart_im, start_Q)
    inner = exponent_gradient(inner_HT2N, *_halves(dinner_HT2N), inner_T)
    # JAX's cotangent of a complex number x + iy is d/dx - i d/dy.
    dw_CHN = jnp.moveaxis(dw_re - 1j * dw_im, 1, 0)
    dz_HN = (outer[0] + inner[0]) - 1j * (outer[1] + inner[1])
    return dw_CHN, dz_HN, None, None


_sum_of_powers_blocks.defvjp(_forward, _backward)


def _sum_of_powers(w_CHN: Array, z_HN: Array, phase_HN: Phase, length: int) -> Array:
    """2 Re sum_n w e^{zl} for l < length, as (C, H, L)."""
    C, H, _ = w_CHN.shape
    T = block_length(length)
    Q = -(-length // T)
    steps = (jnp.arange(Q, dtype=jnp.int32) * T, jnp.arange(T, dtype=jnp.int32))
    k_HCQT = _sum_of_powers_blocks(w_CHN, z_HN, phase_HN, steps)
    k_HCL = k_HCQT.reshape(H, C, Q * T)[:, :, :length]
    return jnp.moveaxis(k_HCL, 1, 0)
