"""Perturb, then diagonalize: HiPPO-LegS plus a small matrix whose eigenvectors are usable.

The eigenvectors of HiPPO-LegS itself have a condition number above 4^order, beyond all digits of
float64 at order 26. S4D and S5 give up the part of rank one, which is about as large as what is
left. Here A + E = W diag(Lambda) W^-1 for a real E, such that

    cond(W) + gamma ||E|| / ||A||        (spectral norms)

is small. Source: arXiv:2310.01698; there ||E|| is not divided by ||A||, here one gamma suits all
orders.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import numpy as np

from ssm_jax import ranges
from ssm_jax.init.hippo import Eigenbasis, check_order, legs
from ssm_jax.init.ptd_search import solve
from ssm_jax.user_cache import user_cache

GAMMA = 300.0

# Part of the name of a file on disk: to be raised when the solution changes
_VERSION = 1
# What a stored solution may miss its equation by, relative to ||A||
_TOLERANCE = 1e-9


def legs_ptd(order: int, gamma: float = GAMMA) -> Eigenbasis:
    """Eigenvalues and eigenvectors of HiPPO-LegS plus a small perturbation, and B in their basis.

    Solved once, in about 3 s at order 64 and 8 s at 128 on one core, and kept in memory and in
    the user's cache directory ($XDG_CACHE_HOME or ~/.cache), where that can be written. The
    objective has many minima of almost one value, so that two machines may find two solutions
    that differ in more than rounding.

    The responses (i w - A)^-1 B of the perturbed system differ from those of HiPPO-LegS by up to
    0.5 to 0.9 of the largest, at orders 16 to 128. Those of `legs_normal` have peaks that differ by
    1.3 times the order: it is these that PTD takes away.

    The eigenvalues are in ascending order of Im Lambda. The columns of V are scaled such that the
    singular values of W have the geometric mean 1, and turned such that their first components are
    real and positive, as in `legs_normal`.

    Args:
      order: real order 2N, even.
      gamma: weight of the perturbation. At 300, cond(W) is 9 and ||E|| / ||A|| is 0.024; at 30, 3.4
        and 0.086; at 3000, 25 and 0.007 (orders 16 to 128). `legs_normal` has 1 and 0.8.

    Raises:
      ValueError: if order is odd or less than 2, or gamma is not positive.
    """
    check_order("legs_ptd", order)
    if not ranges.POSITIVE.holds(gamma):
        raise ValueError(f"legs_ptd: gamma must be positive and finite, got {gamma}.")
    return _solved_once(order, float(gamma))


@functools.cache
def _solved_once(order: int, gamma: float) -> Eigenbasis:
    file = _cache_file(order, gamma)
    found = None if file is None else _read(file, order, gamma)
    if found is None:
        found = solve(order, gamma)
        if file is not None:
            _write(file, gamma, *found)
    Lambda_N, V = found
    V_inv = _inverse(V)
    basis = Eigenbasis(Lambda_N, V_inv @ legs(order)[1], V, V_inv)
    for array in basis:
        array.flags.writeable = False  # all callers get the same arrays
    return basis


def _inverse(V: np.ndarray) -> np.ndarray:
    """The first N rows of [V, conj V]^-1."""
    return np.linalg.inv(np.hstack([V, V.conj()]))[: V.shape[1]]


def _matrix(Lambda_N: np.ndarray, V: np.ndarray) -> np.ndarray:
    """A + E = W diag(Lambda) W^-1, real."""
    return 2 * ((V * Lambda_N) @ _inverse(V)).real


# The file: float64 numbers, little-endian: gamma, Re and Im of Lambda_N, Re and Im of V, and E.


def _cache_file(order: int, gamma: float) -> Path | None:
    folder = user_cache()
    return None if folder is None else folder / f"ptd_{order}_{gamma!r}_v{_VERSION}.f64"


def _read(file: Path, order: int, gamma: float) -> tuple[np.ndarray, np.ndarray] | None:
    """(Lambda_N, V) of a stored solution; None where there is none, or one that is damaged."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    N = order // 2
    ends = np.cumsum([1, N, N, order * N, order * N, order * order])
    if len(content) != 8 * ends[-1]:
        return None
    numbers = np.frombuffer(content, "<f8").astype(np.float64)
    head, re, im, V_re, V_im, E = np.split(numbers, ends[:-1])
    Lambda_N, V = re + 1j * im, (V_re + 1j * V_im).reshape(order, N)
    A, _ = legs(order)
    if head[0] != gamma or not (np.isfinite(numbers).all() and (re < 0).all() and (im > 0).all()):
        return None
    try:
        missed = np.abs(A + E.reshape(order, order) - _matrix(Lambda_N, V)).max()
    except np.linalg.LinAlgError:
        return None
    return (Lambda_N, V) if missed < _TOLERANCE * np.abs(A).max() else None


def _write(file: Path, gamma: float, Lambda_N: np.ndarray, V: np.ndarray) -> None:
    """Complete or not at all; a folder that cannot be written is no error."""
    E = _matrix(Lambda_N, V) - legs(len(V))[0]
    parts = ([gamma], Lambda_N.real, Lambda_N.imag, V.real.ravel(), V.imag.ravel(), E.ravel())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            whole = Path(folder) / file.name
            whole.write_bytes(np.concatenate(parts).astype("<f8").tobytes())
            os.replace(whole, file)
    except OSError:
        return
