"""Perturb-then-diagonalize: HiPPO-LegS plus a small matrix whose eigenvectors are usable.

The eigenvectors of HiPPO-LegS itself have a condition number above 4^order, beyond all digits of
float64 at order 26. S4D and S5 give up the part of rank one, which is about as large as what is
left. Here A + E = W diag(Lambda) W^-1 for a real E, such that

    cond(W) + gamma ||E|| / ||A||        (spectral norms)

is small. Source: arXiv:2310.01698; there ||E|| is not divided by ||A||, here one gamma suits all
orders.
"""

import contextlib
import functools
import io
import math
from pathlib import Path

import numpy as np

from ssm_jax.files import replace_atomically, user_cache
from ssm_jax.init.hippo import Eigenbasis, check_order, legs
from ssm_jax.options.rows import POSITIVE

GAMMA = 300.0

_VERSION = 2  # in the name of a file on disk: to be raised when the solution changes


def legs_ptd(order: int, gamma: float = GAMMA) -> Eigenbasis:
    """Eigenvalues and eigenvectors of HiPPO-LegS plus a small perturbation, and B in their basis.

    Solved once, in about 1 s at order 64 and 5 s at 128 on one core, and kept in memory and in the
    user's cache directory ($XDG_CACHE_HOME or ~/.cache), where that can be written. The objective
    has many minima of almost one value, so that two machines may find two solutions that differ in
    more than rounding. The responses (i w - A)^-1 B differ from those of HiPPO-LegS by up to 0.5 to
    0.9 of the largest, at orders 16 to 128. Those of the normal part have peaks that differ by 1.3
    times the order; PTD has no such peaks.

    Im Lambda ascends, P = 0. The columns of V are scaled such that the singular values of W have
    the geometric mean 1, and turned as in `legs_nplr`. All callers get the same read-only arrays.
    With the weight gamma of 300, cond(W) is 9 and ||E|| / ||A|| is 0.024; with 30, 3.4 and 0.086;
    with 3000, 25 and 0.007 (orders 16 to 128). The normal part of HiPPO-LegS has 1 and 0.8.
    """
    check_order("legs_ptd", order)
    if not POSITIVE.holds(gamma):
        raise ValueError(f"legs_ptd: gamma must be positive and finite, got {gamma}.")
    return _solved_once(order, float(gamma))


@functools.cache
def _solved_once(order: int, gamma: float) -> Eigenbasis:
    folder = user_cache()
    file = folder and folder / f"ptd_{order}_{gamma!r}_v{_VERSION}.npz"
    found = file and _read(file)
    if not found:
        found = solve(order, gamma)
        with contextlib.suppress(OSError):  # a folder that cannot be written is no error
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                replace_atomically(file, _content(*found))
    Lambda_N, V = found
    V_inv = np.linalg.inv(np.hstack([V, V.conj()]))[: order // 2]
    basis = Eigenbasis(Lambda_N, np.zeros_like(Lambda_N), V_inv @ legs(order)[1], V, V_inv)
    for array in basis:
        array.flags.writeable = False
    return basis


def solve(order: int, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """(Lambda_N, V) of a local minimum."""
    from scipy.optimize import minimize  # half a second to import, and of use here alone

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
    # The norms are smoothed over singular values within shares of the largest: first coarsely, then
    # finely, for at most 400 steps each. The last 1 % of the objective is not worth more.
    options = {"maxiter": 400, "maxcor": 20, "ftol": 1e-7, "gtol": 0, "maxfun": 12_000}
    for width in (0.1, 0.02):
        arguments = (A, weight, width)
        x = minimize(_objective, x, arguments, "L-BFGS-B", jac=True, options=options).x

    T, Lambda_N = _unpack(x, order)
    T = T / math.exp(np.log(np.linalg.svd(T, compute_uv=False)).mean())
    V = math.sqrt(0.5) * (T[:, :N] + 1j * T[:, N:])
    ascending = np.argsort(Lambda_N.imag)
    V = V[:, ascending]
    return Lambda_N[ascending], np.ascontiguousarray(V * (np.abs(V[0]) / V[0]))


def _unpack(x: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    r, q = np.split(x[order * order :], 2)
    return x[: order * order].reshape(order, order), -np.exp(r) + 1j * np.exp(q)


def _smooth_max(log_v: np.ndarray, width: float) -> tuple[float, np.ndarray]:
    """A smooth max of v >= max v, and its derivative by log v: v of the max within a few widths."""
    share = np.exp((log_v - log_v.max()) / width)
    top = math.exp(log_v.max() + width * math.log(share.sum()))
    return top, top * share / share.sum()


def _objective(x: np.ndarray, A: np.ndarray, weight, width) -> tuple[float, np.ndarray]:
    """cond(T) + weight ||T D T^-1 - A||, the three norms smoothed, and its gradient."""
    n = len(A)
    T, Lambda_N = _unpack(x, n)
    if not np.abs(x[n * n :]).max() < 100:  # too far a step: it would overflow
        return 1e300, np.zeros_like(x)
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


def _content(Lambda_N: np.ndarray, V: np.ndarray) -> bytes:
    """Of the file: equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, Lambda_N=Lambda_N, V=V)
    return buffer.getvalue()


def _read(file: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """(Lambda_N, V) of a stored solution; None where there is none, or one that is damaged."""
    try:
        content = file.read_bytes()
        with np.load(io.BytesIO(content)) as arrays:
            found = arrays["Lambda_N"], arrays["V"]
    except Exception:  # of the system, of the archive, of an array in it
        return None
    return found if _content(*found) == content else None
