r"""Causal and two-sided convolution by FFT, with a gain on the kernel's spectrum.

    causal     y_t = sum_{j >= 0} k[j] u_{t-j}
    two-sided  y_t = sum_{j >= 0} k[j] u_{t-j}  +  sum_{j >= 0} k_rev[j] u_{t+1+j}

The circle has n = 2L steps, so nothing wraps around unless a gain is applied: one that is no
polynomial in the shift reaches both ways on the circle, as in the official code (OC-9, OC-11).
k_rev[0] meets u_{t+1} (OC-12): the reverse part is strictly anti-causal, and the present is counted
once.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.kernels.arrays import in_one_type, one_program, sizes
from ssm_jax.kernels.devices import (
    materialize,
    of_rows,
    on_any_mesh,
    on_cpu,
    on_gpu,
    per_device,
    some_at_once,
    vary_alike,
)
from ssm_jax.kernels.rules import Ruled, linear_map

METHODS = ("auto", "whole", "halves")


@on_any_mesh("BLH")
@one_program
@in_one_type
def fft_conv(
    u_BLH, k_HL, *, reverse_kernel_HL=None, gain_HF=None, skip_H=None, method: str = "auto"
) -> Array:
    """Convolve every channel with its kernel: y_BLH. All arrays are real.

    Args:
      k_HL: as long as the input, or longer: then the outputs are those of an input padded with
        zeros to the kernel's length, but the padding is not computed.
      reverse_kernel_HL: kernel of the future inputs, as long; None: causal.
      gain_HF: factor on the F = L + 1 bins of a real FFT of length 2L, for the L of the kernel. It
        multiplies the kernel's spectrum, not the output's: the same numbers, B times cheaper.
      skip_H: D of y = k * u + D u, outside the gain. It is added to the spectrum, where it is one
        number for all frequencies: the input is not read a second time.
      method: "whole" pads with zeros and takes FFTs of length 2L; "halves" takes even and odd bins
        of the spectrum separately, for even L; "auto" is the faster one.
    """
    _, L, H = sizes("fft_conv", "u", u_BLH, "BLH", filled="LH")
    taps = k_HL.shape[-1]
    wanted = {
        "kernel": (k_HL, (H, max(L, taps))),
        "reverse kernel": (reverse_kernel_HL, (H, taps)),
        f"gain on {taps + 1} bins,": (gain_HF, (H, taps + 1)),
        "skip": (skip_H, (H,)),
    }
    for what, (x, shape) in wanted.items():
        if x is not None and x.shape != shape:
            needs = f"needs a {what} {shape}, got {x.shape}."
            raise ValueError(f"fft_conv: input {u_BLH.shape} {needs}")
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise ValueError(f"fft_conv: unknown method {method!r}; choose one of {known}.")
    if method == "halves" and L % 2:
        raise ValueError(f"fft_conv: method='halves' needs an even length, got {L}; use 'whole'.")
    halves = method == "halves" or (method == "auto" and on_cpu() and L % 2 == 0)
    reverse_HL = reverse_kernel_HL
    if taps > L:  # those at -L..L - 1 join the inputs with as many outputs
        if gain_HF is not None:
            (K_HF,) = _kernel_spectrum(k_HL, reverse_HL, gain_HF)
            k_HM = jnp.fft.irfft(K_HF, 2 * taps)
            k_HL, reverse_HL, gain_HF = k_HM, k_HM[:, ::-1], None
        k_HL, reverse_HL = k_HL[:, :L], None if reverse_HL is None else reverse_HL[:, :L]
    spectra = (_kernel_halves if halves else _kernel_spectrum)(k_HL, reverse_HL, gain_HF)
    if skip_H is not None:
        spectra = tuple(K_HF + skip_H[:, None] for K_HF in spectra)
    if not halves and on_gpu():
        return per_device(_filter_channels_first, u_BLH, *spectra)

    def filtered(u_BLH: Array, *spectra: Array) -> Array:
        # Walls keep the transposition of time and channels, which is fast alone, separate from
        # arithmetic, which would be computed in strides next to it.
        guard = spectra[0].real[0, 0]
        u_BHL = materialize(jnp.swapaxes(u_BLH, 1, 2), guard)
        y_BHL = (_filter_halves if halves else _filter)(u_BHL, *(K_HF[None] for K_HF in spectra))
        return jnp.swapaxes(materialize(y_BHL, guard), 1, 2)

    return per_device(some_at_once(filtered, 2), u_BLH, *spectra)


def _kernel_spectrum(k_HL: Array, reverse_HL, gain_HF) -> tuple[Array, ...]:
    """The bins 0..L. On a circle of length 2L the tap for u_{t+1+j} stands at -(1 + j)."""
    n = 2 * k_HL.shape[1]
    if reverse_HL is not None:
        k_HL = jnp.concatenate([k_HL, reverse_HL[:, ::-1]], axis=-1)
    K_HF = jnp.fft.rfft(k_HL, n)
    return (K_HF if gain_HF is None else K_HF * gain_HF,)


def _filter(u: Array, K: Array) -> Array:
    """The inputs (.., L) times the spectrum of the kernel (.., F), cut back to their length."""
    return _cut_back(_padded_spectrum(u) * K)


def _padded_spectrum(u: Array) -> Array:
    return of_rows(jnp.fft.rfft, u, 2 * u.shape[-1])


def _cut_back(Y: Array) -> Array:
    L = Y.shape[-1] - 1
    return of_rows(jnp.fft.irfft, Y, 2 * L)[..., :L]


# For GPUs, where a step takes as long as what it reads and writes: channels first, which
# `models/gate.py` leaves in place, so that nothing is transposed, and with a rule. The derivative
# that JAX finds splits real from imaginary parts, and scales the inner bins in a pass of their own.


def _filter_channels_first(u_BLH: Array, K_HF: Array) -> Array:
    u_HBL, K_HF = vary_alike(jnp.moveaxis(u_BLH, 2, 0), K_HF)
    return jnp.moveaxis(_ruled_filter(u_HBL, K_HF[:, None]), 0, 2)


_ruled_filter = Ruled(_filter)


@_ruled_filter.defjvp
def _filter_jvp(primals, tangents):
    """dy by du and dK; by dy, with its spectrum G: conj(K) G cut back, and the sum of conj(G) U."""
    u_HBL, K_H1F = primals
    U_HBF = _padded_spectrum(u_HBL)

    def forward(spectra, tangents):
        (U_HBF, K_H1F), (du_HBL, dK_H1F) = spectra, tangents
        return _cut_back(_padded_spectrum(du_HBL) * K_H1F + U_HBF * dK_H1F)

    def backward(spectra, dy_HBL):
        (U_HBF, K_H1F), G_HBF = spectra, _padded_spectrum(dy_HBL)
        sum_H1F = jnp.sum(G_HBF.conj() * U_HBF, axis=1, keepdims=True)
        # Of 2 (F - 1) bins on the circle, all but the first and the last stand for two.
        F = K_H1F.shape[-1]
        share_F = np.where(np.arange(F) % (F - 1) == 0, 0.5, 1) / (F - 1)
        share_11F = jnp.asarray(share_F, dy_HBL.dtype)[None, None]
        return _cut_back(G_HBF * K_H1F.conj()), sum_H1F * share_11F

    y_HBL = _cut_back(U_HBF * K_H1F)
    return y_HBL, linear_map(forward, backward, (U_HBF, K_H1F), tangents)


# "halves": the spectrum of L real samples on a circle of 2L, without their padding, for an even L.
# With w = e^{-i pi / L}, a and b being the sum and the difference of the two halves of the circle,
#
#     even   X_{2j} = sum_t a_t w^{2jt}                          a real FFT of length L
#     odd    X_{4j+1} = sum_t (b_t - i b_{t+L/2}) w^t w^{4jt}    a complex FFT of length L/2
#
# and the bins 4j + 3 are conjugates of bins 4j + 1 on the other side of the circle. Padded samples
# have a = b = x, and only the first L samples are wanted back, (a + b) / 2. So no array has 2L
# entries, and the FFTs are two that can run at the same time, of lengths that fit a cache.


def _kernel_halves(k_HL: Array, reverse_HL, gain_HF) -> tuple[Array, ...]:
    """The bins 0, 2, .., L and the bins 1, 5, .., 2L - 3."""
    total = difference = k_HL
    if reverse_HL is not None:
        total, difference = k_HL + reverse_HL[:, ::-1], k_HL - reverse_HL[:, ::-1]
    even, odd = _half_spectra(total, difference)
    if gain_HF is None:
        return even, odd
    rising, falling = gain_HF[:, 1::4], gain_HF[:, 3::4]  # 2L - 3, 2L - 7, .. are 3, 7, ..
    return even * gain_HF[:, ::2], odd * jnp.concatenate([rising, falling[:, ::-1]], axis=-1)


def _filter_halves(u_BHL: Array, even_1HF: Array, odd_1HF: Array) -> Array:
    U_even_BHF, U_odd_BHF = _half_spectra(u_BHL, u_BHL)
    Y_even_BHF, Y_odd_BHF = U_even_BHF * even_1HF, U_odd_BHF * odd_1HF
    total_BHL = of_rows(jnp.fft.irfft, Y_even_BHF, u_BHL.shape[2])
    folded = of_rows(jnp.fft.ifft, Y_odd_BHF) * _twist(total_BHL).conj()
    difference_BHL = jnp.concatenate([folded.real, -folded.imag], axis=-1)
    return (total_BHL + difference_BHL) / 2


def _half_spectra(total: Array, difference: Array) -> tuple[Array, Array]:
    """Of a real sequence on the circle, from the sum and the difference of its halves (..., L)."""
    L = total.shape[-1]
    folded = jax.lax.complex(difference[..., : L // 2], -difference[..., L // 2 :])
    return of_rows(jnp.fft.rfft, total), of_rows(jnp.fft.fft, folded * _twist(difference))


def _twist(like: Array) -> Array:
    """w^t for t < L/2, with as many axes as a real array (..., L)."""
    L = like.shape[-1]
    w = np.exp(-1j * np.pi * np.arange(L // 2) / L)
    twist = jnp.asarray(w, jnp.result_type(like.dtype, jnp.complex64))
    return twist.reshape(*(1,) * (like.ndim - 1), -1)
