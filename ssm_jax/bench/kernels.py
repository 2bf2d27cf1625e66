"""Ways to compute the same kernel or the same scan: time, memory and error of each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.bench.measure import PeakMemory, rounds, summary
from ssm_jax.init import initial_modes, log_uniform
from ssm_jax.kernels import s4d_kernel
from ssm_jax.kernels.discretize import discretize_zoh, exponent
from ssm_jax.kernels.phase import cos_sin, multiply
from ssm_jax.kernels.scan import diagonal_scan

CHECKED = 4  # channels compared with float64

Function = Callable[..., Array]


def blocked_powers(A_HN: Array, C_CHN: Array, dt_H: Array, length: int) -> Array:
    """What the layers use, and the FFT that they take of it."""
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


def library_scan(z_N: Array, phase_N: Any, v_BLN: Array) -> Array:
    """`jax.lax.associative_scan` over pairs (A_bar, v), as S5's published code."""
    A_BLN = jnp.broadcast_to(jnp.exp(z_N)[None, None, :], v_BLN.shape)

    def join(one, other):
        return one[0] * other[0], other[0] * one[1] + other[1]

    return jax.lax.associative_scan(join, (A_BLN, v_BLN), axis=1)[1]


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


def _row(form: str, function: Function, arguments: tuple, n: int) -> tuple[dict[str, Any], Array]:
    """Time of value and gradient by all differentiable arguments, and the value."""

    @jax.jit
    def both(*arguments):
        value, transpose = jax.vjp(function, *arguments)
        return value, transpose(jnp.ones_like(value))

    compiled = both.lower(*arguments).compile()
    with PeakMemory() as memory:
        value = jax.block_until_ready(compiled(*arguments))[0]
    times = rounds({"call": lambda: compiled(*arguments)}, n)
    return {"form": form, "call_ms": summary(times["call"]), "peak_mib": memory.mib}, value


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
