"""Ways to compute the same kernel or the same scan: time, memory and error of each."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.forms import CONVOLUTIONS, DPLR, SCANS, SPECTRA, Function
from benchmarks.measure import PeakMemory, rounds, summary
from ssm_jax.init import initial_modes, log_uniform
from ssm_jax.init.hippo import legs_nplr
from ssm_jax.kernels.discretize import exponent

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
