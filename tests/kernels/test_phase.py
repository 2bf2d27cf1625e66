"""Phases against exact rational arithmetic and 64-bit mantissas."""

from fractions import Fraction

import jax
import numpy as np
import pytest
from running import run

from ssm_jax.kernels.phase import (
    Phase,
    cos_sin,
    multiply,
    phase_of_bilinear,
    phase_of_product,
    wrapped,
)

# 60 digits: the products below are at most 1e6 turns, and 50 digits are left.
PI = Fraction("3.14159265358979323846264338327950288419716939937510582097494459")
TURN = 2**32

assert np.finfo(np.longdouble).eps < 2e-19, "these oracles need an 80-bit long double"


def away_from_whole_turns(x: Fraction) -> float:
    """x to the nearest integer."""
    return float(abs(x - round(x)))


def as_fraction(phase, i) -> Fraction:
    return Fraction(int(phase.ticks[i]), TURN) + Fraction(float(phase.rest[i]))


def products():
    """(dt, y): random ones of a model at alpha up to 1000, and hard ones."""
    rng = np.random.default_rng(0)
    alpha = 10 ** rng.uniform(-1, 3, 2000)
    y = alpha * np.pi * rng.integers(0, 64, 2000) * rng.choice([-1, 1], 2000)
    dt = 10 ** rng.uniform(-4, -1, 2000)
    pi = np.float32(np.pi)
    hard = [
        (0.0, 3.0), (0.1, 0.0), (1.0, -0.0), (1e-30, 1e-30), (1e-4, 1e-4), (1e-4, 1e-30),
        (1e-20, 1e20), (1.0, pi), (1.0, -pi), (0.5, 2 * pi), (1.0, np.nextafter(pi, np.float32(4))),
        (1.0, np.nextafter(pi, np.float32(3))), (1.0, 2 * pi), (1.0, -2 * pi), (1.0, 3 * pi),
        (1 / 3, 1e5), (0.1, -1e6), (1e3, 1e3), (1.0, 1e6), (0.1, 31415.926),
        (1.0, pi / 4), (1.0, -3 * pi / 4),
    ]  # fmt: skip
    dt_hard, y_hard = zip(*hard, strict=True)
    return (
        np.concatenate([dt, dt_hard]).astype(np.float32),
        np.concatenate([y, y_hard]).astype(np.float32),
    )


def test_phase_of_a_product_is_exact_to_47_bits_of_its_turns():
    """The error grows with the turns as that of a 47-bit number would; float32 has 24 bits."""
    dt, y = products()
    phase = run(phase_of_product, dt, y)
    for i in range(len(dt)):
        turns = Fraction(float(dt[i])) * Fraction(float(y[i])) / (2 * PI)
        error = away_from_whole_turns(as_fraction(phase, i) - turns)
        assert error <= abs(float(turns)) * 2.0**-46 + 2.0**-54, (dt[i], y[i])


def test_rest_is_below_one_tick():
    phase = run(phase_of_product, *products())
    assert np.abs(phase.rest).max() <= 2.0**-32


def test_phase_of_the_bilinear_rule_is_right_to_3e_12_rad():
    """dt |A| from 1e-8 to 3,000, and dt A = -2, where the angle is that of 0."""
    rng = np.random.default_rng(1)
    dt = 10 ** rng.uniform(-4, -0.5, 20_000)
    x = -(10 ** rng.uniform(-2, 1, 20_000))
    y = 10 ** rng.uniform(-4, 4, 20_000) * rng.choice([-1, 1], 20_000)
    hard = [
        (0.5, -0.5, 0.0),
        (0.5, -4.0, 0.0),
        (0.5, -4.0, 1e-4),
        (0.5, 0.0, 4.0),
        (0.5, 0.0, -4.0),
        (1.0, 0.0, 1e-30),
    ]
    dt, x, y = np.concatenate([np.stack([dt, x, y], 1), hard]).astype(np.float32).T
    phase = run(phase_of_bilinear, dt, x, y)
    p, q = (dt.astype(np.longdouble) * a.astype(np.longdouble) / 2 for a in (x, y))
    pi = np.longdouble(PI.numerator) / np.longdouble(PI.denominator)
    found = phase.ticks.astype(np.longdouble) / TURN + phase.rest.astype(np.longdouble)
    error = found - np.arctan2(2 * q, 1 - p**2 - q**2) / (2 * pi)
    assert np.abs(error - np.round(error)).max() * 2 * np.pi < 3e-12


