"""Discretization of diagonal modes against closed forms and the matrix exponential."""

import jax
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads
from running import run
from scipy.linalg import expm

from ssm_jax.kernels import discretize_bilinear, discretize_zoh
from ssm_jax.kernels.discretize import DISCRETIZE, discretize_none, exponent
from ssm_jax.kernels.powers import lacking

RULES = {"zoh": discretize_zoh, "bilinear": discretize_bilinear}


def modes():
    """(A, dt): generic, at and near 0, undamped, real, around the border of the series, large."""
    rng = np.random.default_rng(0)
    A = -(10 ** rng.uniform(-3, 1, 300)) + 1j * 10 ** rng.uniform(-4, 3.5, 300)
    dt = 10 ** rng.uniform(-4, -1, 300)
    hard = np.array([
        0, 1e-30, -1e-20j, -1e-8, 1e-8j, -1e-4 + 1e-4j, -0.5 + 1e-4j, -0.5, 1j, -100j,
        9.99j, 10.01j, -9.99, -10.01,
        -7.06 + 7.06j, -7.08 + 7.08j, -3000, -3000 + 3000j, 6000j, 20j * np.pi,
    ])  # fmt: skip
    A = np.concatenate([A, hard]).astype(np.complex64)
    return A, np.concatenate([dt, np.full(len(hard), 0.01)]).astype(np.float32)


@pytest.mark.parametrize("rule", RULES)
def test_float32_is_right_to_a_few_roundings(rule):
    """The gain also relative to dt, the largest that it can be."""
    A, dt = modes()
    A_bar, gain = run(RULES[rule], A, dt)
    assert A_bar.dtype == gain.dtype == np.complex64
    exact_bar, exact_gain = oracles.discretize(A, dt, rule)
    assert np.abs(A_bar - exact_bar).max() < 5e-7
    assert (np.abs(gain - exact_gain) / np.abs(exact_gain)).max() < 2e-6
    assert (np.abs(gain - exact_gain) / dt).max() < 5e-7


@pytest.mark.parametrize("rule", RULES)
def test_float64_is_right_to_1e_12(rule):
    A, dt = modes()
    with jax.enable_x64(True):
        A_bar, gain = run(RULES[rule], A.astype(complex), dt.astype(float))
    exact_bar, exact_gain = oracles.discretize(A, dt, rule)
    assert np.abs(A_bar - exact_bar).max() < 1e-12
    assert (np.abs(gain - exact_gain) / np.abs(exact_gain)).max() < 1e-12


def test_zero_order_hold_is_the_exponential_of_the_augmented_matrix():
    """exp(dt [[A, 1], [0, 0]]) = [[A_bar, gain], [0, 1]]: no formula of the gain is in it."""
    A, dt = modes()
    moderate = np.abs(A) < 1000
    A_bar, gain = run(discretize_zoh, A, dt)
    for i in np.flatnonzero(moderate)[::3]:
        block = expm(float(dt[i]) * np.array([[A[i], 1], [0, 0]], complex))
        assert abs(A_bar[i] - block[0, 0]) < 5e-7
        assert abs(gain[i] - block[0, 1]) < 5e-7 * dt[i]


