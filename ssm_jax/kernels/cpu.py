"""A wall against recomputation: what stands before it is computed once.

XLA fuses cheap arithmetic into each of its consumers and so computes it again for each, and for
each element of a broadcast. On CPUs that costs more than writing the value down, and
`jax.lax.optimization_barrier` is no wall there, because XLA removes it before it fuses. A division
by an unknown one is none either: XLA makes it a product. A conditional is a wall, if its condition
holds always and the compiler cannot know that.

Measured as processor time on two CPU cores, H = 128, N = 64, L = 2048: a gradient of two S4D
kernels takes 25 ms with a wall between the numbers of a mode and their powers, 37 without.

The spectrum of L real samples on a circle of 2L, without their padding, for an even L.

The bins of a real FFT of length 2L fall in two halves. With w = e^{-i pi / L}, a and b being the
sum and the difference of the two halves of the circle,

    even   X_{2j} = sum_t a_t w^{2jt}                          a real FFT of length L
    odd    X_{4j+1} = sum_t (b_t - i b_{t+L/2}) w^t w^{4jt}    a complex FFT of length L/2

and the bins 4j + 3 are conjugates of bins 4j + 1 on the other side of the circle. Padded samples
have a = b = x, and only the first L samples are wanted back, (a + b) / 2. So no array has 2L
entries, and the FFTs are two that can run side by side, of lengths that fit a cache.

How this process asks the system for memory.

XLA's CPU backend allocates the temporary memory of a step when the step begins and frees it at its
end. glibc gives such large blocks back to the system, which clears them page by page when the next
step touches them: 160,000 page faults, and a fifth of the processor time of the official ListOps
step at batch 8.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.kernels.sharding import of_rows

Tree = TypeVar("Tree")


def materialize(tree: Tree, guard: Array) -> Tree:
    """`tree`, behind a wall on CPUs, which costs a copy; elsewhere `tree` itself.

    The gradient meets a wall too.

    Args:
      tree: arrays.
      guard: a real number that the compiler cannot know and every device has, such as an entry of a
        parameter. The condition is guard == guard: where it is NaN, so are the real and complex
        arrays of the result, and integers are 0.
    """
    if jax.default_backend() != "cpu":
        return tree
    return jax.lax.cond(guard == guard, _same, _nothing, tree)


def _same(tree):
    return tree


def _nothing(tree):
    return jax.tree.map(
        lambda x: jnp.full_like(x, jnp.nan if jnp.issubdtype(x.dtype, jnp.inexact) else 0), tree
    )


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


# From glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8

LARGEST_KEPT = 1 << 30  # bytes; larger blocks are given back as before


def keep_freed_memory() -> bool:
    """Let this process keep the blocks that it frees, up to 1 GiB each, for its next allocations.

    To be called before JAX starts its threads. Its resident memory then stays at its peak.

    Returns:
      Whether the allocator is glibc's and took the settings; others are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        _M_ARENA_MAX: 1,  # the other arenas are cut in pieces of 64 MiB
        _M_MMAP_THRESHOLD: LARGEST_KEPT,
        _M_TRIM_THRESHOLD: -1,  # never
        _M_TOP_PAD: 64 << 20,
    }
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
