"""A causal model step by step is the model at once: over 16,384 steps, and in every variant."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx
from small_models import CAUSAL, MEAN, S4, S5, STD, trained

from ssm_jax.layers import LAYERS, NoStateForm
from ssm_jax.models import Block, PairClassifier, SequenceClassifier
from ssm_jax.trained.predict import layers_of, plain

RNG = np.random.default_rng(11)
SERIES = np.array(MEAN) + np.array(STD) * RNG.normal(size=(40, 2))
L = 16_384


def along(network, inputs):
    """The outputs of `step` after each step (L, B, K), compiled as one loop."""

    @jax.jit
    def run(inputs):
        return jax.lax.scan(network.step, network.initial_state(inputs.shape[1]), inputs)[1]

    return np.asarray(run(inputs))


def whole(network, inputs):
    """The outputs of a call, compiled as one program."""
    return np.asarray(jax.jit(lambda u: network(u))(inputs))


@pytest.mark.optimized
@pytest.mark.parametrize("options", [{}, S4, S5], ids=["s4d", "s4", "s5"])
def test_16384_steps_are_the_convolution_to_1e_5(options):
    """At each step, of a network without pool: norms, gates and head are in it."""
    head = {"per_step": {**CAUSAL, **options}}
    network = plain(trained("per_step", length=L, **head["per_step"]).network)
    inputs = RNG.normal(size=(1, L, 2)).astype(np.float32)
    called = whole(network, inputs)[0]
    found = along(network, inputs.swapaxes(0, 1))[:, 0]
    np.testing.assert_allclose(found, called, rtol=0, atol=1e-5 * np.abs(called).max())


@pytest.mark.parametrize("pool", ["mean", "last", "first", "sum"])
def test_pools_see_the_steps_so_far(pool):
    network = plain(trained(pool=pool, **CAUSAL).network)
    inputs = RNG.normal(size=(2, 40, 2)).astype(np.float32)
    found = along(network, inputs.swapaxes(0, 1))
    for n in (1, 2, 17, 40):
        called = np.asarray(network(inputs[:, :n]))
        np.testing.assert_allclose(found[n - 1], called, rtol=0, atol=1e-5 * np.abs(called).max())


@pytest.mark.optimized
def test_a_mean_of_many_steps_keeps_its_digits():
    network = plain(trained(pool="mean", length=L, depth=1, **CAUSAL).network)
    inputs = (RNG.normal(size=(1, L, 2)) + 100).astype(np.float32)
    called = whole(network, inputs)
    found = along(network, inputs.swapaxes(0, 1))[-1]
    np.testing.assert_allclose(found, called, rtol=0, atol=1e-5 * np.abs(called).max())


@pytest.mark.parametrize(
    "options",
    [
        {"gate": "half_glu1"},
        {"gate": "half_glu2", "norm": "layer"},
        {"norm": "layer", "prenorm": False},
        {"prenorm": False},
        {"final_norm": False, "vocab_size": 6},
        {"norm": "layer", "vocab_size": 6, **S5},
        {"activations": "bfloat16"},
        {"discretization": "bilinear", "n_ssm": 2},
    ],
    ids=str,
)
def test_norms_gates_and_encoders_are_those_of_the_call(options):
    network = plain(trained(**{**CAUSAL, **options}).network)
    inputs = RNG.normal(size=(2, 30, 2)).astype(np.float32)
    if "vocab_size" in options:
        inputs = RNG.integers(0, 6, (2, 30))
    called, found = whole(network, inputs), along(network, inputs.swapaxes(0, 1))[-1]
    error = 2e-2 if "activations" in options else 1e-5
    np.testing.assert_allclose(found, called, rtol=0, atol=error * np.abs(called).max())


# In the units of the user


@pytest.mark.parametrize(("head", "horizon"), [("classification", 0), ("regression", 0)])
def test_a_stream_says_what_predict_says_of_the_steps_so_far(head, horizon):
    model = trained(head, horizon=horizon, **CAUSAL)
    stream = model.stream()
    found = [stream.step(x_C) for x_C in SERIES]
    for n in (1, 9, 40):
        np.testing.assert_allclose(found[n - 1], model.predict([SERIES[:n]])[0], rtol=1e-5)
    stream.reset()
    np.testing.assert_array_equal(stream.step(SERIES[0]), found[0])


def test_a_stream_of_each_step_and_of_several_series():
    model = trained("per_step", **CAUSAL)
    both = np.stack([SERIES, SERIES[::-1]])
    stream = model.stream(batch_size=2)
    found = np.stack([stream.step(x_BC) for x_BC in both.swapaxes(0, 1)], axis=1)
    np.testing.assert_allclose(found, model.predict(both), rtol=1e-5)


def test_a_forecast_starts_from_the_step_it_is_made_at():
    model = trained("forecasting", horizon=5, length=40, **CAUSAL)
    stream = model.stream()
    found = [stream.step(x_C) for x_C in SERIES]
    assert found[0].shape == (5, 2)
    for n in (1, 9, 40):
        np.testing.assert_allclose(found[n - 1], model.predict([SERIES[:n]])[0], rtol=1e-5)


def test_a_stream_of_tokens():
    model = trained(vocab_size=6, **CAUSAL)
    ids, stream = RNG.integers(0, 6, 20), model.stream()
    found = [stream.step(token) for token in ids]
    np.testing.assert_allclose(found[-1], model.predict([ids])[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"ids 0\.\.5, got \[6\]"):
        stream.step(6)


def test_a_filter_of_beta_0_is_none():
    """It was made with one, which is the identity and is not trained."""
    model = trained(**{**CAUSAL, "beta.filter": True})
    for layer in layers_of(model.network):
        layer.beta[...] = 0 * layer.beta[...]
    stream = model.stream()
    found = [stream.step(x_C) for x_C in SERIES[:24]]
    np.testing.assert_allclose(found[-1], model.predict([SERIES[:24]])[0], rtol=1e-5)


def test_a_stream_leaves_the_network_as_it_was():
    model = trained(**CAUSAL)
    before = nnx.graphdef(model.network)
    model.stream().step(SERIES[0])
    model.predict([SERIES[:9]])
    assert nnx.graphdef(model.network) == before
    assert model.network.blocks[0].ssm.horizon == 24


# Refusals


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {**CAUSAL, "bidirectional": True},
            "looks ahead, so it has no steps; train one with --config.model.bidirectional=false.",
        ),
        (
            {"bidirectional": False},
            "has a filter, so it has no steps; train one with --config.model.beta.filter=false.",
        ),
        ({}, "looks ahead and has a filter, .*bidirectional=false and --config.model.beta.filter"),
    ],
    ids=["bidirectional", "filtered", "both"],
)
def test_a_model_that_hears_the_future_says_how_to_train_one_that_does_not(options, said):
    with pytest.raises(NoStateForm, match=said):
        trained(**options).stream()


def test_what_has_no_steps_is_refused():
    pair = PairClassifier(
        n_classes=2, vocab_size=6, d_model=4, depth=1, ssm={"d_state": 3}, rngs=nnx.Rngs(0)
    )
    with pytest.raises(NoStateForm, match="pairs of sequences have no steps"):
        pair.initial_state()
    model = trained(**CAUSAL)

    class Stepless(nnx.Module):
        def __init__(self, d_model, *, rngs):
            pass

        def __call__(self, u_BLH, lengths_B=None, *, key=None):
            return u_BLH

    rngs = nnx.Rngs(0)
    model.network.blocks = nnx.List([Block(4, Stepless(4, rngs=rngs), rngs=rngs)])
    with pytest.raises(NoStateForm, match="the layer Stepless has no `step`"):
        model.stream()
    with pytest.raises(NoStateForm, match="S4D: step needs a causal layer"):
        SequenceClassifier(n_classes=2, d_input=1, d_model=4, depth=1, rngs=rngs).initial_state()
    assert all(hasattr(layer, "step") for layer in LAYERS.values())


@pytest.mark.parametrize("batch_size", [0, 2.5])
def test_a_number_of_sequences_that_cannot_be_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size} must be a whole number"):
        trained(depth=1, **CAUSAL).stream(batch_size)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (np.zeros(3), r"must have the shape \(2,\) or \(1, 2\), got \(3,\)"),
        (np.zeros((2, 2)), r"must have the shape \(2,\) or \(1, 2\), got \(2, 2\)"),
        (1.0, r"must have the shape \(2,\) or \(1, 2\), got \(\)"),
        (np.array([1.0, np.nan]), "a step must be finite"),
        (["1", "b"], "a step must be real numbers, got <U1"),
    ],
)
def test_a_step_that_does_not_fit_is_refused_and_changes_nothing(step, message):
    stream, undisturbed = (trained(depth=1, **CAUSAL).stream() for _ in range(2))
    stream.step(SERIES[0])
    with pytest.raises(ValueError, match=message):
        stream.step(step)
    undisturbed.step(SERIES[0])
    np.testing.assert_array_equal(stream.step(SERIES[1]), undisturbed.step(SERIES[1]))
