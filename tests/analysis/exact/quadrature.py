"""Adaptive quadrature of many sharply peaked, non-negative integrands at once, in float64 NumPy.

The panels of all integrands are halved together, level by level, and the integrand is called with
thousands of points. SciPy's `quad` has one integrand and plain numbers for points: told where a
peak of width 1e-6 at 200 stands, it still misses all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_NODES = np.polynomial.legendre.leggauss(8)[0]  # on [-1, 1]
_MOST_CUTS = 500  # by 4 each: from 1e300 to 1e-1
_LEVELS = 64  # halvings of one panel; a kink asks for log4(1 / rtol)
_GROWTH = 32  # so many times more panels than at the start: the values are noise at this tolerance
_SAFETY = 1 / 2
_SMALL = 1 / 128  # a panel below this part of its sum may err by as much as this part would


def _weights_of_halves() -> np.ndarray:
    """Integrals over [-1, 0] and [0, 1] of the polynomial through the nodes, as (8, 2) weights."""
    degrees = np.eye(len(_NODES))
    antiderivatives = [np.polynomial.legendre.Legendre(c).integ(lbnd=0) for c in degrees]
    halves = np.array([[-p(-1.0), p(1.0)] for p in antiderivatives])
    at_nodes = np.polynomial.legendre.legvander(_NODES, len(_NODES) - 1)
    return np.linalg.solve(at_nodes.T, halves)


_WEIGHTS = _weights_of_halves()


class Panels(NamedTuple):
    """Intervals anchor + [low, high]; each belongs to an owner, the integrand, and to a sum.

    A point is an anchor and an offset: one float64 number at 200 cannot resolve a peak of width
    1e-14 there, but an offset from the peak can.
    """

    owner_P: np.ndarray  # int
    sum_P: np.ndarray  # int
    anchor_P: np.ndarray
    low_P: np.ndarray
    high_P: np.ndarray

    def chosen(self, which: np.ndarray | slice) -> Panels:
        """The panels of a mask or a slice."""
        return Panels(*(field[which] for field in self))

    def halves(self) -> Panels:
        """The lower halves, then the upper halves."""
        owner_P, sum_P, anchor_P, low_P, high_P = self
        middle_P = low_P + (high_P - low_P) / 2
        return Panels(
            np.tile(owner_P, 2),
            np.tile(sum_P, 2),
            np.tile(anchor_P, 2),
            np.concatenate([low_P, middle_P]),
            np.concatenate([middle_P, high_P]),
        )


def graded_panels(
    owner_P: np.ndarray,
    sum_P: np.ndarray,
    anchor_P: np.ndarray,
    reach_P: np.ndarray,
    width_P: np.ndarray,
) -> Panels:
    """Panels from each anchor to anchor + reach, shorter by 4 and 4 towards the anchor.

    The last is as short as the width of what is peaked there. So no peak is hidden from the first
    panels, beside which `integrate` would take its coarse value, far too small, for negligible.

    Args:
      owner_P, sum_P, anchor_P: as in Panels.
      reach_P: positive or negative, not 0.
      width_P: positive.
    """
    with np.errstate(divide="ignore"):
        cuts_P = np.floor(np.log(np.abs(reach_P) / width_P) / np.log(4))
    cuts_P = np.clip(cuts_P, 0, _MOST_CUTS).astype(int)
    index = np.repeat(np.arange(len(cuts_P)), cuts_P + 1)
    cut = np.arange(len(index)) - np.repeat(np.cumsum(cuts_P + 1) - cuts_P - 1, cuts_P + 1)
    far = reach_P[index] / 4.0**cut
    near = np.where(cut == cuts_P[index], 0.0, far / 4)
    return Panels(
        owner_P[index], sum_P[index], anchor_P[index], np.minimum(near, far), np.maximum(near, far)
    )


# (owner_P, anchor_P, offset_PQ) -> values_PQ
Integrand = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def integrate(
    integrand: Integrand, panels: Panels, n_sums: int, *, rtol: float, panels_at_once: int
) -> np.ndarray:
    """Integrals over the panels, added up into n_sums sums.

    A panel is halved until the polynomial through the 8 Gauss-Legendre points of the whole has over
    either half the integral that the points of that half have, within rtol / 2 of the panel's
    integral or of the 128th part of its sum. What is kept are the halves, which are better than
    that difference: by 2^16 where the integrand is smooth, by 4 or so at a kink.

    Args:
      integrand: non-negative values, finite at the inner points of all panels.
      panels: fine enough to show every peak; may be empty.
      n_sums: how many sums there are.
      rtol: relative tolerance, about 1e-13 or more.
      panels_at_once: how many panels the integrand gets in one call.

    Raises:
      ArithmeticError: if some panel does not converge, as with values that are not finite.
    """
    done = np.zeros(n_sums)

    def halves_of(panels: Panels) -> np.ndarray:
        """Integrals over the lower and the upper half, (P, 2), by the points of the whole."""
        found_P2 = np.empty((len(panels.owner_P), 2))
        for start in range(0, len(found_P2), panels_at_once):
            part = panels.chosen(slice(start, start + panels_at_once))
            scale_P1 = (part.high_P - part.low_P)[:, None] / 2
            offset_PQ = part.low_P[:, None] + scale_P1 * (1 + _NODES)
            values_PQ = integrand(part.owner_P, part.anchor_P, offset_PQ)
            found_P2[start : start + panels_at_once] = scale_P1 * (values_PQ @ _WEIGHTS)
        return found_P2

    guess_P2 = halves_of(panels)
    most = _GROWTH * (len(guess_P2) + _GROWTH)
    for _ in range(_LEVELS):
        if not len(guess_P2):
            return done
        if len(guess_P2) > most:
            break
        halves = panels.halves()
        quarters_2P2 = halves_of(halves)
        refined_P2 = np.stack(np.split(quarters_2P2.sum(-1), 2), axis=-1)
        refined_P = refined_P2.sum(-1)
        if not np.isfinite(refined_P).all():
            raise ArithmeticError("integrate: the integrand is not finite.")
        so_far = done + np.bincount(panels.sum_P, refined_P, n_sums)
        error_P = np.abs(refined_P2 - guess_P2).sum(-1)
        scale_P = np.maximum(refined_P, _SMALL * so_far[panels.sum_P])
        accepted_P = error_P <= _SAFETY * rtol * scale_P
        done += np.bincount(panels.sum_P[accepted_P], refined_P[accepted_P], n_sums)
        rest_2P = np.tile(~accepted_P, 2)
        guess_P2, panels = quarters_2P2[rest_2P], halves.chosen(rest_2P)
    raise ArithmeticError(f"integrate: {len(guess_P2)} panels do not converge to rtol={rtol:g}.")
