"""A layer by frequency band: total variation, energy, pole drift, and the poles' gradient.

The transfer function of a channel and direction is the spectrum of its kernel times the filter's
gain, without D, as far as sequences of L steps tell it:

    K_h(w) = (1 + |s|)^beta_h sum_{l < L} t[l] k_h[l] e^{-i w l},    0 <= w <= pi rad per sample.

The taper t is 1 up to L / 2 and then falls to 0 as a squared cosine: cut off sharply, a slow mode
would ripple at all frequencies. A causal filter, as that of ConvS5, acts on the taps before they
are tapered, of which lags from 0 on are left. A channel of S5 answers to H inputs: it has the root
of the sum of the squared answers (`spectra.response_magnitude`), estimated without bias from its
answers to `INPUTS` fixed random vectors of signs.
"""

import functools
import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.analysis.spectra import LayerView
from ssm_jax.kernels import s4d_kernel, sobolev_gain
from ssm_jax.kernels.dplr import dplr_kernel
from ssm_jax.kernels.response import frequency_per_radian

BANDS = 4
INPUTS = 4
# Panels up to Nyquist per step of the sequence; V is then within 0.3 % of the adaptive integral's
OVERSAMPLING = 4


def band_bins(length: int) -> np.ndarray:
    """Edges of the bands as bins k of a circle of 2L, w = pi k / L: 0, then L^(1/4), .., L.

    The bands from pi / L to Nyquist are equally wide on a logarithmic axis, up to whole bins; the
    first one also has all below, which L steps do not tell from a constant.
    """
    inner = np.maximum(1, np.rint(length ** (np.arange(1, BANDS) / BANDS))).astype(int)
    return np.array([0, *inner, length])


def band_edges(length: int) -> np.ndarray:
    """Edges of the bands in radians per sample, (BANDS + 1,), from 0 to pi."""
    return np.pi * band_bins(length) / length


def kernel_taps(layer: LayerView, length: int) -> Array:
    """The first L taps of each kernel without filter and D, (P, C, H, L); P is INPUTS in S5."""
    A_HN, C_CHN, dt_H = map(jnp.asarray, (layer.A_HN, layer.C_CHN, layer.dt_H))
    if layer.PB_HN is not None:
        P_HN, B_HN = map(jnp.asarray, layer.PB_HN)
        return dplr_kernel(A_HN, P_HN, B_HN, C_CHN, dt_H, length)[None]
    if layer.B_NH is None:
        return s4d_kernel(A_HN, C_CHN, dt_H, length, layer.discretization)[None]
    draws_HP = np.random.default_rng(0).integers(0, 2, (layer.B_NH.shape[1], INPUTS))
    signs_HP = (2 * draws_HP - 1).astype(np.float32)
    # dt belongs to a mode: in units of a sample it is 1 for all. The kernel doubles, S5 does not.
    z_1N = (A_HN[:, 0] * dt_H)[None]
    B_NP = jnp.matmul(layer.B_NH, signs_HP, precision=jax.lax.Precision.HIGHEST)
    B_PN = B_NP.T * dt_H[None] / 2
    residues = B_PN[:, None, None, None, :] * C_CHN[None, :, :, None, :]
    return s4d_kernel(z_1N, residues, jnp.ones(1), length, layer.discretization)[:, :, :, 0]


def taper(length: int) -> np.ndarray:
    """t_L: 1 up to the middle, then a squared cosine that is 0 at L."""
    past = np.maximum(0.0, 2 * np.arange(length) / length - 1)
    return (np.cos(np.pi / 2 * past) ** 2).astype(np.float32)


