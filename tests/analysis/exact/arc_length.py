"""Lengths of the curves that filtered sums of modes draw over bands of frequency, in float64 NumPy.

What `variation` integrates: |d/ds (1 + unit |s|)^beta G| for a sum G of modes, in continuous time,
w / (i s - a), or sampled, w / (1 - e^{z - i omega}).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tests.analysis.exact.quadrature import graded_panels, integrate

_NUMBERS_AT_ONCE = 1 << 17  # complex numbers of one temporary array: 2 MiB, about a cache
_FAR = 1e30  # so far out, in units of the largest pole, s^2 G' is constant in float64


class Modes(NamedTuple):
    """All modes, conjugates among them, and the filter of each channel.

    x_HM: damping, -Re a or -Re z, at least 0.
    y_HM: frequency, Im a or Im z.
    w_HM: weight; 0 in all modes of a channel that is not valid.
    beta_H, unit_H: the filter is (1 + unit |s|)^beta.
    valid_H: whether all numbers of the channel are finite.
    """

    x_HM: np.ndarray
    y_HM: np.ndarray
    w_HM: np.ndarray
    beta_H: np.ndarray
    unit_H: np.ndarray
    valid_H: np.ndarray


# (modes, owner_P, anchor_P, offset_PQ) -> (G_PQ, slope_PQ) at anchor + offset, dG/ds = -i slope
Response = Callable[[Modes, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def modes_of(A_HM: np.ndarray, w_HM: np.ndarray, beta_H: ArrayLike, unit_H: ArrayLike) -> Modes:
    """Modes with poles A (or z, sampled).

    Raises:
      ValueError: if Re A > 0.
    """
    H = len(A_HM)
    beta_H, unit_H = (np.broadcast_to(np.asarray(a, np.float64), (H,)) for a in (beta_H, unit_H))
    valid_H = np.isfinite(A_HM).all(1) & np.isfinite(w_HM).all(1)
    valid_H &= np.isfinite(beta_H) & np.isfinite(unit_H)
    A_HM, w_HM = (np.where(valid_H[:, None], a, 0) for a in (A_HM, w_HM))
    if (A_HM.real > 0).any():
        raise ValueError(
            f"variation: Re A must not be positive, got up to {A_HM.real.max():g}; "
            "an unstable mode has no frequency response."
        )
    return Modes(
        x_HM=np.where(w_HM == 0, 1.0, -A_HM.real),  # without a weight it may stand on the axis
        y_HM=A_HM.imag,
        w_HM=w_HM,
        beta_H=np.where(valid_H & (unit_H != 0), beta_H, 0.0),
        unit_H=np.where(valid_H, unit_H, 0.0),
        valid_H=valid_H,
    )


def with_conjugates(
    A_HN: ArrayLike, C_HN: ArrayLike, conjugates: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Poles and weights as complex128, (H, N), or (H, 2N) with each mode's conjugate."""
    A_HN, C_HN = np.asarray(A_HN, np.complex128), np.asarray(C_HN, np.complex128)
    if A_HN.ndim != 2 or A_HN.shape != C_HN.shape or not A_HN.size:
        raise ValueError(
            f"variation: A and C are (H, N) with H, N >= 1; got {A_HN.shape} and {C_HN.shape}."
        )
    if not conjugates:
        return A_HN, C_HN
    return np.concatenate([A_HN, A_HN.conj()], 1), np.concatenate([C_HN, C_HN.conj()], 1)


def edges_per_channel(edges_E: ArrayLike, H: int, limit: float) -> np.ndarray:
    """(H, E): two or more that ascend, none beyond the limit on either side."""
    edges = np.asarray(edges_E, np.float64)
    if edges.ndim not in (1, 2) or edges.shape[-1] < 2 or (edges.ndim == 2 and len(edges) != H):
        raise ValueError(f"variation: edges are (E,) or ({H}, E), E >= 2; got {edges.shape}.")
    if not (np.diff(edges) > 0).all() or np.abs(edges).max() > limit:
        raise ValueError(
            f"variation: edges must ascend and lie in [-{limit:g}, {limit:g}]; got "
            f"{edges.tolist()}."
        )
    return np.broadcast_to(edges, (H, edges.shape[-1]))


