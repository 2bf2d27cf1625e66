"""Layers without damping, Re A = 0: exact over long sequences in each way to run, and trainable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from jax.test_util import check_grads
from running import numbers, run

from ssm_jax.layers import S4, S4D, S5

H, N, L = 2, 6, 16_384
# Modes at 0 itself, where (e^{dt a} - 1) / a is dt, and at the clamp of S4D-Lin, among faster ones
GIVEN = 1j * np.array([0, 1e-4, 1.0, np.pi, 30.0, 200.0])
LAYERS = {"s4d": S4D, "s5": S5, "s4": S4}


def undamped(kind, real_transform="clip"):
    shared = {"d_state": N, "bidirectional": False, "beta": None, "rngs": nnx.Rngs(params=1)}
    shared |= {"real_transform": real_transform}
    if kind == "s4d":
        return S4D(H, init=GIVEN, **shared)
    layer = LAYERS[kind](H, alpha_real=0.0, **shared)
    layer.A_im[...] = layer.A_im[...].at[..., 0].set(0.0)
    return layer


def s4d_loop(p, A, dt, u_LH):
    """Step by step in float64, as the others."""
    A_bar, gain = oracles.discretize(A, dt[:, None], "zoh")
    C = p["C_ri"][0] @ [1, 1j]
    x, y = np.zeros((H, N), complex), []
    for u in u_LH:
        x = A_bar * x + gain * u[:, None]
        y.append(2 * np.sum(C * x, axis=-1).real)
    return np.array(y) + p["D"] * u_LH


def s5_loop(p, A, dt, u_LH):
    A_bar, gain = oracles.discretize(A, dt, "zoh")
    B, C = (p[name] @ [1, 1j] for name in ("B_ri", "C_ri"))
    x, y = np.zeros(N, complex), []
    for drive in u_LH @ (gain[:, None] * B).T:
        x = A_bar * x + drive
        y.append(2 * (C[0] @ x).real)
    return np.array(y) + p["D"] * u_LH


def s4_loop(p, A, dt, u_LH):
    """Lambda alone is undamped: the low rank part takes energy out."""
    A, P, B, C = (
        np.broadcast_to(x, (H, N))
        for x in (A, p["P_ri"] @ [1, 1j], p["B_ri"] @ [1, 1j], p["C_ri"][0] @ [1, 1j])
    )
    return oracles.dplr_recurrence(A, P, B, C, dt, u_LH)[0] + p["D"] * u_LH


LOOPS = {"s4d": s4d_loop, "s5": s5_loop, "s4": s4_loop}


def _ways(variables, u, graphdef):
    def layer():
        return nnx.merge(graphdef, variables)

    both = {mode: layer()(u, mode=mode) for mode in ("conv", "scan")}
    return {**both, "step": _stepped(variables, u, graphdef)}


def _stepped(variables, u, graphdef):
    layer = nnx.merge(graphdef, variables)
    start = layer.initial_state(1, u.dtype)
    return jnp.swapaxes(jax.lax.scan(layer.step, start, jnp.swapaxes(u, 0, 1))[1], 0, 1)


@pytest.mark.optimized
@pytest.mark.parametrize("kind", LAYERS)
def test_all_ways_agree_with_a_loop_over_16384_steps(kind):
    """Nothing is forgotten: what rounding did to early steps is still there at the end.

    White noise, and in the other channel a constant, which the modes at 0 add up. Errors of the
    last 256 outputs by the largest one. A state in float32 loses more step by step: a sum of
    constants always rounds the same way.
    """
    model = undamped(kind)
    A = np.asarray(model.modes(), complex)
    assert (A.real == 0).all() and (A == 0).any()
    u = np.ones((1, L, H), np.float32)
    u[0, :, 0] = np.random.default_rng(0).normal(size=L)
    dt = np.asarray(model.step_sizes(), float)
    exact = LOOPS[kind](numbers(model), 1j * numbers(model)["A_im"], dt, u[0].astype(float))
    graphdef, variables = nnx.split(model)
    tolerance = {"conv": 3e-6, "scan": 3e-6, "step": 1e-4}
    for way, found in run(_ways, variables, u, graphdef=graphdef).items():
        error = np.abs(found[0] - exact)[-256:].max(0) / np.abs(exact).max(0)
        assert (error < tolerance[way]).all(), (way, error)


@pytest.mark.optimized
def test_single_steps_in_float64_lose_nothing():
    model = undamped("s4d")
    u = np.ones((1, L, H))
    with jax.enable_x64(True):
        dt = np.asarray(jax.nn.softplus(model.dt_raw[...].astype(float)))
        graphdef, variables = nnx.split(model)
        found = run(_stepped, variables, u, graphdef=graphdef)
    exact = s4d_loop(numbers(model), 1j * numbers(model)["A_im"], dt, u[0])
    assert found.dtype == np.float64
    assert np.abs(found[0] - exact).max() < 1e-9 * np.abs(exact).max()


def _slope(variables, u, g, graphdef, mode):
    def objective(variables):
        return jnp.sum(g * nnx.merge(graphdef, variables)(u, mode=mode))

    return nnx.to_pure_dict(jax.grad(objective)(variables))


@pytest.mark.optimized
@pytest.mark.parametrize("mode", ["conv", "scan"])
def test_gradients_of_s4d_are_the_closed_forms_over_16384_steps(mode):
    """By real and imaginary part, exactly at 0 too; an impulse, whose answer is the kernel.

    They grow as L^2: a mode that moves a little ends far off its phase.
    """
    model = undamped("s4d")
    p, dt = numbers(model), np.asarray(model.step_sizes(), float)
    A = np.broadcast_to(1j * p["A_im"], (H, N))
    g = np.random.default_rng(1).normal(size=(L, H)).astype(np.float32)
    u = np.zeros((1, L, H), np.float32)
    u[0, 0] = 1
    graphdef, variables = nnx.split(model)
    found = run(_slope, variables, u, g[None], graphdef=graphdef, mode=mode)
    dA, dC, _ = oracles.s4d_kernel_gradients(A, p["C_ri"][0] @ [1, 1j], dt, g.T)
    for name, exact in (("A_re_raw", dA.real), ("A_im", -dA.imag)):
        error = np.abs(found[name][0] - exact.sum(0)) / np.abs(exact).max(0)
        assert (error < 2e-5).all(), (name, error)
    exact = np.stack([dC.real, -dC.imag], axis=-1)
    np.testing.assert_allclose(found["C_ri"][0], exact, rtol=0, atol=1e-5 * np.abs(exact).max())


@pytest.mark.unoptimized
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_pass_finite_differences_at_zero(kind):
    """In float64, on both sides of the axis: real_transform "none" is smooth there."""
    model = undamped(kind, "none")
    graphdef, variables = nnx.split(model)
    u = np.random.default_rng(2).normal(size=(1, 9, H))

    def outputs(A_re, A_im, dt_raw):
        moved = {"A_re_raw": A_re, "A_im": A_im, "dt_raw": dt_raw}
        return nnx.merge(graphdef, {**nnx.to_pure_dict(variables), **moved})(u, mode="scan")

    with jax.enable_x64(True):
        point = [numbers(model)[name] for name in ("A_re_raw", "A_im", "dt_raw")]
        assert (point[0] == 0).all()
        check_grads(jax.jit(outputs), point, order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("real_transform", ["clip", "relu"])
@pytest.mark.parametrize("wish", [-1.0, 1.0], ids=["growth", "decay"])
def test_training_keeps_modes_from_growing(real_transform, wish):
    """Descent that wants more energy, or less: Re A is never positive, and leaves 0 for decay."""
    graphdef, variables = nnx.split(undamped("s4d", real_transform))
    u = np.random.default_rng(3).normal(size=(1, 64, H)).astype(np.float32)

    def energy(variables):
        return wish * jnp.mean(nnx.merge(graphdef, variables)(u) ** 2)

    slope = jax.jit(jax.grad(energy))
    for _ in range(10):
        step = slope(variables)
        rate = 0.1 / max(
            1e-6, *(float(jnp.abs(x).max()) for x in jax.tree.leaves(step["A_re_raw"]))
        )
        variables = jax.tree.map(lambda x, dx, rate=rate: x - rate * dx, variables, step)
    real = np.asarray(nnx.merge(graphdef, variables).eigenvalues()).real
    assert (real <= 0).all()
    assert (real < -0.01).any() or wish < 0
