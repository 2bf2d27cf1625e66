"""The search of `legs_ptd`: W and Lambda that minimize cond(W) + gamma ||E|| / ||A||.

The unknowns are W and Lambda in the real form of conjugate pairs: with T = sqrt(2) [Re V, Im V],
W = [V, conj V] is T times a unitary matrix, and W diag(Lambda) W^-1 = T D T^-1, where D holds
Re Lambda and Im Lambda on three diagonals. Re Lambda = -e^r and Im Lambda = e^q, so that the
system is stable and its eigenvalues are pairs whatever the search does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from ssm_jax.init.hippo import legs

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
