"""Error of the S4D kernel and of every way to run a layer, against float64.

    python -m benchmarks.accuracy --out=results/accuracy.json

Kernel: the reference sums the N modes tap by tap, l = 0..L-1, from the same float32 A, C and dt
taken as exact numbers; 16 channels, 64 modes, LRA initialization; and the denoising model of
arXiv:2410.02035 (3 channels, dt = 1e-4, Im A spaced by 490.52 rad). max: largest error over the
largest tap. rms: root mean square of the error over that of the kernel. Layers: rms over the
outputs, against a loop over the steps. The loops are NumPy and share nothing with the kernels; they
take the layer's float32 eigenvalues, read-out and step sizes as exact numbers, and of oscillators
stiffness and damping.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag
from ssm_jax.config.ending import run_main
from ssm_jax.init import initial_modes
from ssm_jax.kernels import s4d_kernel
from ssm_jax.layers import LAYERS, LRU, S4, S4D, S5, DLinOSS, LinOSS

ALPHAS = (0.1, 1.0, 3.0, 10.0)
LENGTHS = (64, 257, 2048, 16384)
H, N = 16, 64
DENOISING = (490.52 / np.pi, 262_144)
LAYER_LENGTHS = (1, 2, 257, 2048, 16384)
CHANNELS, MODES = 8, 64
WAYS = ("conv", "scan", "prefill", "step")
OPTIONS: dict[str, dict[str, Any]] = {
    "s4d": {"alpha": 3.0},
    "s4d undamped": {"alpha": 3.0, "alpha_real": 0.0, "real_transform": "relu"},
    "s4": {},
    "s5": {"n_blocks": 4},
    "lru": {"r_min": 0.9, "r_max": 0.999},
    "linoss": {},
    "linoss imex": {"scheme": "imex"},
    "dlinoss": {},
}


def reference(A_HN: np.ndarray, C_HN: np.ndarray, dt_H: np.ndarray, length: int) -> np.ndarray:
    """k_h[l] = 2 Re sum_n C_hn (e^{dt A} - 1)/A e^{dt A l}, in float64, one mode at a time."""
    z_HN = dt_H[:, None] * A_HN
    w_HN = C_HN * np.expm1(z_HN) / A_HN
    steps_L = np.arange(length)
    k_HL = np.zeros((A_HN.shape[0], length))
    for n in range(A_HN.shape[1]):
        k_HL += 2 * (w_HN[:, n, None] * np.exp(z_HN[:, n, None] * steps_L)).real
    return k_HL


def systems(alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, C and dt of LRA's initialization, in float32."""
    rng = np.random.default_rng(0)
    dt_H = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), H)).astype(np.float32)
    A_HN = np.broadcast_to(initial_modes("s4d_lin", N, alpha=alpha).A_SN[0], (H, N)).astype(
        np.complex64
    )
    return A_HN, _normal(rng, H), dt_H


