r"""Total variation of transfer functions along the frequency axis: the measure of frequency bias.

    V_a^b(G) = integral over [a, b] of |d/ds G(i s)| ds,

the length of the curve that G(i s) draws in the complex plane. Where it is large, the system tells
frequencies apart. Source: Tuning Frequency Bias of State Space Models, arXiv:2410.02035.

One pole draws an arc of a circle: its variation has a closed form. So has that of a mode on the
real axis, which with its conjugate is one pole. Other sums of poles have none that is elementary
and are integrated numerically; the sum of the poles' own variations bounds theirs from above.

All here is float64 NumPy. A pole on the axis (Re A = 0) with a residue makes the variation over a
closed band around it infinite: the result is inf. A channel with numbers that are not finite gets
nan.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from ssm_jax.kernels.discretize import DISCRETIZE, exponent
from tests.analysis.exact.arc_length import (
    continuous_response,
    discrete_response,
    edges_per_channel,
    length_of_tail,
    length_per_band,
    modes_of,
    with_conjugates,
)


class TailBound(NamedTuple):
    """Bounds of the variation over [B, inf) and (-inf, -B], per channel."""

    above_H: np.ndarray
    below_H: np.ndarray


def tail_bound(
    A_HN: ArrayLike, C_HN: ArrayLike, bound: float, *, conjugates: bool = True
) -> TailBound:
    """sum_j |c_j| / (B - y_j) bounds V over [B, inf), sum_j |c_j| / (B + y_j) that over (-inf, -B].

    Equality for one undamped pole alone. With S4D-Lin, B must exceed alpha pi (N - 1): alpha sets
    the window beyond which there is little to see.

    Args:
      A_HN: complex poles x + iy in rad per unit of time.
      C_HN: complex residues.
      bound: B, in rad per unit of time.
      conjugates: count each pole's conjugate too, as the layers do; then both bounds are equal.

    Raises:
      ValueError: unless B > |y| for all poles.
    """
    A_HM, C_HM = with_conjugates(A_HN, C_HN, conjugates)
    highest = np.abs(A_HM.imag).max()
    if not bound > highest:
        raise ValueError(
            f"tail_bound: B must lie beyond all poles, got {bound:g}; choose it above "
            f"max |Im A| = {highest:g}."
        )
    above_HM, below_HM = (np.abs(C_HM) / (bound - sign * A_HM.imag) for sign in (1, -1))
    return TailBound(above_HM.sum(-1), below_HM.sum(-1))


def pole_variation(
    A: ArrayLike, C: ArrayLike, low: ArrayLike = -np.inf, high: ArrayLike = np.inf
) -> np.ndarray:
    """V over [low, high] of one pole, c / (i s - a), in closed form; elementwise.

    |c| / |x| (atan((high - y) / |x|) - atan((low - y) / |x|)) for a = x + iy; at x = 0 its limit.

    Args:
      A: complex poles in rad per unit of time, without their conjugates.
      C: complex residues.
      low, high: ends in rad per unit of time, low <= high; they may be infinite.
    """
    A, C = np.asarray(A, np.complex128), np.asarray(C, np.complex128)
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    x, below, above = np.abs(A.real), low - A.imag, high - A.imag
    no_low, no_high = np.isneginf(low), np.isposinf(high)
    with np.errstate(invalid="ignore"):
        across = np.select([no_low & no_high, no_low | no_high], [0.0, 1.0], high - low)
        along = np.select(
            [no_low & no_high, no_low, no_high], [-1.0, -above, below], x**2 + below * above
        )
    return _arc(np.abs(C), x, across, along)


def discrete_pole_variation(
    z: ArrayLike, weight: ArrayLike, low: ArrayLike = -np.pi, high: ArrayLike = np.pi
) -> np.ndarray:
    """V over [low, high] of one sampled mode, w / (1 - e^{z - i omega}), in closed form.

    2 |w| r / (1 - r^2) times the increase of atan((1 + r) / (1 - r) tan((omega - Im z) / 2)), for
    r = e^{Re z}; at r = 1 its limit. Elementwise.

    Args:
      z: complex, A_bar = e^z, Re z <= 0; without its conjugate.
      weight: complex, C times the gain of the discretization.
      low, high: ends in rad per sample, low <= high <= low + 2 pi.
    """
    z, weight = np.asarray(z, np.complex128), np.asarray(weight, np.complex128)
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    r, one_less_r = np.exp(z.real), -np.expm1(z.real)
    start, end = (low - z.imag) / 2, (high - z.imag) / 2
    along = one_less_r**2 * np.cos(start) * np.cos(end) + (1 + r) ** 2 * np.sin(start) * np.sin(end)
    return _arc(2 * r * np.abs(weight), one_less_r * (1 + r), np.sin((high - low) / 2), along)


def _arc(size: np.ndarray, x: np.ndarray, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """size atan2(x across, along) / x: one angle, where the difference of two would cancel."""
    with np.errstate(divide="ignore", invalid="ignore"):
        at_0 = np.where(along > 0, across / along, np.inf)
        angle = np.where(x > 0, np.arctan2(x * across, along) / x, at_0)
        return np.where(size > 0, size * angle, 0.0)


def variation_per_band(
    A_HN: ArrayLike,
    C_HN: ArrayLike,
    edges_E: ArrayLike,
    *,
    beta_H: ArrayLike = 0.0,
    unit_H: ArrayLike = 1.0,
    conjugates: bool = True,
    rtol: float = 1e-6,
) -> np.ndarray:
    """V of (1 + unit |s|)^beta G(i s) over the bands between neighbouring edges, (H, E - 1).

    G is `kernels.transfer_function`. In an infinite band beta > 1 makes V infinite, since G falls
    as 1 / s; residues that cancel in that term are not looked for.

    Args:
      A_HN: complex poles in rad per unit of time, Re A <= 0.
      C_HN: complex residues: the read-out of one direction.
      edges_E: ascending, in rad per unit of time, (E,) or (H, E); the outer two may be infinite.
      beta_H: exponents of the filter, (H,) or one for all.
      unit_H: |s| of the filter per rad per unit of time, (H,) or one for all. For a layer
        dt times `kernels.response.frequency_per_radian`.
      conjugates: add each mode's conjugate to G, as the layers do.
      rtol: tolerance relative to the band's V.

    Raises:
      ValueError: for shapes that do not fit, edges that do not ascend, or Re A > 0.
    """
    modes = modes_of(*with_conjugates(A_HN, C_HN, conjugates), beta_H, unit_H)
    edges_HE = edges_per_channel(edges_E, len(modes.x_HM), np.inf)
    # The tails begin beyond all poles and inner edges.
    inner_HE = np.where(np.isinf(edges_HE), 0.0, edges_HE)
    reach_HM = np.concatenate([2 * np.hypot(modes.x_HM, modes.y_HM), 2 * np.abs(inner_HE)], axis=1)
    start_H = np.where(reach_HM.any(axis=1), reach_HM.max(axis=1), 1.0)
    V_HK = length_per_band(
        modes, continuous_response, np.clip(edges_HE, -start_H[:, None], start_H[:, None]), rtol
    )
    for band, sign in ((0, -1), (-1, 1)):
        asked_H = np.isinf(edges_HE[:, band]) & np.isfinite(V_HK[:, band])
        V_HK[:, band] += length_of_tail(modes, start_H, sign, asked_H, rtol)
    return V_HK


def discrete_variation_per_band(
    A_HN: ArrayLike,
    C_HN: ArrayLike,
    dt_H: ArrayLike,
    edges_E: ArrayLike,
    discretization: str = "zoh",
    *,
    beta_H: ArrayLike = 0.0,
    unit_H: ArrayLike = 1.0,
    conjugates: bool = True,
    rtol: float = 1e-6,
) -> np.ndarray:
    """V of the sampled (1 + unit |omega|)^beta K(omega) between neighbouring edges, (H, E - 1).

    K is `kernels.response.discrete_transfer_function`, the spectrum of the whole kernel.

    Args:
      A_HN, C_HN, beta_H, conjugates, rtol: as in `variation_per_band`.
      dt_H: steps in units of time, positive.
      edges_E: ascending, in rad per sample from -pi to pi, (E,) or (H, E).
      discretization: as in `kernels.s4d_kernel`.
      unit_H: |s| of the filter per rad per sample: `kernels.response.frequency_per_radian`.

    Raises:
      ValueError: as in `variation_per_band`, or for an unknown discretization.
    """
    A_HN, C_HN = with_conjugates(A_HN, C_HN, conjugates=False)
    H = len(A_HN)
    dt_H1 = np.broadcast_to(np.asarray(dt_H, np.float64), (H,))[:, None]
    with jax.enable_x64(True):
        wide = jnp.asarray(A_HN), jnp.asarray(dt_H1)
        z_HN = np.asarray(exponent(*wide, discretization)[0])
        gain_HN = np.asarray(DISCRETIZE[discretization](*wide)[1])
    z_HN = z_HN - 2j * np.pi * np.round(z_HN.imag / (2 * np.pi))
    modes = modes_of(*with_conjugates(z_HN, C_HN * gain_HN, conjugates), beta_H, unit_H)
    edges_HE = edges_per_channel(edges_E, H, np.pi)
    return length_per_band(modes, discrete_response, edges_HE, rtol, period=2 * np.pi)


def total_variation(
    A_HN: ArrayLike,
    C_HN: ArrayLike,
    low: float = 0.0,
    high: float = np.inf,
    *,
    beta_H: ArrayLike = 0.0,
    unit_H: ArrayLike = 1.0,
    conjugates: bool = True,
    rtol: float = 1e-6,
) -> np.ndarray:
    """V_H over [low, high], in rad per unit of time: `variation_per_band` with one band."""
    V_H1 = variation_per_band(
        A_HN, C_HN, [low, high], beta_H=beta_H, unit_H=unit_H, conjugates=conjugates, rtol=rtol
    )
    return V_H1[:, 0]


def discrete_total_variation(
    A_HN: ArrayLike,
    C_HN: ArrayLike,
    dt_H: ArrayLike,
    low: float = 0.0,
    high: float = np.pi,
    discretization: str = "zoh",
    *,
    beta_H: ArrayLike = 0.0,
    unit_H: ArrayLike = 1.0,
    conjugates: bool = True,
    rtol: float = 1e-6,
) -> np.ndarray:
    """V_H over [low, high], in rad per sample: `discrete_variation_per_band` with one band."""
    V_H1 = discrete_variation_per_band(
        A_HN,
        C_HN,
        dt_H,
        [low, high],
        discretization,
        beta_H=beta_H,
        unit_H=unit_H,
        conjugates=conjugates,
        rtol=rtol,
    )
    return V_H1[:, 0]
