r"""What a pole's place does to the transfer function: which frequencies a pole can feel.

With a = x + iy and a loss that depends on G(i s), the gradient by y is the loss's gradient by
G(i s), weighed by the derivative of G(i s) and summed over s. That weight falls as |s - y|^-2: a
pole feels only frequencies near its own, and so a frequency bias persists through training. The
filter multiplies it by (1 + |s|)^beta, which moves the exponent at high frequencies to beta - 2.
Source: Tuning Frequency Bias of State Space Models, arXiv:2410.02035.

Two systems are meant by G:

    one pole    G(i s) = sum_n c_n / (i s - a_n), of which the real part acts. The theory's kernel
                K_n(s) = d/dy_n Re G(i s); `pole_sensitivity`.
    pair        each pole with its conjugate, G(i s) = sum_n c_n / (i s - a_n)
                + conj(c_n) / (i s - conj(a_n)), as the layers have it for real signals;
                `pair_sensitivity`. G is complex, and both of its parts act.

The real part of the pair's derivative by y is K_n(s) + K_n(-s).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.arrays import in_one_type


class Sensitivity(NamedTuple):
    """Derivatives by the real parts x and the imaginary parts y of the poles, (H, F, N) each."""

    by_x_HFN: Array
    by_y_HFN: Array


@in_one_type
def pole_sensitivity(
    A_HN: Array, C_HN: Array, omega_HF: Array, beta_H: Array | None = None
) -> Sensitivity:
    """Derivatives of (1 + |s|)^beta Re[c_n / (i s - a_n)] at s = omega, without the conjugates.

    by_y is (1 + |s|)^beta K_n(s); with c = xi + i zeta and sigma = s - y

        K_n = [zeta (sigma^2 - x^2) - 2 xi x sigma] / (x^2 + sigma^2)^2,
        by_x: [xi (x^2 - sigma^2) - 2 zeta x sigma] / (x^2 + sigma^2)^2.

    Args:
      A_HN: complex poles in rad per unit of time; i omega may not be one of them.
      C_HN: complex residues, that is the read-out for B = 1.
      omega_HF: real angular frequencies in rad per unit of time, of either sign, per channel.
      beta_H: real exponents of the filter, |s| in rad per unit of time; None: no filter.

    Returns:
      Real arrays.
    """
    slope_HFN = _slope(A_HN, C_HN, omega_HF)
    return _filtered(slope_HFN.real, -slope_HFN.imag, omega_HF, beta_H)


@in_one_type
def pair_sensitivity(
    A_HN: Array, C_HN: Array, omega_HF: Array, beta_H: Array | None = None
) -> Sensitivity:
    """Derivatives of the layers' (1 + |s|)^beta G(i s) at s = omega, the conjugates included.

    G is `transfer_function`. A loss with derivatives p = dL/dRe G, q = dL/dIm G at the frequencies
    has the gradient dL/dy_n = sum p Re(by_y) + q Im(by_y).

    Args:
      A_HN, C_HN, omega_HF, beta_H: as in `pole_sensitivity`.

    Returns:
      Complex arrays.
    """
    own = _slope(A_HN, C_HN, omega_HF)
    mirror = _slope(A_HN.conj(), C_HN.conj(), omega_HF)  # by conj(a) = x - iy
    return _filtered(own + mirror, 1j * (own - mirror), omega_HF, beta_H)


def _slope(A_HN: Array, C_HN: Array, omega_HF: Array) -> Array:
    """d/da of c / (i s - a) = c / (i s - a)^2."""
    away_HFN = 1j * omega_HF[:, :, None] - A_HN[:, None, :]
    return C_HN[:, None, :] / (away_HFN * away_HFN)


def _filtered(by_x: Array, by_y: Array, omega_HF: Array, beta_H: Array | None) -> Sensitivity:
    if beta_H is None:
        return Sensitivity(by_x, by_y)
    gain_HF1 = jnp.exp(beta_H[:, None] * jnp.log1p(jnp.abs(omega_HF)))[:, :, None]
    return Sensitivity(gain_HF1 * by_x, gain_HF1 * by_y)
