r"""The Sobolev gain that beta sets, G^(beta)(s) = (1 + |s|)^beta G(s), on the bins of an FFT.

Source: Tuning Frequency Bias of State Space Models, arXiv:2410.02035. What |s| is differs between
the three programs of the official code (OC-9, OC-19, OC-23), so its unit is named.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.kernels.arrays import in_one_type

BETA_UNITS = ("lra", "hz_1e4", "denoise", "rad")
PER_SAMPLE = ("lra", "denoise", "rad")  # units whose |s| a longer step makes larger


def sobolev_frequency(n_fft: int, unit: str = "lra", step_scale: float = 1.0) -> np.ndarray:
    """|s| at the bins k = 0..n_fft/2 of a real FFT of length n_fft, as float32. By unit:

    lra      k / n_fft           cycles per sample, 0..1/2: the gain at Nyquist is 1.5^beta (OC-9)
    hz_1e4   k / 10,000          as in the denoising and wave programs (OC-19, OC-23)
    denoise  52.4288 k / n_fft   per sample what hz_1e4 is for an image of 2048 x 128 steps, whose
                                 n_fft is 524,288: smaller images get the published gains (OC-23)
    rad      2 pi k / n_fft      radians per sample, 0..pi

    Args:
      n_fft: length of the (padded) transform.
      unit: one of the above.
      step_scale: the samples are this many times further apart than those for which beta was
        chosen. A frequency per sample is divided by it, so that a tone keeps its gain. hz_1e4
        counts cycles in the whole transform, and at another rate a sequence of the same duration
        has the same bins.

    Raises:
      ValueError: for another unit, n_fft < 1, or step_scale not positive.
    """
    if not step_scale > 0:
        raise ValueError(f"sobolev_frequency: step_scale must be positive, got {step_scale}.")
    s_F = _frequency(n_fft, unit)
    return (s_F / step_scale if unit in PER_SAMPLE else s_F).astype(np.float32)


def frequency_per_radian(n_fft: int, unit: str = "lra") -> float:
    """|s| of one radian per sample, in a unit of beta: |s| is linear in the angle up to Nyquist.

    Only hz_1e4 depends on n_fft. Arguments and errors: see `sobolev_frequency`.
    """
    if n_fft < 1:
        raise ValueError(f"frequency: n_fft must be at least 1, got {n_fft}.")
    scale = {
        "lra": 1 / (2 * np.pi),
        "hz_1e4": n_fft / (2 * np.pi) * 1e-4,
        "denoise": 2 * 2048 * 128 / (2 * np.pi) * 1e-4,
        "rad": 1.0,
    }
    if unit not in scale:
        raise ValueError(f"unknown unit {unit!r} of beta; choose one of {', '.join(BETA_UNITS)}.")
    return scale[unit]


def _frequency(n_fft: int, unit: str) -> np.ndarray:
    """|s| at the bins, in float64."""
    per_bin = frequency_per_radian(n_fft, unit) * 2 * np.pi / n_fft
    return np.arange(n_fft // 2 + 1) * per_bin


@in_one_type
def sobolev_gain(
    beta_H: Array, n_fft: int, unit: str = "lra", step_scale: float | Array = 1.0
) -> Array:
    """gain_HF = (1 + |s|)^beta_h on the bins of a real FFT of length n_fft.

    Written exp(beta log(1 + |s|)), whose gradient at beta = 0 is log(1 + |s|). beta > 0 raises high
    frequencies, beta < 0 lowers them. Arguments: see `sobolev_frequency`; step_scale may be traced.
    """
    s_F = jnp.asarray(_frequency(n_fft, unit), beta_H.dtype)
    scale = jnp.asarray(step_scale, beta_H.dtype)
    log_base_F = jnp.log1p(s_F / scale if unit in PER_SAMPLE else s_F)
    return jnp.exp(beta_H[:, None] * log_base_F[None, :])


@in_one_type
def circular_gain(beta_H: Array, bins_F: np.ndarray, n: int, *, unsymmetric: bool = False) -> Array:
    """gain_HF = (1 + min(k, n - k) / 10,000)^beta_h on bins k of a complex FFT of n samples.

    For a circular convolution over n samples; bins_F are integers k, 0 <= k < n. `unsymmetric` is
    the gain of the official wave program, which has the factor f_k = (1 + k / 10,000)^beta on all n
    bins and takes the real part of what comes out, so in effect (f_k + f_{n-k}) / 2: at beta = 1 a
    constant for all k but 0 (OC-19).
    """

    def power(k_F: np.ndarray) -> Array:
        log_base_F = jnp.asarray(np.log1p(k_F * 1e-4), beta_H.dtype)
        return jnp.exp(beta_H[:, None] * log_base_F[None, :])

    other_F = (n - bins_F) % n
    if unsymmetric:
        return (power(bins_F) + power(other_F)) / 2
    return power(np.minimum(bins_F, other_F))
