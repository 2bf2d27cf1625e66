"""The S4D layer against recurrences in float64, and its parameters against the official code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from running import numbers, run
from scipy import stats

from ssm_jax.layers import S4D
from ssm_jax.layers.base import Knob

H, N = 6, 5


@functools.cache
def layer(seed=0, **options):
    """A layer whose beta, A and the like have left their common start values."""
    model = S4D(H, d_state=N, rngs=nnx.Rngs(params=seed), **options)
    rng = np.random.default_rng(seed)
    for name, size in (("A_re_raw", 0.5), ("A_im", 1.0), ("beta", 0.8)):
        variable = getattr(model, name)
        noise = size * rng.normal(size=variable[...].shape)
        variable[...] = variable[...] + jnp.asarray(noise, jnp.float32)
    return model


def apply(model, u, lengths=None, key=None):
    """The layer's output, compiled."""
    graphdef, state = nnx.split(model)
    return run(_forward, state, u, lengths, key, graphdef=graphdef)


def _forward(state, u, lengths, key, graphdef):
    return nnx.merge(graphdef, state)(u, lengths, key=key)


def inputs(length, batch=2):
    rng = np.random.default_rng(length)
    return rng.normal(size=(batch, length, H)).astype(np.float32)


def assert_layer_is_oracle(model, length, **oracle):
    u = inputs(length)
    found = apply(model, u)
    exact = np.stack([oracles.s4d_layer(numbers(model), u_LH, **oracle) for u_LH in u])
    assert found.shape == u.shape
    assert np.abs(found - exact).max() < 2e-6 * np.abs(exact).max()


@pytest.mark.parametrize("length", [1, 2, 17, 257, 2048])
def test_layer_is_the_two_sided_recurrence_filtered_plus_d(length):
    assert_layer_is_oracle(layer(alpha=3.0), length)


@pytest.mark.parametrize(
    ("options", "oracle"),
    [
        ({"bidirectional": False, "n_ssm": 3, "dt_transform": "exp"}, {"dt_of": "exp"}),
        ({"n_ssm": 2, "beta_unit": "hz_1e4"}, {"unit": "hz_1e4"}),
        ({"n_ssm": H, "beta_unit": "rad", "learn_beta": False}, {"unit": "rad"}),
        ({"discretization": "bilinear", "alpha": 10.0}, {"rule": "bilinear"}),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()),
)
def test_each_option_is_the_oracle_with_that_option(options, oracle):
    assert_layer_is_oracle(layer(**options), 33, **oracle)


def test_channel_h_uses_the_eigenvalues_h_mod_n_ssm():
    """'(v t) n' of the official code tiles, it does not repeat (OC-6)."""
    model = layer(n_ssm=2)
    p = numbers(model)
    A = np.asarray(model.eigenvalues())
    for h in range(H):
        s = h % 2
        exact = -np.exp(p["A_re_raw"][s]) + 1j * p["A_im"][s]
        np.testing.assert_allclose(A[h], exact, rtol=1e-6)
    assert not np.allclose(p["A_im"][0], p["A_im"][1])


def test_one_sided_layer_without_filter_is_causal_and_with_one_is_not():
    """The filter is zero-phase: it reaches both ways (OC-11)."""
    for beta, causal in ((0.0, True), (-1.0, False)):
        model = S4D(H, d_state=N, beta=beta, bidirectional=False, rngs=nnx.Rngs(params=0))
        u = inputs(33)
        other = u.copy()
        other[:, 20:] += 10
        change = np.abs(apply(model, other) - apply(model, u))[:, :20].max()
        assert (change < 1e-4) == causal


def test_layer_is_linear():
    model, u, v = layer(), inputs(33), inputs(33)[:, ::-1].copy()
    whole = apply(model, 2 * u - v)
    parts = 2 * apply(model, u) - apply(model, v)
    np.testing.assert_allclose(whole, parts, atol=5e-6 * np.abs(parts).max())


