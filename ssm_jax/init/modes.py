"""Where the eigenvalues of a state matrix start, and alpha, the factor on their imaginary parts.

N modes are stored and their conjugates implied, so the real order is 2N. `initial_modes` alone
scales imaginary parts by alpha and real parts by alpha_real. Source of alpha: Tuning Frequency Bias
of State Space Models, arXiv:2410.02035 (there the conjugates are stored, which gives the same
kernels, OC-2).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ssm_jax.init.hippo import Eigenbasis, legs_nplr
from ssm_jax.init.ptd import legs_ptd
from ssm_jax.options.arguments import check

# Mode 0 of the official code is not real: its frequency starts at 1e-4 and may leave zero in
# training (OC-3).
LOWEST_FREQUENCY = 1e-4


class Modes(NamedTuple):
    """S sets of N modes z' = A z + B u, their conjugates implied. Complex128."""

    A_SN: np.ndarray  # rad per unit of time; if discrete, log of the eigenvalue of one step
    B_SN: np.ndarray  # input vector in the basis of these modes
    discrete: bool  # A_bar = e^A: there is no dt


class Init(NamedTuple):
    """One initialization, at alpha = alpha_real = 1."""

    # (d_state, n_sets, seed) -> A, of (N,) or (S, N), with B = 1; or an Eigenbasis without its P
    build: Callable[[int, int, int], Any]
    # See Modes. Phases reach up to pi, where a step no longer tells a frequency from a lower one,
    # so that alpha is at most 1.
    discrete: bool = False
    clamped: bool = False  # frequencies start at LOWEST_FREQUENCY or above, after scaling


def s4d_inv(d_state: int) -> np.ndarray:
    """S4D-Inv: a_n = -1/2 + i (R / pi) (R / (2n + 1) - 1), n = 0..N-1, of real order R = 2N.

    R, not N: so a_0 is close to the highest frequency of HiPPO-LegS of order R (1283 and 1303 at
    R = 64), which the formula approximates. Source: S4D, arXiv:2206.11893, where the state size
    counts both halves of the conjugate pairs.
    """
    R = 2 * d_state
    return -0.5 + 1j * (R / np.pi) * (R / (2 * np.arange(d_state) + 1) - 1)


def dfout(d_state: int, n_sets: int, seed: int) -> np.ndarray:
    """Discrete Fourier modes: log lambda_sn = -xi_s / 2 + i (pi / N) (n + s / S); (S, N).

    The phases of a full circle of 2N points have the step pi / N; the half n = 0..N-1 is kept. Set
    s is turned by the fraction s / S of a step, so that all S N phases together are the multiples
    of pi / (S N) in [0, pi). xi, which stands where S4D has dt, has S values at the middles of S
    equal parts of [log 1e-3, log 1e-1], dealt out to the sets at random; the bounds are ours, those
    of dt. Source: DFouT, arXiv:2508.20441.
    """
    n, s = np.arange(d_state)[None, :], np.arange(n_sets)[:, None]
    part_S = np.random.default_rng(seed).permutation((np.arange(n_sets) + 0.5) / n_sets)
    xi_S = np.exp(np.log(1e-3) + part_S * np.log(1e-1 / 1e-3))
    return -xi_S[:, None] / 2 + 1j * np.pi / d_state * (n + s / n_sets)


def ring(d_state: int, n_sets: int, seed: int, *, r_min=0.9, r_max=0.999, max_phase=np.pi):
    """Log of draws on a ring: |lambda|^2 uniform in [r_min^2, r_max^2], phase in [0, max_phase].

    That is uniform by area; (S, N). Source: LRU, arXiv:2303.06349; the bounds vary by task there.
    alpha narrows the phases, alpha_real = 0.1 brings the ring ten times nearer to the circle.
    """
    if not (0 <= r_min <= r_max <= 1 and r_max > 0 and 0 < max_phase <= np.pi):
        needs = "0 <= r_min <= r_max <= 1, r_max > 0 and 0 < max_phase <= pi"
        raise ValueError(f"ring: needs {needs}, got {r_min=}, {r_max=}, {max_phase=}.")
    rng = np.random.default_rng(seed)
    # 1 - [0, 1) is (0, 1]: log 0 cannot come
    square_SN = r_min**2 + (r_max**2 - r_min**2) * (1 - rng.random((n_sets, d_state)))
    return 0.5 * np.log(square_SN) + 1j * max_phase * rng.random((n_sets, d_state))


