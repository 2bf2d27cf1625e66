"""Total variation: closed forms, SciPy's quadrature, the definition, and the bound on the tails."""

import functools
import itertools

import jax
import numpy as np
import oracles
import pytest
from running import run
from scipy.integrate import quad

from ssm_jax.init import initial_modes
from ssm_jax.kernels import transfer_function
from ssm_jax.kernels.response import discrete_transfer_function
from tests.analysis.exact.variation import (
    discrete_pole_variation,
    discrete_total_variation,
    discrete_variation_per_band,
    pole_variation,
    tail_bound,
    total_variation,
    variation_per_band,
)

INF = np.inf


def systems(H=3, N=5, seed=0, damping=(0.1, 1.0)):
    rng = np.random.default_rng(seed)
    A = -rng.uniform(*damping, (H, N)) + 1j * rng.uniform(0, 20, (H, N))
    return A, rng.normal(size=(H, N, 2)) @ np.array([1, 1j])


def slope_at(s, a, c, beta=0.0, unit=1.0):
    """|d/ds (1 + unit |s|)^beta sum c / (is - a)|, one number."""
    away = 1j * s - a
    G, dG = np.sum(c / away), np.sum(-1j * c / away**2)
    base = 1 + unit * abs(s)
    return abs(base**beta * dG + beta * unit * np.sign(s) * base ** (beta - 1) * G)


def discrete_slope_at(omega, bar, w, beta=0.0, unit=1.0):
    """The same of sum w / (1 - bar e^{-i omega})."""
    q = bar * np.exp(-1j * omega)
    K, dK = np.sum(w / (1 - q)), np.sum(-1j * w * q / (1 - q) ** 2)
    base = 1 + unit * abs(omega)
    return abs(base**beta * dK + beta * unit * np.sign(omega) * base ** (beta - 1) * K)


def integral(function, low, high, peaks=()):
    """By SciPy; an infinite end stands alone, without peaks."""
    inside = [p for p in peaks if low < p < high] or None
    return quad(function, low, high, points=inside, epsabs=0, epsrel=1e-11, limit=2000)[0]


def paired(*arrays):
    return tuple(np.concatenate([a, a.conj()]) for a in arrays)


@pytest.mark.parametrize("x", [-2.0, -0.5, -0.01])
@pytest.mark.parametrize("ends", [(-3, 1), (2.5, 40), (3, INF), (-INF, 2), (-INF, INF)])
def test_closed_form_of_a_pole_is_the_integral_of_its_slope(x, ends):
    a, c = np.array([x + 3j]), np.array([1 - 2j])
    parts = [e for e in (-20, 3, 20) if ends[0] < e < ends[1]]
    cuts = [ends[0], *parts, ends[1]]
    pieces = [integral(lambda s: slope_at(s, a, c), *pair) for pair in itertools.pairwise(cuts)]
    assert pole_variation(a[0], c[0], *ends) == pytest.approx(sum(pieces), rel=1e-9)


def test_closed_form_keeps_its_digits_where_two_angles_nearly_cancel():
    """Far from a sharp pole V tends to |c| (1/(low - y) - 1/(high - y)), exact at x = 0."""
    for x in (0.0, -1e-12, -1e-6):
        for low, high in ((5, 5.001), (5, 100), (-3, -1), (5, INF)):
            exact = 2 * abs(1 / (low - 1) - 1 / (high - 1))
            assert pole_variation(x + 1j, 2j, low, high) == pytest.approx(exact, rel=1e-11)


def test_the_whole_axis_has_pi_times_the_height_of_the_peak():
    """G(is) of one pole goes once round a circle of diameter |c| / |x|."""
    A = np.array([-0.5, -1e-3 + 7j, -3 - 2j])
    once_round = np.pi * 5**0.5 / -A.real
    np.testing.assert_allclose(pole_variation(A, 2 - 1j), once_round, rtol=1e-15)
    sharp = np.array([[-0.5], [-1e-9 + 7j], [-1e-3 - 200j]])
    found = total_variation(sharp, np.full((3, 1), 2 - 1j), -INF, INF, conjugates=False)
    np.testing.assert_allclose(found, np.pi * 5**0.5 / -sharp[:, 0].real, rtol=1e-6)