@pytest.mark.parametrize(("n_ssm", "sides"), [(1, 2), (3, 1)])
def test_parameters_have_the_official_shapes(n_ssm, sides):
    model = S4D(H, d_state=N, n_ssm=n_ssm, bidirectional=sides == 2, rngs=nnx.Rngs(params=0))
    shapes = jax.tree.map(lambda a: a.shape, numbers(model, nnx.Param))
    assert shapes == {
        "A_re_raw": (n_ssm, N),
        "A_im": (n_ssm, N),
        "dt_raw": (H,),
        "C_ri": (sides, H, N, 2),
        "D": (H,),
        "beta": (H,),
    }
    leaves = jax.tree.leaves(nnx.state(model))
    assert all(a.dtype == jnp.float32 and not a.weak_type for a in leaves)


@pytest.mark.parametrize("dt_transform", ["softplus", "exp"])
def test_parameters_start_as_the_official_ones(dt_transform):
    """Statistics over 64 channels; the bounds are five standard deviations, p-values above 1e-3."""
    model = S4D(64, d_state=64, alpha=3.0, dt_transform=dt_transform, rngs=nnx.Rngs(params=0))
    p = numbers(model)
    np.testing.assert_allclose(-np.exp(p["A_re_raw"]), -0.5, rtol=1e-6)
    frequency = np.maximum(3 * np.pi * np.arange(64), 1e-4)
    np.testing.assert_allclose(p["A_im"], frequency[None], rtol=1e-6)
    np.testing.assert_array_equal(p["beta"], 0)
    square = (p["C_ri"] ** 2).sum(-1)
    assert abs(square.mean() - 1) < 5 / np.sqrt(square.size)
    for part in (0, 1):
        draws = p["C_ri"][..., part].ravel() * np.sqrt(2)
        assert stats.kstest(draws, stats.norm.cdf).pvalue > 1e-3
    assert abs(np.mean(p["C_ri"][..., 0] * p["C_ri"][..., 1])) < 5 * 0.5 / np.sqrt(square.size)
    assert stats.kstest(p["D"], stats.norm.cdf).pvalue > 1e-3
    dt = np.asarray(model.step_sizes())
    assert dt.min() >= 1e-3 * (1 - 1e-5) and dt.max() <= 0.1 * (1 + 1e-5)
    assert stats.kstest(dt, stats.loguniform(1e-3, 1e-1).cdf).pvalue > 1e-3


def test_each_parameter_is_drawn_from_its_own_key():
    p = numbers(S4D(64, d_state=64, rngs=nnx.Rngs(params=0)))
    forward, reverse = p["C_ri"]
    assert abs(np.corrcoef(forward.ravel(), reverse.ravel())[0, 1]) < 0.06
    assert abs(np.corrcoef(p["D"], p["C_ri"][0, :, 0, 0])[0, 1]) < 0.5
    again = numbers(S4D(64, d_state=64, rngs=nnx.Rngs(params=0)))
    other = numbers(S4D(64, d_state=64, rngs=nnx.Rngs(params=1)))
    np.testing.assert_array_equal(p["C_ri"], again["C_ri"])
    assert not np.array_equal(p["C_ri"], other["C_ri"])


def test_alpha_acts_on_the_initial_frequencies_only():
    """Two layers of different alpha with the same parameters compute the same."""
    slow, fast = layer(alpha=1.0), layer(alpha=10.0)
    assert numbers(fast)["A_im"].max() > 5 * numbers(slow)["A_im"].max()
    graphdef, _ = nnx.split(slow)
    _, state = nnx.split(fast)
    u = inputs(17)
    np.testing.assert_array_equal(apply(nnx.merge(graphdef, state), u), apply(fast, u))


def test_fixed_beta_acts_but_is_no_parameter():
    fixed = S4D(H, d_state=N, beta=0.7, learn_beta=False, rngs=nnx.Rngs(params=0))
    learned = S4D(H, d_state=N, beta=0.7, rngs=nnx.Rngs(params=0))
    assert "beta" not in numbers(fixed, nnx.Param)
    np.testing.assert_allclose(numbers(fixed, Knob)["beta"], 0.7, rtol=1e-7)
    u = inputs(17)
    np.testing.assert_array_equal(apply(fixed, u), apply(learned, u))
    plain = S4D(H, d_state=N, rngs=nnx.Rngs(params=0))
    assert np.abs(apply(fixed, u) - apply(plain, u)).max() > 1e-3


