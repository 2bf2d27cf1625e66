r"""Causal and two-sided convolution by FFT, with a gain on the kernel's spectrum.

    causal     y_t = sum_{j >= 0} k[j] u_{t-j}
    two-sided  y_t = sum_{j >= 0} k[j] u_{t-j}  +  sum_{j >= 0} k_rev[j] u_{t+1+j}

The circle has n = 2L steps, so nothing wraps around unless a gain is applied: one that is no
polynomial in the shift reaches both ways on the circle, as in the official code (OC-9, OC-11).
k_rev[0] meets u_{t+1} (OC-12): the reverse part is strictly anti-causal, and the present is counted
once.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from ssm_jax.kernels.arrays import in_one_type
from ssm_jax.kernels.cpu import channels_first, filter_halves, kernel_halves, on_cpu, time_second
from ssm_jax.kernels.sharding import of_rows, on_any_mesh, per_device

METHODS = ("auto", "whole", "halves")


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
    """Convolve every channel with its kernel: y_BLH.

    Methods: "whole" pads with zeros and takes FFTs of length 2L; "halves" takes even and odd bins
    of the spectrum separately (cpu.py), for even L; "auto" is the faster one.

    Args:
      u_BLH: real input.
      k_HL: real kernel, as long as the input, or longer: then the outputs are those of an input
        padded with zeros to the kernel's length, but the padding is not computed.
      reverse_kernel_HL: kernel of the future inputs, as long; None: causal.
      gain_HF: real factor on the F = L + 1 bins of a real FFT of length 2L, for the L of the
        kernel. It multiplies the kernel's spectrum, (H, F), not the output's, (B, H, F): the same
        numbers, B times cheaper.
      skip_H: real D of y = k * u + D u, outside the gain. It is added to the spectrum, where it is
        one number for all frequencies: the input is not read a second time.
      method: one of METHODS.

    Raises:
      ValueError: if a shape does not fit, or the method is unknown or cannot take the length.
    """
    _, L, H = u_BLH.shape
    taps = k_HL.shape[-1]
    if k_HL.shape != (H, taps) or taps < L:
        raise ValueError(
            f"fft_conv: input {u_BLH.shape} needs a kernel {(H, L)}, got {k_HL.shape}."
        )
    for what, x, shape in (
        ("reverse kernel", reverse_kernel_HL, (H, taps)),
        (f"gain on {taps + 1} bins,", gain_HF, (H, taps + 1)),
        ("skip", skip_H, (H,)),
    ):
        if x is not None and x.shape != shape:
            raise ValueError(
                f"fft_conv: input {u_BLH.shape} needs a {what} {shape}, got {x.shape}."
            )
    if method not in METHODS:
        raise ValueError(
            f"fft_conv: unknown method {method!r}; choose one of {', '.join(METHODS)}."
        )
    if method == "halves" and L % 2:
        raise ValueError(f"fft_conv: method='halves' needs an even length, got {L}; use 'whole'.")
    halves = method == "halves" or (method == "auto" and on_cpu() and L % 2 == 0)
    if taps > L:
        k_HL, reverse_kernel_HL = _taps_within(k_HL, reverse_kernel_HL, gain_HF, L)
        gain_HF = None
    spectra = (kernel_halves if halves else _kernel_spectrum)(k_HL, reverse_kernel_HL, gain_HF)
    if skip_H is not None:
        spectra = tuple(K_HF + skip_H[:, None] for K_HF in spectra)
    return per_device(filter_halves if halves else _filter, u_BLH, *spectra)


def _kernel_spectrum(
    k_HL: Array, reverse_HL: Array | None, gain_HF: Array | None
) -> tuple[Array, ...]:
    """The bins 0..L. On a circle of length 2L the tap for u_{t+1+j} stands at -(1 + j)."""
    n = 2 * k_HL.shape[1]
    if reverse_HL is not None:
        k_HL = jnp.concatenate([k_HL, reverse_HL[:, ::-1]], axis=-1)
    K_HF = jnp.fft.rfft(k_HL, n)
    return (K_HF if gain_HF is None else K_HF * gain_HF,)


def _filter(u_BLH: Array, K_HF: Array) -> Array:
    """The inputs times the spectrum of the kernel, cut back to their length."""
    L = u_BLH.shape[1]
    Y_BHF = of_rows(jnp.fft.rfft, channels_first(u_BLH, K_HF), 2 * L) * K_HF[None]
    return time_second(of_rows(jnp.fft.irfft, Y_BHF, 2 * L)[..., :L], K_HF)


def _taps_within(
    k_HL: Array, reverse_HL: Array | None, gain_HF: Array | None, length: int
) -> tuple[Array, Array | None]:
    """The taps that join `length` inputs with as many outputs: those at -length..length - 1."""
    if gain_HF is None:
        return k_HL[:, :length], None if reverse_HL is None else reverse_HL[:, :length]
    (K_HF,) = _kernel_spectrum(k_HL, reverse_HL, gain_HF)
    taps_HM = jnp.fft.irfft(K_HF, 2 * k_HL.shape[1])
    return taps_HM[:, :length], taps_HM[:, : -1 - length : -1]