def test_gain_at_a_zero_eigenvalue_is_dt_with_slope_half_dt_squared():
    dt = np.float32([0.1, 0.01])
    zero = np.zeros(2, np.complex64)
    A_bar, gain = run(discretize_zoh, zero, dt)
    np.testing.assert_array_equal(A_bar, 1)
    np.testing.assert_array_equal(gain, dt)
    slope = run(jax.grad(lambda A: discretize_zoh(A, dt)[1].real.sum()), zero)
    np.testing.assert_allclose(slope, dt**2 / 2, rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_bilinear_and_zero_order_hold_keep_stable_modes_in_the_unit_disc(rule):
    A, dt = modes()
    A_bar, _ = run(RULES[rule], A, dt)
    assert np.abs(A_bar).max() <= 1 + 1e-6


@pytest.mark.parametrize("rule", RULES)
def test_gradients_equal_the_closed_forms(rule):
    """float32, where the derivative of the quotient (e^z - 1)/A would cancel."""
    A, dt = modes()

    def parts(A, dt):
        A_bar, gain = RULES[rule](A, dt)
        return (A_bar.real.sum(), gain.real.sum())

    found = run(jax.jacrev(parts, argnums=(0, 1)), A, dt)
    bar, gain = found
    (bar_A, gain_A), (bar_dt, gain_dt) = oracles.discretize_slopes(A, dt, rule)
    assert (np.abs(bar[0] - bar_A) / dt).max() < 1e-6
    assert (np.abs(gain[0] - gain_A) / dt**2).max() < 1e-5
    # |dA_bar/ddt| <= |A| and |dgain/ddt| <= 1
    assert (np.abs(bar[1] - bar_dt.real) / np.maximum(np.abs(A), 1)).max() < 2e-6
    assert np.abs(gain[1] - gain_dt.real).max() < 2e-6


@pytest.mark.unoptimized
@pytest.mark.parametrize("rule", RULES)
def test_gradients_pass_finite_differences_in_float64(rule):
    """Generic, at A = 0, undamped, near 0, real, and beyond |dt A| = 1."""

    def parts(re, im, dt):
        A_bar, gain = RULES[rule](re + 1j * im, dt)
        return A_bar.real, A_bar.imag, gain.real, gain.imag

    A = np.array([-0.7 + 9j, 0.0, 0.3j, -1e-9, -1.0, 4j])
    with jax.enable_x64(True):
        point = (A.real, A.imag, np.full(6, 0.3))
        check_grads(jax.jit(parts), point, order=1, modes=["fwd", "rev"], atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_exponent_is_the_logarithm_of_the_discrete_eigenvalue(rule):
    A, dt = modes()
    z, _ = run(exponent, A, dt, discretization=rule)
    exact, _ = oracles.discretize(A, dt, rule)
    error = np.abs(np.exp(z.astype(complex)) - exact)
    assert (error / np.maximum(np.abs(dt * A), 1)).max() < 5e-7


def test_bilinear_mode_that_is_forgotten_in_one_step_stays_finite():
    """dt A = -2 gives A_bar = 0, whose logarithm is not finite."""
    A, dt = np.complex64([-4.0]), np.float32([0.5])

    def first_powers(A):
        z, _ = exponent(A, dt, "bilinear")
        return np.float32([[0.0], [1.0], [2.0]]) * z.real[None, :] + z.imag[None, :]

    z, _ = run(exponent, A, dt, discretization="bilinear")
    np.testing.assert_allclose(np.exp(z.real * np.float32([0, 1, 2])), [1, 0, 0], atol=1e-15)
    slope = run(jax.grad(lambda A: first_powers(A).sum()), A)
    assert np.isfinite(slope).all()


def modes_per_sample():
    """log A_bar within the principal branch: generic, undamped, 0, at and near it, at pi."""
    rng = np.random.default_rng(1)
    A = -(10 ** rng.uniform(-4, 1, 200)) + 1j * rng.uniform(-np.pi, np.pi, 200)
    hard = [0, 1e-30, -1e-8, 1e-8j, -1e-4 + 1e-4j, -0.5, 1j, -3j, -20, 3.1415925j]
    return np.concatenate([A, hard]).astype(np.complex64)


def test_modes_given_per_sample_are_taken_as_they_are():
    """A_bar = e^A; the gain is 1 without rounding and without a gradient."""
    A = modes_per_sample()
    one = np.ones(len(A), np.float32)
    A_bar, gain = run(discretize_none, A, one)
    assert np.abs(A_bar - np.exp(A.astype(complex))).max() < 5e-7
    np.testing.assert_array_equal(gain, 1)
    z, _ = run(exponent, A, one, discretization="none")
    np.testing.assert_array_equal(z, A)
    slope = run(jax.grad(lambda A: discretize_none(A, one)[1].real.sum()), A)
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("m", [2, 3, 16])
def test_m_steps_of_one_mth_with_a_held_input_do_what_one_step_does(m):
    """A_bar^m = e^A and gain sum_{j < m} A_bar^j = 1."""
    A = modes_per_sample()
    A_bar, gain = run(discretize_none, A, np.full(len(A), 1 / m, np.float32))
    bar = A_bar.astype(complex)
    assert np.abs(bar**m - np.exp(A.astype(complex))).max() < 1e-6 * m
    geometric = np.sum(bar[:, None] ** np.arange(m), axis=1)
    assert np.abs(gain * geometric - 1).max() < 1e-6 * m


@pytest.mark.unoptimized
@pytest.mark.parametrize("dt", [0.3, 1.0])  # at 1 the gain is 1 for all modes, and moves with dt
def test_resampling_passes_finite_differences_in_float64(dt):
    def parts(re, im, dt):
        A_bar, gain = discretize_none(re + 1j * im, dt)
        return A_bar.real, A_bar.imag, gain.real, gain.imag

    A = np.array([-0.7 + 3j, 0.0, 0.3j, -1e-9, -1.0, -3j])
    with jax.enable_x64(True):
        point = (A.real, A.imag, np.full(6, dt))
        check_grads(jax.jit(parts), point, order=1, modes=["fwd", "rev"], atol=1e-8, rtol=1e-6)


def test_unknown_rule_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown discretization 'euler'; choose one of zoh"):
        exponent(np.complex64([1j]), np.float32([0.1]), "euler")


def a_bar_and_rest(A, dt, rule):
    A_bar, _ = DISCRETIZE[rule](A, dt)
    return A_bar, lacking(A_bar, *exponent(A, dt, rule))


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_a_bar_and_what_it_lacks_are_the_multiplier_to_3e_9(rule):
    """Undamped and damped, slow and beyond one turn; A_bar alone is off by 3e-8 and more."""
    rng = np.random.default_rng(0)
    A = -rng.uniform(0, 3, (6, 50)) * (rng.uniform(size=(6, 50)) < 0.7)
    A = (A + 1j * rng.uniform(-600, 600, A.shape)).astype(np.complex64)
    dt = np.float32([1e-4, 1e-3, 1e-2, 3e-2, 0.05, 0.1])[:, None]
    A_bar, rest = (x.astype(complex) for x in run(a_bar_and_rest, A, dt, rule=rule))
    exact, _ = oracles.discretize(A, dt.astype(float), rule)
    # a mode that forgets in a few steps has no use for more
    assert (np.abs(A_bar + rest - exact) < 4e-9 + 3e-7 * (1 - np.abs(exact))).all()
    slow = np.abs(exact) > 0.99
    assert np.abs(A_bar - exact)[slow].max() > 3e-8


def test_its_derivative_is_left_out_and_finite():
    A = np.complex64([[-0.5 + 3j, 1e-4j]])

    def total(im):
        A_bar, rest = a_bar_and_rest(A.real + 1j * im, np.float32([[0.1]]), "zoh")
        return (A_bar + rest).real.sum()

    found = run(jax.grad(total), A.imag)
    exact = (0.1j * np.exp(0.1 * A.astype(complex))).real
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-7)
