"""The S4 layer against dense float64 recurrences, in all the ways to run it; how it starts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from running import numbers, run

from ssm_jax.init.hippo import fout, legs
from ssm_jax.layers.base import Knob, NoStateForm
from ssm_jax.layers.s4 import S4

H, N = 6, 4


@functools.cache
def layer(seed=0, **options):
    """A layer whose parameters have left their common start values."""
    model = S4(H, d_state=N, rngs=nnx.Rngs(params=seed), **options)
    rng = np.random.default_rng(seed)
    for name, size in (("A_re_raw", 0.5), ("A_im", 1.0), ("P_ri", 0.5), ("B_ri", 0.5)):
        variable = getattr(model, name)
        noise = size * rng.normal(size=variable[...].shape)
        variable[...] = variable[...] + jnp.asarray(noise, jnp.float32)
    if model.filtered:
        model.beta[...] = jnp.asarray(0.8 * rng.normal(size=H), jnp.float32)
    return model


CAUSAL = {"bidirectional": False, "beta": None}


def inputs(length, batch=2):
    rng = np.random.default_rng(length)
    return rng.normal(size=(batch, length, H)).astype(np.float32)


def call(model, u, lengths=None, key=None, **static):
    """The layer's output, compiled, the parameters being arguments."""
    graphdef, state = nnx.split(model)
    return run(_call, state, u, lengths, key, graphdef=graphdef, **static)


def _call(state, u, lengths, key, graphdef, **static):
    return nnx.merge(graphdef, state)(u, lengths, key=key, **static)


def prefill(model, u, lengths=None, start=None):
    graphdef, state = nnx.split(model)
    return run(_prefill, state, u, lengths, start, graphdef=graphdef)


def _prefill(state, u, lengths, start, graphdef):
    return nnx.merge(graphdef, state).prefill(u, lengths, state=start)


def steps(model, u, start):
    """lax.scan over `step` as it stands: the last state, and the outputs (B, L, H)."""
    graphdef, variables = nnx.split(model)
    return run(_steps, variables, u, start, graphdef=graphdef)


def _steps(variables, u_BLH, start, graphdef):
    state, y_LBH = jax.lax.scan(
        nnx.merge(graphdef, variables).step, start, jnp.swapaxes(u_BLH, 0, 1)
    )
    return state, jnp.swapaxes(y_LBH, 0, 1)


def assert_close(found, exact, tolerance=5e-6):
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() < tolerance * np.abs(exact).max()


def oracle(model, u, **options):
    return np.stack([oracles.s4_layer(numbers(model), u_LH, **options) for u_LH in u])


@pytest.mark.parametrize("length", [1, 33, 257])
def test_layer_is_the_two_sided_dense_recurrence_filtered_plus_d(length):
    model, u = layer(alpha=3.0), inputs(length)
    assert_close(call(model, u), oracle(model, u))


@pytest.mark.parametrize(
    ("options", "of_oracle"),
    [
        ({"n_ssm": 3, "dt_transform": "softplus"}, {"dt_of": "softplus"}),
        ({"n_ssm": H, "beta_unit": "rad", "bidirectional": False}, {"unit": "rad"}),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()),
)
def test_each_option_is_the_oracle_with_that_option(options, of_oracle):
    model, u = layer(**options), inputs(33)
    assert_close(call(model, u), oracle(model, u, **of_oracle))


def test_another_sampling_rate_is_another_step_and_filter():
    model, u = layer(alpha=3.0), inputs(33)
    assert_close(call(model, u, step_scale=0.25), oracle(model, u, step_scale=0.25))


@pytest.mark.parametrize(("length", "tolerance"), [(1, 1e-6), (300, 1e-4)])
def test_convolution_scan_prefill_and_steps_are_one_layer(length, tolerance):
    """Each against float64: the first three to 5e-6, the steps to the tolerance."""
    model, u = layer(**CAUSAL), inputs(length)
    exact = oracle(model, u)
    end, prefilled = prefill(model, u)
    last, stepped = steps(model, u, np.asarray(model.initial_state(2)))
    assert end.shape == (2, H, N) and end.dtype == np.complex64
    for found in (call(model, u), call(model, u, mode="scan"), prefilled):
        assert_close(found, exact)
    assert_close(stepped, exact, tolerance)
    assert_close(last, end, tolerance)


