"""Initial step sizes."""

import jax
import numpy as np
import pytest
from running import run
from scipy import stats

from ssm_jax.init import inverse_softplus, log_uniform


@pytest.mark.parametrize(("low", "high"), [(1e-3, 1e-1), (1e-4, 1e-1)])
def test_log_uniform_draws_have_a_uniform_logarithm(low, high):
    draws = np.asarray(log_uniform(jax.random.key(0), (100, 100), low, high))
    assert draws.shape == (100, 100)
    assert draws.dtype == np.float32
    assert low * (1 - 1e-6) <= draws.min() < low * 1.01
    assert high * 0.99 < draws.max() <= high * (1 + 1e-6)
    assert stats.kstest(draws.ravel(), stats.loguniform(low, high).cdf).pvalue > 0.01


def test_log_uniform_of_one_point_is_that_point():
    draws = log_uniform(jax.random.key(0), (5,), 0.01, 0.01)
    np.testing.assert_allclose(draws, 0.01, rtol=1e-6)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.2, 0.1), (1.0, np.inf), (np.nan, 1.0)]
)
def test_log_uniform_refuses_a_range_that_is_none(low, high):
    with pytest.raises(ValueError, match="needs 0 < low <= high"):
        log_uniform(jax.random.key(0), (5,), low, high)


def test_inverse_softplus_is_undone_by_softplus():
    """Relative to dt, from 1e-4 to 10: float32's log(1 + e^x) alone keeps 1e-7."""
    dt = np.geomspace(1e-4, 10, 1000).astype(np.float32)
    x = run(inverse_softplus, dt)
    np.testing.assert_allclose(run(jax.nn.softplus, x), dt, rtol=1.5e-6)
    exact = np.log(np.expm1(dt.astype(float)))
    np.testing.assert_allclose(x, exact, rtol=3e-7, atol=3e-7)
