"""Products and quotients of power series against convolution and long division."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from running import run

from ssm_jax.kernels.series import product, quotient

# Substitution up to 64 terms, one step of Newton's method up to 128; odd ones at every level
LENGTHS = (1, 2, 63, 64, 65, 127, 129, 1000, 2048)


def long_division(b, f):
    """h with f h = b, term by term, in float64."""
    b, f = np.asarray(b, float), np.asarray(f, float)
    h = np.zeros_like(b)
    for term in range(len(b)):
        h[term] = (b[term] - f[1 : term + 1] @ h[:term][::-1]) / f[0]
    return h


def loop_gain(length, rate=0.02, size=30.0):
    """1 + a decaying sum of cosines: a series whose reciprocal is small on the whole disc."""
    steps = np.arange(length)
    f = size * np.exp(-rate * steps) * (1 + np.cos(0.3 * steps) + np.cos(1.1 * steps)) / 3
    f[0] = 1 + size / 2
    return f.astype(np.float32)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("length", LENGTHS)
def test_product_is_the_causal_convolution(length):
    a, b = noise(2, 3, length), noise(2, 3, length, seed=1)
    found = run(product, a, b)
    for row in np.ndindex(2, 3):
        exact = np.convolve(a[row].astype(float), b[row])[:length]
        np.testing.assert_allclose(found[row], exact, rtol=0, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("rate", [0.02, 0.001])
def test_quotient_is_that_of_long_division(length, rate):
    """Of noise, whose parts where f is small are hurt by rounding where f is large; of a kernel."""
    f = loop_gain(length, rate)
    for b, tolerance in ((noise(length), 1e-5), (loop_gain(length, 2 * rate), 2e-7)):
        exact = long_division(b, f)
        found = run(quotient, b, f)
        np.testing.assert_allclose(found, exact, rtol=0, atol=tolerance * np.abs(b).max())


def test_quotient_by_a_resonant_series_is_refined():
    """f is 1e5 at its resonances. The error without the refinement is 6e-4."""
    b, f = loop_gain(2048, 2e-3, size=300.0), loop_gain(2048, 1e-3, size=300.0)
    exact = long_division(b, f)
    assert np.abs(run(quotient, b, f) - exact).max() < 2e-5 * np.abs(exact).max()


@pytest.mark.parametrize("length", [1, 5, 70, 131])
def test_gradients_pass_finite_differences_in_float64(length):
    with jax.enable_x64(True):
        b = noise(2, length).astype(float)
        f = np.stack([loop_gain(length), loop_gain(length, rate=0.1)]).astype(float)
        check_grads(jax.jit(quotient), (b, f), order=1, modes=["rev"], atol=1e-6, rtol=1e-5)


def test_gradients_of_a_long_quotient_are_those_of_float64():
    b, f, g = noise(2, 2048), np.stack([loop_gain(2048)] * 2), noise(2, 2048, seed=2)

    def gradient(b, f, g):
        return jax.grad(lambda b, f: jnp.vdot(quotient(b, f), g), argnums=(0, 1))(b, f)

    found = run(gradient, b, f, g)
    with jax.enable_x64(True):
        exact = run(gradient, *(a.astype(float) for a in (b, f, g)))
    for a, e in zip(found, exact, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=5e-6 * np.abs(e).max())


def test_a_term_does_not_depend_on_later_ones():
    b, f = noise(1, 257), loop_gain(257)[None]
    whole = run(quotient, b, f)
    part = run(quotient, b[:, :100], f[:, :100])
    np.testing.assert_allclose(whole[:, :100], part, rtol=0, atol=2e-6 * np.abs(part).max())