@pytest.mark.parametrize("length", [1, 65])
def test_scan_of_a_bidirectional_layer_is_its_convolution(length):
    """With padding, which the part that looks ahead meets first."""
    model, u = layer(beta=None), inputs(length)
    lengths = np.array([length, (length + 1) // 2], np.int32)
    assert_close(call(model, u, lengths, mode="scan"), call(model, u, lengths))


def test_gradients_of_the_convolution_and_of_the_scan_are_one():
    """By every parameter and by the input; the two share no program."""
    model, u = layer(beta=None), inputs(65)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def gradient(params, u, mode):
        def objective(params, u):
            return jnp.mean(jnp.sin(nnx.merge(graphdef, params, rest)(u, mode=mode)))

        return jax.grad(objective, argnums=(0, 1))(params, u)

    conv, scan = (run(gradient, params, u, mode=mode) for mode in ("conv", "scan"))
    assert len(jax.tree.leaves(conv)) == 8
    for f, e in zip(jax.tree.leaves(conv), jax.tree.leaves(scan), strict=True):
        assert_close(f, e, 2e-4)


def test_a_prefilled_state_goes_on_step_by_step():
    """Of a batch of three lengths: each sequence continues after its own last real step."""
    model, u = layer(**CAUSAL), inputs(80, batch=3)
    lengths = np.array([40, 17, 1], np.int32)
    padded = u[:, :40].copy()
    padded[1, 17:] = np.nan
    state, y = prefill(model, padded, lengths)
    _, whole = prefill(model, u)
    for b, n in enumerate(lengths):
        np.testing.assert_allclose(y[b, :n], whole[b, :n], atol=5e-6 * np.abs(whole).max())
        _, rest = steps(model, u[b : b + 1, n:], state[b : b + 1])
        assert_close(rest[0], whole[b, n:], 3e-5)


def test_a_sequence_in_two_prefills_is_the_sequence():
    model, u = layer(**CAUSAL), inputs(90)
    end, y = prefill(model, u)
    state, first = prefill(model, u[:, :33])
    state, second = prefill(model, u[:, 33:], start=state)
    assert_close(np.concatenate([first, second], axis=1), y)
    assert_close(state, end)


def test_padded_sequence_without_filter_gives_what_the_sequence_alone_gives():
    """And what stands in the padding cannot leak, not even NaN."""
    model, u = layer(beta=None), inputs(64)
    u[0, 33:] = np.nan
    padded = call(model, u, np.array([33, 64], np.int32))
    alone = call(model, u[:1, :33])
    np.testing.assert_allclose(padded[0, :33], alone[0], atol=5e-6 * np.abs(alone).max())
    assert np.isfinite(padded).all()


def test_a_short_input_with_a_horizon_is_the_padded_input():
    """With a filter, which without a horizon would act on another circle."""
    model, u = layer(), inputs(64)
    lengths = np.array([17, 11], np.int32)
    padded = call(model, u, lengths)
    short = call(layer(horizon=64), u[:, :17], lengths)
    assert_close(short, padded[:, :17])


def test_population_of_layers_equals_each_alone():
    models = [layer(seed=s) for s in range(3)]
    graphdef, _ = nnx.split(models[0])
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *(nnx.split(m)[1] for m in models))
    u = inputs(33)

    def forward(states, u):
        return jax.vmap(lambda state: nnx.merge(graphdef, state)(u))(states)

    for found, model in zip(run(forward, stacked, u), models, strict=True):
        assert_close(found, call(model, u))


@pytest.mark.parametrize(("n_ssm", "sides"), [(1, 2), (3, 1)])
def test_parameters_have_their_shapes(n_ssm, sides):
    model = S4(H, d_state=N, n_ssm=n_ssm, bidirectional=sides == 2, rngs=nnx.Rngs(params=0))
    shapes = jax.tree.map(lambda a: a.shape, numbers(model, nnx.Param))
    assert shapes == {
        "A_re_raw": (n_ssm, N),
        "A_im": (n_ssm, N),
        "P_ri": (n_ssm, N, 2),
        "B_ri": (n_ssm, N, 2),
        "dt_raw": (H,),
        "C_ri": (sides, H, N, 2),
        "D": (H,),
        "beta": (H,),
    }
    leaves = jax.tree.leaves(nnx.state(model))
    assert all(a.dtype == jnp.float32 and not a.weak_type for a in leaves)
    abstract = nnx.eval_shape(
        lambda: S4(H, d_state=N, n_ssm=n_ssm, bidirectional=sides == 2, rngs=nnx.Rngs(params=0))
    )
    assert jax.tree.map(jnp.shape, nnx.state(abstract)) == jax.tree.map(jnp.shape, nnx.state(model))


@pytest.mark.parametrize(
    ("matrices", "options"),
    [(legs, {}), (fout, {"init": "fout", "real_transform": "relu"})],
    ids=["legs", "fout"],
)
def test_without_clip_it_starts_as_the_hippo_system(matrices, options):
    """Its transfer function c (s - A)^-1 B, from the real matrices and from the parameters."""
    model = S4(H, d_state=N, b_clip=None, rngs=nnx.Rngs(params=0), **options)
    (Lambda, P), B = model.state_matrix(), model.input_vector()
    Lambda, P, B = (np.asarray(a[0], complex) for a in (Lambda, P, B))
    A_real, B_real = matrices(2 * N)
    full = [np.concatenate([a, a.conj()]) for a in (Lambda, P, B)]
    for s in (1j, 5 + 20j):
        # P^* (s - A)^-1 B and B^* (s - A)^-1 B, P = B / sqrt(2) in both systems
        x = np.linalg.solve(s * np.eye(2 * N) - A_real, B_real)
        z = np.linalg.solve(
            s * np.eye(2 * N) - np.diag(full[0]) + np.outer(full[1], full[1].conj()), full[2]
        )
        np.testing.assert_allclose(full[2].conj() @ z, B_real @ x, rtol=1e-5)
        np.testing.assert_allclose(full[1].conj() @ z, B_real @ x / np.sqrt(2), rtol=1e-5)


def test_official_clip_acts_on_the_imaginary_part_of_B_alone():
    """At real order 8 the largest is 5.15 (OC-27); P keeps it."""
    free = numbers(S4(H, d_state=N, b_clip=None, rngs=nnx.Rngs(params=0)))
    clipped = numbers(S4(H, d_state=N, rngs=nnx.Rngs(params=0)))
    assert abs(np.abs(free["B_ri"][..., 1]).max() - 5.154) < 1e-3
    exact = np.clip(free["B_ri"][..., 1], -2, 2)
    np.testing.assert_allclose(clipped.pop("B_ri")[..., 1], exact, rtol=1e-6)
    free.pop("B_ri")
    jax.tree.map(np.testing.assert_array_equal, clipped, free)


def test_alpha_scales_the_initial_frequencies_and_alpha_real_the_decay():
    plain = numbers(S4(H, d_state=N, rngs=nnx.Rngs(params=0)))
    scaled = S4(H, d_state=N, alpha=3.0, alpha_real=0.1, rngs=nnx.Rngs(params=0))
    np.testing.assert_allclose(numbers(scaled)["A_im"], 3 * plain["A_im"], rtol=1e-6)
    (Lambda, _), other = scaled.state_matrix(), numbers(scaled)
    np.testing.assert_allclose(np.asarray(Lambda).real, -0.05, rtol=1e-5)
    for name in ("P_ri", "B_ri", "C_ri", "dt_raw", "D"):
        np.testing.assert_array_equal(other[name], plain[name])


def test_draws_start_in_their_ranges():
    p = numbers(S4(256, d_state=32, rngs=nnx.Rngs(params=0)))
    square = (p["C_ri"] ** 2).sum(-1)
    assert abs(square.mean() - 1) < 5 / np.sqrt(square.size)
    assert abs(p["D"].std() - 1) < 0.25
    dt = np.exp(p["dt_raw"])
    assert dt.min() >= 1e-3 * (1 - 1e-5) and dt.max() <= 0.1 * (1 + 1e-5)
    assert abs(np.log(dt).mean() - np.log(1e-2)) < 5 * np.log(100) / np.sqrt(12 * 256)


def test_fixed_beta_acts_but_is_no_parameter():
    fixed = S4(H, d_state=N, beta=0.7, learn_beta=False, rngs=nnx.Rngs(params=0))
    assert "beta" not in numbers(fixed, nnx.Param)
    np.testing.assert_allclose(numbers(fixed, Knob)["beta"], 0.7, rtol=1e-7)
    u = inputs(33)
    assert_close(call(fixed, u), oracle(fixed, u))


def test_the_modes_share_the_dropout():
    model, u, key = layer(dropout=0.5, **CAUSAL), inputs(64), jax.random.key(0)
    outputs = [call(model, u, key=key, mode=mode) for mode in ("conv", "scan")]
    assert 0.2 < (outputs[0] == 0).mean() < 0.8
    np.testing.assert_array_equal(outputs[0] == 0, outputs[1] == 0)


def test_layers_without_a_state_form_say_so():
    learned = S4(H, d_state=N, bidirectional=False, rngs=nnx.Rngs(params=0))
    state, u = learned.initial_state(2), inputs(4)
    learned.step(state, u[:, 0])  # its beta is known to be 0
    with pytest.raises(NoStateForm, match=r"S4: prefill needs beta = 0, and this beta is traced"):
        prefill(learned, u)
    filtered = S4(H, d_state=N, beta=0.5, learn_beta=False, rngs=nnx.Rngs(params=0))
    with pytest.raises(NoStateForm, match=r"S4: mode='scan' needs beta = 0"):
        filtered(u, mode="scan")
    both = layer(beta=None)
    for run_it in (lambda: both.step(state, u[:, 0]), lambda: both.prefill(u)):
        with pytest.raises(NoStateForm, match="needs a causal layer"):
            run_it()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ssm": 4}, "n_ssm=4 must divide d_model=6"),
        ({"n_ssm": 0}, "n_ssm=0 must divide d_model=6"),
        ({"init": "s4d_lin"}, "unknown init 's4d_lin'; choose one of legs, fout"),
        ({"init": "fout"}, "'exp': cannot represent Re A = 0"),
        ({"real_transform": "tanh"}, "unknown real_transform 'tanh'; choose one of exp"),
        ({"beta_unit": "hz"}, "unknown beta_unit 'hz'; choose one of lra, hz_1e4, denoise, rad"),
        ({"dt_transform": "relu"}, "unknown dt_transform 'relu'; choose one of softplus, exp"),
        ({"discretization": "zoh"}, "discretization must be 'bilinear', got 'zoh': .* S4D"),
        ({"b_clip": 0.0}, "b_clip must be positive and finite, got 0.0"),
        ({"alpha": 0.0}, "alpha must be positive and finite, got 0.0"),
        ({"alpha_real": -1.0}, "alpha_real must be at least 0 and finite, got -1.0"),
        ({"d_state": 0}, "d_state must be at least 1"),
        ({"dt_min": 0.2}, "needs 0 < low <= high, got low=0.2, high=0.1"),
    ],
)
def test_options_out_of_their_set_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        S4(H, rngs=nnx.Rngs(params=0), **options)


def test_modes_and_horizons_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="unknown mode 'fft'; choose one of conv, scan"):
        layer()(inputs(8), mode="fft")
    with pytest.raises(ValueError, match="horizon=7 must be at least the input's length 8"):
        layer(horizon=7)(inputs(8))
