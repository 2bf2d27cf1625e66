r"""Gram matrices of damped exponentials: how hard it is to train a read-out on fixed eigenvalues.

A system with B = 1 answers an impulse with the features e^{a_j t}. Fitting their linear read-out by
least squares over all t >= 0 has the Hessian

    G_jk = integral_0^inf conj(f_j(t)) f_k(t) dt,

and gradient descent needs steps in proportion to its condition number. Eigenvalues with one damping
a = -Re a_j and frequencies evenly spaced by d have, as N grows, the condition number e^{4 pi a / d}
for complex features (7.39 for S4D-Lin): alpha > 1 widens the spacing and brings it down. The set-up
is that of Autocorrelation Matters, arXiv:2411.19455; the formulas are our own.

What the features are:

    complex  e^{a t}, with complex coefficients: N
    cosine   e^{x t} cos(y t), with real ones: N
    pair     e^{x t} cos(y t), then e^{x t} sin(y t): 2N. The layers' read-out, since
             2 Re(c e^{at}) = 2 Re c e^{xt} cos(yt) - 2 Im c e^{xt} sin(yt).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

FEATURES = ("complex", "cosine", "pair")


def gram_matrix(
    A_N: ArrayLike, features: str = "complex", horizon: float | None = None
) -> np.ndarray:
    """Gram matrix of the features, in float64 or complex128.

    With P = integral e^{(conj a_j + a_k) t} and Q = integral e^{(a_j + a_k) t} it is P (complex),
    Re(P + Q) / 2 (cosine), and for pairs [[Re(P + Q), Im(P + Q)], [Im(Q - P), Re(P - Q)]] / 2.

    Args:
      A_N: complex eigenvalues x + iy in rad per unit of time, without the conjugates; the real
        parts may differ.
      features: "complex", "cosine" or "pair".
      horizon: end of the integral, in units of time, positive; None: infinity, for which all
        Re A < 0. With a horizon they may be 0 or positive.

    Raises:
      ValueError: for a value out of its set.
    """
    A_N = np.asarray(A_N, np.complex128)
    if features not in FEATURES:
        raise ValueError(f"unknown features {features!r}; choose one of {', '.join(FEATURES)}.")
    if A_N.ndim != 1:
        raise ValueError(f"gram_matrix: A is (N,), got {A_N.shape}.")
    if horizon is None and not (A_N.real < 0).all():
        raise ValueError(
            "gram_matrix: without a horizon all Re A must be negative, got up to "
            f"{A_N.real.max():g}; give a horizon."
        )
    if horizon is not None and not horizon > 0:
        raise ValueError(f"gram_matrix: the horizon must be positive, got {horizon}.")
    P_NN = _integral(A_N.conj()[:, None] + A_N[None, :], horizon)
    if features == "complex":
        return P_NN
    Q_NN = _integral(A_N[:, None] + A_N[None, :], horizon)
    cosines_NN = (P_NN + Q_NN).real / 2
    if features == "cosine":
        return cosines_NN
    mixed_NN = (P_NN + Q_NN).imag / 2
    return np.block([[cosines_NN, mixed_NN], [mixed_NN.T, (P_NN - Q_NN).real / 2]])


def _integral(rate: np.ndarray, horizon: float | None) -> np.ndarray:
    """The integral of e^{rate t} over [0, horizon]."""
    if horizon is None:
        return -1 / rate
    still = rate == 0
    return np.where(still, horizon, np.expm1(rate * horizon) / np.where(still, 1, rate))


def condition_number(gram_NN: np.ndarray) -> float:
    """Largest over smallest eigenvalue of a Hermitian, positive matrix.

    inf where float64 cannot tell the smallest from 0: from some 1e16 / N on.
    """
    eigenvalues = np.linalg.eigvalsh(gram_NN)
    smallest, largest = eigenvalues[0], eigenvalues[-1]
    noise = len(eigenvalues) * np.finfo(np.float64).eps * largest
    return float(largest / smallest) if smallest > noise else float("inf")
