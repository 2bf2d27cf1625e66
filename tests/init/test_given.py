"""Eigenvalues that are given as numbers."""

import numpy as np
import pytest

from ssm_jax.init.modes import given_modes

A = np.array([-1 + 1j, -2 + 3j, 0.5j])


@pytest.mark.parametrize("discrete", [False, True])
def test_given_eigenvalues_are_kept_with_b_of_one(discrete):
    modes = given_modes(A, 3, n_sets=2, discrete=discrete)
    np.testing.assert_array_equal(modes.A_SN, [A, A])
    np.testing.assert_array_equal(modes.B_SN, np.ones((2, 3)))
    assert modes.discrete is discrete and modes.A_SN.dtype == np.complex128
    own = np.stack([A, 2 * A])
    np.testing.assert_array_equal(given_modes(own, 3, n_sets=2).A_SN, own)
    np.testing.assert_array_equal(given_modes([-1, -2], 2).A_SN, [[-1, -2]])


@pytest.mark.parametrize("shape", [(), (2,), (1, 3), (3, 2), (2, 3, 1)])
def test_another_shape_is_refused(shape):
    message = r"\(d_state,\) = \(3,\) or \(n_sets, d_state\) = \(2, 3\), got"
    with pytest.raises(ValueError, match=message):
        given_modes(np.zeros(shape), 3, n_sets=2)


def test_numbers_that_are_none_are_refused():
    for wrong in (None, b"x", [np.nan, -1.0], [-1.0, 1j * np.inf]):
        with pytest.raises(ValueError, match="given eigenvalues must"):
            given_modes(wrong, 2)