@pytest.mark.parametrize("x", [-0.5, -1e-3, -1e-9])
def test_integration_of_one_pole_gives_the_closed_form_in_every_band(x):
    """Peaks of any width, at band edges, and both infinite ends."""
    A, C = np.array([[x + 200j], [x - 3j]]), np.array([[1 + 2j], [0.3j]])
    edges = np.array([-INF, -10, -3, 0, 3, 7, 199, 200, 200 + 2 * abs(x), 300, INF])
    found = variation_per_band(A, C, edges, conjugates=False)
    np.testing.assert_allclose(found, pole_variation(A, C, edges[:-1], edges[1:]), rtol=1e-7)


@pytest.mark.parametrize("x", [-0.5, -1e-3, -1e-9])
def test_integration_of_one_sampled_mode_gives_the_closed_form_in_every_band(x):
    z, C = x + 1j * np.array([[1.5], [-3.1]]), np.array([[1 + 2j], [0.3j]])
    edges = np.array([-np.pi, -3.1, -3, 0, 1, 1.5, 1.5 + abs(x), 2.1, np.pi])
    found = discrete_variation_per_band(z, C, 1.0, edges, conjugates=False)
    weight = C * oracles.phi_1(z)
    exact = discrete_pole_variation(z, weight, edges[:-1], edges[1:])
    np.testing.assert_allclose(found, exact, rtol=1e-7)


@pytest.mark.parametrize("ends", [(-np.pi, np.pi), (0, 3), (1.4, 1.6), (-2, 1)])
@pytest.mark.parametrize("z", [-0.3 + 1.5j, -2 - 3j, -0.01 + 1.5j])
def test_closed_form_of_a_sampled_mode_is_the_integral_of_its_slope(z, ends):
    bar, w = np.array([np.exp(z)]), np.array([2 - 1j])
    exact = integral(lambda o: discrete_slope_at(o, bar, w), *ends, peaks=(1.5,))
    assert discrete_pole_variation(z, w[0], *ends) == pytest.approx(exact, rel=1e-9)


def test_an_undamped_sampled_mode_has_the_limit_of_the_closed_form():
    for low, high in ((-1, 1.4), (1.6, 3), (-3, -2)):
        near = discrete_pole_variation(-1e-9 + 1.5j, 1j, low, high)
        assert discrete_pole_variation(1.5j, 1j, low, high) == pytest.approx(near, rel=1e-6)
    assert discrete_pole_variation(1.5j, 1j, 1, 2) == INF
    assert discrete_pole_variation(1.5j, 0, 1, 2) == 0


@pytest.mark.parametrize("beta", [0.0, -4.0, -0.7, 0.5, 0.99, 1.0, 2.5])
def test_bands_of_filtered_sums_equal_scipys_quadrature(beta):
    """With an infinite last band as far as the integral exists; |s| has another unit."""
    A, C = systems()
    edges = [0, 3, 10, 45, *([INF] if beta <= 1 else [])]
    unit = np.array([0.3, 1.0, 3.0])
    found = variation_per_band(A, C, edges, beta_H=beta, unit_H=unit, rtol=1e-9)
    for h, k in np.ndindex(found.shape):
        a, c = paired(A[h], C[h])
        slope = functools.partial(slope_at, a=a, c=c, beta=beta, unit=unit[h])
        exact = integral(slope, *edges[k : k + 2], peaks=a.imag)
        assert found[h, k] == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
@pytest.mark.parametrize("beta", [0.0, -2.0, 1.5])
def test_bands_of_filtered_sampled_sums_equal_scipys_quadrature(rule, beta):
    """Aliased modes too: at dt = 1 most stand beyond Nyquist."""
    A, C = systems(seed=1)
    dt = np.array([0.01, 0.1, 1.0])
    edges = [-np.pi, -0.5, 0, 0.2, 2, np.pi]
    found = discrete_variation_per_band(A, C, dt, edges, rule, beta_H=beta, unit_H=0.2, rtol=1e-9)
    for h, k in np.ndindex(found.shape):
        bar, gain = oracles.discretize(A[h], dt[h], rule)
        bar, w = paired(bar, C[h] * gain)
        slope = functools.partial(discrete_slope_at, bar=bar, w=w, beta=beta, unit=0.2)
        exact = integral(slope, *edges[k : k + 2], peaks=np.angle(bar))
        assert found[h, k] == pytest.approx(exact, rel=1e-8)


def test_modes_given_per_sample_need_no_step():
    """The rule "none": weight C, and z = A also where the step is 1."""
    z, C = np.array([[-0.1 + 1j]]), np.array([[2 - 1j]])
    found = discrete_total_variation(z, C, 1.0, -1, 2, "none", conjugates=False)
    assert found[0] == pytest.approx(float(discrete_pole_variation(z, C, -1, 2)[0, 0]), rel=1e-7)


