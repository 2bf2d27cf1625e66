"""Eigenvalues of a diagonal state matrix at initialization. alpha scales their imaginary parts."""

from __future__ import annotations

import numpy as np

# Mode 0 of the official code is not real: its frequency starts at 1e-4 and may leave zero in
# training (OC-3).
LOWEST_FREQUENCY = 1e-4


def s4d_lin(d_state: int, alpha: float = 1.0) -> np.ndarray:
    """S4D-Lin: a_n = -1/2 + i alpha pi n, n = 0..N-1, with Im a_0 = 1e-4.

    Source: S4D, arXiv:2206.11893 (alpha = 1); Tuning Frequency Bias of State Space
      Models, arXiv:2410.02035
    (alpha; there the conjugates -i alpha pi n are stored, which gives the same kernels, OC-2).

    Args:
      d_state: N, modes kept; their conjugates are implied.
      alpha: factor on the imaginary parts, positive.

    Returns:
      Complex128 eigenvalues (N,) in rad per unit of time.

    Raises:
      ValueError: if d_state < 1 or alpha <= 0.
    """
    if d_state < 1:
        raise ValueError(f"s4d_lin: d_state must be at least 1, got {d_state}.")
    if not alpha > 0:
        raise ValueError(f"s4d_lin: alpha must be positive, got {alpha}.")
    frequency_N = alpha * np.pi * np.arange(d_state)
    return -0.5 + 1j * np.maximum(frequency_N, LOWEST_FREQUENCY)
