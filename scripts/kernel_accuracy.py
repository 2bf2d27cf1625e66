"""Error of s4d_kernel against float64, over alpha and length.

    python scripts/kernel_accuracy.py --out=results/kernel_accuracy.json

The float64 reference sums the N modes tap by tap, l = 0..L-1, from the same float32 A, C and dt
taken as exact numbers. LRA initialization, 16 channels, 64 modes. max: largest error over the
largest tap. rms: root mean square of the error over that of the kernel.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax import cli
from ssm_jax.options import Flag

ALPHAS = (0.1, 1.0, 3.0, 10.0)
LENGTHS = (64, 257, 2048, 16384)
H, N = 16, 64


def reference(A_HN: np.ndarray, C_HN: np.ndarray, dt_H: np.ndarray, length: int) -> np.ndarray:
    """k_h[l] = 2 Re sum_n C_hn (e^{dt A} - 1)/A e^{dt A l}, in float64, one mode at a time."""
    z_HN = dt_H[:, None] * A_HN
    w_HN = C_HN * np.expm1(z_HN) / A_HN
    steps_L = np.arange(length)
    k_HL = np.zeros((A_HN.shape[0], length))
    for n in range(A_HN.shape[1]):
        k_HL += 2 * (w_HN[:, n, None] * np.exp(z_HN[:, n, None] * steps_L)).real
    return k_HL


def errors(alpha: float, length: int) -> dict[str, float]:
    """Relative errors of the compiled float32 kernel."""
    import jax

    from ssm_jax.init import s4d_lin
    from ssm_jax.kernels import s4d_kernel

    rng = np.random.default_rng(0)
    dt_H = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), H)).astype(np.float32)
    A_HN = np.broadcast_to(s4d_lin(N, alpha), (H, N)).astype(np.complex64)
    C_HN = (rng.normal(size=(H, N, 2)) @ [1, 1j] * 0.5**0.5).astype(np.complex64)
    k_HL = np.asarray(jax.jit(s4d_kernel, static_argnums=3)(A_HN, C_HN, dt_H, length), np.float64)
    exact_HL = reference(
        A_HN.astype(np.complex128), C_HN.astype(np.complex128), dt_H.astype(np.float64), length
    )
    error_HL = k_HL - exact_HL
    return {
        "max": float(np.abs(error_HL).max() / np.abs(exact_HL).max()),
        "rms": float(np.sqrt(np.mean(error_HL**2) / np.mean(exact_HL**2))),
    }


def main(argv: list[str]) -> int:
    flags = (Flag("out", "file for the result", kind=Path),)
    values = cli.load_flags(argv, flags=flags, about=__doc__ or "")
    from ssm_jax.train.record import run_record

    rows: list[dict[str, Any]] = []
    for alpha in ALPHAS:
        for length in LENGTHS:
            rows.append({"alpha": alpha, "length": length, **errors(alpha, length)})
            print("alpha {alpha:<4} L {length:<6} max {max:.1e}  rms {rms:.1e}".format(**rows[-1]))
    if values["out"] is not None:
        record = run_record({}, "", 0, {}, ["scripts/kernel_accuracy.py", *argv])
        kept = {key: record[key] for key in ("command", "git", "versions", "devices", "started")}
        values["out"].parent.mkdir(parents=True, exist_ok=True)
        values["out"].write_text(json.dumps({"rows": rows, **kept}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
