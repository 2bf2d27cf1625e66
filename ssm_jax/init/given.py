"""Where a layer's modes start: a named initialization, or eigenvalues given as numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ssm_jax.init.diagonal import Modes, initial_modes


def given_modes(A: ArrayLike, d_state: int, *, n_sets: int = 1, discrete: bool = False) -> Modes:
    """Modes with the eigenvalues A and B = 1.

    Args:
      A: complex, (N,) for all sets or (S, N), in rad per unit of time; if `discrete`, log A_bar.
      d_state: N.
      n_sets: S.
      discrete: see Modes.

    Raises:
      ValueError: for another shape, or what is no finite number.
    """
    try:
        A = np.asarray(A, np.complex128)
    except (TypeError, ValueError):
        raise ValueError(
            f"given eigenvalues must be numbers of the shape {(d_state,)}, got {A!r}."
        ) from None
    if A.shape not in ((d_state,), (n_sets, d_state)):
        raise ValueError(
            f"given eigenvalues must have the shape (d_state,) = {(d_state,)} or "
            f"(n_sets, d_state) = {(n_sets, d_state)}, got {A.shape}."
        )
    if not np.isfinite(A).all():
        raise ValueError(f"given eigenvalues must be finite, got {A[~np.isfinite(A)][0]}.")
    A_SN = np.array(np.broadcast_to(A, (n_sets, d_state)))
    return Modes(A_SN, np.ones_like(A_SN), discrete)


def starting_modes(
    layer: str,
    init: str | ArrayLike,
    d_state: int,
    *,
    n_sets: int,
    seed: int,
    alpha: float,
    alpha_real: float,
    discretization: str,
) -> Modes:
    """The modes that a layer starts with, in the form that its discretization takes.

    Args:
      layer: its name, for messages.
      init: a key of `diagonal.INITS`, or eigenvalues as in `given_modes`.
      d_state, n_sets: N and S.
      seed, alpha, alpha_real: of a named init, see `initial_modes`.
      discretization: "none" takes modes per sample, all others modes per unit of time.

    Raises:
      ValueError: for scales of given eigenvalues, or an init that the discretization cannot take.
    """
    if isinstance(init, str):
        scales = {"alpha": alpha, "alpha_real": alpha_real}
        modes = initial_modes(init, d_state, n_sets=n_sets, seed=seed, **scales)
    elif alpha == alpha_real == 1:
        modes = given_modes(init, d_state, n_sets=n_sets, discrete=discretization == "none")
    else:
        raise ValueError(
            f"{layer}: alpha={alpha} and alpha_real={alpha_real} scale named inits only; "
            "scale the given eigenvalues instead."
        )
    if modes.discrete != (discretization == "none"):
        given, use = ("sample", "") if modes.discrete else ("unit of time", " one other than")
        raise ValueError(
            f"{layer}: init {init!r} gives eigenvalues per {given}, which "
            f"discretization={discretization!r} cannot take; use{use} 'none'."
        )
    return modes
