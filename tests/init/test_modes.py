"""Initial eigenvalues against closed forms, dense eigenvalues and distributions; given ones."""

import numpy as np
import pytest
from scipy import stats

from ssm_jax.init import INITS, initial_modes
from ssm_jax.init.modes import dfout, ring
from ssm_jax.init.ptd import legs_ptd

CONTINUOUS = ("s4d_lin", "s4d_inv", "s4d_legs", "fout", "ptd")
DISCRETE = ("dfout", "ring")
GIVEN = np.array([-1 + 1j, -2 + 3j, 0.5j])


@pytest.fixture(autouse=True)
def cache_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_table_has_the_seven_initializations():
    assert set(INITS) == {*CONTINUOUS, *DISCRETE}


@pytest.mark.parametrize("init", [*CONTINUOUS, *DISCRETE])
def test_modes_are_stable_complex_and_of_the_size_asked_for(init):
    A, B, discrete = initial_modes(init, 4, n_sets=3)
    assert A.shape == B.shape == (3, 4)
    assert A.dtype == B.dtype == np.complex128
    assert (A.real < 0).all() and (A.imag >= 0).all()
    assert discrete == (init in DISCRETE)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 3.0, 10.0])
def test_s4d_lin_is_minus_one_half_plus_i_alpha_pi_n(alpha):
    A = initial_modes("s4d_lin", 64, alpha=alpha).A_SN[0]
    np.testing.assert_array_equal(A.real, -0.5)
    np.testing.assert_allclose(A.imag[1:], [alpha * np.pi * n for n in range(1, 64)], rtol=1e-15)


@pytest.mark.parametrize("init", ["s4d_lin", "fout"])
def test_mode_0_starts_at_1e_4_whatever_alpha(init):
    """It is not alpha 1e-4: the official code clamps after scaling (OC-3)."""
    for alpha in (0.1, 1.0, 10.0):
        assert initial_modes(init, 1, alpha=alpha).A_SN[0, 0] == -0.5 + 1e-4j


def test_mode_1_below_the_lowest_frequency_is_raised_to_it():
    assert initial_modes("s4d_lin", 2, alpha=1e-6).A_SN[0, 1].imag == 1e-4


def test_s4d_inv_is_the_inverse_law_of_the_real_order():
    """R = 8: (8 / pi) (8 / (2n + 1) - 1) is (8 / pi) times 7, 5/3, 3/5, 1/7."""
    A = initial_modes("s4d_inv", 4).A_SN[0]
    np.testing.assert_array_equal(A.real, -0.5)
    np.testing.assert_allclose(A.imag, 8 / np.pi * np.array([7, 5 / 3, 3 / 5, 1 / 7]), rtol=1e-14)


def test_s4d_legs_is_the_upper_half_of_the_spectrum_of_the_normal_part():
    n = np.arange(12)
    P = np.sqrt(n + 0.5)
    normal = -np.tril(2 * np.outer(P, P), -1) - np.diag(n + 1.0) + np.outer(P, P)
    exact = np.linalg.eigvals(normal)
    exact = np.sort(exact.imag[exact.imag > 0])
    A, B, _ = initial_modes("s4d_legs", 6)
    np.testing.assert_allclose(A[0], -0.5 + 1j * exact, atol=1e-11)
    # B = V^* B keeps the length of B: half of it on either side of the real axis
    assert (np.abs(B) ** 2).sum() == pytest.approx((2 * n + 1).sum() / 2)


def test_highest_frequency_of_legs_grows_as_the_square_of_the_order_over_pi():
    """S4D says so, and the inverse law has it; the linear law stays far below."""
    for N, error in ((16, 2e-3), (64, 2e-4)):
        highest = initial_modes("s4d_legs", N).A_SN.imag.max()
        assert highest == pytest.approx((2 * N) ** 2 / np.pi, rel=error)
    assert highest > 20 * initial_modes("s4d_lin", 64).A_SN.imag.max()


def test_inverse_law_follows_all_frequencies_of_legs_and_is_best_at_the_highest():
    legs = initial_modes("s4d_legs", 64).A_SN[0].imag[::-1]
    ratio = legs / initial_modes("s4d_inv", 64).A_SN[0].imag
    assert abs(ratio[0] - 1) < 0.01 < abs(ratio[1] - 1) < abs(ratio[8] - 1)
    assert ratio.min() > 0.7 and ratio.max() < 1.3