INITS: dict[str, Init] = {
    # a_n = -1/2 + i pi n. Source: S4D, arXiv:2206.11893
    "s4d_lin": Init(lambda N, S, seed: -0.5 + 1j * np.pi * np.arange(N), clamped=True),
    "s4d_inv": Init(lambda N, S, seed: s4d_inv(N)),
    "s4d_legs": Init(lambda N, S, seed: legs_nplr(2 * N)),
    # a_n = -1/2 + 2 pi i n: the frequencies of HiPPO-FouT (arXiv:2206.12037), damped as S4D-Lin
    "fout": Init(lambda N, S, seed: -0.5 + 2j * np.pi * np.arange(N), clamped=True),
    "dfout": Init(dfout, discrete=True),
    "ring": Init(ring, discrete=True),
    "ptd": Init(lambda N, S, seed: legs_ptd(2 * N)),
}


def initial_modes(
    init: str | ArrayLike,
    d_state: int,
    *,
    n_sets: int = 1,
    alpha: float = 1.0,
    alpha_real: float = 1.0,
    seed: int = 0,
    discretization: str | None = None,
    owner: str = "initial_modes",
) -> Modes:
    """S sets of N = d_state modes, Im A scaled by alpha and Re A by alpha_real.

    Args:
      init: a key of INITS; or complex eigenvalues, (N,) for all sets or (S, N), with B = 1.
      alpha: positive; at most 1 for a discrete init.
      seed: of the inits that draw: ring, dfout.
      discretization: of the layer that starts so: "none" takes modes per sample, the others modes
        per unit of time, and so are listed ones understood. None: any named init.
      owner: who asks, for the message about the discretization.
    """
    if isinstance(init, str):
        if init not in INITS:
            raise ValueError(f"unknown init {init!r}; choose one of {', '.join(INITS)}.")
        name, chosen = init, INITS[init]
    else:
        A = _checked(init, d_state, n_sets)
        name, chosen = "initial_modes", Init(lambda *_: A, discrete=discretization == "none")
    scales = {"alpha": alpha, "alpha_real": alpha_real}
    check(name, {"d_state": d_state, "n_sets": n_sets, **scales, "seed": seed})
    if chosen.discrete and alpha > 1:
        why = "its phases reach pi per step, and beyond that they alias to lower ones."
        raise ValueError(f"{name}: alpha must be at most 1, got {alpha}: {why}")
    if discretization is not None and chosen.discrete != (discretization == "none"):
        per, use = ("sample", "") if chosen.discrete else ("unit of time", " one other than")
        raise ValueError(
            f"{owner}: init {init!r} gives eigenvalues per {per}, which "
            f"discretization={discretization!r} cannot take; use{use} 'none'."
        )
    built = chosen.build(d_state, n_sets, seed)
    is_basis = isinstance(built, Eigenbasis)
    A, B = (built.Lambda_N, built.B_N) if is_basis else (built, np.ones_like(built))
    frequency = alpha * A.imag
    if chosen.clamped:
        frequency = np.maximum(frequency, LOWEST_FREQUENCY)
    both = np.stack([alpha_real * A.real + 1j * frequency, B])
    A_SN, B_SN = np.tile(both[:, None], (1, n_sets, 1)) if A.ndim == 1 else both
    return Modes(A_SN, B_SN, chosen.discrete)


def modes_by_options(model: Mapping[str, Any], **scales: Any) -> Modes:
    """One set of modes of a layer by the options of its model; of S5 a block, half of its pairs."""
    d_state = model["d_state"]
    if model["layer"] == "s5":
        d_state //= model["s5"]["n_blocks"] * (1 if model["s5"]["conj_sym"] else 2)
    name = "s4d_legs" if model["init"] == "legs" else model["init"]  # of S4 and S5
    return initial_modes(name, max(1, d_state), seed=model["init_seed"], **scales)


def _checked(A: ArrayLike, d_state: int, n_sets: int) -> np.ndarray:
    """Eigenvalues given as numbers, complex128."""
    try:
        A = np.asarray(A, np.complex128)
    except (TypeError, ValueError):
        text = f"given eigenvalues must be numbers of the shape {(d_state,)}, got {A!r}."
        raise ValueError(text) from None
    if A.shape not in ((d_state,), (n_sets, d_state)):
        shapes = f"(d_state,) = {(d_state,)} or (n_sets, d_state) = {(n_sets, d_state)}"
        raise ValueError(f"given eigenvalues must have the shape {shapes}, got {A.shape}.")
    if not np.isfinite(A).all():
        raise ValueError(f"given eigenvalues must be finite, got {A[~np.isfinite(A)][0]}.")
    return A
