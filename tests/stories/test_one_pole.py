"""One pole: its output, its pull and its way against NumPy, SciPy and the formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from ssm_jax.stories import one_pole
from ssm_jax.stories.one_pole import Pole

POLE = Pole()


def test_the_output_is_the_real_part_of_the_pole():
    s = np.linspace(-30, 30, 61)
    expected = (1 + np.abs(s)) ** 0.5 * (POLE.c / (1j * s - POLE.x - 1j * POLE.y)).real
    np.testing.assert_allclose(one_pole.output(jnp.asarray(0.0), POLE, s, 0.5), expected, rtol=1e-5)


@pytest.mark.parametrize("wish", [False, True])
@pytest.mark.parametrize("beta", [-1.0, 0.0, 1.0])
def test_the_pull_is_the_integral_of_the_sensitivity(beta, wish):
    """T1 and T2: autodiff of the loss, the formula, and K by hand under SciPy's quadrature."""
    gradient, formula, _ = one_pole.pull_of_band(POLE, 30.0, beta, wish=wish, steps=1)
    xi, zeta = POLE.c.real, POLE.c.imag

    def weighted(s):
        sigma, x = s - POLE.y, POLE.x
        K = (zeta * (sigma**2 - x**2) - 2 * xi * x * sigma) / (x**2 + sigma**2) ** 2
        return (1 + abs(s)) ** (beta * (2 if wish else 1)) * K

    centre = POLE.y + 30
    expected = -1e-3 * quad(weighted, centre - 0.5, centre + 0.5)[0]
    assert gradient == pytest.approx(expected, rel=1e-9)
    assert formula == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("wish", "factor"), [(False, 1), (True, 2)])
@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5])
def test_the_way_of_the_pole_falls_with_the_power_that_beta_sets(beta, wish, factor):
    distances = np.geomspace(300, 1e4, 4)
    pulls = [one_pole.pull_of_band(POLE, d, beta, wish=wish, steps=20) for d in distances]
    slope = one_pole.steepness(distances, np.array([moved for _, _, moved in pulls]))
    assert slope == pytest.approx(factor * beta - 2, abs=0.01)


def test_without_an_imaginary_part_of_the_residue_the_power_is_one_less():
    """K then begins with -2 xi x / sigma^3."""
    distances = np.geomspace(300, 1e4, 4)
    real = Pole(c=1.0 + 0.0j)
    pulls = [one_pole.pull_of_band(real, d, 0.0, steps=20) for d in distances]
    slope = one_pole.steepness(distances, np.array([moved for _, _, moved in pulls]))
    assert slope == pytest.approx(-3, abs=0.01)


def arrival_formula(distance: float) -> float:
    """The pull at a distance, 8 pi |c|^2 |x| d / (4 x^2 + d^2)^2."""
    x = abs(POLE.x)
    return 8 * np.pi * abs(POLE.c) ** 2 * x * distance / (4 * x**2 + distance**2) ** 2


@pytest.mark.parametrize("distance", [0.7, 5.0, 16.0])
def test_the_pull_of_a_whole_pole_by_quadrature(distance):
    with jax.enable_x64(True):
        found = jax.grad(lambda d: one_pole.arrival_loss(d, POLE))(jnp.asarray(distance))
    assert float(found) == pytest.approx(arrival_formula(distance), rel=2e-3)


def test_the_way_to_a_whole_pole_takes_the_time_of_the_formula():
    steps = one_pole.steps_to_halve(8.0, POLE, rate=1e-2)
    assert steps * 1e-2 == pytest.approx(one_pole.time_to_halve(8.0, POLE), rel=1e-2)
    by_quadrature = quad(lambda d: 1 / arrival_formula(d), 4.0, 8.0)[0]
    assert one_pole.time_to_halve(8.0, POLE) == pytest.approx(by_quadrature, rel=1e-9)
