r"""The frequency side of an SSM: its transfer function, and the Sobolev gain that beta sets.

    G(s) = sum_n C_n / (s - a_n) + conj(C_n) / (s - conj(a_n)),    s = i omega
    G^(beta)(s) = (1 + |s|)^beta G(s)

Source: Tuning Frequency Bias of State Space Models, arXiv:2410.02035. What |s| is differs between
the three programs of the official code (OC-9, OC-19, OC-23), so its unit is named.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

BETA_UNITS = ("lra", "hz_1e4", "rad")


def sobolev_frequency(n_fft: int, unit: str = "lra") -> np.ndarray:
    """|s| at the bins k = 0..n_fft/2 of a real FFT of length n_fft, as float32.

    lra:    k / n_fft            cycles per sample, 0..1/2, so the gain at Nyquist is 1.5^beta
      (OC-9)
    hz_1e4: k / 10,000           as in the denoising and wave programs (OC-19, OC-23); grows with
      n_fft
    rad:    2 pi k / n_fft       radians per sample, 0..pi

    Raises:
      ValueError: for another unit, or n_fft < 1.
    """
    if n_fft < 1:
        raise ValueError(f"sobolev_frequency: n_fft must be at least 1, got {n_fft}.")
    k_F = np.arange(n_fft // 2 + 1)
    scale = {"lra": 1 / n_fft, "hz_1e4": 1e-4, "rad": 2 * np.pi / n_fft}
    if unit not in scale:
        raise ValueError(f"unknown unit {unit!r} of beta; choose one of {', '.join(BETA_UNITS)}.")
    return (k_F * scale[unit]).astype(np.float32)


def sobolev_gain(beta_H: Array, n_fft: int, unit: str = "lra") -> Array:
    """gain_HF = (1 + |s|)^beta_h on the bins of a real FFT of length n_fft.

    Written exp(beta log(1 + |s|)), whose gradient at beta = 0 is log(1 + |s|).

    Args:
      beta_H: real exponents; positive raises high frequencies, negative lowers them, 0 is the
        identity.
      n_fft: length of the (padded) transform.
      unit: what |s| is, see `sobolev_frequency`.
    """
    log_base_F = jnp.asarray(np.log1p(sobolev_frequency(n_fft, unit)), beta_H.dtype)
    return jnp.exp(beta_H[:, None] * log_base_F[None, :])


def transfer_function(A_HN: Array, C_HN: Array, omega_HF: Array) -> Array:
    """G_h(i omega) of H diagonal SSMs with B = 1, the conjugate modes included.

    Args:
      A_HN: complex eigenvalues in rad per unit of time; i omega may not be one of them.
      C_HN: complex read-out.
      omega_HF: real angular frequencies in rad per unit of time, per channel.

    Returns:
      Complex G_HF. For a memory of (H, N, F) bring moderate F.
    """
    s_HF1 = 1j * omega_HF[:, :, None]
    A_H1N, C_H1N = A_HN[:, None, :], C_HN[:, None, :]
    return jnp.sum(C_H1N / (s_HF1 - A_H1N) + C_H1N.conj() / (s_HF1 - A_H1N.conj()), axis=-1)
