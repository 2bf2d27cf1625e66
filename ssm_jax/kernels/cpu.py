"""Forms for CPUs only: walls against fusion, FFTs in halves, and freed memory that is kept.

Other backends get the plain forms. Times are of two CPU cores.
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


def on_cpu() -> bool:
    """Whether programs are made for a CPU. Then

    fft_conv      takes even and odd bins apart: a gradient takes four fifths of the time
                  (results/bench);
    scan          loops over the steps of blocks, where each step of a loop is no launch;
    apply_blocks  is unrolled: XLA copies what a loop keeps for the backward pass, 84 ms against 60
                  for a step of 4 x 64 channels at L = 64;
    materialize   is a wall.
    """
    return jax.default_backend() == "cpu"


def materialize(tree: Tree, guard: Array) -> Tree:
    """`tree`, computed once: on CPUs after a wall against recomputation, which costs a copy.

    XLA fuses cheap arithmetic into each of its consumers and so computes it again for each, and for
    each element of a broadcast. On CPUs that costs more than writing the value down: a gradient of
    two S4D kernels, H = 128, N = 64, L = 2048, takes 37 ms, and 25 with a wall between the numbers
    of a mode and their powers. `jax.lax.optimization_barrier` is no wall there, because XLA removes
    it before it fuses, and a division by an unknown one is made a product. A conditional is a wall,
    if its condition holds always and the compiler cannot know that. The gradient meets one too.

    Args:
      tree: arrays.
      guard: a real number that the compiler cannot know and every device has, such as an entry of a
        parameter. The condition is guard == guard: where it is NaN, so are the real and complex
        arrays of the result, and integers are 0.
    """

    def nothing(tree):
        return jax.tree.map(
            lambda x: jnp.full_like(x, jnp.nan if jnp.issubdtype(x.dtype, jnp.inexact) else 0), tree
        )

    return jax.lax.cond(guard == guard, lambda tree: tree, nothing, tree) if on_cpu() else tree


# The spectrum of L real samples on a circle of 2L, without their padding, for an even L. With w =
# e^{-i pi / L}, a and b being the sum and the difference of the two halves of the circle,
#
#     even   X_{2j} = sum_t a_t w^{2jt}                          a real FFT of length L
#     odd    X_{4j+1} = sum_t (b_t - i b_{t+L/2}) w^t w^{4jt}    a complex FFT of length L/2
#
# and the bins 4j + 3 are conjugates of bins 4j + 1 on the other side of the circle. Padded samples
# have a = b = x, and only the first L samples are wanted back, (a + b) / 2. So no array has 2L
# entries, and the FFTs are two that can run at the same time, of lengths that fit a cache.

HalfSpectra = tuple[Array, ...]  # bins 0, 2, .., L and bins 1, 5, .., 2L - 3


def kernel_halves(k_HL: Array, reverse_HL: Array | None, gain_HF: Array | None) -> HalfSpectra:
    """The spectrum of a kernel, see fftconv.py, with its gain."""
    total = difference = k_HL
    if reverse_HL is not None:
        total, difference = k_HL + reverse_HL[:, ::-1], k_HL - reverse_HL[:, ::-1]
    even, odd = _half_spectra(total, difference)
    if gain_HF is None:
        return even, odd
    rising, falling = gain_HF[:, 1::4], gain_HF[:, 3::4]  # 2L - 3, 2L - 7, .. are 3, 7, ..
    return even * gain_HF[:, ::2], odd * jnp.concatenate([rising, falling[:, ::-1]], axis=-1)


def filter_halves(u_BLH: Array, even_HF: Array, odd_HF: Array) -> Array:
    """The inputs times the spectrum of the kernel, cut back to their length."""
    L = u_BLH.shape[1]
    u_BHL = channels_first(u_BLH, even_HF)
    U_even_BHF, U_odd_BHF = _half_spectra(u_BHL, u_BHL)
    Y_even_BHF, Y_odd_BHF = U_even_BHF * even_HF[None], U_odd_BHF * odd_HF[None]
    total_BHL = of_rows(jnp.fft.irfft, Y_even_BHF, L)
    folded = of_rows(jnp.fft.ifft, Y_odd_BHF) * _twist(total_BHL).conj()
    difference_BHL = jnp.concatenate([folded.real, -folded.imag], axis=-1)
    return time_second((total_BHL + difference_BHL) / 2, even_HF)


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


# Walls keep the transposition of time and channels, which is fast alone, separate from arithmetic,
# which would be computed in strides next to it. The guard is an entry of the kernel's spectrum.


def channels_first(u_BLH: Array, K_HF: Array) -> Array:
    return materialize(jnp.swapaxes(u_BLH, 1, 2), K_HF.real[0, 0])


def time_second(y_BHL: Array, K_HF: Array) -> Array:
    return jnp.swapaxes(materialize(y_BHL, K_HF.real[0, 0]), 1, 2)


def keep_freed_memory() -> bool:
    """Let this process keep the blocks that it frees, up to 1 GiB each, for its next allocations.

    XLA's CPU backend allocates the temporary memory of a step when the step begins and frees it at
    its end. glibc gives such large blocks back to the system, which clears them page by page when
    the next step touches them: 160,000 page faults, and a fifth of the processor time of the
    official ListOps step at batch 8. Call this before JAX starts its threads. The resident memory
    then stays at its peak.

    Returns:
      Whether the allocator is glibc's and took the settings; others are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = {  # by their numbers in glibc's malloc.h
        -8: 1,  # M_ARENA_MAX: the other arenas are cut in pieces of 64 MiB
        -3: 1 << 30,  # M_MMAP_THRESHOLD: larger blocks are given back as before
        -1: -1,  # M_TRIM_THRESHOLD: never
        -2: 64 << 20,  # M_TOP_PAD
    }
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