@pytest.mark.parametrize("steps", [0, 1, 2, 127, 2047, 16384, 2**21 - 1, 2**21, 2**22 - 1])
def test_ticks_of_a_multiple_are_exact_and_the_rest_is_rounded_once(steps):
    phase = run(phase_of_product, *products())
    found = run(multiply, phase, np.full((1,), steps, np.int32))
    for i in range(len(phase.ticks)):
        ticks = (int(phase.ticks[i]) * steps + TURN // 2) % TURN - TURN // 2
        assert int(found.ticks[i]) == ticks
    rest = phase.rest.astype(np.float64) * steps
    np.testing.assert_allclose(found.rest, rest, rtol=2.0**-24, atol=0)


def test_phase_of_the_two_millionth_power_is_right_to_2e_6_rad():
    """The whole chain at alpha = 3, where rounding dt y to float32 would be off by radians."""
    rng = np.random.default_rng(2)
    y = (3 * np.pi * rng.integers(0, 64, 300)).astype(np.float32)
    dt = (10 ** rng.uniform(-3, -1, 300)).astype(np.float32)
    steps = 2**21
    phase = run(multiply, run(phase_of_product, dt, y), np.full((1,), steps, np.int32))
    for i in range(len(dt)):
        turns = Fraction(float(dt[i])) * Fraction(float(y[i])) * steps / (2 * PI)
        assert away_from_whole_turns(as_fraction(phase, i) - turns) * 2 * np.pi < 2e-6


def exact_cos_sin(phase):
    angle = phase.ticks.astype(np.longdouble) / TURN + phase.rest.astype(np.longdouble)
    angle *= 2 * np.longdouble(PI.numerator) / np.longdouble(PI.denominator)
    return np.cos(angle), np.sin(angle)


def octant_borders():
    around = [k * 2**29 + d for k in range(-4, 5) for d in (-3, -2, -1, 0, 1, 2, 3)]
    return np.array([t for t in around if -(2**31) <= t < 2**31], np.int32)


@pytest.mark.parametrize(
    "ticks",
    [
        np.random.default_rng(0).integers(-(2**31), 2**31, 200_000).astype(np.int32),
        octant_borders(),
    ],
    ids=["random", "octant_borders"],
)
@pytest.mark.parametrize("rest", [0.0, 2.0**-32, -(2.0**-32), 2.0**-11, -(2.0**-11)])
def test_cos_and_sin_are_right_to_2e_7(ticks, rest):
    """Also with the largest rest that a multiple can have, 2^-11 turns."""
    phase = Phase(ticks, np.full(len(ticks), rest, np.float32))
    for found, exact in zip(run(cos_sin, phase), exact_cos_sin(phase), strict=True):
        assert np.abs(found - exact).max() < 2e-7


def test_wrapped_angle_lies_within_half_a_turn_and_has_the_same_cosine():
    dt, y = products()
    angle = run(wrapped, run(phase_of_product, dt, y))
    assert np.abs(angle).max() <= np.float32(np.pi)
    exact = np.cos(dt.astype(np.longdouble) * y.astype(np.longdouble))
    assert np.abs(np.cos(angle.astype(np.longdouble)) - exact).max() < 5e-7


def test_float64_inputs_give_float64_phases():
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        dt, y = 10 ** rng.uniform(-4, -1, 500), rng.uniform(-600, 600, 500)
        phase = run(phase_of_product, dt, y)
        assert phase.rest.dtype == np.float64
        for steps in (1, 1000):
            cos, sin = run(cos_sin, run(multiply, phase, np.full((1,), steps, np.int32)))
            angle = dt.astype(np.longdouble) * y.astype(np.longdouble) * steps
            # at most 10 turns, rounded to 53 bits; the steps multiply the error
            bound = steps * 60 * 2e-16 + 1e-15
            assert np.abs(cos - np.cos(angle)).max() < bound
            assert np.abs(sin - np.sin(angle)).max() < bound


def test_float64_half_turn_does_not_overflow():
    with jax.enable_x64(True):
        half = np.array([np.pi, -np.pi, 3 * np.pi, np.nextafter(np.pi, 0)])
        cos, sin = run(cos_sin, run(phase_of_product, np.ones(4), half))
        np.testing.assert_allclose(cos, -np.ones(4), rtol=0, atol=1e-15)
        np.testing.assert_allclose(sin, np.sin(half), rtol=0, atol=1e-15)
