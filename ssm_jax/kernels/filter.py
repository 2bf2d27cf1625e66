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

from ssm_jax.kernels.arrays import in_one_type
from ssm_jax.kernels.discretize import DISCRETIZE, complex_expm1, discretize_zoh, exponent, value_of
from ssm_jax.kernels.phase import Phase, multiply, phase_of_product, wrapped
from ssm_jax.kernels.rules import Ruled

BETA_UNITS = ("lra", "hz_1e4", "denoise", "rad")
PER_SAMPLE = ("lra", "denoise", "rad")  # units whose |s| a longer step makes larger


def sobolev_frequency(n_fft: int, unit: str = "lra", step_scale: float = 1.0) -> np.ndarray:
    """|s| at the bins k = 0..n_fft/2 of a real FFT of length n_fft, as float32.

    lra:    k / n_fft            cycles per sample, 0..1/2, so the gain at Nyquist is 1.5^beta
      (OC-9)
    hz_1e4: k / 10,000           as in the denoising and wave programs (OC-19, OC-23); grows with
      n_fft
    denoise: 52.4288 k / n_fft   per sample what hz_1e4 is for an image of 2048 x 128 steps, whose
      n_fft is 524,288 (OC-23): smaller images get the gains of the published experiment
    rad:    2 pi k / n_fft       radians per sample, 0..pi

    Args:
      n_fft: length of the (padded) transform.
      unit: one of the above.
      step_scale: the samples are this many times further apart than those for which beta was
        chosen. A frequency per sample is divided by it, so that a tone keeps its gain. hz_1e4 is
        left as it is: it counts cycles in the whole transform, and at another rate a sequence of
        the same duration has the same bins.

    Raises:
      ValueError: for another unit, n_fft < 1, or step_scale not positive.
    """
    if not step_scale > 0:
        raise ValueError(f"sobolev_frequency: step_scale must be positive, got {step_scale}.")
    s_F = _frequency(n_fft, unit)
    return (s_F / step_scale if unit in PER_SAMPLE else s_F).astype(np.float32)


def frequency_per_radian(n_fft: int, unit: str = "lra") -> float:
    """|s| of one radian per sample, in a unit of beta: |s| is linear in the angle up to Nyquist.

    Args:
      n_fft: length of the (padded) transform; only hz_1e4 depends on it.
      unit: see `sobolev_frequency`.

    Raises:
      ValueError: for another unit, or n_fft < 1.
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

    Written exp(beta log(1 + |s|)), whose gradient at beta = 0 is log(1 + |s|).

    Args:
      beta_H: real exponents; positive raises high frequencies, negative lowers them, 0 is the
        identity.
      n_fft: length of the (padded) transform.
      unit: what |s| is, see `sobolev_frequency`.
      step_scale: positive scalar, see `sobolev_frequency`; here it may be traced.
    """
    s_F = jnp.asarray(_frequency(n_fft, unit), beta_H.dtype)
    scale = jnp.asarray(step_scale, beta_H.dtype)
    log_base_F = jnp.log1p(s_F / scale if unit in PER_SAMPLE else s_F)
    return jnp.exp(beta_H[:, None] * log_base_F[None, :])


@in_one_type
def circular_gain(beta_H: Array, bins_F: np.ndarray, n: int, *, unsymmetric: bool = False) -> Array:
    """gain_HF = (1 + min(k, n - k) / 10,000)^beta_h on bins k of a complex FFT of n samples.

    For a circular convolution over n samples. The wave program of the official code has the factor
    f_k = (1 + k / 10,000)^beta on all n bins and takes the real part of what comes out, so in
    effect (f_k + f_{n-k}) / 2: at beta = 1 a constant for all k but 0 (OC-19).

    Args:
      beta_H: real exponents.
      bins_F: int k, 0 <= k < n.
      n: samples of the circle.
      unsymmetric: the effective gain of the official wave program.
    """

    def power(k_F: np.ndarray) -> Array:
        log_base_F = jnp.asarray(np.log1p(k_F * 1e-4), beta_H.dtype)
        return jnp.exp(beta_H[:, None] * log_base_F[None, :])

    other_F = (n - bins_F) % n
    if unsymmetric:
        return (power(bins_F) + power(other_F)) / 2
    return power(np.minimum(bins_F, other_F))


@in_one_type
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