def continuous_response(modes: Modes, owner_P, anchor_P, offset_PQ):
    """G(i s) and its slope, sum w / (i s - a)^2."""
    away_PM = modes.x_HM[owner_P] + 1j * (anchor_P[:, None] - modes.y_HM[owner_P])
    w_PM1 = modes.w_HM[owner_P][:, :, None]
    inverse_PQM = 1 / (away_PM[:, None, :] + 1j * offset_PQ[:, :, None])
    return (inverse_PQM @ w_PM1)[:, :, 0], ((inverse_PQM * inverse_PQM) @ w_PM1)[:, :, 0]


def discrete_response(modes: Modes, owner_P, anchor_P, offset_PQ):
    """K(omega) = sum w / (1 - q) and its slope, sum w q / (1 - q)^2, with q = e^{z - i omega}."""
    z_PM = -modes.x_HM[owner_P] + 1j * (modes.y_HM[owner_P] - anchor_P[:, None])
    w_PM1 = modes.w_HM[owner_P][:, :, None]
    # 1 - q = (1 - e^z) + e^z (1 - turn): either bracket keeps its digits where it is small.
    one_less_PM = -np.expm1(z_PM)
    bar_PM = 1 - one_less_PM
    turn_PQ = np.exp(-1j * offset_PQ)
    one_less_turn_PQ = 2 * np.sin(offset_PQ / 2) ** 2 + 1j * np.sin(offset_PQ)
    inverse_PQM = 1 / (one_less_PM[:, None, :] + bar_PM[:, None, :] * one_less_turn_PQ[:, :, None])
    squares_PQ1 = (inverse_PQM * inverse_PQM) @ (w_PM1 * bar_PM[:, :, None])
    return (inverse_PQM @ w_PM1)[:, :, 0], turn_PQ * squares_PQ1[:, :, 0]


def _relative_slope(modes: Modes, response: Response, owner_P, anchor_P, offset_PQ):
    """(|d/ds gain G| / gain, log gain, |s|) with the filter's gain."""
    s_PQ = anchor_P[:, None] + offset_PQ
    beta_P1, unit_P1 = modes.beta_H[owner_P][:, None], modes.unit_H[owner_P][:, None]
    base_PQ = unit_P1 * np.abs(s_PQ)
    growth_PQ = beta_P1 * unit_P1 * np.sign(s_PQ) / (1 + base_PQ)
    G_PQ, slope_PQ = response(modes, owner_P, anchor_P, offset_PQ)
    return np.abs(growth_PQ * G_PQ - 1j * slope_PQ), beta_P1 * np.log1p(base_PQ)


