"""Balanced truncation of the systems of a layer, as modes again, in float64.

Of the states in balanced coordinates the r with the largest Hankel singular values are kept
(Moore, IEEE Trans. Autom. Control 26, 1981): a stable system, whose transfer function differs
nowhere by more than twice the sum of the values left out. Its small dense matrix has r poles. A
stored mode holds a pair of complex ones or one real pole: r is the largest number whose poles fit.
"""

from typing import NamedTuple

import numpy as np

from ssm_jax.analysis.hankel import Factored

RESOLVED = 1e-7  # of the largest value; smaller ones may be rounding, and are below float32's


class Reduced(NamedTuple):
    """y = Re C x of modes e^{log_pole}: what is kept of a system."""

    log_pole_N: np.ndarray  # complex, imaginary parts in 0..pi
    B_NI: np.ndarray
    C_ON: np.ndarray
    order: int  # real states
    bound: float  # on the change of the transfer function's norm at any frequency
    lost: float  # share of the sum of the Hankel singular values


def reduced(system: Factored, modes: int) -> Reduced:
    """The best of a system that this many stored modes hold; fewer, where it has no more states.

    ValueError: rounding has left no stable one.
    """
    M, shifted, inputs, outputs = (x[0] for x in system)
    U, values, V_T = np.linalg.svd(M, full_matrices=False)
    rank = int((values > RESOLVED * values[0]).sum())
    for order in range(min(2 * modes, rank), 0, -1):
        root = values[:order] ** -0.5
        left, right = U[:, :order].T * root[:, None], V_T[:order].T * root
        pole, W = np.linalg.eig(left @ shifted @ right)
        upper = pole.imag >= 0
        if upper.sum() > modes or not abs(pole).max() < 1:
            continue
        B, C = np.linalg.solve(W, left @ inputs), outputs @ right @ W
        # A real pole of 0 has no logarithm; e^-40 is 0 to float64's rounding of 1.
        pole = np.where(abs(pole) < np.exp(-40), np.exp(-40), pole)[upper]
        both = np.where(pole.imag > 0, 2, 1)  # the mode and its conjugate
        left_out, total = values[order:].sum(), values.sum()
        z_N = np.log(pole.astype(complex))
        kept = B[upper].astype(complex), (C[:, upper] * both).astype(complex)
        return Reduced(z_N, *kept, order, 2 * left_out, left_out / total)
    if rank:
        raise ValueError(
            "its poles are so near to the unit circle that rounding leaves no stable system of "
            f"{modes} modes"
        )
    none = np.zeros(0, complex)
    return Reduced(none, none[:, None][:, :0], none[None], 0, 0.0, 0.0)
