"""HiPPO matrices, and the eigenvectors of their normal parts, in float64.

A HiPPO matrix is a normal matrix less a matrix of rank one, A = V diag(Lambda) V^* - P P^T with V
unitary (S4, arXiv:2111.00396). S4 keeps both parts; S4D and S5 keep the normal part alone
(arXiv:2206.11893). Its eigenvalues come in conjugate pairs: of a real order 2N the N with
Im Lambda >= 0 are kept, in ascending order of Im Lambda. All functions raise ValueError for an
order below 1, or where pairs are kept, one that is odd.
"""

from typing import NamedTuple

import numpy as np

from ssm_jax.options.rows import SIZE


class Eigenbasis(NamedTuple):
    """The kept half of A = W (diag(Lambda) - P P^*) W^-1, W = [V, conj V], real of order 2N.

    Complex128; Lambda, P and B are continued by their conjugates. For P = 0 the state x of the real
    system is W z = 2 Re V z_N, where z_N' = Lambda_N z_N + B_N u.
    """

    Lambda_N: np.ndarray  # rad per unit of time
    P_N: np.ndarray  # V_inv P
    B_N: np.ndarray  # V_inv B: the input vector in this basis
    V: np.ndarray  # (2N, N): the first half of W
    V_inv: np.ndarray  # (N, 2N): the first N rows of W^-1; V^* where W is unitary


def check_order(name: str, order: int) -> None:
    if not SIZE.holds(order) or order % 2:
        raise ValueError(f"{name}: the real order must be even and at least 2, got {order}.")


def legs(order: int) -> tuple[np.ndarray, np.ndarray]:
    """HiPPO-LegS (A_NN, B_N), of x' = A x + B u: Legendre memory of the whole past.

    A_nk = -sqrt((2n+1)(2k+1)) below the diagonal, -(n+1) on it and 0 above; B_n = sqrt(2n+1).
    The sign is that of a stable system. Source: HiPPO, arXiv:2008.07669; S4, arXiv:2111.00396.
    """
    if not SIZE.holds(order):
        raise ValueError(f"legs: the order must be at least 1, got {order}.")
    n = np.arange(order)
    B_N = np.sqrt(2 * n + 1.0)
    A_NN = -np.tril(np.outer(B_N, B_N), -1) - np.diag(n + 1.0)
    return A_NN, B_N


def legs_nplr(order: int) -> Eigenbasis:
    """HiPPO-LegS as a normal matrix less P P^T, with P_n = sqrt(n + 1/2) and Re Lambda = -1/2.

    A + P P^T + I/2 is skew-symmetric, so that i times it is Hermitian: its eigenvectors are
    orthonormal to rounding at any order, where those of A itself have a condition number that
    grows exponentially. Source: S4, arXiv:2111.00396. B_N and P_N depend on the phases of the
    eigenvectors: the first component of every column of V is real and positive. It is the phase
    that LAPACK gives, up to a sign, so that the official clip of Im B to +-2 acts here as it does
    there (OC-27).
    """
    check_order("legs_nplr", order)
    _, B = legs(order)
    P = B / np.sqrt(2)  # sqrt(n + 1/2)
    upper = np.triu(np.outer(P, P), 1)
    frequency, V = np.linalg.eigh(-1j * (upper - upper.T))
    V = V[:, order // 2 :]  # eigh sorts: the second half has the positive frequencies
    V = V * (np.abs(V[0]) / V[0])
    V_inv = V.conj().T
    return Eigenbasis(-0.5 + 1j * frequency[order // 2 :], V_inv @ P, V_inv @ B, V, V_inv)


def fout(order: int) -> tuple[np.ndarray, np.ndarray]:
    """HiPPO-FouT (A_NN, B_N): Fourier coefficients of the last unit of time.

    x_k is the integral over s in [0, 1] of p_k(s) u(t - s), with p = (1, 0, sqrt(2) cos 2 pi s,
    sqrt(2) sin 2 pi s, sqrt(2) cos 4 pi s, ...): state 1, the sine of frequency 0, stays zero. The
    end of the window, u(t - 1), is replaced by what the series says of it, which at the jump is
    the mean of u(t) and u(t - 1). So A = D - 2 p p^T and B = 2 p with p = p(0), and D turns each
    cosine into its sine. Source: How to Train Your HiPPO, arXiv:2206.12037.
    """
    check_order("fout", order)
    frequency = 2 * np.pi * np.arange(order // 2)
    cos, sin = np.arange(0, order, 2), np.arange(1, order, 2)
    p = np.zeros(order)
    p[cos] = np.sqrt(2)
    p[0] = 1
    D = np.zeros((order, order))
    D[cos, sin], D[sin, cos] = -frequency, frequency
    return D - 2 * np.outer(p, p), 2 * p


def fout_nplr(order: int) -> Eigenbasis:
    """HiPPO-FouT as a normal matrix less P P^T: Lambda_n = 2 pi i n, P = B / sqrt(2).

    In closed form; in every column of V the component of the cosine is real and positive.
    Lambda_0 = 0 stands twice: state 1 is its other half, and the two are not coupled.
    """
    check_order("fout_nplr", order)
    _, B = fout(order)
    n = np.arange(order // 2)
    V = np.zeros((order, order // 2), complex)
    V[2 * n, n], V[2 * n + 1, n] = np.sqrt(0.5), -1j * np.sqrt(0.5)
    B_N = V.conj().T @ B
    return Eigenbasis(2j * np.pi * n, B_N / np.sqrt(2), B_N, V, V.conj().T)
