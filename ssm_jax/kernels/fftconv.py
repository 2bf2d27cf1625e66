r"""Causal and two-sided convolution by FFT, with a gain on the kernel's spectrum.

    causal     y_t = sum_{j >= 0} k[j] u_{t-j}
    two-sided  y_t = sum_{j >= 0} k[j] u_{t-j}  +  sum_{j >= 0} k_rev[j] u_{t+1+j}

The circle has n = 2L steps, so nothing wraps around unless a gain is applied: a gain that
is no polynomial in the shift reaches both ways and, as in the official code (OC-9, OC-11), on the
circle of length n. k_rev[0] meets u_{t+1} (OC-12): the reverse part is strictly anti-causal, and
the present is counted once.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.arrays import in_one_type
from ssm_jax.kernels.cpu import first_samples, half_spectra, halves_of_gain, materialize
from ssm_jax.kernels.sharding import of_rows, on_any_mesh, per_device

METHODS = ("auto", "whole", "halves")

Spectra = tuple[Array, ...]  # one array of bins, or two


@on_any_mesh("BLH")
@in_one_type
def fft_conv(
    u_BLH: Array,
    k_HL: Array,
    *,
    reverse_kernel_HL: Array | None = None,
    gain_HF: Array | None = None,
    skip_H: Array | None = None,
    method: str = "auto",
) -> Array:
    """Convolve every channel with its kernel.

    Methods: "whole" pads with zeros and takes FFTs of length 2L. "halves" takes even and odd bins
    apart (half_spectra.py), for even L. "auto" is "halves" on a CPU, where a gradient takes four
    fifths of the time (results/bench), and "whole" elsewhere and for odd L.

    Args:
      u_BLH: real input.
      k_HL: real kernel, as long as the input, or longer: then the outputs are those of an input
        padded with zeros to the kernel's length, but the padding is not computed.
      reverse_kernel_HL: kernel of the future inputs, as long; None: causal.
      gain_HF: real factor on the spectrum, on the F = L + 1 bins of a real FFT of length 2L, for
        the L of the kernel; None: 1. It multiplies the kernel's spectrum, (H, F), not the output's,
        (B, H, F): the same numbers, B times cheaper.
      skip_H: real D of y = k * u + D u, outside the gain. It is added to the spectrum, where it is
        one number for all frequencies: the input is not read a second time.
      method: one of METHODS.

    Returns:
      y_BLH.

    Raises:
      ValueError: if a shape does not fit, or the method is unknown or cannot take the length.
    """
    _, L, H = u_BLH.shape
    N = k_HL.shape[-1]
    if k_HL.shape != (H, N) or N < L:
        raise ValueError(
            f"fft_conv: input {u_BLH.shape} needs a kernel {(H, L)}, got {k_HL.shape}."
        )
    if reverse_kernel_HL is not None and reverse_kernel_HL.shape != (H, N):
        raise ValueError(
            f"fft_conv: input {u_BLH.shape} needs a reverse kernel {(H, N)}, "
            f"got {reverse_kernel_HL.shape}."
        )
    if gain_HF is not None and gain_HF.shape != (H, N + 1):
        raise ValueError(
            f"fft_conv: input {u_BLH.shape} needs a gain on {N + 1} bins, {(H, N + 1)}, "
            f"got {gain_HF.shape}."
        )
    if skip_H is not None and skip_H.shape != (H,):
        raise ValueError(f"fft_conv: input {u_BLH.shape} needs a skip {(H,)}, got {skip_H.shape}.")
    if method not in METHODS:
        raise ValueError(
            f"fft_conv: unknown method {method!r}; choose one of {', '.join(METHODS)}."
        )
    if method == "halves" and L % 2:
        raise ValueError(f"fft_conv: method='halves' needs an even length, got {L}; use 'whole'.")
    if method == "auto":
        method = "halves" if jax.default_backend() == "cpu" and L % 2 == 0 else "whole"
    if N > L:
        k_HL, reverse_kernel_HL = _taps_within(k_HL, reverse_kernel_HL, gain_HF, L)
        gain_HF = None
    spectra = _SPECTRA[method](k_HL, reverse_kernel_HL, gain_HF)
    if skip_H is not None:
        spectra = tuple(K + skip_H[:, None] for K in spectra)
    return per_device(_FILTERS[method], u_BLH, *spectra)


def _taps_within(
    k_HN: Array, reverse_HN: Array | None, gain_HF: Array | None, length: int
) -> tuple[Array, Array | None]:
    """The taps that join L inputs with L outputs: those of the filtered kernel at -L..L - 1."""
    if gain_HF is None:
        return k_HN[:, :length], None if reverse_HN is None else reverse_HN[:, :length]
    (K_HF,) = _whole_spectrum(k_HN, reverse_HN, gain_HF)
    taps_HM = jnp.fft.irfft(K_HF, 2 * k_HN.shape[1])
    return taps_HM[:, :length], taps_HM[:, : -1 - length : -1]


def _whole_spectrum(k_HL: Array, reverse_HL: Array | None, gain_HF: Array | None) -> Spectra:
    """The bins 0..L. On a circle of length 2L the tap for u_{t+1+j} stands at -(1 + j)."""
    n = 2 * k_HL.shape[1]
    if reverse_HL is not None:
        k_HL = jnp.concatenate([k_HL, reverse_HL[:, ::-1]], axis=-1)
    K_HF = jnp.fft.rfft(k_HL, n)
    return (K_HF if gain_HF is None else K_HF * gain_HF,)


def _halves_of_spectrum(k_HL: Array, reverse_HL: Array | None, gain_HF: Array | None) -> Spectra:
    total = difference = k_HL
    if reverse_HL is not None:
        total, difference = k_HL + reverse_HL[:, ::-1], k_HL - reverse_HL[:, ::-1]
    spectra = half_spectra(total, difference)
    if gain_HF is None:
        return spectra
    even, odd = (K * gain for K, gain in zip(spectra, halves_of_gain(gain_HF), strict=True))
    return even, odd


# The walls keep the transposition of time and channels, which is fast alone, apart from arithmetic,
# which would be computed in strides next to it.


def _filter_whole(u_BLH: Array, K_HF: Array) -> Array:
    """The inputs times the spectrum K of the kernel, cut back to their length."""
    L, guard = u_BLH.shape[1], K_HF.real[0, 0]
    u_BHL = materialize(jnp.swapaxes(u_BLH, 1, 2), guard)
    Y_BHF = of_rows(jnp.fft.rfft, u_BHL, 2 * L) * K_HF[None]
    y_BHL = of_rows(jnp.fft.irfft, Y_BHF, 2 * L)[..., :L]
    return jnp.swapaxes(materialize(y_BHL, guard), 1, 2)


def _filter_halves(u_BLH: Array, even_HF: Array, odd_HF: Array) -> Array:
    """The same by halves of the spectra."""
    guard = even_HF.real[0, 0]
    u_BHL = materialize(jnp.swapaxes(u_BLH, 1, 2), guard)
    U_even_BHF, U_odd_BHF = half_spectra(u_BHL, u_BHL)
    products = U_even_BHF * even_HF[None], U_odd_BHF * odd_HF[None]
    y_BHL = first_samples(products, u_BLH.shape[1])
    return jnp.swapaxes(materialize(y_BHL, guard), 1, 2)


_SPECTRA: dict[str, Callable[..., Spectra]] = {
    "whole": _whole_spectrum,
    "halves": _halves_of_spectrum,
}
_FILTERS: dict[str, Callable[..., Array]] = {"whole": _filter_whole, "halves": _filter_halves}
