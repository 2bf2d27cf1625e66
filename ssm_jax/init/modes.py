"""Where the eigenvalues of a diagonal state matrix start: a table of named initializations.

All of them store N modes whose conjugates are implied, so the real order is 2N. alpha scales the
imaginary parts and alpha_real the real parts, in `initial_modes` and nowhere else.

Where a layer's modes start: a named initialization, or eigenvalues given as numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ssm_jax import ranges
from ssm_jax.init.hippo import Eigenbasis, legs_normal
from ssm_jax.init.ptd import legs_ptd

# Mode 0 of the official code is not real: its frequency starts at 1e-4 and may leave zero in
# training (OC-3).
LOWEST_FREQUENCY = 1e-4


class Modes(NamedTuple):
    """S sets of N modes z' = A z + B u, their conjugates implied. Complex128."""

    A_SN: np.ndarray  # rad per unit of time; if discrete, log of the eigenvalue of one step
    B_SN: np.ndarray  # input vector in the basis of these modes
    discrete: bool  # A_bar = e^A: there is no dt


class Init(NamedTuple):
    """One initialization: build(d_state, n_sets, seed) -> (A_SN, B_SN) at alpha = alpha_real = 1.

    discrete: see Modes; the phases of build then reach up to pi, where a step no longer tells
      a frequency from a lower one, so that alpha is at most 1.
    clamped: frequencies start at LOWEST_FREQUENCY or above, after scaling.
    """

    build: Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]
    discrete: bool = False
    clamped: bool = False


def _lin(d_state: int) -> np.ndarray:
    """S4D-Lin: a_n = -1/2 + i pi n, n = 0..N-1. Source: S4D, arXiv:2206.11893."""
    return -0.5 + 1j * np.pi * np.arange(d_state)


def s4d_inv(d_state: int) -> np.ndarray:
    """S4D-Inv: a_n = -1/2 + i (R / pi) (R / (2n + 1) - 1), n = 0..N-1, of real order R = 2N.

    R, not N, is the order in the formula: so a_0 is close to the highest frequency of HiPPO-LegS
    of order R (1283 and 1303 at R = 64), which the formula approximates. Source: S4D,
    arXiv:2206.11893, where the state size counts both halves of the conjugate pairs.
    """
    R = 2 * d_state
    return -0.5 + 1j * (R / np.pi) * (R / (2 * np.arange(d_state) + 1) - 1)


def fout(d_state: int) -> np.ndarray:
    """Fourier modes of one unit of time: a_n = -1/2 + 2 pi i n, n = 0..N-1.

    The frequencies of HiPPO-FouT (arXiv:2206.12037) with the damping of S4D-Lin.
    """
    return -0.5 + 2j * np.pi * np.arange(d_state)


def dfout(
    d_state: int, n_sets: int, seed: int, *, xi_min: float = 1e-3, xi_max: float = 1e-1
) -> np.ndarray:
    """Discrete Fourier modes: log lambda_sn = -xi_s / 2 + i (pi / N) (n + s / S).

    The phases of a full circle of 2N points have the step pi / N; the half n = 0..N-1 is kept. Set
    s is turned by the fraction s / S of a step, so that all S N phases together are the multiples
    of pi / (S N) in [0, pi). xi, which stands where S4D has dt, has S values at the middles of S
    equal parts of [log xi_min, log xi_max], dealt out to the sets at random; the bounds are ours,
    those of dt. Source: DFouT, arXiv:2508.20441.

    Returns:
      log lambda_SN, complex128.

    Raises:
      ValueError: unless 0 < xi_min <= xi_max < infinity.
    """
    if not 0 < xi_min <= xi_max < np.inf:
        raise ValueError(f"dfout: needs 0 < xi_min <= xi_max, got {xi_min=}, {xi_max=}.")
    n, s = np.arange(d_state)[None, :], np.arange(n_sets)[:, None]
    part_S = np.random.default_rng(seed).permutation((np.arange(n_sets) + 0.5) / n_sets)
    xi_S = np.exp(np.log(xi_min) + part_S * np.log(xi_max / xi_min))
    return -xi_S[:, None] / 2 + 1j * np.pi / d_state * (n + s / n_sets)


