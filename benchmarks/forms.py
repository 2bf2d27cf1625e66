"""Ways to the same kernel and to the same scan, among them those of the published programs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.kernels import fft_conv, s4d_kernel
from ssm_jax.kernels.discretize import discretize_zoh, exponent
from ssm_jax.kernels.dplr import dplr_kernel
from ssm_jax.kernels.phase import cos_sin, multiply
from ssm_jax.kernels.scan import diagonal_scan

Function = Callable[..., Array]


def blocked_powers(A_HN: Array, C_CHN: Array, dt_H: Array, length: int) -> Array:
    """The form that the layers use, and the FFT that they take of it."""
    return jnp.fft.rfft(s4d_kernel(A_HN, C_CHN, dt_H, length), 2 * length)


def one_power_per_tap(A_HN: Array, C_CHN: Array, dt_H: Array, length: int) -> Array:
    """The kernel as it is written down: (H, N, L) complex exponentials."""
    w_CHN = C_CHN * discretize_zoh(A_HN, dt_H[:, None])[1][None]
    z_HN1 = (dt_H[:, None] * A_HN)[:, :, None]
    powers_HNL = jnp.exp(z_HN1 * jnp.arange(length)[None, None, :])
    k_CHL = 2 * jnp.einsum("chn,hnl->chl", w_CHN, powers_HNL).real
    return jnp.fft.rfft(k_CHL, 2 * length)


def closed_spectrum(A_HN: Array, C_CHN: Array, dt_H: Array, length: int) -> Array:
    """w (1 - (-1)^k A_bar^L) / (1 - A_bar e^{-i pi k / L}) at every bin k, 8 channels at a time.

    `discrete_transfer_function` is the form that keeps its accuracy at a resonance, and far slower.
    """
    k_F = np.arange(length + 1)
    tone_F1 = jnp.asarray(np.exp(-1j * np.pi * k_F / length), jnp.complex64)[:, None]
    sign_F1 = jnp.asarray((-1.0) ** k_F, jnp.float32)[:, None]
    z_HN, phase_HN = exponent(A_HN, dt_H[:, None], "zoh")
    cos_HN, sin_HN = cos_sin(multiply(phase_HN, jnp.int32(length)))
    last_HN = jnp.exp(z_HN.real * length) * jax.lax.complex(cos_HN, sin_HN)
    w_CHN = C_CHN * discretize_zoh(A_HN, dt_H[:, None])[1][None]

    @jax.checkpoint
    def channel(modes):
        w_CN, A_bar_N, last_N = modes
        sums = [
            jnp.einsum("cn,fn->cf", w, (1 - sign_F1 * last[None]) / (1 - A_bar[None] * tone_F1))
            for w, A_bar, last in (
                (w_CN, A_bar_N, last_N),
                (w_CN.conj(), A_bar_N.conj(), last_N.conj()),
            )
        ]
        return sums[0] + sums[1]

    modes = (jnp.moveaxis(w_CHN, 1, 0), jnp.exp(z_HN), last_HN)
    return jnp.moveaxis(jax.lax.map(channel, modes, batch_size=8), 0, 1)


def library_scan(z_N: Array, phase_N: Any, v_BLN: Array) -> Array:
    """`jax.lax.associative_scan` over pairs (A_bar, v), as S5's published code."""
    A_BLN = jnp.broadcast_to(jnp.exp(z_N)[None, None, :], v_BLN.shape)

    def join(one, other):
        return one[0] * other[0], other[0] * one[1] + other[1]

    return jax.lax.associative_scan(join, (A_BLN, v_BLN), axis=1)[1]


def two_sided(
    u_BLH: Array, k_HL: Array, reverse_HL: Array, gain_HF: Array, skip_H: Array, *, method: str
) -> Array:
    """The convolution of a layer, from its kernels on."""
    options = {"reverse_kernel_HL": reverse_HL, "gain_HF": gain_HF, "skip_H": skip_H}
    return fft_conv(u_BLH, k_HL, **options, method=method)


def time_blocks(
    A_HN: Array, P_HN: Array, B_HN: Array, C_HN: Array, tied_H2N: Array, dt_H: Array, length: int
) -> Array:
    """The form that the S4 layer uses. It needs no C that is tied to the length."""
    del tied_H2N
    return dplr_kernel(A_HN, P_HN, B_HN, C_HN, dt_H, length)


def cauchy_sums(
    A_HN: Array, P_HN: Array, B_HN: Array, C_HN: Array, tied_H2N: Array, dt_H: Array, length: int
) -> Array:
    """S4's own formula: Cauchy sums at the roots of unity and the Woodbury identity.

    With z = e^{-2 pi i k / L} and the resolvent R = 2 / ((2/dt)(1 - z) - Lambda (1 + z)),

        k_hat = sum c B R - (1 + z)/2 (sum c P R) (sum P^* B R) / (1 + (1 + z)/2 sum P^* P R),

    over the modes and their conjugates, which has a value at z = -1 too. c is not C but
    C (I - A_bar^L): the official parameter, tied to L. 8 channels at a time, computed again in the
    backward pass, or (H, N, L) numbers would be kept.

    Source: S4, arXiv:2111.00396, algorithm 1.
    """
    k_F = np.arange(length // 2 + 1)
    z_F1 = jnp.asarray(np.exp(-2j * np.pi * k_F / length), jnp.complex64)[:, None]
    half_F = (1 + z_F1[:, 0]) / 2

    @jax.checkpoint
    def channel(system):
        (A_M, P_M, B_M, c_M), dt = system
        R_FM = 2 / (2 / dt * (1 - z_F1) - A_M[None] * (1 + z_F1))

        def cauchy(v_M):
            return jnp.matmul(R_FM, v_M, precision=jax.lax.Precision.HIGHEST)

        feedback_F = cauchy(P_M.conj() * B_M) / (1 + half_F * cauchy(P_M.conj() * P_M))
        return cauchy(c_M * B_M) - half_F * cauchy(c_M * P_M) * feedback_F

    whole = [jnp.concatenate([x, x.conj()], axis=-1) for x in (A_HN, P_HN, B_HN)]
    spectrum_HF = jax.lax.map(channel, ((*whole, tied_H2N), dt_H), batch_size=8)
    return jnp.fft.irfft(spectrum_HF, length)


SPECTRA: dict[str, Function] = {
    "blocked powers": blocked_powers,
    "one power per tap": one_power_per_tap,
    "closed form of the spectrum": closed_spectrum,
}
SCANS: dict[str, Function] = {
    "chunked": functools.partial(diagonal_scan, method="chunked"),
    "associative": functools.partial(diagonal_scan, method="associative"),
    "jax.lax.associative_scan": library_scan,
}
CONVOLUTIONS: dict[str, Function] = {
    "spectrum whole": functools.partial(two_sided, method="whole"),
    "even and odd bins apart": functools.partial(two_sided, method="halves"),
}
DPLR: dict[str, Function] = {
    "blocks in time": time_blocks,
    "Cauchy sums at roots of unity": cauchy_sums,
}
