"""The adaptive rule on integrands with known integrals, many at once."""

import numpy as np
import pytest

from tests.analysis.exact.quadrature import Panels, graded_panels, integrate


def panels(owner, total, low, high, anchor=0.0):
    ones = np.ones(len(owner))
    return Panels(np.array(owner), np.array(total), anchor * ones, low * ones, high * ones)


def test_kinks_peaks_and_polynomials_are_integrated_side_by_side():
    """Each panel has its own integrand; two of them go into one sum."""
    width = 1e-8
    integrands = (
        lambda s: np.abs(s - 0.3),
        lambda s: width / (width**2 + s**2),
        lambda s: s**14,
        np.sqrt,
    )

    def integrand(owner_P, anchor_P, offset_PQ):
        return np.stack([integrands[o](s) for o, s in zip(owner_P, offset_PQ, strict=True)])

    found = integrate(
        integrand, panels([0, 1, 2, 3], [0, 1, 2, 2], 0, 1), 4, rtol=1e-9, panels_at_once=3
    )
    exact = [0.3**2 / 2 + 0.7**2 / 2, np.arctan(1 / width), 1 / 15 + 2 / 3, 0]
    np.testing.assert_allclose(found, exact, rtol=1e-9)


def test_an_offset_from_the_anchor_resolves_what_one_number_cannot():
    """A peak of width 1e-14 at 200, where float64 numbers are 3e-14 apart."""
    width = 1e-14

    def integrand(owner_P, anchor_P, offset_PQ):
        away = (anchor_P[:, None] - 200) + offset_PQ
        return width / (width**2 + away**2)

    found = integrate(
        integrand, panels([0], [0], -1, 0, anchor=200.0), 1, rtol=1e-10, panels_at_once=1
    )
    assert found[0] == pytest.approx(np.pi / 2, rel=1e-10)


def test_graded_panels_cover_the_reach_and_end_at_the_width():
    graded = graded_panels(
        np.array([0, 1, 2]),
        np.array([4, 5, 6]),
        np.array([0.0, 10.0, 20.0]),
        np.array([1.0, -3.0, 2.0]),
        np.array([1e-3, 0.4, 5.0]),
    )
    for owner, (total, anchor, reach, width, count) in enumerate(
        [(4, 0, 1.0, 1e-3, 5), (5, 10, -3.0, 0.4, 2), (6, 20, 2.0, 5.0, 1)]
    ):
        own = graded.chosen(graded.owner_P == owner)
        assert len(own.low_P) == count
        assert (own.sum_P == total).all()
        assert (own.anchor_P == anchor).all()
        ends = np.sort(np.concatenate([own.low_P, own.high_P]))
        assert {ends[0], ends[-1]} == {0, reach}
        np.testing.assert_array_equal(ends[1:-1:2], ends[2:-1:2])
        smallest = (own.high_P - own.low_P).min()
        assert smallest >= min(width, abs(reach)) * 0.75
        assert smallest < 4 * width


def test_a_sharp_peak_shows_beside_a_broad_one_of_the_same_sum():
    """Ungraded, its first value is 1e-8 of the sum's, and a tolerance of 1e-3 would be content."""
    width = np.array([1e-1, 1e-12])
    size = np.array([1.0, 1e-3])

    def integrand(owner_P, anchor_P, offset_PQ):
        w, c = width[owner_P][:, None], size[owner_P][:, None]
        return c * w / (w**2 + offset_PQ**2)

    start = graded_panels(np.array([0, 1]), np.array([0, 0]), np.zeros(2), np.full(2, 1e3), width)
    found = integrate(integrand, start, 1, rtol=1e-3, panels_at_once=9)
    exact = np.sum(size * np.arctan(1e3 / width))
    assert found[0] == pytest.approx(exact, rel=1e-4)


def test_no_panels_make_sums_of_0():
    nothing = panels(np.zeros(0, int), np.zeros(0, int), 0, 1)
    found = integrate(lambda o, a, s: s, nothing, 2, rtol=1e-6, panels_at_once=9)
    assert found.tolist() == [0, 0]


def test_an_integrand_that_is_not_finite_is_refused():
    def integrand(owner_P, anchor_P, offset_PQ):
        return np.where(offset_PQ > 0.9, np.nan, 1.0)

    with pytest.raises(ArithmeticError, match="the integrand is not finite"):
        integrate(integrand, panels([0], [0], 0, 1), 1, rtol=1e-6, panels_at_once=9)


def test_noise_is_refused_rather_than_refined_for_ever():
    random = np.random.default_rng(0)

    def integrand(owner_P, anchor_P, offset_PQ):
        return random.uniform(size=offset_PQ.shape)

    with pytest.raises(ArithmeticError, match="do not converge to rtol=1e-06"):
        integrate(integrand, panels([0], [0], 0, 1), 1, rtol=1e-6, panels_at_once=999)
