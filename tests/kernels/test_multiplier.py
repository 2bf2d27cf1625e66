"""A_bar as a sum of two float32 numbers: what rounding took from it is found again."""

import jax
import numpy as np
import oracles
import pytest
from running import run

from ssm_jax.kernels.discretize import DISCRETIZE, exponent, lacking


def _parts(A, dt, rule):
    A_bar, _ = DISCRETIZE[rule](A, dt)
    return A_bar, lacking(A_bar, *exponent(A, dt, rule))


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_a_bar_and_what_it_lacks_are_the_multiplier_to_3e_9(rule):
    """Undamped and damped, slow and beyond one turn; A_bar alone is off by 3e-8 and more."""
    rng = np.random.default_rng(0)
    A = -rng.uniform(0, 3, (6, 50)) * (rng.uniform(size=(6, 50)) < 0.7)
    A = (A + 1j * rng.uniform(-600, 600, A.shape)).astype(np.complex64)
    dt = np.float32([1e-4, 1e-3, 1e-2, 3e-2, 0.05, 0.1])[:, None]
    A_bar, rest = (x.astype(complex) for x in run(_parts, A, dt, rule=rule))
    exact, _ = oracles.discretize(A, dt.astype(float), rule)
    # a mode that forgets in a few steps has no use for more
    assert (np.abs(A_bar + rest - exact) < 4e-9 + 3e-7 * (1 - np.abs(exact))).all()
    slow = np.abs(exact) > 0.99
    assert np.abs(A_bar - exact)[slow].max() > 3e-8


def test_its_derivative_is_left_out_and_finite():
    A = np.complex64([[-0.5 + 3j, 1e-4j]])

    def total(im):
        A_bar, rest = _parts(A.real + 1j * im, np.float32([[0.1]]), "zoh")
        return (A_bar + rest).real.sum()

    found = run(jax.grad(total), A.imag)
    exact = (0.1j * np.exp(0.1 * A.astype(complex))).real
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-7)