def ring(
    d_state: int,
    n_sets: int,
    seed: int,
    *,
    r_min: float = 0.9,
    r_max: float = 0.999,
    max_phase: float = np.pi,
) -> np.ndarray:
    """Draws on a ring: |lambda|^2 uniform in [r_min^2, r_max^2], phase uniform in [0, max_phase].

    That is uniform by area. Source: LRU, arXiv:2303.06349; the bounds vary by task there. alpha
    narrows the phases, alpha_real = 0.1 brings the ring ten times nearer to the circle.

    Returns:
      log lambda_SN, complex128.

    Raises:
      ValueError: unless 0 <= r_min <= r_max <= 1, r_max > 0 and 0 < max_phase <= pi.
    """
    if not (0 <= r_min <= r_max <= 1 and r_max > 0 and 0 < max_phase <= np.pi):
        raise ValueError(
            "ring: needs 0 <= r_min <= r_max <= 1, r_max > 0 and 0 < max_phase <= pi, got "
            f"r_min={r_min}, r_max={r_max}, max_phase={max_phase}."
        )
    rng = np.random.default_rng(seed)
    # 1 - [0, 1) is (0, 1]: log 0 cannot come
    square_SN = r_min**2 + (r_max**2 - r_min**2) * (1 - rng.random((n_sets, d_state)))
    return 0.5 * np.log(square_SN) + 1j * max_phase * rng.random((n_sets, d_state))


def _one_set(
    function: Callable[[int], np.ndarray],
) -> Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]:
    """The same modes in every set, with B = 1."""

    def build(d_state: int, n_sets: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        A_SN = np.tile(function(d_state), (n_sets, 1))
        return A_SN, np.ones_like(A_SN)

    return build


def _eigenbasis(
    function: Callable[[int], Eigenbasis],
) -> Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]:
    """The same eigenvalues of a real matrix of order 2N in every set, and B in their basis."""

    def build(d_state: int, n_sets: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        basis = function(2 * d_state)
        return np.tile(basis.Lambda_N, (n_sets, 1)), np.tile(basis.B_N, (n_sets, 1))

    return build


def _sets(
    function: Callable[[int, int, int], np.ndarray],
) -> Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]:
    """Modes that differ between the sets, with B = 1."""

    def build(d_state: int, n_sets: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        A_SN = function(d_state, n_sets, seed)
        return A_SN, np.ones_like(A_SN)

    return build


INITS: dict[str, Init] = {
    "s4d_lin": Init(_one_set(_lin), clamped=True),
    "s4d_inv": Init(_one_set(s4d_inv)),
    "s4d_legs": Init(_eigenbasis(legs_normal)),
    "fout": Init(_one_set(fout), clamped=True),
    "dfout": Init(_sets(dfout), discrete=True),
    "ring": Init(_sets(ring), discrete=True),
    "ptd": Init(_eigenbasis(legs_ptd)),
}


def initial_modes(
    init: str,
    d_state: int,
    *,
    n_sets: int = 1,
    alpha: float = 1.0,
    alpha_real: float = 1.0,
    seed: int = 0,
) -> Modes:
    """The modes that `init` names, Im A scaled by alpha and Re A by alpha_real.

    Source of alpha: Tuning Frequency Bias of State Space Models, arXiv:2410.02035 (there the
    conjugates are stored, which gives the same kernels, OC-2).

    Args:
      init: a key of INITS.
      d_state: N, modes kept per set.
      n_sets: S, sets of eigenvalues.
      alpha: factor on the frequencies, positive; at most 1 for a discrete init.
      alpha_real: factor on the decay; 0 gives undamped modes.
      seed: of the inits that draw: ring, dfout.

    Raises:
      ValueError: for a value out of its set.
    """
    if not isinstance(init, str) or init not in INITS:
        raise ValueError(f"unknown init {init!r}; choose one of {', '.join(INITS)}.")
    scales = {"alpha": alpha, "alpha_real": alpha_real}
    ranges.check(init, d_state=d_state, n_sets=n_sets, **scales, seed=seed)
    build, discrete, clamped = INITS[init]
    if discrete and alpha > 1:
        raise ValueError(
            f"{init}: alpha must be at most 1, got {alpha}: its phases reach pi per step, and "
            "beyond that they alias to lower ones."
        )
    A_SN, B_SN = build(d_state, n_sets, seed)
    frequency_SN = alpha * A_SN.imag
    if clamped:
        frequency_SN = np.maximum(frequency_SN, LOWEST_FREQUENCY)
    return Modes(alpha_real * A_SN.real + 1j * frequency_SN, B_SN, discrete)


def s4d_lin(d_state: int, alpha: float = 1.0) -> np.ndarray:
    """The eigenvalues A_N of one set of `initial_modes("s4d_lin", d_state, alpha=alpha)`."""
    return initial_modes("s4d_lin", d_state, alpha=alpha).A_SN[0]


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