def denoising_systems(alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, C and dt of the denoising model (OC-22): Re A = -3, and -e^-5 where Im A = 0."""
    rng = np.random.default_rng(0)
    A_N = -3 + 1j * alpha * np.pi * np.arange(N)
    A_N[0] = -np.exp(-5)
    C_HN = _normal(rng, 3) * np.abs(A_N.imag).astype(np.float32) / 1000
    return np.tile(A_N, (3, 1)).astype(np.complex64), C_HN, np.full(3, 1e-4, np.float32)


def _normal(rng: np.random.Generator, channels: int) -> np.ndarray:
    return (rng.normal(size=(channels, N, 2)) @ [1, 1j] * 0.5**0.5).astype(np.complex64)


def errors(system: tuple[np.ndarray, np.ndarray, np.ndarray], length: int) -> dict[str, float]:
    """Relative errors of the compiled float32 kernel."""
    k_HL = np.asarray(jax.jit(s4d_kernel, static_argnums=3)(*system, length), np.float64)
    A_HN, C_HN, dt_H = system
    exact_HL = reference(A_HN.astype(complex), C_HN.astype(complex), dt_H.astype(float), length)
    error_HL = k_HL - exact_HL
    return {
        "max": float(np.abs(error_HL).max() / np.abs(exact_HL).max()),
        "rms": float(np.sqrt(np.mean(error_HL**2) / np.mean(exact_HL**2))),
    }


def _numbers(x: Any) -> np.ndarray:
    """Exactly, in double precision."""
    return np.asarray(x).astype(complex if np.iscomplexobj(x) else float)


def _s4d_loop(layer: S4D, u_LH: np.ndarray) -> np.ndarray:
    A_HN, C_HN = _numbers(layer.eigenvalues()), _numbers(layer.readout())[0]
    z_HN = _numbers(layer.step_sizes())[:, None] * A_HN
    safe = np.where(A_HN == 0, 1, A_HN)
    gain_HN = np.where(A_HN == 0, _numbers(layer.step_sizes())[:, None], np.expm1(z_HN) / safe)
    A_bar_HN, x_HN = np.exp(z_HN), np.zeros_like(A_HN)
    y_LH = np.empty_like(u_LH)
    for step, u_H in enumerate(u_LH):
        x_HN = A_bar_HN * x_HN + gain_HN * u_H[:, None]
        y_LH[step] = 2 * np.sum(C_HN * x_HN, axis=-1).real
    return y_LH


def _s4_loop(layer: S4, u_LH: np.ndarray) -> np.ndarray:
    """By dense matrices over the modes and their conjugates."""
    (Lambda_HN, P_HN), B_HN = map(_numbers, layer.state_matrix()), _numbers(layer.input_vector())
    A_HM, P_HM, B_HM, C_HM = (
        np.concatenate([x, x.conj()], axis=-1)
        for x in (Lambda_HN, P_HN, B_HN, _numbers(layer.readout())[0])
    )
    half_H = _numbers(layer.step_sizes())[:, None, None] / 2
    one = np.eye(A_HM.shape[1])[None]
    matrix = one * A_HM[:, None, :] - P_HM[:, :, None] * P_HM[:, None, :].conj()
    inverse = np.linalg.inv(one - half_H * matrix)
    A_bar = inverse @ (one + half_H * matrix)
    B_bar_HM = 2 * half_H[:, 0] * np.einsum("hij,hj->hi", inverse, B_HM)
    x_HM, y_LH = np.zeros_like(B_HM), np.empty_like(u_LH)
    for step, u_H in enumerate(u_LH):
        x_HM = np.einsum("hij,hj->hi", A_bar, x_HM) + B_bar_HM * u_H[:, None]
        y_LH[step] = np.sum(C_HM * x_HM, axis=-1).real
    return y_LH


def _s5_loop(layer: S5, u_LH: np.ndarray) -> np.ndarray:
    A_N, B_NH = _numbers(layer.eigenvalues()), _numbers(layer.input_matrix())
    C_HN = _numbers(layer.readout())[0]
    z_N = _numbers(layer.step_sizes()) * A_N
    v_LN = u_LH @ (B_NH * (np.expm1(z_N) / A_N)[:, None]).T
    A_bar_N, x_N, y_LH = np.exp(z_N), np.zeros_like(A_N), np.empty_like(u_LH)
    for step, v_N in enumerate(v_LN):
        x_N = A_bar_N * x_N + v_N
        y_LH[step] = (C_HN @ x_N).real
    return y_LH


def _lru_loop(layer: LRU, u_LH: np.ndarray) -> np.ndarray:
    Lambda_N, C_HN = np.exp(_numbers(layer.eigenvalues())), _numbers(layer.readout())[0]
    v_LN = u_LH @ _numbers(layer.input_matrix()).T
    x_N, y_LH = np.zeros_like(Lambda_N), np.empty_like(u_LH)
    for step, v_N in enumerate(v_LN):
        x_N = Lambda_N * x_N + v_N
        y_LH[step] = (C_HN @ x_N).real
    return y_LH


def _oscillator_loop(layer: LinOSS | DLinOSS, u_LH: np.ndarray) -> np.ndarray:
    """By positions and speeds; an implicit stiffness counts at the end of a step."""
    a_P, G_P, h_P = map(_numbers, layer.oscillators())
    B_PH, C_HP = (_numbers(x[...]) @ [1, 1j] for x in (layer.B_ri, layer.C_ri[0]))
    slowed_P = 1 + h_P * G_P + (h_P**2 * a_P if layer.scheme == "im" else 0)
    v_LP, x_P = u_LH @ B_PH.T, np.zeros(a_P.shape, complex)
    speed_P, y_LH = np.zeros_like(x_P), np.empty_like(u_LH)
    for step, v_P in enumerate(v_LP):
        speed_P = (speed_P + h_P * (v_P - a_P * x_P)) / slowed_P
        x_P = x_P + h_P * speed_P
        y_LH[step] = (C_HP @ x_P).real
    return y_LH


_LOOPS: dict[str, Callable[..., np.ndarray]] = {
    "s4d": _s4d_loop,
    "s4": _s4_loop,
    "s5": _s5_loop,
    "lru": _lru_loop,
    "linoss": _oscillator_loop,
    "dlinoss": _oscillator_loop,
}


def layer_errors(kind: str, length: int) -> dict[str, Any]:
    """Relative rms error of a causal layer without filter and skip, in each way to run it, float32.

    Args:
      kind: a key of OPTIONS.
      length: L, at least 1; one sequence of normal numbers.
    """
    name = kind.split()[0]
    layer = LAYERS[name](
        CHANNELS,
        d_state=MODES,
        bidirectional=False,
        beta=None,
        **OPTIONS[kind],
        rngs=nnx.Rngs(params=0),
    )
    layer.D[...] = jnp.zeros_like(layer.D[...])  # exact, it would only make the output larger
    u_BLH = jax.random.normal(jax.random.key(1), (1, length, CHANNELS), jnp.float32)
    graphdef, variables = nnx.split(layer)

    @jax.jit
    def ways(variables, u_BLH):
        layer = nnx.merge(graphdef, variables)
        _, stepped_LBH = jax.lax.scan(layer.step, layer.initial_state(1), jnp.swapaxes(u_BLH, 0, 1))
        whole = (layer(u_BLH, mode="conv"), layer(u_BLH, mode="scan"), layer.prefill(u_BLH)[1])
        return dict(zip(WAYS, (*whole, jnp.swapaxes(stepped_LBH, 0, 1)), strict=True))

    u_LH = _numbers(u_BLH[0])
    exact_LH = _LOOPS[name](layer, u_LH)
    size = np.sqrt(np.mean(exact_LH**2))
    errors = {
        way: float(np.sqrt(np.mean((_numbers(y_BLH[0]) - exact_LH) ** 2)) / size)
        for way, y_BLH in ways(variables, u_BLH).items()
    }
    return {"layer": kind, "length": length, **errors}


def main(argv: list[str]) -> int:
    flags = (Flag("out", "file for the result", kind=Path, writes="file"),)
    values = cli.load_flags(argv, flags=flags, about=__doc__ or "")
    from ssm_jax.training.record import write_result

    cases = [("lra", alpha, length) for alpha in ALPHAS for length in LENGTHS]
    rows: list[dict[str, Any]] = []
    for name, alpha, length in [*cases, ("denoising", *DENOISING)]:
        system = systems(alpha) if name == "lra" else denoising_systems(alpha)
        shape = {"system": name, "alpha": alpha, "length": length}
        rows.append({**shape, **errors(system, length)})
        print(
            "{system} alpha {alpha:.4g} L {length} max {max:.1e} rms {rms:.1e}".format(**rows[-1])
        )
    layers = []
    for kind in OPTIONS:
        for length in LAYER_LENGTHS:
            layers.append(layer_errors(kind, length))
            print("  ".join(f"{k} {v:.1e}" if k in WAYS else f"{v}" for k, v in layers[-1].items()))
    if values["out"] is not None:
        found = {"kernel": rows, "layers": layers}
        write_result(values["out"], found, ["python", "-m", "benchmarks.accuracy", *argv])
    return 0


if __name__ == "__main__":
    run_main(main)