@in_one_type
def discrete_transfer_function(
    A_HN: Array,
    C_HN: Array,
    dt_H: Array,
    omega_HF: Array,
    discretization: str = "zoh",
    length: int | None = None,
) -> Array:
    r"""Spectrum sum_l k_h[l] e^{-i omega l} of the kernels that `s4d_kernel` samples.

    With w = C gain and A_bar = e^z it is a geometric sum for each mode and its conjugate,

        K_h(omega) = sum_n w S(z - i omega) + conj(w) S(conj(z) - i omega),
        S(d) = 1 / (1 - e^d),    or    (1 - e^{dL}) / (1 - e^d)  for the first L taps.

    The second is what an FFT of a kernel of length L sees (OC-28). Angles are subtracted as exact
    phases and 1 - e^d is taken without cancellation, so sharp resonances keep their height. In
    float32 the bins of an FFT are rounded themselves, by up to 1e-7 rad.

    Args:
      A_HN: complex eigenvalues in rad per unit of time, Re A <= 0; the N conjugates are implied.
      C_HN: complex read-out.
      dt_H: real step in units of time, positive.
      omega_HF: real angles in rad per sample, per channel; taken as exact numbers.
      discretization: as in `s4d_kernel`.
      length: number of taps L, at least 1 and below 2^22; None: all of them, for which no mode with
        Re A = 0 may stand at an omega.

    Returns:
      Complex K_HF. For a memory of (H, N, F) bring moderate F. Differentiable.

    Raises:
      ValueError: if the shapes do not fit, length < 1, or the discretization is unknown.
    """
    if not (C_HN.shape == A_HN.shape and dt_H.shape == A_HN.shape[:1] == omega_HF.shape[:1]):
        raise ValueError(
            "discrete_transfer_function: A and C are (H, N), dt is (H,) and omega is (H, F); got "
            f"A {A_HN.shape}, C {C_HN.shape}, dt {dt_H.shape}, omega {omega_HF.shape}."
        )
    if length is not None and length < 1:
        raise ValueError(f"discrete_transfer_function: length must be at least 1, got {length}.")
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], discretization)
    w_HN = C_HN * DISCRETIZE[discretization](A_HN, dt_H[:, None])[1]
    # All 2N modes: M = [modes, their conjugates]
    w_H1M, z_H1M = (jnp.concatenate([a, a.conj()], -1)[:, None, :] for a in (w_HN, z_HN))
    ticks_HM, rest_HM = (jnp.concatenate([a, -a], -1) for a in phase_HN)
    tone_HF = phase_of_product(jnp.ones_like(omega_HF), omega_HF)
    angle_HFM = Phase(  # ticks wrap at one turn, as they should
        ticks_HM[:, None, :] - tone_HF.ticks[:, :, None],
        rest_HM[:, None, :] - tone_HF.rest[:, :, None],
    )
    y_HFM = z_H1M.imag - omega_HF[:, :, None]
    return jnp.sum(w_H1M * _geometric_sum(z_H1M.real, y_HFM, angle_HFM, length), axis=-1)


def _geometric_sum(x: Array, y: Array, phase: Phase, length: int | None) -> Array:
    """1 + q + ... + q^(L-1) for q = e^{x + iy}, endless for L = None; `phase` is y's."""
    angle = value_of(wrapped(phase), y)
    last = _expm1(x, angle)
    if length is None:
        return -1 / last
    whole_angle = value_of(wrapped(multiply(phase, jnp.int32(length))), length * y)
    whole = _expm1(length * x, whole_angle)
    # At d = 0 the quotient is 0/0: there it is L phi_1(Ld) / phi_1(d), and phi_1 is the gain of a
    # unit step.
    d = x + 1j * angle
    near = (d.real**2 + d.imag**2) * float(length) ** 2 < 0.01
    d_near = jnp.where(near, d, 0.0)
    _, (above, below) = discretize_zoh(jnp.stack([length * d_near, d_near]), jnp.ones((), x.dtype))
    return jnp.where(near, length * above / below, whole / jnp.where(near, 1.0, last))


@Ruled
def _expm1(x: Array, y: Array) -> Array:
    """e^{x + iy} - 1."""
    return complex_expm1(x, y)


@_expm1.defjvp
def _expm1_jvp(primals, tangents):
    """By e^x. JAX takes expm1 + 1, whose error is large beside an e^x near 0.

    A mode of the bilinear rule near dt A = -2 has dz/dA = 1 / e^z and so brings that to light.
    """
    x, y = primals
    power = jnp.exp(x) * (jnp.cos(y) + 1j * jnp.sin(y))
    return _expm1(x, y), power * (tangents[0] + 1j * tangents[1])
