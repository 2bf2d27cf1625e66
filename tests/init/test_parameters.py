"""The ways of storing real parts: inverses, bounds, gradients, refusals. Initial step sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from running import run
from scipy import stats

from ssm_jax.init import REAL_TRANSFORMS, inverse_softplus, log_uniform

ZERO_ALLOWED = ("relu", "clip", "none")
RAW = np.array([-30.0, -3.0, -0.1, 0.1, 3.0, 30.0])


def starts(name):
    """Real parts from -1e-6 to -50, or to 99 % of the bound of 'stable'; and 0 where allowed."""
    re = -np.geomspace(1e-6, 9.9 if name == "stable" else 50.0, 40)
    return np.append(re, 0.0) if name in ZERO_ALLOWED else re


def test_table_has_the_six_transforms():
    assert set(REAL_TRANSFORMS) == {"exp", "softplus", "relu", "clip", "stable", "none"}


@pytest.mark.parametrize("name", REAL_TRANSFORMS)
def test_forward_of_the_inverse_is_the_start(name):
    forward, inverse = REAL_TRANSFORMS[name]
    re = starts(name)
    raw = inverse(re)
    assert raw.dtype == np.float64 and raw.shape == re.shape
    with jax.enable_x64(True):
        np.testing.assert_allclose(run(forward, raw), re, rtol=1e-12)
    # a rounding of a large raw is one of its multiple in e^raw
    np.testing.assert_allclose(run(forward, raw.astype(np.float32)), re, rtol=3e-6)


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("exp", lambda raw: -np.exp(raw)),
        ("softplus", lambda raw: -np.logaddexp(0, raw)),
        ("relu", lambda raw: -np.maximum(raw, 0)),
        ("clip", lambda raw: np.minimum(raw, 0)),
        ("stable", lambda raw: -1 / (raw**2 + 0.1)),
        ("none", lambda raw: raw),
    ],
)
def test_forward_is_its_closed_form(name, exact):
    with jax.enable_x64(True):
        found = run(REAL_TRANSFORMS[name][0], RAW)
    np.testing.assert_allclose(found, exact(RAW), rtol=1e-14)
    assert name == "none" or (found <= 0).all()


@pytest.mark.unoptimized
@pytest.mark.parametrize("name", REAL_TRANSFORMS)
def test_gradient_passes_finite_differences_where_there_is_no_edge(name):
    raw = RAW[RAW < 0] if name == "clip" else RAW
    with jax.enable_x64(True):
        forward = jax.jit(REAL_TRANSFORMS[name][0])
        check_grads(forward, (raw / 10,), order=1, modes=["fwd", "rev"], rtol=1e-6, atol=1e-9)


def slope(name, raw):
    return run(jax.grad(lambda raw: REAL_TRANSFORMS[name][0](raw).sum()), jnp.float32(raw))


@pytest.mark.parametrize("name", ZERO_ALLOWED)
def test_undamped_start_can_leave_zero(name):
    """One step of descent on a loss that wants decay, f = Re A, lowers Re A below 0."""
    forward, inverse = REAL_TRANSFORMS[name]
    raw = inverse(np.zeros(3)).astype(np.float32)
    assert (np.asarray(forward(raw)) == 0).all()
    moved = raw - 0.1 * slope(name, raw)
    np.testing.assert_allclose(forward(moved), -0.1, rtol=1e-6)


def test_clip_is_never_stuck_at_zero_and_relu_is_below_it():
    np.testing.assert_array_equal(slope("clip", [-2.0, 0.0, 0.5, 100.0]), 1)
    np.testing.assert_array_equal(REAL_TRANSFORMS["clip"][0](jnp.float32([0.5, 1e8])), 0)
    np.testing.assert_array_equal(slope("relu", [-0.5, 0.0, 0.5]), [0, -1, -1])


@pytest.mark.parametrize("name", ["exp", "softplus", "stable"])
def test_zero_is_refused_where_no_number_gives_it(name):
    with pytest.raises(ValueError, match=f"'{name}': cannot represent Re A = 0; use 'relu'"):
        REAL_TRANSFORMS[name][1](np.array([-0.5, 0.0]))


@pytest.mark.parametrize("re", [-10.0, -11.0])
def test_stable_refuses_what_is_beyond_its_bound(re):
    """At the bound itself the gradient is zero."""
    with pytest.raises(ValueError, match=f"'stable': Re A must start above -10, got {re:g}"):
        REAL_TRANSFORMS["stable"][1](np.array([-0.5, re]))


@pytest.mark.parametrize("name", REAL_TRANSFORMS)
@pytest.mark.parametrize("re", [0.25, np.nan, -np.inf])
def test_start_that_is_no_decay_is_refused(name, re):
    with pytest.raises(ValueError, match=f"'{name}': Re A must start finite and at most 0"):
        REAL_TRANSFORMS[name][1](np.array([-0.5, re]))


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
