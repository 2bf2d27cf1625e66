"""HiPPO matrices against what their states hold; their normal parts against dense algebra."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.special import eval_legendre

from ssm_jax.init import fout_nplr, legs, legs_nplr
from ssm_jax.init.hippo import fout

ORDERS = [2, 8, 64, 128]
NPLR = {"legs": (legs, legs_nplr), "fout": (fout, fout_nplr)}


def both_halves(half):
    """A vector or columns, continued by the conjugates."""
    return np.concatenate([half, half.conj()], axis=-1)


def test_legs_has_the_entries_of_the_paper():
    A, B = legs(7)
    for n in range(7):
        assert B[n] == np.sqrt(2 * n + 1)
        for k in range(7):
            if n > k:
                assert A[n, k] == pytest.approx(-np.sqrt((2 * n + 1) * (2 * k + 1)), rel=1e-15)
            else:
                assert A[n, k] == (-(n + 1) if n == k else 0)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 3.0])
def test_impulse_response_of_legs_is_warped_legendre_polynomials(t):
    """e^{tA} B = sqrt(2n+1) P_n(2 e^{-t} - 1) e^{-t}, whatever the order."""
    A, B = legs(12)
    n = np.arange(12)
    exact = np.sqrt(2 * n + 1) * eval_legendre(n, 2 * np.exp(-t) - 1) * np.exp(-t)
    np.testing.assert_allclose(expm(t * A) @ B, exact, atol=1e-12)


@pytest.mark.parametrize("m", [0, 1, 3])
def test_state_of_fout_holds_the_fourier_coefficients_of_a_periodic_input(m):
    """For u = e^{2 pi i m t} the end of the window has no jump, and the state is exact."""
    A, B = fout(10)
    s = (np.arange(1000) + 0.5) / 1000
    basis = np.zeros((10, 1000))
    for n in range(5):
        basis[2 * n] = np.cos(2 * np.pi * n * s) * (np.sqrt(2) if n else 1)
        basis[2 * n + 1] = np.sin(2 * np.pi * n * s) * np.sqrt(2)
    exact = basis @ np.exp(-2j * np.pi * m * s) / 1000
    # state 1 stays zero, and nothing damps it
    moving = np.delete(np.arange(10), 1)
    resolvent = (2j * np.pi * m * np.eye(10) - A)[np.ix_(moving, moving)]
    np.testing.assert_allclose(np.linalg.solve(resolvent, B[moving]), exact[moving], atol=1e-12)
    assert not A[1].any() and not A[:, 1].any() and B[1] == 0


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NPLR)
def test_normal_part_less_rank_one_is_the_matrix(name, order):
    matrix, nplr = NPLR[name]
    A, B = matrix(order)
    Lambda, P, B_half, V, V_inv = nplr(order)
    W, P = both_halves(V), both_halves(P)
    found = W @ (np.diag(both_halves(Lambda)) - np.outer(P, P.conj())) @ W.conj().T
    assert np.abs(found - A).max() < 1e-12 * np.linalg.norm(A, 2)
    np.testing.assert_array_equal(V_inv, V.conj().T)
    np.testing.assert_allclose(W @ both_halves(B_half), B, atol=1e-11)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NPLR)
def test_eigenvectors_and_their_conjugates_are_orthonormal(name, order):
    V = NPLR[name][1](order).V
    assert V.shape == (order, order // 2)
    W = both_halves(V)
    np.testing.assert_allclose(W.conj().T @ W, np.eye(order), atol=2e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_frequencies_of_legs_are_the_eigenvalues_of_its_normal_part(order):
    """By a routine for matrices without symmetry, on A + P P^T."""
    A, _ = legs(order)
    n = np.arange(order)
    normal = A + np.sqrt(np.outer(n + 0.5, n + 0.5))
    exact = np.linalg.eigvals(normal)
    found = legs_nplr(order).Lambda_N
    np.testing.assert_array_equal(found.real, -0.5)
    np.testing.assert_allclose(exact.real, -0.5, atol=1e-11 * order**2)
    exact = np.sort(exact.imag[exact.imag > 0])
    np.testing.assert_allclose(found.imag, exact, atol=1e-13 * order**2)


@pytest.mark.parametrize(("order", "largest"), [(8, 5.2), (16, 10.2), (64, 40.8)])
def test_phase_of_the_eigenvectors_is_that_of_the_official_code(order, largest):
    """Its clip of Im B to +-2 depends on it: the largest |Im B| there (OC-27)."""
    half = legs_nplr(order)
    np.testing.assert_array_less(0, half.V[0].real)
    np.testing.assert_allclose(half.V[0].imag, 0, atol=1e-16)
    assert np.abs(half.B_N.imag).max() == pytest.approx(largest, abs=0.06)


def test_normal_part_of_legs_is_the_system_without_the_part_of_rank_one():
    """The state that 2 Re V e^{Lambda t} B describes is e^{(A + P P^T) t} B."""
    A, B = legs(16)
    basis = legs_nplr(16)
    normal = A + np.outer(B, B) / 2
    for t in (0.0, 0.05, 0.7):
        found = 2 * (basis.V @ (np.exp(basis.Lambda_N * t) * basis.B_N)).real
        np.testing.assert_allclose(found, expm(t * normal) @ B, atol=1e-10)
    np.testing.assert_allclose(basis.V_inv @ basis.V, np.eye(8), atol=1e-12)
    np.testing.assert_allclose(basis.V_inv @ basis.V.conj(), 0, atol=1e-12)


@pytest.mark.parametrize("function", [legs_nplr, fout, fout_nplr])
@pytest.mark.parametrize("order", [0, 1, 7])
def test_order_that_is_no_number_of_pairs_is_refused(function, order):
    with pytest.raises(ValueError, match=f"must be even and at least 2, got {order}"):
        function(order)


def test_legs_of_no_order_is_refused():
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        legs(0)


@pytest.mark.parametrize("order", [2.5, 4.0, True, float("nan")])
@pytest.mark.parametrize("function", [legs, legs_nplr, fout_nplr])
def test_order_that_is_no_integer_is_refused(function, order):
    with pytest.raises(ValueError, match="order must be"):
        function(order)