def _panels_at_once(modes: Modes) -> int:
    return max(1, _NUMBERS_AT_ONCE // (8 * modes.x_HM.shape[1]))


def _widths(modes: Modes, point_HP: np.ndarray, period: float) -> np.ndarray:
    """How narrow a peak may be at a point: its distance to the nearest pole, the gain's scale."""
    across_HPM = np.abs(point_HP[:, :, None] - modes.y_HM[:, None, :])
    across_HPM = np.minimum(across_HPM, period - across_HPM)
    distance_HPM = np.hypot(modes.x_HM[:, None, :], across_HPM)
    width_HP = np.where((modes.w_HM != 0)[:, None, :], distance_HPM, np.inf).min(-1)
    with np.errstate(divide="ignore"):
        scale_H1 = np.where(modes.beta_H == 0, np.inf, 1 / modes.unit_H)[:, None]
    return np.minimum(width_HP, scale_H1 + np.abs(point_HP))


def length_per_band(
    modes: Modes,
    response: Response,
    edges_HE: np.ndarray,
    rtol: float,
    period: float = np.inf,
) -> np.ndarray:
    """Lengths over the bands between finite edges, (H, E - 1).

    inf where a mode with x = 0 stands in the closed band, nan in channels that are not valid. With
    a period, edges and frequencies lie within half of it around 0.
    """
    H, K = edges_HE.shape[0], edges_HE.shape[1] - 1
    in_band_HKM = edges_HE[:, :-1, None] <= modes.y_HM[:, None, :]
    in_band_HKM &= modes.y_HM[:, None, :] <= edges_HE[:, 1:, None]
    infinite_HK = (in_band_HKM & (modes.x_HM == 0)[:, None, :]).any(-1)

    # Panels reach from a peak, an edge or the kink of |s| at 0 halfway to its neighbour.
    low_H1, high_H1 = edges_HE[:, :1], edges_HE[:, -1:]
    points = (edges_HE, np.clip(modes.y_HM, low_H1, high_H1), np.clip(0.0, low_H1, high_H1))
    point_HP = np.sort(np.concatenate(points, axis=1), axis=1)
    width_HP = _widths(modes, point_HP, period)
    start_HP, end_HP = point_HP[:, :-1], point_HP[:, 1:]
    middle_HP = start_HP + (end_HP - start_HP) / 2
    band_HP = (middle_HP[:, :, None] > edges_HE[:, None, 1:-1]).sum(-1)
    owner_HP = np.broadcast_to(np.arange(H)[:, None], band_HP.shape)
    silent_H1 = (modes.w_HM == 0).all(1)[:, None]
    used_HP = (end_HP > start_HP) & ~silent_H1 & ~infinite_HK[owner_HP, band_HP]

    def both(of_lower_HP: np.ndarray, of_upper_HP: np.ndarray) -> np.ndarray:
        return np.concatenate([of_lower_HP[used_HP], of_upper_HP[used_HP]])

    panels = graded_panels(
        both(owner_HP, owner_HP),
        both(owner_HP * K + band_HP, owner_HP * K + band_HP),
        both(start_HP, end_HP),
        both(middle_HP - start_HP, middle_HP - end_HP),
        both(width_HP[:, :-1], width_HP[:, 1:]),
    )

    def integrand(owner_P, anchor_P, offset_PQ):
        slope_PQ, log_gain_PQ = _relative_slope(modes, response, owner_P, anchor_P, offset_PQ)
        return slope_PQ * np.exp(log_gain_PQ)

    lengths = integrate(
        integrand, panels, H * K, rtol=rtol, panels_at_once=_panels_at_once(modes)
    ).reshape(H, K)
    return np.where(modes.valid_H[:, None], np.where(infinite_HK, np.inf, lengths), np.nan)


def length_of_tail(
    modes: Modes, start_H: np.ndarray, sign: int, asked_H: np.ndarray, rtol: float
) -> np.ndarray:
    """Lengths over [start, inf), or for sign = -1 over (-inf, -start], where asked, else 0.

    For continuous time. start lies beyond all poles. inf for beta > 1.

    With s = start u^-p the half line becomes 0 < u <= 1. Far out the integrand is s^(beta - 2)
    times nearly a constant, f(s); p = 1 / (1 - beta) for beta in (0, 1) makes all of it constant.
    """
    asked_H = asked_H & (modes.w_HM != 0).any(1)
    beta_H = np.where(asked_H & (modes.beta_H <= 1), modes.beta_H, 0.0)
    power_H = 1 / (1 - np.where(beta_H < 1, np.maximum(beta_H, 0.0), 0.0))
    owner_P = np.flatnonzero(asked_H & (modes.beta_H <= 1))
    # u = 1 + offset: with p large all that happens, happens in a width of 1 / p next to u = 1.
    ones_P = np.ones(len(owner_P))
    panels = graded_panels(owner_P, owner_P, ones_P, -ones_P, 1 / power_H[owner_P])

    def integrand(owner_P, anchor_P, offset_PQ):
        start_P1, power_P1, beta_P1 = (a[owner_P][:, None] for a in (start_H, power_H, beta_H))
        log_u_PQ = np.log1p(offset_PQ)
        log_s_PQ = np.log(start_P1) + np.minimum(-power_P1 * log_u_PQ, np.log(_FAR))
        s_PQ = np.exp(log_s_PQ)
        slope_PQ, log_gain_PQ = _relative_slope(
            modes, continuous_response, owner_P, np.zeros_like(anchor_P), sign * s_PQ
        )
        f_PQ = slope_PQ * s_PQ**2 * np.exp(log_gain_PQ - beta_P1 * log_s_PQ)
        left_over_PQ = np.exp((power_P1 * (1 - beta_P1) - 1) * log_u_PQ)
        return f_PQ * left_over_PQ * start_P1 ** (beta_P1 - 1) * power_P1

    lengths_H = integrate(
        integrand, panels, len(asked_H), rtol=rtol, panels_at_once=_panels_at_once(modes)
    )
    return np.where(asked_H & (modes.beta_H > 1), np.inf, lengths_H)
