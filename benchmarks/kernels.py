"""Ways to the same kernel and the same scan, as published programs go: time, memory and error."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.measure import PeakMemory, rounds, summary
from ssm_jax.init import initial_modes, log_uniform
from ssm_jax.init.hippo import legs_nplr
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


CHECKED = 4  # channels compared with float64


def exact_spectrum(A_HN: Array, C_CHN: Array, dt_H: Array, length: int) -> np.ndarray:
    """In float64, power by power."""
    A, C = np.asarray(A_HN, complex), np.asarray(C_CHN, complex)
    z = np.asarray(dt_H, float)[:, None] * A
    w = C * np.expm1(z) / A
    k = np.stack(
        [
            2 * np.einsum("cn,nl->cl", w[:, h], np.exp(z[h][:, None] * np.arange(length))).real
            for h in range(len(z))
        ],
        axis=1,
    )
    return np.fft.rfft(k, 2 * length)


def _row(form: str, function: Function, arguments: tuple, n: int) -> tuple[dict[str, Any], Array]:
    """Time of value and gradient by all differentiable arguments, and the value."""

    @jax.jit
    def both(*arguments):
        value, transpose = jax.vjp(function, *arguments)
        return value, transpose(jnp.ones_like(value))

    compiled = both.lower(*arguments).compile()
    with PeakMemory(compiled) as memory:
        value = jax.block_until_ready(compiled(*arguments))[0]
    times = rounds({"call": lambda: compiled(*arguments)}, n)
    peak = {"peak_mib": memory.mib, "peak_by": memory.by}
    return {"form": form, "call_ms": summary(times["call"]), **peak}, value


def _rms(found: np.ndarray, exact: np.ndarray) -> float:
    error = np.sqrt(np.mean(np.abs(found - exact) ** 2) / np.mean(np.abs(exact) ** 2))
    return float(f"{error:.2g}")


def _modes(channels: int, modes: int, alpha: float) -> tuple[Array, Array, Array]:
    A_SN = initial_modes("s4d_lin", modes, n_sets=1, alpha=alpha).A_SN
    A_HN = jnp.asarray(np.repeat(A_SN, channels, axis=0), jnp.complex64)
    parts = jax.random.normal(jax.random.key(0), (2, 2, channels, modes), jnp.float32)
    dt_H = log_uniform(jax.random.key(1), (channels,), 1e-3, 1e-1)
    return A_HN, jax.lax.complex(parts[0], parts[1]), dt_H


def measure_spectrum(
    form: str, length: int, channels: int, modes: int, alpha: float, n: int
) -> dict[str, Any]:
    """The spectra of two kernels per channel, forward and backward."""
    A_HN, C_CHN, dt_H = _modes(channels, modes, alpha)
    function = functools.partial(SPECTRA[form], length=length)
    row, K_CHF = _row(form, function, (A_HN, C_CHN, dt_H), n)
    some = slice(CHECKED)
    exact = exact_spectrum(A_HN[some], C_CHN[:, some], dt_H[some], length)
    shape = {"length": length, "channels": channels, "modes": modes, "alpha": alpha}
    return {"kernel": "s4d", **shape, **row, "rms_error": _rms(np.asarray(K_CHF)[:, some], exact)}


def measure_scan(
    form: str, length: int, batch: int, modes: int, alpha: float, n: int
) -> dict[str, Any]:
    """All states of `modes` modes, forward and backward; the steps are log-uniform per mode."""
    A_N = jnp.asarray(initial_modes("s4d_lin", modes, n_sets=1, alpha=alpha).A_SN[0], jnp.complex64)
    dt_N = log_uniform(jax.random.key(1), (modes,), 1e-3, 1e-1)
    z_N, phase_N = exponent(A_N, dt_N, "zoh")
    parts = jax.random.normal(jax.random.key(0), (2, batch, length, modes), jnp.float32)
    v_BLN = jax.lax.complex(parts[0], parts[1])
    scan = lambda z_N, v_BLN: SCANS[form](z_N, phase_N, v_BLN)  # noqa: E731
    row, x_BLN = _row(form, scan, (z_N, v_BLN), n)
    A_bar = np.exp(np.asarray(dt_N, float) * np.asarray(A_N, complex))
    x, exact = np.zeros(modes, complex), np.empty((length, modes), complex)
    for step, v in enumerate(np.asarray(v_BLN[0], complex)):
        x = A_bar * x + v
        exact[step] = x
    shape = {"length": length, "batch": batch, "modes": modes, "alpha": alpha}
    return {"kernel": "scan", **shape, **row, "rms_error": _rms(np.asarray(x_BLN[0]), exact)}


def measure_convolution(
    form: str, length: int, batch: int, channels: int, n: int
) -> dict[str, Any]:
    """A two-sided convolution with a gain and a skip, forward and backward; L is even."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(batch, length, channels))
    k, reverse = rng.normal(size=(2, channels, length)) * np.exp(-np.arange(length) / 100)
    gain = np.exp(rng.normal(size=(channels, length + 1)) / 2)
    skip = rng.normal(size=channels)
    arguments = tuple(jnp.asarray(x, jnp.float32) for x in (u, k, reverse, gain, skip))
    row, y_BLH = _row(form, CONVOLUTIONS[form], arguments, n)
    u, k, reverse, gain, skip = (np.asarray(x, float) for x in arguments)
    spectrum = np.fft.rfft(np.concatenate([k, reverse[:, ::-1]], axis=-1)) * gain + skip[:, None]
    U_HF = np.fft.rfft(u[0].T, 2 * length)
    exact = np.fft.irfft(U_HF * spectrum)[:, :length].T
    shape = {"length": length, "batch": batch, "channels": channels}
    error = _rms(np.asarray(y_BLH[0]), exact)
    return {"kernel": "convolution", **shape, **row, "rms_error": error}


