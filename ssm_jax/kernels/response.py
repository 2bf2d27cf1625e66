r"""The Sobolev gain of the filter; transfer functions, and the effect of a pole's place on them.

beta acts as G^(beta)(s) = (1 + |s|)^beta G(s). What |s| is differs between the three programs of
the official code (OC-9, OC-19, OC-23), so its unit is named. Of the layers

    G(s) = sum_n C_n / (s - a_n) + conj(C_n) / (s - conj(a_n)),    s = i omega

With a = x + iy the gradient of a loss by y is its gradient by G(i s), weighed by the derivative of
G(i s) and summed over s. That weight falls as |s - y|^-2: a pole feels only frequencies near its
own, and a frequency bias persists through training. The filter multiplies it by (1 + |s|)^beta.
Source: Tuning Frequency Bias of State Space Models, arXiv:2410.02035. The theory has one pole, of
whose G the real part acts, with the kernel K_n(s) = d/dy_n Re G(i s) (`pole_sensitivity`). Layers
have pairs, G is complex, and both of its parts act (`pair_sensitivity`): the real part of its
derivative by y is K_n(s) + K_n(-s).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels.arrays import checked_size, in_one_type, known_values, one_program
from ssm_jax.kernels.discretize import DISCRETIZE, discretize_zoh, exponent
from ssm_jax.kernels.phase import Phase, multiply, phase_of_product, wrapped
from ssm_jax.kernels.powers import complex_expm1, value_of
from ssm_jax.kernels.rules import Ruled

BETA_UNITS = ("lra", "hz_1e4", "denoise", "rad")
PER_SAMPLE = ("lra", "denoise", "rad")  # units whose |s| a longer step makes larger


def sobolev_frequency(n_fft: int, unit: str = "lra", step_scale: float = 1.0) -> np.ndarray:
    """|s| at the bins k = 0..n_fft/2 of a real FFT of length n_fft, as float32. By unit:

    lra      k / n_fft           cycles per sample, 0..1/2: the gain at Nyquist is 1.5^beta (OC-9)
    hz_1e4   k / 10,000          as in the denoising and wave programs (OC-19, OC-23)
    denoise  52.4288 k / n_fft   per sample what hz_1e4 is for an image of 2048 x 128 steps, whose
                                 n_fft is 524,288: smaller images get the published gains (OC-23)
    rad      2 pi k / n_fft      radians per sample, 0..pi

    The samples are `step_scale` times further apart than those for which beta was chosen. A
    frequency per sample is divided by it, so that a tone keeps its gain. hz_1e4 counts cycles in
    the whole transform, and at another rate a sequence of the same duration has the same bins.
    """
    checked_size("sobolev_frequency", "n_fft", n_fft)
    _check_scale("sobolev_frequency", step_scale)
    s_F = _frequency("sobolev_frequency", n_fft, unit)
    return (s_F / float(step_scale) if unit in PER_SAMPLE else s_F).astype(np.float32)


def _check_scale(owner: str, step_scale: ArrayLike) -> None:
    """Raise for what is not one number, and for one that is known and not positive."""
    scale = step_scale if isinstance(step_scale, Array) else np.asarray(step_scale)
    if not any(jnp.issubdtype(scale.dtype, kind) for kind in (jnp.integer, jnp.floating)):
        raise TypeError(f"{owner}: step_scale must be one real number, got {scale.dtype}.")
    if scale.ndim:
        raise ValueError(f"{owner}: step_scale must be one number, got the shape {scale.shape}.")
    known = known_values(scale)
    if known is not None and not known > 0:
        raise ValueError(f"{owner}: step_scale must be positive, got {known}.")


def frequency_per_radian(n_fft: int, unit: str = "lra", owner: str = "frequency") -> float:
    """|s| of one radian per sample, in a unit of beta: |s| is linear in the angle up to Nyquist.

    Only hz_1e4 depends on n_fft. Errors: see `sobolev_frequency`.
    """
    if n_fft < 1:
        raise ValueError(f"{owner}: n_fft must be at least 1, got {n_fft}.")
    scale = {
        "lra": 1 / (2 * np.pi),
        "hz_1e4": n_fft / (2 * np.pi) * 1e-4,
        "denoise": 2 * 2048 * 128 / (2 * np.pi) * 1e-4,
        "rad": 1.0,
    }
    if unit not in scale:
        raise ValueError(f"unknown unit {unit!r} of beta; choose one of {', '.join(BETA_UNITS)}.")
    return scale[unit]


def _frequency(owner: str, n_fft: int, unit: str) -> np.ndarray:  # in float64
    per_bin = frequency_per_radian(n_fft, unit, owner) * 2 * np.pi / n_fft
    return np.arange(n_fft // 2 + 1) * per_bin


@in_one_type
def sobolev_gain(beta_H, n_fft: int, unit: str = "lra", step_scale: float | Array = 1.0) -> Array:
    """gain_HF = (1 + |s|)^beta_h, |s| as `sobolev_frequency` has it; step_scale may be traced.

    Written exp(beta log(1 + |s|)), whose gradient at beta = 0 is log(1 + |s|). beta > 0 raises high
    frequencies, beta < 0 lowers them.
    """
    if beta_H.ndim != 1:
        raise ValueError(f"sobolev_gain: beta is (H,), got {beta_H.shape}.")
    _check_scale("sobolev_gain", step_scale)
    s_F = jnp.asarray(_frequency("sobolev_gain", n_fft, unit), beta_H.dtype)
    scale = jnp.asarray(step_scale, beta_H.dtype)
    log_base_F = jnp.log1p(s_F / scale if unit in PER_SAMPLE else s_F)
    return jnp.exp(beta_H[:, None] * log_base_F[None, :])


@in_one_type
def circular_gain(beta_H, bins_F, n: int, *, unsymmetric: bool = False) -> Array:
    """gain_HF = (1 + min(k, n - k) / 10,000)^beta_h on bins 0 <= k < n of a complex FFT.

    `unsymmetric` is the gain of the official wave program, which has the factor
    f_k = (1 + k / 10,000)^beta on all n bins and takes the real part of what comes out, in effect
    (f_k + f_{n-k}) / 2: at beta = 1 a constant for all k but 0 (OC-19).
    """
    if (bins_F := known_values(bins_F)) is None:
        raise TypeError("circular_gain: bins must be known when a program is made; these are not.")
    if beta_H.ndim != 1 or bins_F.ndim != 1 or n < 1:
        got = f"beta {beta_H.shape}, bins {np.shape(bins_F)}, n = {n}"
        raise ValueError(
            f"circular_gain: beta is (H,), bins are (F,) and n is at least 1; got {got}."
        )
    if (outside_F := bins_F[~((bins_F >= 0) & (bins_F < n))]).size:
        raise ValueError(f"circular_gain: bins must be in 0..{n - 1}, got {outside_F[0]}.")

    def gain(k_F: np.ndarray) -> Array:
        log_base_F = jnp.asarray(np.log1p(k_F * 1e-4), beta_H.dtype)
        return jnp.exp(beta_H[:, None] * log_base_F[None, :])

    other_F = (n - bins_F) % n
    if unsymmetric:
        return (gain(bins_F) + gain(other_F)) / 2
    return gain(np.minimum(bins_F, other_F))


@one_program
@in_one_type
def transfer_function(A_HN, C_HN, omega_HF) -> Array:
    """Complex G_HF = G_h(i omega) of H diagonal SSMs with B = 1, the conjugate modes included.

    A, complex, and omega, real, are in rad per unit of time; i omega may not be an eigenvalue. The
    memory is (H, N, F): bring moderate F.
    """
    _check("transfer_function", A_HN, C_HN, omega_HF)
    s_HF1 = 1j * omega_HF[:, :, None]
    A_H1N, C_H1N = A_HN[:, None, :], C_HN[:, None, :]
    return jnp.sum(C_H1N / (s_HF1 - A_H1N) + C_H1N.conj() / (s_HF1 - A_H1N.conj()), axis=-1)


@one_program
@in_one_type
def discrete_transfer_function(
    A_HN, C_HN, dt_H, omega_HF, discretization: str = "zoh", length: int | None = None
) -> Array:
    r"""Complex K_HF, the spectrum sum_l k_h[l] e^{-i omega l} of the kernels of `s4d_kernel`.

    With w = C gain and A_bar = e^z it is a geometric sum for each mode and its conjugate,

        K_h(omega) = sum_n w S(z - i omega) + conj(w) S(conj(z) - i omega),
        S(d) = 1 / (1 - e^d),    or    (1 - e^{dL}) / (1 - e^d)  for the first L taps.

    The second is what an FFT of a kernel of L < 2^22 taps sees (OC-28); for the first no mode with
    Re A = 0 may stand at an omega. Angles, in rad per sample, are taken as exact numbers, and
    1 - e^d without cancellation, so sharp resonances keep their height. In float32 the bins of an
    FFT are rounded themselves, by up to 1e-7 rad. Differentiable. The memory is (H, N, F). Other
    arguments as in `s4d_kernel`, C without leading axes.
    """
    HN = A_HN.shape
    if not (len(HN) == omega_HF.ndim == 2 and C_HN.shape == HN) or not (
        dt_H.shape == HN[:1] == omega_HF.shape[:1]
    ):
        raise ValueError(
            "discrete_transfer_function: A and C are (H, N), dt is (H,) and omega is (H, F); got "
            f"A {A_HN.shape}, C {C_HN.shape}, dt {dt_H.shape}, omega {omega_HF.shape}."
        )
    if length is not None and length < 1:
        raise ValueError(f"discrete_transfer_function: length must be at least 1, got {length}.")
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], discretization)
    w_HN = C_HN * DISCRETIZE[discretization](A_HN, dt_H[:, None])[1]
    # All 2N modes: the stored ones, then their conjugates.
    w_H12N, z_H12N = (jnp.concatenate([a, a.conj()], -1)[:, None, :] for a in (w_HN, z_HN))
    ticks_H2N, rest_H2N = (jnp.concatenate([a, -a], -1) for a in phase_HN)
    tone_HF = phase_of_product(jnp.ones_like(omega_HF), omega_HF)
    angle_HF2N = Phase(  # ticks wrap at one turn, as they should
        ticks_H2N[:, None, :] - tone_HF.ticks[:, :, None],
        rest_H2N[:, None, :] - tone_HF.rest[:, :, None],
    )
    y_HF2N = z_H12N.imag - omega_HF[:, :, None]
    return jnp.sum(w_H12N * _geometric_sum(z_H12N.real, y_HF2N, angle_HF2N, length), axis=-1)


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
    """By e^x. JAX takes expm1 + 1, whose error is large compared with an e^x near 0.

    A mode of the bilinear rule near dt A = -2 has dz/dA = 1 / e^z and so brings that to light.
    """
    x, y = primals
    power = jnp.exp(x) * (jnp.cos(y) + 1j * jnp.sin(y))
    return _expm1(x, y), power * (tangents[0] + 1j * tangents[1])


class Sensitivity(NamedTuple):
    """Derivatives by the real parts x and the imaginary parts y of the poles."""

    by_x_HFN: Array
    by_y_HFN: Array


@one_program
@in_one_type
def pole_sensitivity(A_HN, C_HN, omega_HF, beta_H=None) -> Sensitivity:
    """Real derivatives of (1 + |s|)^beta Re[c_n / (i s - a_n)] at s = omega, without conjugates.

    by_y is (1 + |s|)^beta K_n(s); with c = xi + i zeta and sigma = s - y

        K_n = [zeta (sigma^2 - x^2) - 2 xi x sigma] / (x^2 + sigma^2)^2,
        by_x: [xi (x^2 - sigma^2) - 2 zeta x sigma] / (x^2 + sigma^2)^2.

    Arguments as in `transfer_function`; |s| in the filter is in the same unit. Without beta there
    is none.
    """
    _check("pole_sensitivity", A_HN, C_HN, omega_HF, beta_H)
    slope_HFN = _slope(A_HN, C_HN, omega_HF)
    return _filtered(slope_HFN.real, -slope_HFN.imag, omega_HF, beta_H)


@one_program
@in_one_type
def pair_sensitivity(A_HN, C_HN, omega_HF, beta_H=None) -> Sensitivity:
    """Complex derivatives of the layers' (1 + |s|)^beta G(i s) at s = omega, conjugates included.

    A loss with derivatives p = dL/dRe G, q = dL/dIm G at the frequencies has the gradient
    dL/dy_n = sum p Re(by_y) + q Im(by_y). Arguments as in `pole_sensitivity`.
    """
    _check("pair_sensitivity", A_HN, C_HN, omega_HF, beta_H)
    own = _slope(A_HN, C_HN, omega_HF)
    mirror = _slope(A_HN.conj(), C_HN.conj(), omega_HF)  # by conj(a) = x - iy
    return _filtered(own + mirror, 1j * (own - mirror), omega_HF, beta_H)


def _check(name: str, A: Array, C: Array, omega: Array, beta: Array | None = None) -> None:
    H = A.shape[:1]
    fits = A.ndim == omega.ndim == 2 and C.shape == A.shape and omega.shape[:1] == H
    if not fits or (beta is not None and beta.shape != H):
        filtered = "" if beta is None else f", beta {beta.shape}"
        raise ValueError(
            f"{name}: A and C are (H, N), omega is (H, F){' and beta (H,)' if filtered else ''}; "
            f"got A {A.shape}, C {C.shape}, omega {omega.shape}{filtered}."
        )


def _slope(A_HN: Array, C_HN: Array, omega_HF: Array) -> Array:
    """d/da of c / (i s - a) = c / (i s - a)^2."""
    away_HFN = 1j * omega_HF[:, :, None] - A_HN[:, None, :]
    return C_HN[:, None, :] / (away_HFN * away_HFN)


def _filtered(by_x: Array, by_y: Array, omega_HF: Array, beta_H: Array | None) -> Sensitivity:
    if beta_H is None:
        return Sensitivity(by_x, by_y)
    gain_HF1 = jnp.exp(beta_H[:, None] * jnp.log1p(jnp.abs(omega_HF)))[:, :, None]
    return Sensitivity(gain_HF1 * by_x, gain_HF1 * by_y)