def polygon(G_HF):
    return np.abs(np.diff(G_HF, axis=1)).sum(1)


def test_variation_is_what_polygons_through_the_curve_approach_from_below():
    """The definition, with the package's own G: sup over partitions of sum |G_k - G_{k-1}|.

    A polygon's error is of second order in the spacing.
    """
    A, C = systems(seed=2, damping=(0.5, 1.0))
    exact = total_variation(A, C, -5, 30, rtol=1e-9)
    errors = []
    for points in (1001, 10001):
        with jax.enable_x64(True):
            s = np.broadcast_to(np.linspace(-5, 30, points), (3, points))
            errors.append(exact - polygon(run(transfer_function, A, C, s)))
    assert (errors[1] > 0).all()
    assert (errors[1] < 1e-5 * exact).all()
    np.testing.assert_allclose(errors[0] / errors[1], 100, rtol=0.05)


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_sampled_variation_is_what_polygons_approach_from_below(rule):
    A, C = systems(seed=3, damping=(0.5, 1.0))
    dt = np.array([0.03, 0.1, 1.0])
    exact = discrete_total_variation(A, C, dt, discretization=rule, rtol=1e-9)
    errors = []
    for points in (2001, 20001):
        with jax.enable_x64(True):
            omega = np.broadcast_to(np.linspace(0, np.pi, points), (3, points))
            K = run(discrete_transfer_function, A, C, dt, omega, discretization=rule)
        errors.append(exact - polygon(K))
    assert (errors[1] > 0).all()
    assert (errors[1] < 1e-5 * exact).all()
    np.testing.assert_allclose(errors[0] / errors[1], 100, rtol=0.05)


def test_the_tolerance_holds_for_the_official_initialization():
    """16 channels and 8 bands: sharp and aliased modes; asked for 1e-3, 1e-5."""
    rng = np.random.default_rng(4)
    A = np.broadcast_to(initial_modes("s4d_lin", 64, alpha=10.0).A_SN[0], (16, 64))
    C = rng.normal(size=(16, 64, 2)) @ np.array([1, 1j])
    dt = np.geomspace(1e-3, 1e-1, 16)
    edges = np.linspace(0, np.pi, 9)
    exact = discrete_variation_per_band(A, C, dt, edges, beta_H=0.5, rtol=1e-10)
    for rtol in (1e-3, 1e-5):
        found = discrete_variation_per_band(A, C, dt, edges, beta_H=0.5, rtol=rtol)
        np.testing.assert_allclose(found, exact, rtol=rtol)


def test_no_peak_is_lost_beside_another_a_band_edge_or_the_end_of_the_circle():
    """Two poles far apart vary as if alone; so at any tolerance, where the sharper one hides."""
    A, C = np.array([[-1e-2 + 3j, -1e-10 + 1000j]]), np.array([[1, 1e-7j]])
    alone = pole_variation(A, C)[0]
    edges = [-INF, 100, 1000 + 1e-9, INF]
    shared = pole_variation(A[0, 1], C[0, 1], 100, edges[2])
    for rtol in (1e-3, 1e-6):
        found = variation_per_band(A, C, edges, conjugates=False, rtol=rtol)[0]
        np.testing.assert_allclose(found, [alone[0], shared, alone[1] - shared], rtol=1e-3)
        whole = total_variation(A, C, -INF, INF, conjugates=False, rtol=rtol)
        assert whole[0] == pytest.approx(alone.sum(), rel=1e-3)

    z = np.array([[-1e-2 + 2.5j, -1e-10 - (np.pi - 1e-9) * 1j]])  # nearest to pi across the cut
    assert_sum_of_two_modes(z, C)
    assert_sum_of_two_modes(z.real + 1j * np.array([[2.5, 1.5 + 20 * np.pi]]), C)  # aliased


def assert_sum_of_two_modes(z, C):
    exact = discrete_pole_variation(z, C * oracles.phi_1(z), 1, np.pi).sum()
    found = discrete_variation_per_band(z, C, 1.0, [1, np.pi], conjugates=False, rtol=1e-3)
    assert found[0, 0] == pytest.approx(exact, rel=1e-3)


