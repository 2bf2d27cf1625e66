"""The search of `legs_ptd`: W and Lambda that minimize cond(W) + gamma ||E|| / ||A||.

The unknowns are W and Lambda in the real form of conjugate pairs: with T = sqrt(2) [Re V, Im V],
W = [V, conj V] is T times a unitary matrix, and W diag(Lambda) W^-1 = T D T^-1, where D holds
Re Lambda and Im Lambda on three diagonals. Re Lambda = -e^r and Im Lambda = e^q, so that the
system is stable and its eigenvalues are pairs whatever the search does.

Perturb, then diagonalize: HiPPO-LegS plus a small matrix whose eigenvectors are usable.

The eigenvectors of HiPPO-LegS itself have a condition number above 4^order, beyond all digits of
float64 at order 26. S4D and S5 give up the part of rank one, which is about as large as what is
left. Here A + E = W diag(Lambda) W^-1 for a real E, such that

    cond(W) + gamma ||E|| / ||A||        (spectral norms)

is small. Source: arXiv:2310.01698; there ||E|| is not divided by ||A||, here one gamma suits all
orders.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssm_jax import ranges
from ssm_jax.files import replace_atomically, user_cache
from ssm_jax.init.hippo import Eigenbasis, check_order, legs

# The norms are smoothed over singular values within about these shares of the largest: first
# coarsely, then finely, for at most so many steps each. The last 1 % of the objective is not worth
# more.
_WIDTHS = (0.1, 0.02)
_STEPS = 400


def solve(order: int, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """(Lambda_N, V) of a local minimum."""
    A, B = legs(order)
    N, weight = order // 2, gamma / float(np.linalg.norm(A, 2))
    # The start: the best share of the part of rank one that makes A normal. It gives
    # cond(W) = 2 / share, roughly, and at share 1 the eigenvalues are pairs at every order.
    best = math.inf
    for share in np.geomspace(0.01, 1, 15):
        E = share / 2 * np.outer(B, B)
        eigenvalues, W = np.linalg.eig(A + E)
        kept = eigenvalues.imag > 0
        if kept.sum() != N or not (eigenvalues.real < 0).all():
            continue
        value = np.linalg.cond(W) + weight * np.linalg.norm(E, 2)
        if value < best:
            best, Lambda_N, V = value, eigenvalues[kept], W[:, kept]
    T = math.sqrt(2) * np.hstack([V.real, V.imag])
    x = np.concatenate([T.ravel(), np.log(-Lambda_N.real), np.log(Lambda_N.imag)])
    for width in _WIDTHS:
        x = _minimize(functools.partial(_objective, A=A, weight=weight, width=width), x)

    T, Lambda_N = _unpack(x, order)
    T = T / math.exp(np.log(np.linalg.svd(T, compute_uv=False)).mean())
    V = math.sqrt(0.5) * (T[:, :N] + 1j * T[:, N:])
    ascending = np.argsort(Lambda_N.imag)
    V = V[:, ascending]
    V = np.ascontiguousarray(V * (np.abs(V[0]) / V[0]))  # the layout it has when read from a file
    return Lambda_N[ascending], V


def _unpack(x: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    r, q = np.split(x[order * order :], 2)
    return x[: order * order].reshape(order, order), -np.exp(r) + 1j * np.exp(q)


def _smooth_max(log_v: np.ndarray, width: float) -> tuple[float, np.ndarray]:
    """A smooth max of v >= max v, and its derivative by log v: v of the max within a few widths."""
    share = np.exp((log_v - log_v.max()) / width)
    top = math.exp(log_v.max() + width * math.log(share.sum()))
    return top, top * share / share.sum()


def _objective(
    x: np.ndarray, A: np.ndarray, weight: float, width: float
) -> tuple[float, np.ndarray]:
    """cond(T) + weight ||T D T^-1 - A||, the three norms smoothed, and its gradient."""
    n = len(A)
    T, Lambda_N = _unpack(x, n)
    if not np.abs(x[n * n :]).max() < 100:  # too far a step: it would overflow
        return math.inf, np.zeros_like(x)
    a, b = Lambda_N.real, Lambda_N.imag
    first, second = np.arange(n // 2), np.arange(n // 2, n)
    D = np.zeros((n, n))
    D[first, first] = D[second, second] = a
    D[first, second], D[second, first] = b, -b

    U, s, Wt = np.linalg.svd(T)
    T_inv = (Wt.T / s) @ U.T
    largest, d_largest = _smooth_max(np.log(s), width)
    of_inverse, d_inverse = _smooth_max(-np.log(s), width)
    cond = largest * of_inverse
    d_T = (U * ((d_largest * of_inverse - largest * d_inverse) / s)) @ Wt

    M = T @ D @ T_inv
    X, e, Yt = np.linalg.svd(M - A)
    e = np.maximum(e, 1e-300)
    size, d_size = _smooth_max(np.log(e), width)
    # dM = dT D T^-1 - M dT T^-1 + T dD T^-1
    H = weight * (X * (d_size / e)) @ Yt @ T_inv.T
    d_T = d_T + H @ D.T - M.T @ H
    d_D = T.T @ H
    d_a = d_D[first, first] + d_D[second, second]
    d_b = d_D[first, second] - d_D[second, first]
    return cond + weight * size, np.concatenate([d_T.ravel(), a * d_a, b * d_b])


def _minimize(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray, memory: int = 20
) -> np.ndarray:
    """L-BFGS with a line search by bisection for the weak Wolfe conditions."""
    value, gradient = function(x)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []  # steps, and how the gradient changed
    for _ in range(_STEPS):
        direction = -gradient
        shares = []
        for s, y in reversed(pairs):
            shares.append(s @ direction / (s @ y))
            direction = direction - shares[-1] * y
        if pairs:
            s, y = pairs[-1]
            direction = direction * (s @ y / (y @ y))
        else:
            direction = direction * (0.01 / np.linalg.norm(gradient))
        for (s, y), share in zip(pairs, reversed(shares), strict=True):
            direction = direction + (share - y @ direction / (s @ y)) * s

        slope, low, high, length = gradient @ direction, 0.0, math.inf, 1.0
        for _ in range(30):
            new_value, new_gradient = function(x + length * direction)
            if not new_value <= value + 1e-4 * length * slope:
                high = length
            elif new_gradient @ direction < 0.9 * slope:
                low = length
            else:
                break
            length = (low + high) / 2 if high < math.inf else 2 * length
        if not new_value < value:
            break
        s, y = length * direction, new_gradient - gradient
        gained = value - new_value
        x, value, gradient = x + s, new_value, new_gradient
        if gained < 1e-7 * value:
            break
        if s @ y > 0:
            pairs = [*pairs, (s, y)][-memory:]
    return x


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
        replace_atomically(file, np.concatenate(parts).astype("<f8").tobytes())
    except OSError:
        return