def spectra_per_band(layer: LayerView, length: int, n_fft: int) -> dict[str, np.ndarray]:
    """The "variation" V and the "energy" of each direction, channel and band, (C, H, BANDS).

    V, in the unit of K, is the sum of |K(w') - K(w)| over neighbouring nodes, 4 L panels up to
    Nyquist, corrected by the sum over every second node (Richardson): an error of fourth order in
    the distance. The energy is the integral of |K|^2 over w as a sum over the same nodes: exact
    over all bands together, where there is no filter. In float32, for sequences of L steps; n_fft
    counts the samples of the circle on which the filter lives (`Experiment.filter_period`).
    """
    per_radian = frequency_per_radian(n_fft, layer.beta_unit)
    found = _spectra_per_band(replace(layer, name=""), length, per_radian)  # one program for all
    return dict(zip(("variation", "energy"), map(np.asarray, found), strict=True))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _spectra_per_band(layer: LayerView, length: int, per_radian: float) -> tuple[Array, Array]:
    def mean_square(x: Array) -> Array:  # with random signs, the sum over the inputs of a channel
        return jnp.mean(x.real**2 + x.imag**2, axis=0)

    def per_band(panels: Array, per_bin: int) -> Array:
        cuts = per_bin * band_bins(length)
        bands = [jnp.sum(panels[..., a:b], axis=-1) for a, b in itertools.pairwise(cuts)]
        return jnp.stack(bands, axis=-1)

    def gain(s_F: np.ndarray) -> Array:
        return jnp.exp(layer.beta_H[:, None] * np.log1p(s_F).astype(np.float32)[None, :])

    nodes = OVERSAMPLING * length  # panels up to Nyquist
    omega_F = np.pi * np.arange(nodes + 1) / nodes
    gain_HF = gain(per_radian * omega_F)
    if layer.unsymmetric:
        gain_HF = (gain_HF + gain(per_radian * (2 * np.pi - omega_F))) / 2
    taps = kernel_taps(layer, length)
    if layer.causal:
        filtered = jnp.fft.rfft(taps, 2 * length) * gain_HF[None, None, :, ::OVERSAMPLING]
        taps = jnp.fft.irfft(filtered, 2 * length)[..., :length]
        gain_HF = jnp.ones_like(gain_HF)
    K = jnp.fft.rfft(taps * taper(length)[None, None, None], 2 * nodes) * gain_HF[None, None]
    power_CHF = mean_square(K)
    chord = jnp.sqrt(mean_square(K[..., 1:] - K[..., :-1]))
    wide = jnp.sqrt(mean_square(K[..., 2::2] - K[..., :-2:2]))
    path = (4 * (chord[..., ::2] + chord[..., 1::2]) - wide) / 3
    panel = (power_CHF[..., 1:] + power_CHF[..., :-1]) * np.float32(np.pi / nodes / 2)
    return per_band(path, OVERSAMPLING // 2), per_band(panel, OVERSAMPLING)


def pole_drift(before: LayerView, after: LayerView) -> dict[str, np.ndarray]:
    """How far each eigenvalue, in S4 of the diagonal part, moved; (R, N) as `LayerView.A_HN`.

    "drift_im", |Im a dt - Im a0 dt|, and "drift_re", |Re a dt - Re a0 dt|, both with the dt of
      before, in rad and nepers per sample: what moving a alone does.
    "drift_spacings": |Im a - Im a0| over the distance of Im a0 to the nearest other one of the same
      channel, in S5 of all channels; nan where there is none. Poles with one Im a0, as the two of
      an oscillator of `LinOSS`, are no distance apart and do not count.
    "drift_with_dt": |Im a dt - Im a0 dt0|: a change of dt moves all poles of a channel together.
    """
    pooled = before.B_NH is not None  # S5: one system for all channels
    with np.errstate(invalid="ignore", over="ignore"):  # a diverged layer
        dt_H1, new_dt_H1 = (v.dt_H[:, None].astype(np.float64) for v in (before, after))
        old, new = (v.A_HN.astype(np.complex128) for v in (before, after))
        moved = np.abs(new.imag - old.imag)
        rows = old.imag.T if pooled else old.imag
        apart = np.abs(rows[:, :, None] - rows[:, None, :])
        spacing = np.where(apart > 0, apart, np.inf).min(axis=2)
        spacing = np.where(np.isfinite(spacing), spacing, np.nan)
        return {
            "drift_im": moved * dt_H1,
            "drift_re": np.abs(new.real - old.real) * dt_H1,
            "drift_spacings": moved / (spacing.T if pooled else spacing),
            "drift_with_dt": np.abs(new.imag * new_dt_H1 - old.imag * dt_H1),
        }


def gradient_per_band(
    layer: LayerView, by_taps_2HL: Array, n_fft: int, n_sets: int | None = None
) -> np.ndarray:
    """The parts of the gradient by Im A, (BANDS, S, N), that come from each of the bands.

    With g[t] = dL/d kappa[t], the gradient of a loss by the taps of a channel's filtered two-sided
    kernel on the circle of n = 2L, Parseval's theorem makes the gradient by Im a_n = y_n a sum over
    frequencies, the sampled form of T1 and T2 of arXiv:2410.02035:

        dL/dy_n = 1/n sum_k Re[ conj(g^(w_k)) gain(w_k) dK^(w_k)/dy_n ],    w_k = 2 pi k / n.

    The terms in a band are its part; all parts together are autodiff's gradient, to rounding.

    by_taps_2HL is g, forward and reverse (`layers.s4d.Probe`). Channel h has the eigenvalues of set
    h mod S, S = n_sets; None: each channel has its own. Raises ValueError for an S5, or if n_fft,
    the samples of the circle of the filter, is not 2L.
    """
    length = by_taps_2HL.shape[-1]
    if layer.B_NH is not None or n_fft != 2 * length:
        raise ValueError(
            f"gradient_per_band: {layer.name} must have one input per channel and a circle of "
            f"{2 * length}; got {n_fft}."
        )
    parts_KHN = np.asarray(_gradient_per_band(replace(layer, name=""), by_taps_2HL), np.float64)
    K, H, N = parts_KHN.shape
    sets = H if n_sets is None else n_sets
    return parts_KHN.reshape(K, H // sets, sets, N).sum(axis=1)


@jax.jit
def _gradient_per_band(layer: LayerView, by_taps_2HL: Array) -> Array:
    L = by_taps_2HL.shape[-1]
    # On the circle the reverse tap j stands at -(1 + j).
    circle_HT = jnp.concatenate([by_taps_2HL[0], by_taps_2HL[1, :, ::-1]], axis=-1)
    gain_HF = sobolev_gain(jnp.asarray(layer.beta_H), 2 * L, layer.beta_unit)
    by_spectrum_HF = jnp.fft.rfft(circle_HT) * gain_HF
    # A band is (low, high] in bins; bin 0 is in the first.
    band_F = np.maximum(np.searchsorted(band_bins(L), np.arange(L + 1)) - 1, 0)
    mask_KF = (band_F[None, :] == np.arange(BANDS)[:, None]).astype(np.float32)
    parts_KHT = jnp.fft.irfft(mask_KF[:, None, :] * by_spectrum_HF[None], 2 * L)
    parts_KCHL = jnp.stack([parts_KHT[..., :L], parts_KHT[..., : L - 1 : -1]], axis=1)

    def taps(A_im_HN: Array) -> Array:
        return kernel_taps(replace(layer, A_HN=layer.A_HN.real + 1j * A_im_HN), L)[0]

    _, pull = jax.vjp(taps, layer.A_HN.imag)
    return jax.vmap(lambda part: pull(part[: layer.C_CHN.shape[0]])[0])(parts_KCHL)