def test_bands_add_up_to_the_whole():
    A, C = systems(seed=5)
    bands = variation_per_band(A, C, [-INF, -4, 0, 0.1, 12, INF], beta_H=-0.5, rtol=1e-9)
    whole = total_variation(A, C, -INF, INF, beta_H=-0.5, rtol=1e-9)
    np.testing.assert_allclose(bands.sum(1), whole, rtol=1e-8)


def test_edges_per_channel_are_channels_apart():
    A, C = systems(seed=6)
    edges = np.array([[0, 1, 5], [-2, 3, 4], [1, 2, INF]])
    found = variation_per_band(A, C, edges)
    for h in range(3):
        alone = variation_per_band(A[h : h + 1], C[h : h + 1], edges[h])
        np.testing.assert_allclose(found[h], alone[0], rtol=1e-12)


def test_a_real_mode_with_its_conjugate_is_one_pole_of_twice_the_real_residue():
    A, C = np.array([[-0.7 + 0j]]), np.array([[1.5 - 4j]])
    for ends in ((0, 2), (-1, 5), (0, INF)):
        found = total_variation(A, C, *ends)[0]
        assert found == pytest.approx(float(pole_variation(-0.7, 3, *ends)), rel=1e-7)


def test_a_mode_and_its_conjugate_vary_alike_at_either_sign_of_the_frequency():
    A, C = systems(seed=7)
    up = variation_per_band(A, C, [0, 2, 30, INF], beta_H=0.4)
    down = variation_per_band(A, C, [-INF, -30, -2, 0], beta_H=0.4)
    np.testing.assert_allclose(up, down[:, ::-1], rtol=1e-6)


def test_the_unit_of_time_and_the_size_of_the_readout_scale_out():
    """V(k A, k C) over [k a, k b] is V(A, C) over [a, b]; V(A, r C) is |r| V(A, C)."""
    A, C = systems(seed=8)
    edges = np.array([0, 4, 9, INF])
    own = variation_per_band(A, C, edges, rtol=1e-9)
    for k in (1e-6, 1e4):
        scaled = variation_per_band(k * A, k * C, k * edges, rtol=1e-9)
        np.testing.assert_allclose(scaled, own, rtol=1e-8)
    turned = variation_per_band(A, -1e-5 * C, edges, rtol=1e-9)
    np.testing.assert_allclose(turned, 1e-5 * own, rtol=1e-8)


def test_at_a_small_step_sampling_keeps_the_variation():
    A, C = systems(seed=9)
    dt = 1e-5
    continuous = total_variation(A, C, 0, 40)
    sampled = discrete_total_variation(A, C, dt, 0, 40 * dt)
    np.testing.assert_allclose(sampled, continuous, rtol=1e-3)


def test_the_poles_own_variations_bound_that_of_their_sum():
    A, C = systems(seed=10)
    for ends in ((-2, 3), (0, INF), (8, 9)):
        both = pole_variation(A, C, *ends) + pole_variation(A.conj(), C.conj(), *ends)
        assert (total_variation(A, C, *ends) <= both.sum(1) * (1 + 1e-6)).all()


@pytest.mark.parametrize("conjugates", [True, False])
def test_tail_bound_holds_on_both_sides(conjugates):
    A, C = systems(seed=11)
    for B in (20.5, 40, 1000):
        above, below = tail_bound(A, C, B, conjugates=conjugates)
        tails = variation_per_band(A, C, [-INF, -B, B, INF], conjugates=conjugates)
        assert (tails[:, 2] <= above).all()
        assert (tails[:, 0] <= below).all()
    if conjugates:
        np.testing.assert_allclose(above, below)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0, 10.0])
def test_beyond_the_window_that_alpha_sets_the_variation_falls_as_one_over_the_frequency(alpha):
    """S4D-Lin: bounded by sum |c| / (B - y), and in the limit |sum 2 Re c| / B."""
    A = np.broadcast_to(initial_modes("s4d_lin", 16, alpha=alpha).A_SN[0], (2, 16))
    C = systems(H=2, N=16, seed=12)[1]
    window = alpha * np.pi * 15
    for B in (1.1 * window, 2 * window, 10 * window):
        assert (total_variation(A, C, B) <= tail_bound(A, C, B).above_H).all()
    far = 1e5 * window
    limit = np.abs(2 * C.real.sum(1)) / far
    np.testing.assert_allclose(total_variation(A, C, far), limit, rtol=1e-3)