def exact_dplr(A_N, P_N, B_N, C_N, dt: float, length: int) -> tuple[np.ndarray, np.ndarray]:
    """C (I - A_bar^L) of one channel, and its kernel, in float64 by the dense matrices."""
    A, P, B, C = (np.concatenate([x, x.conj()]) for x in (A_N, P_N, B_N, C_N))
    matrix, one = np.diag(A) - np.outer(P, P.conj()), np.eye(len(A))
    inverse = np.linalg.inv(one - dt / 2 * matrix)
    A_bar, x = inverse @ (one + dt / 2 * matrix), dt * inverse @ B
    kernel = np.empty(length)
    for step in range(length):
        kernel[step] = (C @ x).real
        x = A_bar @ x
    return C @ (one - np.linalg.matrix_power(A_bar, length)), kernel


def measure_dplr(
    form: str, length: int, channels: int, modes: int, alpha: float, n: int
) -> dict[str, Any]:
    """One kernel per channel of HiPPO-LegS, forward and backward."""
    Lambda_N, P_N, B_N, *_ = legs_nplr(2 * modes)
    Lambda_N = Lambda_N.real + 1j * alpha * Lambda_N.imag
    A_HN, P_HN, B_HN = (
        jnp.asarray(np.tile(x, (channels, 1)), jnp.complex64) for x in (Lambda_N, P_N, B_N)
    )
    parts = jax.random.normal(jax.random.key(0), (2, channels, modes), jnp.float32)
    C_HN, dt_H = jax.lax.complex(*parts), log_uniform(jax.random.key(1), (channels,), 1e-3, 1e-1)
    A, P, B, C = (np.asarray(x, complex) for x in (A_HN, P_HN, B_HN, C_HN))
    checked = [
        exact_dplr(A[h], P[h], B[h], C[h], float(dt_H[h]), length)
        for h in range(min(CHECKED, channels))
    ]
    tied_H2N = np.resize(np.stack([tied for tied, _ in checked]), (channels, 2 * modes))
    arguments = (A_HN, P_HN, B_HN, C_HN, jnp.asarray(tied_H2N, jnp.complex64), dt_H)
    row, k_HL = _row(form, functools.partial(DPLR[form], length=length), arguments, n)
    exact = np.stack([kernel for _, kernel in checked])
    shape = {"length": length, "channels": channels, "modes": modes, "alpha": alpha}
    error = _rms(np.asarray(k_HL)[: len(exact)], exact)
    return {"kernel": "s4", **shape, **row, "rms_error": error}
