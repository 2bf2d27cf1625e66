r"""How well conditioned it is to learn the read-out of fixed modes: Gram matrices in closed form.

The kernel of a diagonal state space model is a sum of damped sinusoids e^{a_n t}, a = -r + iv,
under the weights of the read-out. For white inputs the loss is quadratic in these weights, and its
matrix is the Gram matrix G_jk = <f_j, f_k> of the features, over t from 0 to a horizon. Gradient
descent on the read-out takes steps in proportion to the condition number of G. Features of N modes:

    real     Re e^{a_n t}, N: a real read-out
    pairs    Re and Im of it, 2N: the complex read-out of S4D, which keeps one of each pair
    complex  e^{a_n t}, N: without the conjugates that make a kernel real

Source of the set-up (continuous time, endless horizon, a real read-out alone trained):
Autocorrelation Matters, arXiv:2411.19455, section 4.3, by a third party's note. The formulas here
are ours. All in float64.
"""

import math
from bisect import bisect_left
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

FEATURES = ("real", "pairs", "complex")


class Time(NamedTuple):
    """Where features are compared: on [0, horizon], continuously or in steps dt of it."""

    horizon: float = math.inf  # units of time
    dt: float = 0.0  # units of time; 0: continuous

    def integral(self, z: np.ndarray) -> np.ndarray:
        """Of e^{zt} over the time, or dt times the sum over its steps l dt < horizon.

        ValueError if it diverges: Re z = 0, that is no damping, and no end.
        """
        if not (self.horizon > 0 and self.dt >= 0):
            raise ValueError(f"gram: needs horizon > 0 and dt >= 0, got {self}.")
        endless = math.isinf(self.horizon)
        if endless and not (z.real < 0).all():
            raise ValueError("gram: modes with Re A >= 0 need a finite horizon.")
        if not self.dt:
            return _quotient(z, self.horizon, z)
        # e^{z dt} by the angle's rest, so that aliases are equal and not only close.
        turn = z.imag * self.dt
        w = z.real * self.dt + 1j * (turn - 2 * np.pi * np.round(turn / (2 * np.pi)))
        return self.dt * _quotient(w, round(self.horizon / self.dt) if not endless else math.inf)


ENDLESS = Time()


def _quotient(w: np.ndarray, length: float, below: np.ndarray | None = None) -> np.ndarray:
    """(e^{w length} - 1) / (e^w - 1), or over `below`; at w = 0 the length."""
    last = np.expm1(w) if below is None else below
    if math.isinf(length):
        return -1 / last
    near = np.abs(w) * length < 1e-9
    return np.where(near, length, np.expm1(w * length) / np.where(near, 1, last))


def inner_products(
    A_M: ArrayLike, B_N: ArrayLike, features: str = "real", time: Time = ENDLESS
) -> np.ndarray:
    """<f_m, g_n> of the features of M modes with those of N others, see the head of this file.

    Modes are complex, in 1 / unit of time. (M, N), for "pairs" (2M, 2N): first the real parts.
    """
    if features not in FEATURES:
        raise ValueError(f"unknown features {features!r}; choose one of {', '.join(FEATURES)}.")
    A_M1, B_1N = np.asarray(A_M, complex)[:, None], np.asarray(B_N, complex)[None]
    beat_MN = time.integral(A_M1 + B_1N.conj())
    if features == "complex":
        return beat_MN
    sum_MN = time.integral(A_M1 + B_1N)
    cosines = (sum_MN + beat_MN).real / 2
    if features == "real":
        return cosines
    sines = (beat_MN - sum_MN).real / 2
    return np.block([[cosines, (sum_MN - beat_MN).imag / 2], [(sum_MN + beat_MN).imag / 2, sines]])


def gram(A_N: ArrayLike, features: str = "real", time: Time = ENDLESS) -> np.ndarray:
    """The Gram matrix of the features of N modes, Hermitian."""
    return inner_products(A_N, A_N, features, time)