def test_tail_bound_is_attained_by_a_pole_without_damping():
    bound = tail_bound([[7j]], [[3 - 4j]], 10, conjugates=False)
    assert bound.above_H[0] == pytest.approx(5 / 3)
    assert bound.below_H[0] == pytest.approx(5 / 17)
    found = variation_per_band([[7j]], [[3 - 4j]], [-INF, -10, 10, INF], conjugates=False)
    np.testing.assert_allclose(found[0], [5 / 17, INF, 5 / 3], rtol=1e-7)


def test_tail_bound_is_refused_inside_the_poles():
    A, C = systems(seed=13)
    for B in (np.abs(A.imag).max(), 3.0, np.nan):
        with pytest.raises(ValueError, match=r"beyond all poles, got .* above max \|Im A\| = "):
            tail_bound(A, C, B)


def test_a_pole_on_the_axis_makes_the_bands_that_touch_it_infinite():
    """And no other channel or band; without a residue it is not there."""
    A = np.array([[2j, -0.5 + 5j], [-0.5 + 2j, -0.5 + 5j], [2j, -0.5 + 5j]])
    C = np.array([[1, 1j], [1, 1j], [0, 1j]])
    edges = [0, 1, 2, 3, INF]
    found = variation_per_band(A, C, edges)
    assert np.isinf(found).tolist() == [[False, True, True, False], [False] * 4, [False] * 4]
    away = np.array([[-1e-7 + 2j, -0.5 + 5j]])
    np.testing.assert_allclose(
        found[0, [0, 3]], variation_per_band(away, C[:1], edges)[0, [0, 3]], rtol=1e-5
    )
    without = variation_per_band(A[2:, 1:], C[2:, 1:], edges)
    np.testing.assert_allclose(found[2], without[0], rtol=1e-6)
    sampled = discrete_variation_per_band(A, C, 0.5, [0, 0.9, 1.1, np.pi])
    assert np.isinf(sampled).tolist() == [[False, True, False], [False] * 3, [False] * 3]


def test_an_infinite_band_is_infinite_for_a_gain_that_grows_faster_than_G_falls():
    A, C = systems(H=4, seed=14)
    C[3] = 0
    found = variation_per_band(A, C, [0, 30, INF], beta_H=[0.9, 1.0, 1.1, 1.1])
    assert np.isinf(found).tolist() == [[False, False], [False, False], [False, True], [False] * 2]
    assert (found[3] == 0).all()


def test_just_below_beta_1_the_curve_has_to_return_to_0():
    """(1 + s)^beta G tends to 2 sum Re c at beta = 1, and slowly to 0 below."""
    A, C = systems(H=2, seed=16)
    at_1, below_1 = (total_variation(A, C, beta_H=b, rtol=1e-9) for b in (1, 1 - 1e-7))
    np.testing.assert_allclose(below_1, at_1 + np.abs(2 * C.real.sum(1)), rtol=1e-5)


def test_a_channel_that_is_not_finite_is_nan_and_leaves_the_others_alone():
    A, C = systems(H=4, seed=15)
    own = variation_per_band(A, C, [0, 9, INF])
    A[0, 1], C[1, 2] = np.nan, np.inf
    found = variation_per_band(A, C, [0, 9, INF], beta_H=[0, 0, np.nan, 0])
    assert np.isnan(found[:3]).all()
    np.testing.assert_allclose(found[3], own[3], rtol=1e-6)


def test_what_cannot_be_integrated_is_refused():
    A, C = systems()
    with pytest.raises(ValueError, match=r"A and C are \(H, N\) .* got \(3, 5\) and \(3, 4\)"):
        variation_per_band(A, C[:, :4], [0, 1])
    with pytest.raises(ValueError, match=r"edges must ascend and lie in \[-inf, inf\]"):
        variation_per_band(A, C, [0, 2, 1])
    with pytest.raises(ValueError, match=r"edges are \(E,\) or \(3, E\), E >= 2; got \(1,\)"):
        variation_per_band(A, C, [1])
    with pytest.raises(ValueError, match=r"edges must ascend and lie in \[-3.14159, 3.14159\]"):
        discrete_variation_per_band(A, C, 0.1, [0, 4])
    A[1, 2] = 0.25 + 3j
    with pytest.raises(ValueError, match=r"Re A must not be positive, got up to 0\.25"):
        total_variation(A, C)
    with pytest.raises(ValueError, match="unknown discretization 'euler'"):
        discrete_total_variation(A, C, 0.1, discretization="euler")
