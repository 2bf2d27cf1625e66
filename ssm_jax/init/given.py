"""Eigenvalues that are given as numbers, in the form of a named initialization."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ssm_jax.init.diagonal import Modes


def given_modes(A: ArrayLike, d_state: int, *, n_sets: int = 1, discrete: bool = False) -> Modes:
    """Modes with the eigenvalues A and B = 1.

    Args:
      A: complex, (N,) for all sets or (S, N), in rad per unit of time; if `discrete`, log A_bar.
      d_state: N.
      n_sets: S.
      discrete: see Modes.

    Raises:
      ValueError: for another shape.
    """
    A = np.asarray(A, np.complex128)
    if A.shape not in ((d_state,), (n_sets, d_state)):
        raise ValueError(
            f"given eigenvalues must have the shape (d_state,) = {(d_state,)} or "
            f"(n_sets, d_state) = {(n_sets, d_state)}, got {A.shape}."
        )
    A_SN = np.array(np.broadcast_to(A, (n_sets, d_state)))
    return Modes(A_SN, np.ones_like(A_SN), discrete)
