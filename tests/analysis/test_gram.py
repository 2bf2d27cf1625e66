"""Gram matrices of damped sinusoids: against quadrature, sums, limits, loops and known digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from ssm_jax.analysis.gram import (
    Time,
    condition_number,
    descent,
    gershgorin_spacing,
    gram,
    inner_products,
    uniform_limit,
    uniform_modes,
)
from ssm_jax.init.hippo import legs_nplr
from ssm_jax.init.modes import s4d_inv

A = np.array([-0.5 + 3j, -0.2 - 1.5j, -1.0 + 0j, -0.5 + 3.1j])
B = np.array([-0.3 + 2j, -0.7 + 0.4j])


def functions(A_N, features):
    """The features as Python functions of t."""
    real = [lambda t, a=a: np.exp(a * t).real for a in A_N]
    imag = [lambda t, a=a: np.exp(a * t).imag for a in A_N]
    return {"real": real, "pairs": real + imag}[features]


@pytest.mark.parametrize("horizon", [math.inf, 7.0])
@pytest.mark.parametrize("features", ["real", "pairs"])
def test_inner_products_are_those_of_quadrature(features, horizon):
    exact = [
        [
            quad(lambda t, f=f, g=g: f(t) * g(t), 0, min(horizon, 200), limit=400)[0]
            for g in functions(B, features)
        ]
        for f in functions(A, features)
    ]
    found = inner_products(A, B, features, Time(horizon))
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-9)


def test_complex_inner_products_are_those_of_quadrature():
    exact = [
        [
            quad(
                lambda t, a=a, b=b: np.exp((a + b.conjugate()) * t),
                0,
                200,
                complex_func=True,
                limit=400,
            )[0]
            for b in B
        ]
        for a in A
    ]
    np.testing.assert_allclose(inner_products(A, B, "complex"), exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize("features", ["real", "pairs", "complex"])
@pytest.mark.parametrize("dt", [0.05, 1.0, 2.5])
def test_in_steps_they_are_sums(features, dt):
    """At dt = 2.5 frequencies alias."""
    length = 40
    t = dt * np.arange(length)
    waves_NL = np.exp(A[:, None] * t)
    rows = {
        "real": waves_NL.real,
        "pairs": np.concatenate([waves_NL.real, waves_NL.imag]),
        "complex": waves_NL,
    }[features]
    found = gram(A, features, Time(length * dt, dt))
    np.testing.assert_allclose(found, dt * rows @ rows.conj().T, rtol=1e-12, atol=1e-13)


def test_without_damping_an_end_is_needed_and_whole_periods_are_orthogonal():
    """Spacing 2 pi / horizon: the Fourier basis, whose pole at 0 has the norm of the horizon."""
    modes = uniform_modes(8, 2 * np.pi / 5, damping=0.0, first=0)
    np.testing.assert_allclose(gram(modes, "complex", Time(5.0)), 5 * np.eye(8), atol=1e-12)
    np.testing.assert_allclose(gram(modes, "complex", Time(5.0, 0.1)), 5 * np.eye(8), atol=1e-12)
    with pytest.raises(ValueError, match="Re A >= 0 need a finite horizon"):
        gram(modes, "complex")


def test_aliases_are_one_feature():
    """Apart by 2 pi / dt: continuously far from each other, in steps the same."""
    modes = np.array([-0.5 + 1j, -0.5 + 1j * (1 + 2 * np.pi / 0.1)])
    assert condition_number(gram(modes, "complex")) < 1.1
    assert condition_number(gram(modes, "complex", Time(50.0, 0.1))) == math.inf


@pytest.mark.parametrize(
    ("spacing", "least", "real", "complex_"),
    [
        (0.1, 8e-13, 1.6e13, math.inf),
        (0.5, 1.2e-2, 255, 1.4e5),
        (1.0, 0.136, 11.3, 398),
        (2.3, 0.373, 2.07, 13.6),
        (math.pi, 0.426, 1.53, 6.78),
        (2 * math.pi, 0.480, 1.13, 2.60),
    ],
)
def test_the_table_of_64_evenly_spaced_modes(spacing, least, real, complex_):
    """Digits that a program of another author found."""
    modes = uniform_modes(64, spacing)
    G = gram(modes)
    assert np.linalg.eigvalsh(G)[0] == pytest.approx(least, rel=0.05 if spacing < 1 else 2e-3)
    assert condition_number(G) == pytest.approx(real, rel=8e-3)
    assert condition_number(gram(modes, "complex")) == pytest.approx(complex_, rel=2e-2)


def test_s4d_lin_has_a_pole_without_frequency():
    assert condition_number(gram(uniform_modes(64, math.pi, first=0))) == pytest.approx(
        2.40, abs=5e-3
    )


def test_inverse_and_legs_spacings():
    """The figure 1.2e9 for S4D-Inv is of R = 64 with 64 modes, half of which mirror the others.

    Of the real order R = 2N, with which S4D-Inv approximates LegS, all are different: 31 and 34.
    """
    n = np.arange(64)
    mirrored = -0.5 + 1j * (64 / np.pi) * (64 / (2 * n + 1) - 1)
    assert condition_number(gram(mirrored)) == pytest.approx(1.2e9, rel=0.02)
    assert condition_number(gram(mirrored, "complex")) == pytest.approx(2e10, rel=0.03)
    assert condition_number(gram(s4d_inv(64))) == pytest.approx(31.4, rel=1e-2)
    assert condition_number(gram(s4d_inv(64), "complex")) == pytest.approx(874, rel=1e-2)
    assert condition_number(gram(legs_nplr(128).Lambda_N)) == pytest.approx(33.8, rel=1e-2)


@pytest.mark.parametrize("spacing", [1.0, 2.3, math.pi])
def test_evenly_spaced_complex_features_tend_to_the_limit_from_below(spacing):
    limit = uniform_limit(spacing)
    found = [condition_number(gram(uniform_modes(n, spacing), "complex")) for n in (32, 64, 256)]
    assert found[0] < found[1] < found[2] < limit
    assert found[2] > 0.9 * limit
    assert uniform_limit(math.pi) == pytest.approx(math.e**2)


def test_pairs_are_conditioned_as_complex_features_with_their_conjugates():
    """A unitary change of basis, and a factor 2."""
    modes = uniform_modes(16, 1.3)
    both = np.concatenate([modes, modes.conj()])
    expected = condition_number(gram(both, "complex"))
    assert condition_number(gram(modes, "pairs")) == pytest.approx(expected, rel=1e-8)


def test_gershgorin_bounds_the_spacing():
    """The sum over a row by hand, at the spacing, below it and above it; far from frequency 0."""
    assert gershgorin_spacing() == pytest.approx(1.64, abs=1e-3)
    assert gershgorin_spacing(1.0) == pytest.approx(2 * gershgorin_spacing())
    m = np.arange(1, 2_000_000)

    def room(spacing):
        return 1 - 2 * np.sum(1 / (1 + (m * spacing) ** 2))

    assert abs(room(gershgorin_spacing())) < 1e-5
    assert room(1.6) < 0 < room(2.3)
    # 1 - (pi / 2.3 coth(pi / 2.3) - 1) = 0.446: of G it is half
    far = gram(uniform_modes(64, 2.3, first=1000))
    assert np.linalg.eigvalsh(far)[0] > 0.446 / 2


@pytest.mark.parametrize("features", ["real", "pairs"])
def test_descent_is_that_of_a_loop(features):
    modes, target, weights = (
        uniform_modes(6, 0.8),
        np.array([-0.5 + 2.1j, -0.5 + 2.3j]),
        [1.0, -0.4],
    )
    found = descent(modes, target, weights, features)
    t, step = np.linspace(0, 60, 600_001, retstep=True)
    waves_NL = np.exp(modes[:, None] * t)
    rows = waves_NL.real if features == "real" else np.concatenate([waves_NL.real, waves_NL.imag])
    wanted = np.real(np.array(weights) @ np.exp(target[:, None] * t))

    def product(x, y):
        return step * (x @ y.T - (np.multiply.outer(x[..., 0], y[..., 0])) / 2)  # trapezoid rule

    G, h, square = product(rows, rows), product(rows, wanted), product(wanted, wanted)
    w = np.zeros(len(rows))
    rate = 1 / np.linalg.eigvalsh(G)[-1]
    for steps in range(201):
        if steps in (0, 1, 7, 200):
            loss = 1 + (w @ G @ w - 2 * w @ h) / square
            assert found.loss(steps) == pytest.approx(loss, rel=1e-6)
        w = w - rate * (G @ w - h)
    best = 1 - h @ np.linalg.solve(G, h) / square
    assert found.loss(np.inf) == pytest.approx(best, rel=1e-4, abs=1e-9)
    steps = found.steps_to(0.3)
    assert found.loss(steps) <= 0.3 < found.loss(steps - 1)
    assert found.steps_to(0.5 * found.least) == math.inf


def test_a_target_among_the_features_is_learned_at_the_speed_of_the_spacing():
    modes = uniform_modes(64, 0.5)
    found = descent(modes, modes[10:12], [1.0, -1.0])
    assert found.least < 1e-10
    wide = uniform_modes(64, math.pi)
    assert descent(wide, wide[10:12], [1.0, -1.0]).steps_to(1e-3) < found.steps_to(1e-3) / 10


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="unknown features 'both'; choose one of real, pairs"):
        gram(A, "both")
    with pytest.raises(ValueError, match="needs horizon > 0 and dt >= 0"):
        gram(A, "real", Time(0.0))
