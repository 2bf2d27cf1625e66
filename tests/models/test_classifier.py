"""The classifier: parameter counts of the official models, pooling, the scan over its blocks."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from running import numbers, run

from ssm_jax.kernels.devices import compiling_for
from ssm_jax.layers import S4D, S5
from ssm_jax.layers.inputs import _one_program, dropout
from ssm_jax.layers.norm import BatchNorm, LayerNorm
from ssm_jax.models import PairClassifier, SequenceClassifier
from ssm_jax.models.block import apply_blocks
from ssm_jax.models.classifier import POOLS, pool
from ssm_jax.training.step import split

LENGTHS = np.array([5, 12, 1], np.int32)
VOCAB, K = 7, 3


@functools.cache
def classifier(seed=0, **options):
    """A small model whose beta, norms and running statistics have left their start values."""
    options = {"vocab_size": VOCAB, "d_model": 4, "depth": 2, "pool": "last", **options}
    model = SequenceClassifier(n_classes=K, ssm={"d_state": 3}, rngs=nnx.Rngs(params=0), **options)
    rng = np.random.default_rng(seed)
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        if path[-1] in ("beta", "scale", "bias", "mean"):
            noise = rng.normal(size=variable[...].shape) / 2
            variable[...] = variable[...] + jnp.asarray(noise, jnp.float32)
        elif path[-1] == "var":
            variable[...] = jnp.asarray(rng.uniform(0.5, 2, size=variable[...].shape), jnp.float32)
    return model


REAL = {"vocab_size": None, "d_input": 2}


@functools.cache
def stepped(**options):
    """A small model that has steps."""
    options = {"vocab_size": VOCAB, "d_model": 4, "depth": 1, "pool": "mean", **options}
    ssm = {"d_state": 3, "beta": None, "bidirectional": False}
    return SequenceClassifier(n_classes=K, ssm=ssm, rngs=nnx.Rngs(0), **options)


def tokens():
    return np.random.default_rng(2).integers(0, VOCAB, (3, 12)).astype(np.int32)


OFFICIAL = {
    "listops": (403_210, {"n_classes": 10, "vocab_size": 18}),
    "text": (1_226_754, {"n_classes": 2, "vocab_size": 135, "d_model": 256}),
    "image": (
        4_353_034,
        {"n_classes": 10, "d_input": 1, "d_model": 512, "norm": "layer", "prenorm": False},
    ),
    "pathfinder": (1_192_706, {"n_classes": 2, "d_input": 1, "d_model": 256}),
    "path_x": (497_666, {"n_classes": 2, "d_input": 1}),
}


@pytest.mark.parametrize("task", OFFICIAL)
def test_official_models_have_exactly_the_official_number_of_parameters(task):
    count, options = OFFICIAL[task]
    ssm = {"n_ssm": {"image": 512, "path_x": 128}.get(task, 1)}
    _, params, _ = nnx.eval_shape(
        lambda: split(SequenceClassifier(**options, ssm=ssm, rngs=nnx.Rngs(params=0)))
    )
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count


def test_the_pair_model_has_the_official_number_of_parameters():
    """Two towers with one set of weights, and a decoder of [x1, x2, x1 x2, x1 - x2] with a ReLU."""
    _, params, _ = nnx.eval_shape(
        lambda: split(PairClassifier(n_classes=2, vocab_size=98, rngs=nnx.Rngs(params=0)))
    )
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == 478_082


def test_a_pair_is_decoded_from_what_one_tower_makes_of_each():
    model = PairClassifier(
        n_classes=K, vocab_size=VOCAB, d_model=4, depth=2, ssm={"d_state": 3},
        rngs=nnx.Rngs(params=0),
    )  # fmt: skip
    rng = np.random.default_rng(7)
    pairs = rng.integers(0, VOCAB, (3, 2, 12)).astype(np.int32)
    lengths = rng.integers(1, 13, (3, 2)).astype(np.int32)
    graphdef, params, stats = split(model)
    found = run(_logits, params, stats, pairs, lengths, graphdef=graphdef, train=False)
    p = numbers(model)
    one = {**p, "decoder": {"kernel": np.eye(4), "bias": np.zeros(4)}}
    first, second = (
        oracles.classifier(one, pairs[:, i], lengths[:, i], kind="batch", prenorm=True, mode="mean")
        for i in (0, 1)
    )
    both = np.concatenate([first, second, first * second, first - second], axis=-1)
    layers = p["decoder"]["layers"]
    exact = oracles.linear(layers[2], np.maximum(oracles.linear(layers[0], both), 0))
    np.testing.assert_allclose(found, exact, rtol=0, atol=5e-6 * np.abs(exact).max())


@pytest.mark.parametrize("mode", POOLS)
def test_pool_is_over_the_unpadded_steps(mode):
    x = np.random.default_rng(3).normal(size=(3, 12, 4)).astype(np.float32)
    exact = oracles.pool(x.astype(float), LENGTHS, mode)
    x[np.arange(12)[None, :] >= LENGTHS[:, None]] = np.nan
    np.testing.assert_allclose(run(pool, x, LENGTHS, mode=mode), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", POOLS)
def test_pool_without_lengths_is_over_all_steps(mode):
    x = np.random.default_rng(3).normal(size=(3, 12, 4)).astype(np.float32)
    exact = oracles.pool(x.astype(float), [12] * 3, mode)
    np.testing.assert_allclose(run(pool, x, None, mode=mode), exact, rtol=1e-6, atol=1e-6)


def _logits(params, stats, inputs, lengths, graphdef, train):
    return nnx.merge(graphdef, params, stats)(inputs, lengths, train=train)


@pytest.mark.parametrize(
    ("options", "train"),
    [
        ({}, False),
        (
            {"norm": "layer", "prenorm": False, "vocab_size": None, "d_input": 2, "pool": "mean"},
            False,
        ),
        ({"pool": "sum"}, True),
    ],
    ids=["listops", "image", "training"],
)
def test_logits_are_those_of_the_model_in_float64(options, train):
    model = classifier(**options)
    real = np.random.default_rng(4).normal(size=(3, 12, 2)).astype(np.float32)
    inputs = real if "d_input" in options else tokens()
    graphdef, params, stats = split(model)
    found = run(_logits, params, stats, inputs, LENGTHS, graphdef=graphdef, train=train)
    exact = oracles.classifier(
        numbers(model),
        inputs,
        LENGTHS,
        kind=options.get("norm", "batch"),
        prenorm=options.get("prenorm", True),
        mode=options.get("pool", "last"),
        train=train,
    )
    np.testing.assert_allclose(found, exact, rtol=0, atol=5e-6 * np.abs(exact).max())


class Mixer(nnx.Module):
    """A block with all that a scan carries: parameters, running statistics, dropout, lengths."""

    def __init__(self, rngs):
        self.norm = BatchNorm(4)
        self.out = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x_BLH, lengths_B, *, train, key):
        y_BLH = dropout(self.norm(x_BLH, train=train), 0.3, key, tied=False)
        y_BLH = y_BLH * lengths_B[:, None, None].astype(jnp.float32) / 12
        return x_BLH + jnp.tanh(self.out(y_BLH))


def in_a_loop(blocks, x, lengths, *, train, key):
    keys = [None] * len(blocks) if key is None else jax.random.split(key, len(blocks))
    for block, block_key in zip(blocks, keys, strict=True):
        x = block(x, lengths, train=train, key=block_key)
    return x


def _through(params, stats, x, key, graphdef, forward, train):
    blocks = nnx.merge(graphdef, params, stats)
    y = forward(blocks, x, LENGTHS, train=train, key=key)
    return jnp.sum(jnp.sin(y)), (y, split(blocks)[2])


@pytest.mark.parametrize("backend", ["cpu", "tpu"])
@pytest.mark.parametrize(("train", "key"), [(True, jax.random.key(5)), (False, None)])
def test_scanned_blocks_are_a_loop_over_the_blocks(train, key, backend):
    """Values, gradients, running statistics, and the dropout key of each block.

    The scan is unrolled on CPUs and GPUs and a loop on TPUs.
    """
    rngs = nnx.Rngs(params=0)
    graphdef, params, stats = split(nnx.List([Mixer(rngs) for _ in range(3)]))
    x = np.random.default_rng(6).normal(size=(3, 12, 4)).astype(np.float32)
    gradient = jax.value_and_grad(_through, has_aux=True)
    with compiling_for(backend):
        scan, loop = (
            run(gradient, params, stats, x, key, graphdef=graphdef, forward=forward, train=train)
            for forward in (apply_blocks, in_a_loop)
        )
    assert jax.tree.structure(scan) == jax.tree.structure(loop)
    (_, (_, new_stats)), _ = scan
    assert np.array_equal(new_stats[2]["norm"]["mean"], stats[2]["norm"]["mean"]) != train
    for a, b in zip(jax.tree.leaves(scan), jax.tree.leaves(loop), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-6 * np.abs(b).max() + 1e-6)


def _slow(model, rngs):  # of the shapes of the others
    slow = {"discretization": "bilinear", "dt_min": 1, "dt_max": 2}
    model.blocks[1].ssm = S4D(4, d_state=3, **slow, rngs=rngs)


def _larger(model, rngs):
    model.blocks[1].ssm = S4D(4, d_state=5, rngs=rngs)


def _other(model, rngs):
    model.blocks[1].ssm, model.blocks[2].norm = S5(4, d_state=3, rngs=rngs), LayerNorm(4)


@pytest.mark.parametrize("change", [_slow, _larger, _other])
def test_blocks_that_a_user_has_made_unlike_run_each_as_it_is(change):
    rngs = nnx.Rngs(params=0)
    sizes = {"vocab_size": VOCAB, "d_model": 4, "depth": 3, "ssm": {"d_state": 3}}
    model = SequenceClassifier(n_classes=K, rngs=rngs, **sizes)
    change(model, rngs)
    graphdef, params, stats = split(model.blocks)
    x = np.random.default_rng(6).normal(size=(3, 12, 4)).astype(np.float32)
    found, expected = (
        run(_through, params, stats, x, None, graphdef=graphdef, forward=forward, train=True)
        for forward in (apply_blocks, in_a_loop)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-6 * np.abs(b).max() + 1e-6)


def test_a_dropout_that_the_first_block_has_not_acts_in_the_others():
    model = nnx.clone(classifier(norm="layer", dropout=0.5))
    model.blocks[0].dropout = model.blocks[0].ssm.dropout = 0.0
    dropped = model(tokens(), LENGTHS, key=jax.random.key(3))
    assert np.abs(dropped - model(tokens(), LENGTHS)).max() > 1e-2


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_blocks_computed_again_give_the_same_gradients(backend):
    rngs = nnx.Rngs(params=0)
    graphdef, params, stats = split(nnx.List([Mixer(rngs) for _ in range(3)]))
    x = np.random.default_rng(6).normal(size=(3, 12, 4)).astype(np.float32)
    gradient, key = jax.value_and_grad(_through, has_aux=True), jax.random.key(5)
    again = functools.partial(apply_blocks, remat=True)
    with compiling_for(backend):
        kept, made = (
            run(gradient, params, stats, x, key, graphdef=graphdef, forward=forward, train=True)
            for forward in (apply_blocks, again)
        )
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(made), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=3e-6 * np.abs(a).max() + 1e-6)


def test_bfloat16_activations_cost_a_hundredth_of_the_logits_and_no_type():
    """Parameters, statistics and logits stay in float32; between the blocks there is bfloat16."""
    inputs = tokens()
    exact, half = (
        run(_logits, *split(model)[1:], inputs, LENGTHS, graphdef=split(model)[0], train=True)
        for model in (classifier(depth=4), classifier(depth=4, activations="bfloat16"))
    )
    assert half.dtype == exact.dtype == np.float32
    error = np.abs(half - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 3e-2
    model = classifier(depth=4, activations="bfloat16")
    shapes = jax.eval_shape(lambda: split(model)[1:])
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype(np.float32)}


def test_evaluation_keeps_the_running_statistics():
    graphdef, params, stats = split(classifier())

    def stats_after(params, stats, inputs):
        model = nnx.merge(graphdef, params, stats)
        model(inputs, LENGTHS)
        return split(model)[2]

    after = run(stats_after, params, stats, tokens())
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(stats), strict=True):
        np.testing.assert_array_equal(a, b)


def test_embedding_starts_as_a_standard_normal_and_blocks_start_apart():
    p = numbers(
        SequenceClassifier(
            n_classes=2, vocab_size=2000, d_model=4, depth=3, rngs=nnx.Rngs(params=0)
        )
    )
    table = p["encoder"]["embedding"]
    assert table.shape == (2000, 4)
    assert abs(table.std() - 1) < 0.03
    assert abs(table.mean()) < 0.05
    for part, leaf in (("ssm", "C_ri"), ("ssm", "dt_raw"), ("ssm", "D"), ("glu", "kernel")):
        first, second, third = (p["blocks"][i][part][leaf] for i in range(3))
        assert not np.array_equal(first, second)
        assert not np.array_equal(second, third)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give vocab_size or d_input, got vocab_size=None, d_input=None"),
        ({"vocab_size": 3, "d_input": 1}, "got vocab_size=3, d_input=1"),
        (
            {"vocab_size": 3, "pool": "max"},
            "unknown pool 'max'; choose one of last, mean, first, sum",
        ),
        ({"vocab_size": 3, "layer": "s3"}, "unknown layer 's3'; choose one of s4d"),
        (
            {"vocab_size": 3, "activations": "float16"},
            "unknown activations 'float16'; choose one of float32, bfloat16",
        ),
        ({"vocab_size": 3, "norm": "group"}, "unknown norm 'group'"),
        *[
            ({"vocab_size": 3, key: np.array([1, 2])}, f"unknown {key} array")
            for key in ("norm", "gate", "pool", "layer", "activations")
        ],
    ],
)
def test_arguments_that_contradict_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(n_classes=2, d_model=4, depth=1, rngs=nnx.Rngs(params=0), **options)


def test_unknown_argument_of_the_layer_is_refused():
    with pytest.raises(TypeError, match="d_stat"):
        SequenceClassifier(
            n_classes=2, vocab_size=3, d_model=4, ssm={"d_stat": 3}, rngs=nnx.Rngs(params=0)
        )


def test_unknown_pool_mode_is_refused():
    with pytest.raises(ValueError, match="unknown pool 'max'"):
        pool(jnp.zeros((1, 2, 3)), None, "max")


@pytest.mark.parametrize("mode", POOLS)
def test_pool_of_no_steps_is_zero(mode):
    x = np.full((2, 4, 3), np.nan, np.float32)
    x[1] = 1
    found = pool(x, np.array([0, 4]), mode)
    assert (found[0] == 0).all() and (found[1] == (4 if mode == "sum" else 1)).all()


@pytest.mark.parametrize("padding", [True, False])
def test_a_sequence_without_a_step_gives_finite_logits_and_leaves_the_others_alone(padding):
    model = classifier(pool="mean", norm_padding=padding)
    graphdef, params, stats = split(model)

    @jax.jit
    def train(ids, lengths):
        one = nnx.merge(graphdef, params, stats)
        logits = one(ids, lengths, train=True)
        return logits, split(one)[2]

    lengths = np.array([5, 0, 7], np.int32)
    logits, moved = train(tokens(), lengths)
    assert np.isfinite(logits).all()
    other = tokens()
    other[1] = 0  # what stands in its padding makes no difference
    again, moved_again = train(other, lengths)
    np.testing.assert_array_equal(logits, again)
    for one, two in zip(jax.tree.leaves(moved), jax.tree.leaves(moved_again), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, two)
    _, unmoved = train(tokens(), np.zeros(3, np.int32))
    for one, two in zip(jax.tree.leaves(unmoved), jax.tree.leaves(stats), strict=True):
        np.testing.assert_array_equal(one, two)


def test_tokens_outside_the_vocabulary_are_named_or_not_a_number():
    model = classifier()
    for wrong, place in ((VOCAB, (1, 3)), (-1, (2, 0)), (300, (0, 11))):
        ids = tokens().astype(np.int64)
        ids[place] = wrong
        message = rf"token at example {place[0]}, step {place[1]} must be in 0\.\.6, got {wrong}"
        with pytest.raises(ValueError, match=f"^SequenceClassifier: the {message}"):
            model(ids)
    graphdef, params, stats = split(model)
    ids[0, 11], ids[1, 3] = 0, -1  # traced: a row of NaN for the one that is left, and no other
    found = run(
        _logits, params, stats, ids.astype(np.int32), LENGTHS, graphdef=graphdef, train=False
    )
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()


@pytest.mark.parametrize(
    ("inputs", "lengths", "error", "message"),
    [
        (np.zeros((3, 4)), None, TypeError, "each token must be an integer, got float64"),
        (np.zeros((3, 0), int), None, ValueError, r"tokens must be \(B, L\) with L >= 1"),
        (np.zeros(4, int), None, ValueError, r"tokens must be \(B, L\)"),
        (np.zeros((3, 4), int), [1, 2], ValueError, "lengths must have the shape"),
        (np.zeros((3, 4), int), [1, 2, 5], ValueError, "lengths must be in 0..4"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, lengths, error, message):
    with pytest.raises(error, match=f"^SequenceClassifier: {message}"):
        classifier()(inputs, lengths)


@pytest.mark.parametrize(
    ("options", "inputs", "error", "message"),
    [
        *[
            ({}, [0, i], ValueError, rf"the token at example 1 must be in 0\.\.6, got {i}")
            for i in (-1, VOCAB, -VOCAB - 1)
        ],
        ({}, [0.0, 1.0], TypeError, "each token must be an integer, got float64"),
        ({}, np.zeros((2, 1), int), ValueError, r"tokens of one step must be \(B,\), got \(2, 1\)"),
        ({}, 0, ValueError, r"tokens of one step must be \(B,\), got \(\)"),
        (
            {},
            [0, 1, 2],
            ValueError,
            "a step must have one input for each of the state's 2 sequences, got 3",
        ),
        (REAL, np.zeros(2), ValueError, r"the input must be \(B, d_input\) with d_input = 2"),
        (REAL, np.zeros((2, 3)), ValueError, r"the input must be \(B, d_input\).* got \(2, 3\)"),
        (REAL, np.zeros((2, 2)) + 1j, TypeError, "the input must be real"),
        (
            REAL,
            np.zeros((1, 2)),
            ValueError,
            "a step must have one input for each of the state's 2 sequences",
        ),
    ],
)
def test_a_step_refuses_what_the_call_refuses(options, inputs, error, message):
    model = stepped(**options)
    with pytest.raises(error, match=f"^SequenceClassifier: {message}[^\\n]*$"):
        model.step(model.initial_state(2), inputs)


def test_a_traced_token_outside_the_vocabulary_makes_its_own_sequence_not_a_number():
    model = stepped()
    _, logits = jax.jit(model.step)(model.initial_state(3), np.array([-1, 1, VOCAB], np.int32))
    np.testing.assert_array_equal(np.isnan(logits).any(axis=1), [True, False, True])


def test_pairs_and_their_lengths_have_two_sequences():
    model = PairClassifier(
        n_classes=K, vocab_size=VOCAB, d_model=4, depth=1, ssm={"d_state": 3}, rngs=nnx.Rngs(0)
    )
    with pytest.raises(ValueError, match=r"^PairClassifier: tokens must be \(B, 2, L\)"):
        model(np.zeros((3, 4), int))
    with pytest.raises(ValueError, match=r"lengths must have the shape \(3, 2\)"):
        model(np.zeros((3, 2, 4), int), [1, 2, 3])
    with pytest.raises(ValueError, match="token at example 1, sequence 0, step 2 must be in"):
        model(np.where(np.arange(24).reshape(3, 2, 4) == 10, VOCAB, 0))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[(key, 0) for key in ("n_classes", "vocab_size", "d_model", "depth")],
        ("depth", 1.5),
        ("dropout", 1.0),
        ("norm_momentum", np.nan),
        ("prenorm", "yes"),
    ],
)
def test_options_out_of_range_are_refused(key, value):
    options = {"n_classes": 2, "vocab_size": 3, "d_model": 4, "depth": 1, key: value}
    with pytest.raises(ValueError, match=f"^SequenceClassifier: {key} must be"):
        SequenceClassifier(**options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("rngs", [0, jax.random.key(0), nnx.Rngs(dropout=0)])
def test_what_makes_no_random_parameters_is_refused(rngs):
    with pytest.raises(TypeError, match=r"^SequenceClassifier: rngs must be flax\.nnx\.Rngs"):
        SequenceClassifier(n_classes=2, vocab_size=3, d_model=4, depth=1, rngs=rngs)


def test_a_model_called_by_itself_is_one_program_and_hands_its_statistics_on():
    ids = tokens()

    def trained(model, ids):
        return model(ids, train=True)

    by_itself, compiled = (nnx.clone(classifier(pool="sum")) for _ in range(2))
    programs = _one_program._cache_size()
    for _ in range(2):
        found = trained(by_itself, ids)
        expected = nnx.jit(trained)(compiled, ids)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert _one_program._cache_size() == programs + 1
    before = jax.tree.leaves(numbers(classifier(pool="sum"), nnx.BatchStat))
    statistics = (jax.tree.leaves(numbers(m, nnx.BatchStat)) for m in (by_itself, compiled))
    for was, x, y in zip(before, *statistics, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
        assert np.abs(x - was).max() > 1e-3


class Calls(nnx.Variable):
    """Of a layer so far."""


class Counting(nnx.Module):
    """A layer that multiplies by how often it was called."""

    def __init__(self):
        self.calls = Calls(jnp.zeros((), jnp.float32))

    def __call__(self, u_BLH, lengths_B=None, *, key=None):
        self.calls[...] += 1
        return self.calls[...] * u_BLH


@pytest.mark.parametrize("call", [lambda model, x: model(x, train=True), None])
def test_what_a_part_keeps_besides_parameters_moves_with_each_call(call):
    """Variables of a layer of one's own, and Flax's count of what it has drawn."""
    call = call or nnx.jit(lambda model, x: model(x, train=True))
    model, head = (nnx.clone(classifier(norm="layer", pool="sum")) for _ in range(2))
    for block in model.blocks:
        block.ssm = Counting()
    first, second, third = (np.asarray(call(model, tokens())) for _ in range(3))
    assert [float(block.ssm.calls[...]) for block in model.blocks] == [3, 3]
    assert np.abs(first - second).max() > 1e-3 < np.abs(second - third).max()

    head.decoder = nnx.Sequential(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), head.decoder)
    drawn = np.stack([call(head, tokens()) for _ in range(3)])
    assert len(np.unique(drawn, axis=0)) == 3


def test_a_model_called_by_itself_is_differentiated_and_batched_by_its_inputs():
    """Its statistics stay as they are, so that it may be called within any transformation."""
    model = SequenceClassifier(
        n_classes=K, d_input=1, d_model=4, depth=1, ssm={"d_state": 3}, rngs=nnx.Rngs(0)
    )
    x = jnp.linspace(-1, 1, 24).reshape(2, 12, 1)

    def total(x):
        return jnp.sum(model(x) ** 2)

    found, expected = jax.grad(total)(x), jax.jit(jax.grad(total))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    each = jax.vmap(lambda x: model(x[None])[0])(x)
    np.testing.assert_allclose(each, model(x), rtol=1e-4, atol=1e-6)
