r"""The spectrum of L real samples on a circle of 2L, without their padding, for an even L.

The bins of a real FFT of length 2L fall in two halves. With w = e^{-i pi / L}, a and b being the
sum and the difference of the two halves of the circle,

    even   X_{2j} = sum_t a_t w^{2jt}                          a real FFT of length L
    odd    X_{4j+1} = sum_t (b_t - i b_{t+L/2}) w^t w^{4jt}    a complex FFT of length L/2

and the bins 4j + 3 are conjugates of bins 4j + 1 on the other side of the circle. Padded samples
have a = b = x, and only the first L samples are wanted back, (a + b) / 2. So no array has 2L
entries, and the FFTs are two that can run side by side, of lengths that fit a cache.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.kernels.sharding import of_rows

HalfSpectra = tuple[Array, Array]  # bins 0, 2, .., L and bins 1, 5, .., 2L - 3


def _twist(length: int, real_dtype: np.dtype) -> Array:
    """w^t for t < L/2."""
    w = np.exp(-1j * np.pi * np.arange(length // 2) / length)
    return jnp.asarray(w, jnp.result_type(real_dtype, jnp.complex64))


def _broadcast(x: Array, like: Array) -> Array:
    return x.reshape(*(1,) * (like.ndim - 1), -1)


def half_spectra(total: Array, difference: Array) -> HalfSpectra:
    """Of a real sequence on the circle, from the sum and the difference of its halves (..., L)."""
    L = total.shape[-1]
    twist = _broadcast(_twist(L, difference.dtype), difference)
    folded = jax.lax.complex(difference[..., : L // 2], -difference[..., L // 2 :]) * twist
    return of_rows(jnp.fft.rfft, total), of_rows(jnp.fft.fft, folded)


def first_samples(spectra: HalfSpectra, length: int) -> Array:
    """The first L of the 2L real samples that have these spectra."""
    even, odd = spectra
    total = of_rows(jnp.fft.irfft, even, length)
    twist = _broadcast(_twist(length, total.dtype), total)
    folded = of_rows(jnp.fft.ifft, odd) * twist.conj()
    return (total + jnp.concatenate([folded.real, -folded.imag], axis=-1)) / 2


def halves_of_gain(gain_HF: Array) -> HalfSpectra:
    """A real gain on the bins 0, 1, .., L, at the bins of the two halves."""
    rising, falling = gain_HF[:, 1::4], gain_HF[:, 3::4]  # 2L - 3, 2L - 7, .. are 3, 7, ..
    return gain_HF[:, ::2], jnp.concatenate([rising, falling[:, ::-1]], axis=-1)
