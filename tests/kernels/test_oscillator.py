"""Poles of oscillators against 64-bit mantissas, and their answers against the recurrence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads
from running import run

from ssm_jax.kernels.oscillator import SMALLEST, in_modes, in_motion, oscillator

LONG = np.longdouble
PI = LONG("3.14159265358979323846264338327950288")


def draws(scheme, n=2000):
    """a, G and dt with angles over all of the range, most of them random and some near its ends."""
    rng = np.random.default_rng(0)
    dt = (1 / (1 + np.exp(-2 * rng.normal(size=n)))).astype(np.float32)
    G = (10 ** rng.uniform(-4, 1, n) * (rng.random(n) < 0.5)).astype(np.float32)
    t = rng.uniform(2e-3, np.pi - 2e-3, n)
    t[: n // 4] = 10 ** rng.uniform(-3.5, 0, n // 4)
    if scheme == "im":
        a = (np.tan(t / 2) / dt) ** 2
    else:
        S = 1 + dt * G.astype(float)
        a = (1 + S - 2 * np.sqrt(S) * np.cos(t)) / dt.astype(float) ** 2
    return a.astype(np.float32), G, dt


def poles(a, G, dt, scheme):
    """log of the radius, angle and F, by eigenvalues of the 2 x 2 matrix in closed form."""
    a, G, dt = (x.astype(LONG) for x in (a, G, dt))
    if scheme == "im":
        S = 1 + dt**2 * a
        trace, det, F = 2 / S, 1 / S, dt**2 / S
    else:
        S = 1 + dt * G
        trace, det, F = 1 / S + 1 - dt**2 * a / S, 1 / S, dt**2 / S
    return np.log(det) / 2, np.arctan2(np.sqrt(4 * det - trace**2), trace), F


@pytest.mark.parametrize("scheme", ["im", "imex"])
def test_the_phase_of_a_pole_is_right_to_1e_11_rad_and_the_weight_to_float32(scheme):
    a, G, dt = draws(scheme)
    z, phase, weight = run(oscillator, a, G, dt, scheme=scheme)
    log_r, t, F = poles(a, G, dt, scheme)
    turns = phase.ticks.astype(LONG) / 2**32 + phase.rest.astype(LONG)
    apart = 2 * PI * turns - t
    assert np.abs(apart - 2 * PI * np.round(apart / (2 * PI))).max() < 1e-11
    assert np.abs(z.imag - t).max() < 5e-7
    np.testing.assert_allclose(z.real, log_r.astype(float), rtol=5e-7, atol=1e-12)
    np.testing.assert_allclose(weight.real, F.astype(float), rtol=5e-7)
    np.testing.assert_allclose(weight.imag, (-F / np.tan(t)).astype(float), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(("scheme", "damped"), [("im", False), ("imex", False), ("imex", True)])
def test_an_answer_and_its_slopes_are_those_of_the_recurrence(scheme, damped):
    """Values against a loop of positions and velocities, slopes against its finite differences."""
    with jax.enable_x64(True):
        a, G, dt = (x[200:232].astype(np.float64) for x in draws(scheme))
        G = np.where(damped, 0.1 + G / 20, 0.0) if scheme == "imex" else 0 * G
        if damped:
            a = 0.3 * (1 + np.sqrt(1 + dt * G)) ** 2 / dt**2

        def answer(a, G, dt):
            z, _, weight = oscillator(a, G, dt, scheme)
            return (weight[None] * jnp.exp(z[None] * jnp.arange(12)[:, None])).real

        exact = oracles.oscillate(a, G, dt, scheme, np.eye(12)[:, :1] * np.ones(len(a)))
        np.testing.assert_allclose(jax.jit(answer)(a, G, dt), exact, rtol=1e-9, atol=1e-12)
        _, transpose = jax.vjp(jax.jit(answer), a, G, dt)
        ones = np.ones(exact.shape)
        slopes = [np.asarray(x) for x in transpose(ones)]
        for i, (slope, step) in enumerate(zip(slopes, (1e-6, 1e-7, 1e-7), strict=True)):
            if i == 1 and not damped:
                continue
            moved = [
                [x + sign * step * (i == j) * np.maximum(1, x) for j, x in enumerate((a, G, dt))]
                for sign in (1, -1)
            ]
            up, down = (
                oracles.oscillate(*m, scheme, np.eye(12)[:, :1] * np.ones(len(a))) for m in moved
            )
            expected = (up - down).sum(axis=0) / (2 * step * np.maximum(1, (a, G, dt)[i]))
            np.testing.assert_allclose(slope, expected, rtol=2e-5, atol=1e-6)
        # Second derivatives; where a mode is slow, differences are too coarse for them.
        fast = np.flatnonzero(dt**2 * a > 0.5)[:4]
        points = a[fast], G[fast] + 0.01, dt[fast]
        check_grads(jax.jit(answer), points, 2, ["rev"], atol=1e-4, rtol=1e-4, eps=1e-5)


def test_beyond_its_range_a_pole_stays_just_inside_and_a_has_no_slope():
    dt = np.full(6, 0.5, np.float32)
    G = np.array([0, 0, 0, 1, 1, 1], np.float32)
    S = 1.5
    low, high = (np.sqrt(S) - 1) ** 2, (np.sqrt(S) + 1) ** 2
    a = np.array([0, 16.001, 1e30, 4 * low * 0.99, 4 * high * 1.01, 1e6], np.float32)
    z, _, weight = run(oscillator, a, G, dt, scheme="imex")
    ends = np.array([SMALLEST, np.pi - SMALLEST, np.pi - SMALLEST])
    np.testing.assert_allclose(z.imag, np.tile(ends, 2), rtol=1e-6)
    np.testing.assert_allclose(z.real, np.repeat([0, -np.log(S) / 2], 3), rtol=1e-6)
    assert np.isfinite(weight).all()
    held = run(_slope, a, G, dt, scheme="imex")
    np.testing.assert_array_equal(held[0], 0)
    assert np.isfinite(held).all()
    z, _, _ = run(oscillator, 0 * a, G, dt, scheme="im")
    np.testing.assert_allclose(z.imag, SMALLEST, rtol=1e-6)


def _slope(a, G, dt, scheme):
    def total(a, G, dt):
        z, _, weight = oscillator(a, G, dt, scheme)
        return jnp.sum(z.imag) + jnp.sum(weight.real)

    return jax.grad(total, argnums=(0, 1, 2))(a, G, dt)


def test_slopes_of_positions_velocities_and_modes_are_differences_of_their_closed_forms():
    """What a step of another length begins with: of a state, its oscillators' motion, and back."""
    x, position, velocity = 0.7 - 0.4j, 0.3, -0.9

    def exact(a, G, dt):
        log_r, t, _ = poles(a, G, dt, "imex")
        above, sin, r = np.exp(log_r) - np.cos(t), np.sin(t), np.exp(log_r)
        moved = (above * x.real - sin * x.imag) / (r * dt)
        return moved + (above * position - r * dt * velocity) / sin

    points = [np.array(v, LONG) for v in ([0.4, 2.5], [0.3, 1.2], [0.6, 0.9])]
    found = run(_slope_of_motion, *(p.astype(np.float32) for p in points), x=x)
    for i, slope in enumerate(found):
        up, down = (exact(*[p + s * (i == j) for j, p in enumerate(points)]) for s in (1e-6, -1e-6))
        np.testing.assert_allclose(slope, ((up - down) / 2e-6).astype(float), rtol=1e-5)


def _slope_of_motion(a, G, dt, x):
    def total(a, G, dt):
        z, phase, _ = oscillator(a, G, dt, "imex")
        state = jnp.full(a.shape, x, jnp.complex64)
        modes = in_modes(jnp.full_like(a, 0.3), jnp.full_like(a, -0.9), z, phase, dt)
        return jnp.sum(in_motion(state, z, phase, dt)[1]) + jnp.sum(modes.imag)

    return jax.grad(total, argnums=(0, 1, 2))(a, G, dt)


def test_another_scheme_is_refused():
    with pytest.raises(ValueError, match="unknown scheme 'euler'; choose one of im, imex"):
        oscillator(np.ones(1), np.ones(1), np.ones(1), "euler")
