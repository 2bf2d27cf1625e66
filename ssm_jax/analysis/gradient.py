r"""From what frequencies the gradient comes that moves the poles.

With g[t] = dL/d kappa[t], the loss's gradient by the taps of a channel's filtered two-sided kernel
on the circle of n = 2L (`layers.probe`), and kappa^ = gain K^ its spectrum, Parseval's theorem
makes the gradient by the imaginary part of a pole a sum over frequencies, the sampled form of T1
and T2 of "Tuning Frequency Bias of State Space Models" (arXiv:2410.02035):

    dL/dy_n = 1/n sum_k Re[ conj(g^(w_k)) gain(w_k) dK^(w_k)/dy_n ],    w_k = 2 pi k / n.

Its terms in a band are that band's part of the gradient, and all parts together are the gradient
to rounding, as autodiff has it. dK^/dy is taken by autodiff of the kernel itself.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.analysis.bands import band_bins, kernel_taps
from ssm_jax.analysis.spectra import LayerView
from ssm_jax.kernels import sobolev_gain


def gradient_per_band(
    layer: LayerView, by_taps_2HL: Array, n_fft: int, n_sets: int | None = None
) -> np.ndarray:
    """The parts of the gradient by Im A, (BANDS, S, N), of the bands of `bands.band_edges`.

    Args:
      layer: an S4D or S4.
      by_taps_2HL: gradient of a loss by the taps of the filtered kernel, forward and reverse.
      n_fft: samples of the circle on which the filter lives: 2L.
      n_sets: S; channel h has the eigenvalues of set h mod S. None: each channel has its own.

    Raises:
      ValueError: for a layer of another kind, or a circle that is not 2L.
    """
    length = by_taps_2HL.shape[-1]
    if layer.B_NH is not None or n_fft != 2 * length:
        raise ValueError(
            f"gradient_per_band: {layer.name} must have one input per channel and a circle of "
            f"{2 * length}; got {n_fft}."
        )
    arrays = (layer.A_HN, layer.C_CHN, layer.dt_H, layer.beta_H, layer.PB_HN)
    parts_KHN = _gradient_per_band(*arrays, by_taps_2HL, layer.discretization, layer.beta_unit)
    K, H, N = parts_KHN.shape
    sets = H if n_sets is None else n_sets
    return np.asarray(parts_KHN, np.float64).reshape(K, H // sets, sets, N).sum(axis=1)


@functools.partial(jax.jit, static_argnums=(6, 7))
def _gradient_per_band(A_HN, C_CHN, dt_H, beta_H, PB_HN, by_taps_2HL, discretization, unit):
    layer = LayerView(
        "", A_HN, C_CHN, dt_H, beta_H, unit, False, beta_H, discretization, None, PB_HN
    )
    L = by_taps_2HL.shape[-1]
    # On the circle the reverse tap j stands at -(1 + j).
    circle_HT = jnp.concatenate([by_taps_2HL[0], by_taps_2HL[1, :, ::-1]], axis=-1)
    by_spectrum_HF = jnp.fft.rfft(circle_HT) * sobolev_gain(beta_H, 2 * L, unit)
    bin_F, cuts = np.arange(L + 1), band_bins(L)
    band_F = np.maximum(np.searchsorted(cuts, bin_F) - 1, 0)  # (low, high]; bin 0 is in the first
    mask_KF = (band_F[None, :] == np.arange(len(cuts) - 1)[:, None]).astype(np.float32)
    parts_KHT = jnp.fft.irfft(mask_KF[:, None, :] * by_spectrum_HF[None], 2 * L)
    parts_KCHL = jnp.stack([parts_KHT[..., :L], parts_KHT[..., : L - 1 : -1]], axis=1)

    def taps(A_im_HN: Array) -> Array:
        return kernel_taps(layer, L, jnp.real(A_HN) + 1j * A_im_HN)[0]

    _, pull = jax.vjp(taps, jnp.imag(A_HN))
    return jax.vmap(lambda part: pull(part[: C_CHN.shape[0]])[0])(parts_KCHL)


def shares(parts_KSN: np.ndarray) -> np.ndarray:
    """The norm of each band's part over the sum of these norms, (BANDS,); nan if all are zero.

    The parts may cancel: the norm of their sum is at most the sum of their norms.
    """
    norms_K = np.sqrt((parts_KSN**2).sum(axis=(1, 2)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return norms_K / norms_K.sum()