def condition_number(G: np.ndarray) -> float:
    """Largest over smallest eigenvalue of a Gram matrix; inf where float64 cannot tell it from 0.

    Then the smallest is below N units of rounding of the largest, and its digits mean nothing.
    """
    eigenvalues = np.linalg.eigvalsh(G)
    low, high = float(eigenvalues[0]), float(eigenvalues[-1])
    return high / low if low > len(G) * np.finfo(np.float64).eps * high else math.inf


def uniform_modes(n: int, spacing: float, damping: float = 0.5, first: int = 1) -> np.ndarray:
    """-damping + i spacing k, k = first..first + n - 1; S4D-Lin has the spacing pi from k = 0."""
    return -damping + 1j * spacing * np.arange(first, first + n)


def uniform_limit(spacing: float, damping: float = 0.5) -> float:
    """e^{4 pi damping / spacing}, which the condition number of evenly spaced modes tends to.

    Of "complex" features, from below as N grows. Their matrix is Toeplitz, with the entry
    1 / (2 damping - i m spacing) on the diagonal m; its symbol is (2 pi / spacing) e^{-u} /
    (1 - e^{-U}), u from 0 to U = 4 pi damping / spacing, and the limit its largest value over its
    smallest.
    """
    return math.exp(4 * math.pi * damping / spacing)


def gershgorin_spacing(damping: float = 0.5) -> float:
    """The even spacing from which on Gershgorin's circles keep "real" features independent.

    Far from frequency 0, where G_jk = damping / (4 damping^2 + (v_j - v_k)^2), the entries of a row
    beside the diagonal add up to less than it where x coth x < 2, x = 2 pi damping / spacing.
    """
    from scipy.optimize import brentq

    # x coth x rises from 1.31 at 1 to 2.07 at 2
    return 2 * math.pi * damping / brentq(lambda x: x / math.tanh(x) - 2, 1, 2, xtol=1e-15)


class Descent(NamedTuple):
    """Gradient descent on the read-out w of a target, of which all steps are known at once.

    The loss |target - sum_j w_j f_j|^2 over |target|^2 is `least` + sum_i share_i (1 - rate
    lambda_i)^(2 steps), over the eigenvalues lambda_i of the Gram matrix, with w = 0 at the start
    and the rate 1 / (largest lambda).
    """

    least: float  # loss of the best read-out
    share_N: np.ndarray  # what each eigenvector takes off the loss
    decay_N: np.ndarray  # 1 - lambda_i / (largest lambda)

    def loss(self, steps: ArrayLike) -> Any:
        """After so many steps, of any shape; inf: the best."""
        left = self.decay_N ** (2 * np.asarray(steps, float)[..., None])
        return self.least + np.sum(self.share_N * left, axis=-1)

    def steps_to(self, loss: float) -> float:
        """Steps until the loss is at most this; inf if more than 1e15."""
        if self.loss(1e15) > loss:
            return math.inf
        enough = range(10**15)  # steps, the loss after which falls
        return float(bisect_left(enough, True, key=lambda steps: self.loss(steps) <= loss))


def descent(
    A_N: ArrayLike, target_K: ArrayLike, weight_K: ArrayLike, features: str = "real"
) -> Descent:
    """Learn sum_k weight_k Re e^{b_k t}, b = target_K and real weights, by features of the modes A.

    `features` is "real" or "pairs". Directions whose eigenvalue is lost to rounding are left out:
    descent does not reach them either.
    """
    weight_K = np.asarray(weight_K, float)
    G = gram(A_N, features)
    along = inner_products(A_N, target_K, features)[:, : len(weight_K)] @ weight_K
    square = float(weight_K @ gram(target_K, "real") @ weight_K)
    eigenvalues, vectors = np.linalg.eigh(G)
    known = eigenvalues > len(G) * np.finfo(np.float64).eps * eigenvalues[-1]
    share = np.where(known, (vectors.T @ along) ** 2 / np.where(known, eigenvalues, 1), 0) / square
    least = max(0.0, 1 - float(share.sum()))
    return Descent(least, share, np.where(known, 1 - eigenvalues / eigenvalues[-1], 1.0))
