"""Sensitivity of the transfer function to its poles: derivatives, exponents, symmetries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import run

from ssm_jax.kernels import transfer_function
from ssm_jax.kernels.response import pair_sensitivity, pole_sensitivity

BETA = np.array([-0.7, 1.3])


def systems(seed=0, dtype=np.float64):
    """A (2, 3), C and 9 frequencies of both signs, some beside a pole."""
    rng = np.random.default_rng(seed)
    A = -rng.uniform(0.05, 2, (2, 3)) + 1j * rng.uniform(-10, 10, (2, 3))
    C = rng.normal(size=(2, 3, 2)) @ np.array([1, 1j])
    omega = np.concatenate([A.imag, A.imag + 0.1, rng.uniform(-30, 30, (2, 3))], axis=1)
    kind = np.result_type(dtype, np.complex64)
    return A.astype(kind), C.astype(kind), omega.astype(dtype)


def one_pole(x, y, c, s, beta=0.0):
    """(1 + |s|)^beta Re[c / (is - a)] by its real form."""
    sigma = s - y
    part = (c.imag * sigma - c.real * x) / (x**2 + sigma**2)
    return (1 + abs(s)) ** beta * part


def pair(x, y, c, s, beta=0.0):
    a = x + 1j * y
    G = c / (1j * s - a) + np.conj(c) / (1j * s - np.conj(a))
    return (1 + abs(s)) ** beta * G


def slope(function, at, step=1e-3):
    """Central difference of fourth order."""
    near = function(at + step) - function(at - step)
    far = function(at + 2 * step) - function(at - 2 * step)
    return (8 * near - far) / (12 * step)


@pytest.mark.parametrize("beta", [None, BETA])
@pytest.mark.parametrize(
    ("found", "value"), [(pole_sensitivity, one_pole), (pair_sensitivity, pair)]
)
def test_sensitivity_is_the_finite_difference(found, value, beta):
    """One mode and frequency at a time, in float64."""
    A, C, omega = systems()
    with jax.enable_x64(True):
        by_x, by_y = run(found, A, C, omega, *(() if beta is None else (beta,)))
    assert by_x.shape == by_y.shape == (2, 9, 3)
    for h, f, n in np.ndindex(by_x.shape):
        x, y, c, s = A[h, n].real, A[h, n].imag, C[h, n], omega[h, f]
        b = 0.0 if beta is None else beta[h]
        step = 1e-3 * np.hypot(x, abs(s) - abs(y))  # the nearer pole of the pair
        exact_x = slope(lambda v: value(v, y, c, s, b), x, step)  # noqa: B023
        exact_y = slope(lambda v: value(x, v, c, s, b), y, step)  # noqa: B023
        largest = abs(exact_x) + abs(exact_y)
        assert abs(by_x[h, f, n] - exact_x) < 1e-9 * largest
        assert abs(by_y[h, f, n] - exact_y) < 1e-9 * largest


def test_sensitivity_by_y_is_the_formula_of_the_theory():
    """[zeta (sigma^2 - x^2) - 2 xi x sigma] / (x^2 + sigma^2)^2, in float32 too."""
    A, C, omega = systems(seed=1, dtype=np.float32)
    by_x, by_y = run(pole_sensitivity, A, C, omega)
    x, y = (p[:, None, :].astype(float) for p in (A.real, A.imag))
    xi, zeta = (p[:, None, :].astype(float) for p in (C.real, C.imag))
    sigma = omega.astype(float)[:, :, None] - y
    fourth = (x**2 + sigma**2) ** 2
    size = np.hypot(xi, zeta) / np.sqrt(fourth)
    K = (zeta * (sigma**2 - x**2) - 2 * xi * x * sigma) / fourth
    assert (np.abs(by_y - K) / size).max() < 1e-6
    other = (xi * (x**2 - sigma**2) - 2 * zeta * x * sigma) / fourth
    assert (np.abs(by_x - other) / size).max() < 1e-6


@pytest.mark.parametrize("beta", [None, BETA])
def test_gradient_of_a_loss_is_its_gradient_by_G_weighed_with_the_sensitivity(beta):
    """The chain rule of the theory, against JAX's derivative of a nonlinear loss of G."""
    A, C, omega = systems(seed=2)
    target = np.random.default_rng(3).normal(size=(*omega.shape, 2)) @ np.array([1, 1j])
    gain = np.ones_like(omega) if beta is None else (1 + np.abs(omega)) ** beta[:, None]

    def of_response(G_re, G_im):
        return jnp.sum((G_re - target.real) ** 2 + jnp.cos(G_im - target.imag))

    def of_poles(x, y):
        G = gain * transfer_function(x + 1j * y, C, omega)
        return of_response(G.real, G.imag), (G.real, G.imag)

    with jax.enable_x64(True):
        gradients, (re, im) = run(jax.grad(of_poles, (0, 1), has_aux=True), A.real, A.imag)
        p, q = run(jax.grad(of_response, (0, 1)), re, im)
        found = run(pair_sensitivity, A, C, omega, *(() if beta is None else (beta,)))
    for of_layer, by in zip(gradients, found, strict=True):
        summed = np.einsum("hf,hfn->hn", p, by.real) + np.einsum("hf,hfn->hn", q, by.imag)
        np.testing.assert_allclose(of_layer, summed, rtol=1e-11)