def test_fout_has_the_harmonics_of_one_unit_of_time():
    A = initial_modes("fout", 5).A_SN[0]
    np.testing.assert_array_equal(A.real, -0.5)
    np.testing.assert_allclose(A.imag[1:], 2 * np.pi * np.arange(1, 5), rtol=1e-15)


def test_ptd_has_the_eigenvalues_and_the_input_vector_of_its_basis():
    A, B, _ = initial_modes("ptd", 3, n_sets=2)
    np.testing.assert_array_equal(A, np.tile(legs_ptd(6).Lambda_N, (2, 1)))
    np.testing.assert_array_equal(B, np.tile(legs_ptd(6).B_N, (2, 1)))


@pytest.mark.parametrize("init", ["s4d_lin", "s4d_inv", "fout", "dfout", "ring"])
def test_input_vector_is_one_where_there_is_no_basis(init):
    np.testing.assert_array_equal(initial_modes(init, 3, n_sets=2).B_SN, 1)


@pytest.mark.parametrize("init", ["s4d_inv", "s4d_legs", "ptd", *DISCRETE])
def test_alpha_scales_the_frequencies_and_alpha_real_the_decay(init):
    plain = initial_modes(init, 4, n_sets=2).A_SN
    scaled, B, _ = initial_modes(init, 4, n_sets=2, alpha=0.3, alpha_real=5.0)
    np.testing.assert_allclose(scaled.imag, 0.3 * plain.imag, rtol=1e-15)
    np.testing.assert_allclose(scaled.real, 5 * plain.real, rtol=1e-15)
    np.testing.assert_array_equal(B, initial_modes(init, 4, n_sets=2).B_SN)


@pytest.mark.parametrize("init", [*CONTINUOUS, *DISCRETE])
def test_alpha_real_zero_starts_undamped(init):
    np.testing.assert_array_equal(initial_modes(init, 3, alpha_real=0.0).A_SN.real, 0)


@pytest.mark.parametrize("n_sets", [1, 3])
def test_phases_of_dfout_tile_the_half_circle(n_sets):
    phases = initial_modes("dfout", 5, n_sets=n_sets).A_SN.imag
    np.testing.assert_allclose(
        np.sort(phases.ravel()), np.pi * np.arange(5 * n_sets) / (5 * n_sets), atol=1e-15
    )
    np.testing.assert_allclose(np.diff(phases, axis=1), np.pi / 5, rtol=1e-13)
    assert (np.diff(phases[:, 0]) > 0).all()


def test_undamped_modes_of_a_set_of_dfout_are_orthogonal_over_2n_steps():
    """As rows of a discrete Fourier transform of length 2N, whatever the shift of the set."""
    N = 6
    for A in initial_modes("dfout", N, n_sets=3, alpha_real=0.0).A_SN:
        powers = np.exp(A[:, None] * np.arange(2 * N))
        np.testing.assert_allclose(powers @ powers.conj().T, 2 * N * np.eye(N), atol=1e-12)


def test_decays_of_dfout_spread_over_the_range_of_time_steps():
    """One is drawn from each of S equal parts of the logarithm, in an order that the seed makes."""
    A = dfout(4, 10, 0)
    assert (A.real == A.real[:, :1]).all()
    xi = -2 * A.real[:, 0]
    np.testing.assert_allclose(np.log10(np.sort(xi)), -3 + 2 * (np.arange(10) + 0.5) / 10)
    assert not np.array_equal(xi, np.sort(xi))
    assert not np.array_equal(xi, -2 * dfout(4, 10, 1).real[:, 0])
    assert -2 * dfout(1, 1, 0).real[0, 0] == pytest.approx(0.01)


@pytest.mark.parametrize(("r_min", "r_max", "max_phase"), [(0.9, 0.999, np.pi), (0.0, 0.5, 0.3)])
def test_ring_is_uniform_by_area(r_min, r_max, max_phase):
    eigenvalue = np.exp(ring(500, 40, 0, r_min=r_min, r_max=r_max, max_phase=max_phase)).ravel()
    square = stats.uniform(r_min**2, r_max**2 - r_min**2)
    assert stats.kstest(np.abs(eigenvalue) ** 2, square.cdf).pvalue > 1e-3
    assert stats.kstest(np.angle(eigenvalue), stats.uniform(0, max_phase).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(np.abs(eigenvalue), np.angle(eigenvalue))[0, 1]) < 5 / np.sqrt(20_000)


