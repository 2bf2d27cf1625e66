"""Gram matrices against SciPy's quadrature; their condition numbers, and the law of the spacing."""

import itertools

import numpy as np
import pytest
from scipy.integrate import quad

from ssm_jax.init import initial_modes
from ssm_jax.init.modes import s4d_inv
from tests.analysis.exact.conditioning import FEATURES, condition_number, gram_matrix

MODES = np.array([-0.5 + 2j, -0.5 + 3.1j, -1.2 - 0.7j, -0.3, -2 + 1e-4j])


def features_at(t, a, kind):
    e = np.exp(a * t)
    return {"complex": e, "cosine": e.real, "pair": np.concatenate([e.real, e.imag])}[kind]


@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("horizon", [None, 0.3, 4.0])
def test_entries_are_the_integrals_of_products_of_features(kind, horizon):
    """Equal and different real parts, a real mode, the official mode 0."""
    found = gram_matrix(MODES, kind, horizon)
    for j, k in np.ndindex(found.shape):
        for part in (np.real, np.imag):

            def integrand(t, j=j, k=k, part=part):
                f = features_at(t, MODES, kind)
                return part(f[j].conj() * f[k])

            exact = quad(integrand, 0, horizon or 80, epsabs=1e-11, limit=400)[0]
            assert part(found[j, k]) == pytest.approx(exact, abs=1e-9)


def test_undamped_and_growing_modes_have_a_gram_matrix_over_a_horizon():
    a = np.array([2j, 2j, 1j, 0.1 + 3j, 0.0])
    found = gram_matrix(a, "complex", 2.0)
    np.testing.assert_allclose(np.diag(found), [2, 2, 2, np.expm1(0.4) / 0.2, 2])
    assert found[0, 2] == pytest.approx(
        quad(lambda t: np.cos(t), 0, 2)[0] - 1j * quad(np.sin, 0, 2)[0]
    )


def test_a_long_horizon_is_no_horizon():
    for kind in FEATURES:
        np.testing.assert_allclose(
            gram_matrix(MODES, kind, 200.0), gram_matrix(MODES, kind), rtol=1e-12, atol=1e-15
        )


@pytest.mark.parametrize("kind", FEATURES)
def test_gram_matrix_is_the_square_of_the_features_size(kind):
    """v* G v is the integral of |sum v_j f_j|^2, by the rectangle rule over samples."""
    random = np.random.default_rng(0)
    gram = gram_matrix(MODES, kind)
    v = random.normal(size=len(gram)) + (1j * random.normal(size=len(gram))) * (kind == "complex")
    t = (np.arange(200_000) + 0.5) * 2e-4
    signal = features_at(t[:, None], MODES[None, :], "complex")
    if kind == "cosine":
        signal = signal.real
    if kind == "pair":
        signal = np.concatenate([signal.real, signal.imag], axis=1)
    energy = np.sum(np.abs(signal @ v) ** 2) * 2e-4
    assert (v.conj() @ gram @ v).real == pytest.approx(energy, rel=1e-6)


TABLE = {  # spacing: smallest eigenvalue and condition of cosines, condition of complex features
    0.1: ("8e-13", "1.6e+13", "inf"),
    0.5: ("0.012", "255", "1.4e+05"),
    1.0: ("0.136", "11.3", "398"),
    2.3: ("0.373", "2.07", "13.6"),
    np.pi: ("0.426", "1.53", "6.78"),
    2 * np.pi: ("0.480", "1.13", "2.60"),
}


def digits(printed):
    """Significant digits of a printed number."""
    return len(printed.split("e")[0].replace(".", "").lstrip("0"))


def assert_prints_as(found, printed):
    assert float(f"{found:.{digits(printed)}g}") == float(printed)


@pytest.mark.parametrize("spacing", TABLE)
def test_evenly_spaced_modes_have_the_known_condition_numbers(spacing):
    """64 modes -1/2 + i spacing n with n = 1..64, so without the mode at frequency 0."""
    smallest, of_cosines, of_complex = TABLE[spacing]
    a = -0.5 + 1j * spacing * np.arange(1, 65)
    cosines = gram_matrix(a, "cosine")
    assert_prints_as(np.linalg.eigvalsh(cosines)[0], smallest)
    assert_prints_as(condition_number(cosines), of_cosines)
    if of_complex == "inf":
        assert condition_number(gram_matrix(a)) == float("inf")
    else:
        assert_prints_as(condition_number(gram_matrix(a)), of_complex)