@functools.cache
def sensitivity_far_away(beta, residue):
    """|K(s)| of a pole -0.5 + 3i at s = 1e4, 1e5, 1e6, for y, and for y of the pair."""
    A, C = np.array([[-0.5 + 3j]]), np.array([[residue]])
    s = np.array([[1e4, 1e5, 1e6]])
    with jax.enable_x64(True):
        one = run(pole_sensitivity, A, C, s, np.array([beta])).by_y_HFN
        both = run(pair_sensitivity, A, C, s, np.array([beta])).by_y_HFN
    return s[0], np.abs(one[0, :, 0]), np.abs(both[0, :, 0])


def exponent(s, values):
    return np.diff(np.log(values)) / np.diff(np.log(s))


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.7, 2.0])
def test_far_from_the_pole_sensitivity_falls_with_exponent_beta_minus_2(beta):
    s, one, both = sensitivity_far_away(beta, 1 - 2j)
    np.testing.assert_allclose(exponent(s, one), beta - 2, atol=2e-3)
    np.testing.assert_allclose(exponent(s, both), beta - 2, atol=2e-3)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_real_residue_is_felt_one_order_less(beta):
    """zeta = 0 leaves -2 xi x sigma / |sigma|^4."""
    s, one, _ = sensitivity_far_away(beta, 1 + 0j)
    np.testing.assert_allclose(exponent(s, one), beta - 3, atol=2e-3)


def test_sensitivity_peaks_at_the_pole_with_a_height_of_one_over_x_squared():
    """K(y) = -zeta / x^2, and |K| is below |c| / (x^2 + sigma^2) everywhere."""
    for x in (-1.0, -1e-3):
        A, C = np.array([[x + 20j]]), np.array([[0.6 - 0.8j]])
        s = 20 + np.concatenate([[0], np.linspace(-5, 5, 101)])[None]
        with jax.enable_x64(True):
            K = run(pole_sensitivity, A, C, s).by_y_HFN[0, :, 0]
        assert K[0] == pytest.approx(0.8 / x**2)
        assert (np.abs(K) <= (1 + 1e-12) / (x**2 + (s[0] - 20) ** 2)).all()


def test_sensitivity_to_x_is_even_for_a_real_residue_and_to_y_odd():
    """About the pole's frequency; for an imaginary residue the other way round."""
    sigma = np.linspace(0.1, 8, 40)
    A = np.array([[-0.5 + 4j], [-0.5 + 4j]])
    C = np.array([[1 + 0j], [1j]])
    above, below = (np.broadcast_to(4 + sign * sigma, (2, 40)) for sign in (1, -1))
    with jax.enable_x64(True):
        up, down = (run(pole_sensitivity, A, C, s) for s in (above, below))
    real, imaginary = 0, 1
    for channel, parity_x, parity_y in ((real, 1, -1), (imaginary, -1, 1)):
        np.testing.assert_allclose(up[0][channel], parity_x * down[0][channel], rtol=1e-9)
        np.testing.assert_allclose(up[1][channel], parity_y * down[1][channel], rtol=1e-9)


def test_the_real_part_of_the_pair_is_the_pole_at_both_signs_of_the_frequency():
    """And reversing the frequency conjugates the pair: real signals in, real signals out."""
    A, C, omega = systems(seed=4)
    with jax.enable_x64(True):
        up, down = run(pair_sensitivity, A, C, omega), run(pair_sensitivity, A, C, -omega)
        one, mirrored = run(pole_sensitivity, A, C, omega), run(pole_sensitivity, A, C, -omega)
    for k in (0, 1):
        np.testing.assert_allclose(up[k], down[k].conj(), rtol=1e-10)
        np.testing.assert_allclose(up[k].real, one[k] + mirrored[k], rtol=1e-9, atol=1e-12)


def test_sensitivity_to_a_pole_on_the_real_axis_does_not_move_the_pair():
    """At y = 0 a real residue makes G even in y."""
    A, C, omega = np.array([[-0.5 + 0j]]), np.array([[2 + 0j]]), np.array([[-3.0, 0.0, 0.1, 7.0]])
    with jax.enable_x64(True):
        by_x, by_y = run(pair_sensitivity, A, C, omega)
    np.testing.assert_array_equal(by_y, 0)
    assert (np.abs(by_x) > 0.01).all()


def test_sensitivity_is_finite_in_float32_at_frequencies_up_to_1e12():
    A, C, _ = systems(dtype=np.float32)
    omega = np.float32([[1e9, 1e12]] * 2)
    for values in run(pair_sensitivity, A, C, omega, np.float32([2, 2])):
        assert np.isfinite(values).all()
        assert (np.abs(values) > 0).all()