@pytest.mark.parametrize(("bidirectional", "length"), [(True, 1), (True, 63), (False, 17)])
def test_padded_sequence_without_filter_gives_what_the_sequence_alone_gives(bidirectional, length):
    model = S4D(H, d_state=N, bidirectional=bidirectional, rngs=nnx.Rngs(params=0))
    u = inputs(64)
    lengths = np.array([length, 64], np.int32)
    padded = apply(model, u, lengths)
    alone = apply(model, u[:1, :length])
    np.testing.assert_allclose(padded[0, :length], alone[0], atol=3e-6 * np.abs(alone).max())
    full = apply(model, u[1:])
    np.testing.assert_allclose(padded[1], full[0], atol=3e-6 * np.abs(full).max())


def test_filter_depends_on_the_padded_length():
    """n is twice the padded length, as in the official code (OC-9): its bins move with padding."""
    model = S4D(H, d_state=N, beta=1.0, rngs=nnx.Rngs(params=0))
    u = inputs(64)
    padded = apply(model, u, np.array([17, 64], np.int32))
    alone = apply(model, u[:1, :17])
    assert np.abs(padded[0, :17] - alone[0]).max() > 1e-3
    exact = oracles.s4d_layer(numbers(model), u[0], length=17)
    np.testing.assert_allclose(padded[0], exact, atol=3e-6 * np.abs(exact).max())


def test_content_of_the_padding_cannot_leak():
    """Not even NaN."""
    model, u = layer(), inputs(64)
    lengths = np.array([17, 40], np.int32)
    other = u.copy()
    other[0, 17:], other[1, 40:] = np.nan, 1e6
    np.testing.assert_array_equal(apply(model, other, lengths), apply(model, u, lengths))


def test_dropout_acts_on_the_output_where_a_key_is_given():
    model = layer(dropout=0.25)
    u = inputs(64, batch=4)
    kept = apply(model, u)
    dropped = apply(model, u, key=jax.random.key(0))
    zero = dropped == 0
    assert 0 < zero.mean() < 1
    np.testing.assert_allclose(dropped[~zero], kept[~zero] / 0.75, rtol=1e-6)
    assert (zero == zero[:, :1]).all(), "tied: one draw for all steps"
    free = layer(dropout=0.25, tie_dropout=False)
    zero = apply(free, u, key=jax.random.key(0)) == 0
    assert not (zero == zero[:, :1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ssm": 4}, "n_ssm=4 must divide d_model=6"),
        ({"n_ssm": 0}, "n_ssm=0 must divide d_model=6"),
        ({"beta_unit": "hz"}, "unknown beta_unit 'hz'; choose one of lra, hz_1e4, denoise, rad"),
        ({"dt_transform": "relu"}, "unknown dt_transform 'relu'; choose one of softplus, exp"),
        ({"discretization": "euler"}, "unknown discretization 'euler'; choose one of zoh"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"dt_min": 0.2}, "needs 0 < low <= high, got low=0.2, high=0.1"),
        ({"d_state": 0}, "d_state must be at least 1"),
    ],
)
def test_options_out_of_their_set_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        S4D(H, rngs=nnx.Rngs(params=0), **options)


def test_without_skip_the_output_is_the_convolution_alone_and_D_is_not_trained():
    layers = {skip: S4D(3, d_state=4, skip=skip, rngs=nnx.Rngs(params=0)) for skip in (True, False)}
    u_BLH = jax.random.normal(jax.random.key(1), (2, 16, 3))
    skipped_BLH = layers[True].D[...][None, None, :] * u_BLH
    expected_BLH = apply(layers[True], u_BLH) - skipped_BLH
    np.testing.assert_allclose(apply(layers[False], u_BLH), expected_BLH, rtol=1e-5, atol=1e-5)
    assert not isinstance(layers[False].D, nnx.Param)