def test_ring_is_drawn_by_its_seed():
    A = initial_modes("ring", 8, n_sets=2, seed=3).A_SN
    np.testing.assert_array_equal(A, initial_modes("ring", 8, n_sets=2, seed=3).A_SN)
    assert not np.array_equal(A, initial_modes("ring", 8, n_sets=2, seed=4).A_SN)
    assert not np.array_equal(A[0], A[1])


@pytest.mark.parametrize("bounds", [{"r_min": 0.9, "r_max": 0.8}, {"r_max": 1.1}, {"r_min": -0.1},
                                    {"r_min": 0.0, "r_max": 0.0}, {"max_phase": 4.0},
                                    {"max_phase": 0.0}])  # fmt: skip
def test_ring_outside_the_unit_disc_is_refused(bounds):
    with pytest.raises(ValueError, match="ring: needs 0 <= r_min <= r_max <= 1"):
        ring(4, 1, 0, **bounds)


@pytest.mark.parametrize(
    ("init", "options", "message"),
    [
        ("s4d", {}, "unknown init 's4d'; choose one of s4d_lin, s4d_inv, s4d_legs, fout"),
        ("s4d_lin", {"d_state": 0}, "d_state must be at least 1, got 0"),
        ("ptd", {"d_state": 0}, "d_state must be at least 1, got 0"),
        ("s4d_inv", {"n_sets": 0}, "n_sets must be at least 1, got 0"),
        ("s4d_lin", {"alpha": 0.0}, "alpha must be positive and finite, got 0.0"),
        ("s4d_lin", {"alpha": -1.0}, "alpha must be positive and finite, got -1.0"),
        ("s4d_lin", {"alpha": float("nan")}, "alpha must be positive and finite, got nan"),
        ("s4d_lin", {"alpha": float("inf")}, "alpha must be positive and finite, got inf"),
        ("fout", {"alpha_real": -0.1}, "alpha_real must be at least 0 and finite, got -0.1"),
        ("fout", {"alpha_real": float("nan")}, "alpha_real must be at least 0 and finite, got nan"),
        ("dfout", {"alpha": 1.01}, "alpha must be at most 1, got 1.01: its phases reach pi"),
        ("ring", {"alpha": 3.0}, "alpha must be at most 1, got 3.0: its phases reach pi"),
    ],
)
def test_values_out_of_range_are_refused(init, options, message):
    with pytest.raises(ValueError, match=message):
        initial_modes(init, **{"d_state": 4, **options})


@pytest.mark.parametrize("discrete", [False, True])
def test_given_eigenvalues_are_kept_with_b_of_one(discrete):
    rule = "none" if discrete else "zoh"
    modes = initial_modes(GIVEN, 3, n_sets=2, discretization=rule)
    np.testing.assert_array_equal(modes.A_SN, [GIVEN, GIVEN])
    np.testing.assert_array_equal(modes.B_SN, np.ones((2, 3)))
    assert modes.discrete is discrete and modes.A_SN.dtype == np.complex128
    own = np.stack([GIVEN, 2 * GIVEN])
    np.testing.assert_array_equal(initial_modes(own, 3, n_sets=2).A_SN, own)
    np.testing.assert_array_equal(initial_modes([-1, -2], 2).A_SN, [[-1, -2]])


@pytest.mark.parametrize("shape", [(), (2,), (1, 3), (3, 2), (2, 3, 1)])
def test_another_shape_is_refused(shape):
    message = r"\(d_state,\) = \(3,\) or \(n_sets, d_state\) = \(2, 3\), got"
    with pytest.raises(ValueError, match=message):
        initial_modes(np.zeros(shape), 3, n_sets=2)


def test_numbers_that_are_none_are_refused():
    for wrong in (None, b"x", [np.nan, -1.0], [-1.0, 1j * np.inf]):
        with pytest.raises(ValueError, match="given eigenvalues must"):
            initial_modes(wrong, 2)
