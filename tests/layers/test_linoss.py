"""LinOSS and D-LinOSS against positions and velocities in float64, step by step."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from running import numbers, run

from ssm_jax.analysis.spectra import layers_of, mode_angles
from ssm_jax.kernels.oscillator import SMALLEST
from ssm_jax.layers import DLinOSS, LinOSS

H, P = 4, 6
KINDS = {
    "im": (LinOSS, {}),
    "imex": (LinOSS, {"scheme": "imex"}),
    "imex alpha 5": (LinOSS, {"scheme": "imex", "alpha": 5.0}),
    "damped": (DLinOSS, {}),
    "undamped": (DLinOSS, {"alpha_real": 0.0}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def layer(kind, **options):
    made, own = KINDS[kind]
    return made(H, d_state=P, rngs=nnx.Rngs(params=0), **{"bidirectional": False, **own, **options})


def inputs(length, batch=2):
    rng = np.random.default_rng(length)
    return rng.normal(size=(batch, length, H)).astype(np.float32)


def system(model):
    """a, G, h, B, C and D in float64; h is the float32 number that the layer has."""
    p = numbers(model)
    a, G = np.maximum(p["A_im"], 0), np.maximum(p.get("A_re_raw", 0 * p["A_im"]), 0)
    B, C = (p[name] @ [1, 1j] for name in ("B_ri", "C_ri"))
    return a, G, np.asarray(jax.nn.sigmoid(model.dt_raw[...]), float), B, C, p["D"]


def oracle(model, u_LH, scale=1.0):
    """y, both ways if there are two read-outs."""
    a, G, h, B, C, D = system(model)
    v_LP = u_LH.astype(float) @ B.T
    y = D * u_LH + (oracles.oscillate(a, G, scale * h, model.scheme, v_LP) @ C[0].T).real
    if len(C) == 2:
        x_LP = oracles.oscillate(a, G, scale * h, model.scheme, v_LP[::-1])[::-1]
        y += (x_LP @ C[1].T).real
    return y


def assert_close(found, exact, tolerance=2e-6):
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() < tolerance * np.abs(exact).max()


def _ways(variables, u, graphdef):
    model = nnx.merge(graphdef, variables)
    x, start = model.prefill(u[:, : u.shape[1] // 2])
    _, rest = jax.lax.scan(model.step, x, jnp.swapaxes(u[:, u.shape[1] // 2 :], 0, 1))
    stepped = jnp.concatenate([start, jnp.swapaxes(rest, 0, 1)], axis=1)
    return model(u, mode="scan"), model(u, mode="conv"), stepped


@pytest.mark.optimized
@each_kind
def test_every_way_to_run_stays_with_the_recurrence_over_16_384_steps(kind):
    """Also with all poles on the unit circle, where no error is ever forgotten."""
    model, u = layer(kind), inputs(16_384, batch=1)
    graphdef, variables = nnx.split(model)
    exact = oracle(model, u[0])
    tolerance = {"scan": 2e-6, "conv": 2e-6, "steps": 2e-5}  # a step rounds the state each time
    found = run(_ways, variables, u, graphdef=graphdef)
    for (way, allowed), y in zip(tolerance.items(), found, strict=True):
        assert np.abs(y[0] - exact).max() < allowed * np.abs(exact).max(), way


def _call(variables, u, lengths, beta, scale, graphdef):
    model = nnx.merge(graphdef, variables)
    model.beta[...] = beta
    return model(u, lengths, step_scale=scale)


@each_kind
def test_lengths_and_step_scale_mean_what_they_mean_for_the_oscillators(kind):
    """Both ways, and step_scale multiplies h: the same oscillators at another sampling rate."""
    model, u = layer(kind, bidirectional=True, beta=0.0), inputs(40)
    graphdef, variables = nnx.split(model)
    u[0, 17:] = np.nan
    lengths, zero = np.array([17, 40], np.int32), np.zeros(H, np.float32)
    y = run(_call, variables, u, lengths, zero, np.float32(0.5), graphdef=graphdef)
    assert_close(y[0, :17], oracle(model, u[0, :17], 0.5))
    assert_close(y[1], oracle(model, u[1], 0.5))


@pytest.mark.parametrize("scale", [0.9, 0.5])
def test_a_state_at_the_clip_goes_on_with_another_step_scale(scale):
    """There t is nearly pi, and sin t has three digits of an angle in float32."""
    model, u = layer.__wrapped__("imex"), inputs(40, batch=1)  # a layer of its own, to be changed
    model.A_im[...] = jnp.full_like(model.A_im[...], 1e3)
    state, first = model.prefill(u[:, :20])
    _, then = model.prefill(u[:, 20:], state=state, step_scale=scale)
    a, _, h, B, C, D = system(model)
    position, velocity, found = np.zeros(P, complex), np.zeros(P, complex), []
    for number, v_P in enumerate(u[0].astype(float) @ B.T):
        step = h * (1.0 if number < 20 else scale)
        k = np.minimum(step**2 * a, 4 - SMALLEST**2)
        velocity = velocity + step * v_P - k / step * position
        position = position + step * velocity
        found.append((C[0] @ position).real)
    exact = np.stack(found) + D * u[0]
    assert_close(np.concatenate([first[0], then[0]]), exact, 1e-5)


def test_the_filter_multiplies_the_spectrum_of_the_answers_to_impulses():
    """Kernels end after L taps on a circle of 2L (OC-9); D is outside."""
    model, u, L = layer("damped", beta=0.0), inputs(24, batch=1), 24
    graphdef, variables = nnx.split(model)
    beta = np.linspace(-0.6, 0.9, H).astype(np.float32)
    lengths = np.full(1, L, np.int32)
    y = run(_call, variables, u, lengths, beta, np.float32(1), graphdef=graphdef)
    a, G, h, B, C, D = system(model)
    k_LP = oracles.oscillate(a, G, h, "imex", np.eye(L)[:, :1] * np.ones(P))
    k_LHG = np.einsum("lp,hp,pg->lhg", k_LP, C[0], B).real
    spectrum = np.einsum(
        "fhg,fg->fh", np.fft.rfft(k_LHG, 2 * L, axis=0), np.fft.rfft(u[0], 2 * L, axis=0)
    )
    gain = (1 + oracles.frequency(2 * L, "lra")[:, None]) ** beta.astype(float)
    exact = np.fft.irfft(spectrum * gain, 2 * L, axis=0)[:L] + D * u[0]
    assert_close(y[0], exact, 4e-6)
    assert np.abs(exact - oracle(model, u[0])).max() > 1e-3


@pytest.mark.parametrize("kind", ["im", "imex", "damped"])
def test_gradients_are_those_of_the_loop_by_finite_differences(kind):
    """Of all parameters, in float32, along random directions."""
    model, u = layer(kind), inputs(60, batch=1)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    weight = np.random.default_rng(3).normal(size=(60, H)).astype(np.float32)
    slopes = nnx.to_pure_dict(run(_slopes, params, rest, u, weight, graphdef=graphdef))
    start = nnx.to_pure_dict(params)
    with jax.enable_x64(True):  # for a sigmoid in float64
        for name, slope in slopes.items():
            direction = np.random.default_rng(4).normal(size=slope.shape)
            values = []
            for sign in (1, -1):
                moved = {k: np.asarray(v, np.float64) for k, v in start.items()}
                moved[name] = moved[name] + sign * 1e-6 * direction
                other = jax.tree.map(lambda x: x, rest)
                made = nnx.merge(graphdef, _as_params(params, moved), other)
                values.append(np.sum(weight * np.sin(oracle(made, u[0]))))
            expected = (values[0] - values[1]) / 2e-6
            found = np.sum(slope * direction)
            size = np.linalg.norm(slope) * np.linalg.norm(direction)
            assert abs(found - expected) < 2e-5 * size + 1e-5, name


def _slopes(params, rest, u, weight, graphdef):
    def loss(params):
        return jnp.sum(weight * jnp.sin(nnx.merge(graphdef, params, rest)(u)[0]))

    return jax.grad(loss)(params)


def _as_params(params, values):
    params = jax.tree.map(lambda x: x, params)
    nnx.replace_by_pure_dict(params, values)
    return params


def angles(model):
    return np.asarray(model.eigenvalues()).imag[: model.A_im.shape[0]]


def test_alpha_1_is_the_published_start_and_alpha_scales_the_angles():
    many = {"d_state": 3000, "bidirectional": False}
    plain = LinOSS(2, scheme="imex", **many, rngs=nnx.Rngs(0))
    a, _, h = map(np.asarray, plain.oscillators())
    assert 0 <= a.min() < 0.01 < 0.99 < a.max() <= 1 and abs(a.mean() - 0.5) < 0.02
    assert 0.5 <= h.min() < 0.505 < 0.725 < h.max() <= 1 / (1 + np.exp(-1))
    t = angles(plain)
    np.testing.assert_allclose(np.cos(t), 1 - h**2 * a / 2, atol=1e-6)
    assert 0.22 < t.max() / np.pi < 0.24
    B, C = np.asarray(plain.B_ri[...]), np.asarray(plain.C_ri[...])
    assert 0.99 < np.abs(B).max() * 2**0.5 <= 1 and 0.99 < np.abs(C).max() * 3000**0.5 <= 1
    for alpha in (0.3, 3.0, 10.0):
        model = LinOSS(2, scheme="imex", alpha=alpha, **many, rngs=nnx.Rngs(0))
        folded = np.arccos(np.cos(alpha * t.astype(float)))
        np.testing.assert_allclose(angles(model), folded, atol=2e-3)  # where it meets 0 or pi
        assert np.median(np.abs(angles(model) - folded)) < 1e-6
    t = angles(LinOSS(2, **many, rngs=nnx.Rngs(0)))
    faster = angles(LinOSS(2, alpha=3.0, **many, rngs=nnx.Rngs(0)))
    np.testing.assert_allclose(np.tan(faster), 3 * np.tan(t), rtol=1e-5)
    assert t.max() < 0.2 * np.pi and faster.max() < np.pi / 2


def test_damped_oscillators_start_on_their_ring():
    """Uniformly by area, with uniform angles; alpha and alpha_real scale angles and log radii."""
    plain, other = (
        DLinOSS(2, d_state=3000, r_min=0.5, **scales, rngs=nnx.Rngs(0))
        for scales in ({}, {"alpha": 0.25, "alpha_real": 0.5})
    )
    z = np.asarray(plain.eigenvalues())[:3000]
    square = np.exp(2 * z.real)
    assert square.min() >= 0.25 and square.max() <= 1
    assert abs(square.mean() - 0.625) < 0.02 and abs(z.imag.mean() - np.pi / 2) < 0.06
    assert z.imag.max() > 3.1
    scaled = np.asarray(other.eigenvalues())[:3000]
    np.testing.assert_allclose(scaled.real, 0.5 * z.real, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scaled.imag, 0.25 * z.imag, rtol=1e-3, atol=2e-4)
    with pytest.raises(
        ValueError, match=r"^D-LinOSS: alpha must be at most 1, got 2\.0: its poles"
    ):
        DLinOSS(2, alpha=2.0, rngs=nnx.Rngs(0))


@each_kind
def test_whatever_training_makes_of_the_parameters_the_layer_stays_stable(kind):
    """a and G far below 0 and beyond Nyquist: outputs stay finite and no pole leaves the disc."""
    graphdef, variables = nnx.split(layer(kind))
    model = nnx.merge(graphdef, jax.tree.map(jnp.copy, variables))
    model.A_im[...] = jnp.asarray([-1.0, 0.0, 3.0, 30.0, 1e4, 1e8])
    if hasattr(model, "A_re_raw"):
        model.A_re_raw[...] = jnp.asarray([-5.0, 1.0, 0.0, 3.0, -1.0, 100.0])
    assert np.asarray(model.eigenvalues()).real.max() <= 0
    y = nnx.jit(lambda model, u: model(u))(model, inputs(300))
    assert np.isfinite(y).all() and np.abs(y).max() < 1e5


def test_an_oscillator_without_stiffness_moves_as_a_free_mass_does():
    """To (l SMALLEST)^2 / 6, that is 7e-5 after 200 steps."""
    graphdef, variables = nnx.split(layer("imex"))
    model = nnx.merge(graphdef, jax.tree.map(jnp.copy, variables))
    model.A_im[...] = jnp.full((P,), -1.0)
    u = inputs(200, batch=1)
    exact = oracle(model, u[0])
    assert np.abs(np.asarray(model(u))[0] - exact).max() < 2e-4 * np.abs(exact).max()


def test_diagnostics_see_the_angles_of_the_oscillators():
    model = nnx.Dict(ssm=layer("damped"))
    (view,) = layers_of(model)
    a, G, h, *_ = system(model.ssm)
    S = 1 + h * G
    t = np.arccos((1 + S - h**2 * a) / (2 * np.sqrt(S)))
    np.testing.assert_allclose(mode_angles(view)[:, 0], np.tile(t, 2), rtol=1e-4)
    np.testing.assert_allclose(np.exp(view.A_HN.real[:P, 0]), S**-0.5, rtol=1e-6)