def test_the_mode_at_frequency_0_makes_s4d_lin_2_40():
    """Its cosine feature is twice as large as the others; with n = 1..64 it is 1.53."""
    assert_prints_as(
        condition_number(gram_matrix(initial_modes("s4d_lin", 64).A_SN[0], "cosine")), "2.40"
    )
    assert_prints_as(condition_number(gram_matrix(initial_modes("s4d_lin", 64).A_SN[0])), "6.78")


def test_the_inverse_law_over_both_halves_of_the_pairs_is_nearly_singular():
    """(R / pi) (R / (2n + 1) - 1) for R = 64 and all n = 0..63: half of them crowd below 0."""
    n = np.arange(64)
    a = -0.5 + 1j * 64 / np.pi * (64 / (2 * n + 1) - 1)
    cosines = gram_matrix(a, "cosine")
    assert_prints_as(np.linalg.eigvalsh(cosines)[0], "5e-09")
    assert_prints_as(condition_number(cosines), "1.2e+09")
    assert_prints_as(condition_number(gram_matrix(a)), "2e+10")


def test_s4d_inv_with_its_conjugates_implied_is_worse_conditioned_than_s4d_lin_but_not_singular():
    """Of the pairs only one half is stored: 64 modes of order 128."""
    inv, lin = s4d_inv(64), initial_modes("s4d_lin", 64).A_SN[0]
    for kind, printed in (("cosine", "31.4"), ("complex", "874")):
        assert_prints_as(condition_number(gram_matrix(inv, kind)), printed)
        assert condition_number(gram_matrix(inv, kind)) > 10 * condition_number(
            gram_matrix(lin, kind)
        )


@pytest.mark.parametrize("spacing", [2.3, np.pi, 6.0])
@pytest.mark.parametrize("damping", [0.3, 0.5])
def test_condition_tends_to_exp_of_4_pi_damping_over_spacing(spacing, damping):
    """From below: what is missing goes down by 1.8 to 1.9 when N doubles."""
    limit = np.exp(4 * np.pi * damping / spacing)
    missing = []
    for N in (128, 256, 512):
        a = -damping + 1j * spacing * np.arange(N)
        missing.append(1 - condition_number(gram_matrix(a)) / limit)
    assert 0 < missing[2] < 0.02
    for more, less in itertools.pairwise(missing):
        assert 1.8 < more / less < 1.9


def test_alpha_above_1_improves_the_condition_of_s4d_lin():
    found = [
        condition_number(gram_matrix(initial_modes("s4d_lin", 64, alpha=alpha).A_SN[0]))
        for alpha in (0.5, 1, 3, 10)
    ]
    assert found[0] > 40
    assert all(x > y for x, y in itertools.pairwise(found))
    assert found[-1] < 1.25


def test_sines_double_the_features_and_keep_the_condition_of_the_complex_ones():
    """Far from frequency 0 Q vanishes, and [Re P, Im P; -Im P, Re P] / 2 has P's eigenvalues."""
    a = -0.5 + 1j * (1e6 + 1.5 * np.arange(12))
    pair = condition_number(gram_matrix(a, "pair"))
    assert pair == pytest.approx(condition_number(gram_matrix(a)), rel=1e-5)


def test_what_float64_cannot_tell_from_singular_is_singular():
    """Two modes that are equal, or 1e-8 apart: 1 - |G_01| is 1e-16, of which no digit counts."""
    for apart in (0.0, *np.geomspace(5e-9, 3e-8, 20)):
        a = np.array([-0.5 + 2j, -0.5 + (2 + apart) * 1j])
        assert condition_number(gram_matrix(a)) == float("inf")
    assert condition_number(gram_matrix(np.array([-0.5 + 2j, -0.5 + 2.000001j]))) < 1e13


def test_what_has_no_gram_matrix_is_refused():
    with pytest.raises(ValueError, match="all Re A must be negative, got up to 0; give a horizon"):
        gram_matrix([-1, 2j])
    with pytest.raises(ValueError, match="unknown features 'sine'; choose one of complex, cosine"):
        gram_matrix(MODES, "sine")
    with pytest.raises(ValueError, match="the horizon must be positive, got 0"):
        gram_matrix(MODES, horizon=0)
    with pytest.raises(ValueError, match=r"A is \(N,\), got \(1, 5\)"):
        gram_matrix(MODES[None])
