"""S4D-Lin eigenvalues."""

import numpy as np
import pytest

from ssm_jax.init import s4d_lin


@pytest.mark.parametrize("alpha", [0.1, 1.0, 3.0, 10.0])
def test_s4d_lin_is_minus_one_half_plus_i_alpha_pi_n(alpha):
    A = s4d_lin(64, alpha)
    assert A.dtype == np.complex128
    np.testing.assert_array_equal(A.real, -0.5)
    np.testing.assert_allclose(A.imag[1:], [alpha * np.pi * n for n in range(1, 64)], rtol=1e-15)


def test_mode_0_starts_at_1e_4_whatever_alpha():
    """It is not alpha 1e-4: the official code clamps after scaling (OC-3)."""
    for alpha in (0.1, 1.0, 10.0):
        assert s4d_lin(1, alpha)[0] == -0.5 + 1e-4j


def test_mode_1_below_the_lowest_frequency_is_raised_to_it():
    assert s4d_lin(2, 1e-6)[1].imag == 1e-4


@pytest.mark.parametrize(
    ("d_state", "alpha", "message"),
    [
        (0, 1.0, "d_state must be at least 1, got 0"),
        (4, 0.0, "alpha must be positive, got 0.0"),
        (4, -1.0, "alpha must be positive, got -1.0"),
        (4, float("nan"), "alpha must be positive, got nan"),
    ],
)
def test_values_out_of_range_are_refused(d_state, alpha, message):
    with pytest.raises(ValueError, match=message):
        s4d_lin(d_state, alpha)
