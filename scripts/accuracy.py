"""Error of the S4D kernel and of every way to run a layer, against float64.

    python scripts/accuracy.py --out=results/accuracy.json

Kernel: the reference sums the N modes tap by tap, l = 0..L-1, from the same float32 A, C and dt
taken as exact numbers; 16 channels, 64 modes, LRA initialization; and the denoising model of
arXiv:2410.02035 (3 channels, dt = 1e-4, Im A spaced by 490.52 rad). max: largest error over the
largest tap. rms: root mean square of the error over that of the kernel. Layers: rms over the
outputs, against a loop over the steps (benchmarks/accuracy.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.config import cli
from ssm_jax.config.argv import Flag

ALPHAS = (0.1, 1.0, 3.0, 10.0)
LENGTHS = (64, 257, 2048, 16384)
H, N = 16, 64
DENOISING = (490.52 / np.pi, 262_144)
LAYER_LENGTHS = (1, 2, 257, 2048, 16384)


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
    from ssm_jax.init import s4d_lin

    rng = np.random.default_rng(0)
    dt_H = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), H)).astype(np.float32)
    A_HN = np.broadcast_to(s4d_lin(N, alpha), (H, N)).astype(np.complex64)
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
    import jax

    from ssm_jax.kernels import s4d_kernel

    k_HL = np.asarray(jax.jit(s4d_kernel, static_argnums=3)(*system, length), np.float64)
    A_HN, C_HN, dt_H = system
    exact_HL = reference(A_HN.astype(complex), C_HN.astype(complex), dt_H.astype(float), length)
    error_HL = k_HL - exact_HL
    return {
        "max": float(np.abs(error_HL).max() / np.abs(exact_HL).max()),
        "rms": float(np.sqrt(np.mean(error_HL**2) / np.mean(exact_HL**2))),
    }


def main(argv: list[str]) -> int:
    flags = (Flag("out", "file for the result", kind=Path, writes="file"),)
    values = cli.load_flags(argv, flags=flags, about=__doc__ or "")
    from benchmarks.accuracy import OPTIONS, WAYS, layer_errors
    from ssm_jax.files import write_json
    from ssm_jax.train.record import made_by

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
        kept = made_by(["scripts/accuracy.py", *argv])
        values["out"].parent.mkdir(parents=True, exist_ok=True)
        write_json(values["out"], {"kernel": rows, "layers": layers, **kept})
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
