"""One update: what it moves, what stops it, and what its randomness depends on."""

import dataclasses
import functools
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from running import run

from ssm_jax.layers.inputs import dropout
from ssm_jax.layers.norm import BatchNorm
from ssm_jax.progress import Progress
from ssm_jax.tasks.heads import eval_sums, number_train_sums, train_sums
from ssm_jax.training.profile import Profile
from ssm_jax.training.run import OpenRun
from ssm_jax.training.step import (
    evaluated,
    init_state,
    make_eval_step,
    make_gradient,
    make_train_step,
    moving_average,
    non_finite_leaves,
    split,
)

B, L, H, K = 6, 5, 3, 4


class Small(nnx.Module):
    """Dropout, batch norm, mean over time, a linear map; and a root, infinitely steep at 0."""

    def __init__(self, root):
        self.norm = BatchNorm(H)
        self.out = nnx.Linear(H, K, rngs=nnx.Rngs(params=0))
        self.root = nnx.Param(jnp.full((K,), root, jnp.float32))

    def __call__(self, x_BLH, lengths_B, *, train, key):
        del lengths_B
        x_BLH = self.norm(dropout(x_BLH, 0.5, key, tied=False), train=train)
        return self.out(x_BLH.mean(axis=1)) + jnp.sqrt(self.root[...])[None, :]


@functools.cache
def setting(root=1.0):
    """(graphdef, tx, state): Adam with a learning rate at which each update shows."""
    graphdef, params, stats = split(Small(root))
    tx = optax.adamw(0.1, weight_decay=0.1)
    return graphdef, tx, init_state(params, stats, tx)


@functools.cache
def one_step():
    graphdef, tx, _ = setting()
    return make_train_step(make_gradient(graphdef, train_sums), tx)


def batch(seed=0, value=None):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(B, L, H)).astype(np.float32)
    if value is not None:
        x[0] = value  # the whole sequence: dropout may hide a single number
    return {
        "inputs": x,
        "lengths": np.full((B,), L, np.int32),
        "targets": rng.integers(0, K, B).astype(np.int32),
    }


KEY = jax.random.key(0)


def leaves(state):
    """All of a state but ok, as bytes."""
    parts = (state.step, state.params, state.stats, state.opt_state)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(parts)]


def test_a_step_moves_parameters_statistics_and_optimizer_and_counts():
    _, _, state = setting()
    after, metrics = run(one_step(), state, KEY, batch())
    assert after.step == 1
    assert after.ok and metrics["ok"]
    pairs = zip(leaves(state), leaves(after), strict=True)
    assert all(before != now for before, now in pairs)


def test_metrics_are_of_the_state_before_the_update():
    """Cross-entropy, accuracy and gradient norm by NumPy from the logits and the gradient."""
    graphdef, _, state = setting()
    _, metrics = run(one_step(), state, KEY, batch())

    def logits_of(state, key, batch):
        model = nnx.merge(graphdef, state.params, state.stats)
        return model(batch["inputs"], None, train=True, key=jax.random.fold_in(key, state.step))

    z = run(logits_of, state, KEY, batch()).astype(float)
    targets = batch()["targets"]
    loss = np.log(np.exp(z).sum(1)) - z[np.arange(B), targets]
    np.testing.assert_allclose(metrics["loss"], loss.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], (z.argmax(1) == targets).mean(), rtol=1e-6)
    _, gradient = run(make_gradient(graphdef, train_sums), state, KEY, batch())
    square = sum(np.sum(g.astype(float) ** 2) for g in jax.tree.leaves(gradient))
    np.testing.assert_allclose(metrics["grad_norm"], np.sqrt(square), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_batch_leaves_the_state_to_the_bit_and_ok_falls_for_good(value):
    _, _, start = setting()
    state, _ = run(one_step(), start, KEY, batch())
    broken, metrics = run(one_step(), state, KEY, batch(1, value=value))
    assert not broken.ok and not metrics["ok"]
    assert leaves(broken) == leaves(state)
    after, metrics = run(one_step(), broken, KEY, batch(2))
    assert not after.ok and not metrics["ok"]
    assert np.isfinite(metrics["loss"])
    assert leaves(after) == leaves(state)


def test_an_infinite_gradient_under_a_finite_loss_stops_as_well():
    graphdef, _, state = setting(root=0.0)
    after, metrics = run(one_step(), state, KEY, batch())
    assert np.isfinite(metrics["loss"])
    assert not metrics["ok"]
    assert leaves(after) == leaves(state)
    assert non_finite_leaves(make_gradient(graphdef, train_sums), state, KEY, batch()) == [
        "grad/root"
    ]


def test_non_finite_leaves_names_what_broke():
    graphdef, _, state = setting()
    assert non_finite_leaves(make_gradient(graphdef, train_sums), state, KEY, batch()) == []
    bias = state.params["out"]["bias"].at[1].set(jnp.nan)
    params = {**state.params, "out": {**state.params["out"], "bias": bias}}
    broken = dataclasses.replace(state, params=params)
    found = non_finite_leaves(make_gradient(graphdef, train_sums), broken, KEY, batch())
    assert found[:2] == ["loss", "params/out/bias"]
    assert "grad/out/bias" in found


def test_dropout_depends_on_key_and_step_alone():
    """Not on the parameters, the statistics or the moments; so there is nothing to checkpoint."""
    graphdef, _, state = setting()

    def mask(state, key):
        """Where the inputs survive: the batch norm's scale has a gradient there."""
        x = jnp.ones((B, L, H))

        def pooled(x):
            model = nnx.merge(graphdef, state.params, state.stats)
            drop = jax.random.fold_in(key, state.step)
            return jnp.sum(model(x, None, train=False, key=drop))

        return jax.grad(pooled)(x) != 0

    def loss(state, key):
        return run(one_step(), state, key, batch())[1]["loss"]

    moved, _ = run(one_step(), state, KEY, batch(1))
    back = dataclasses.replace(moved, step=state.step)
    np.testing.assert_array_equal(run(mask, back, KEY), run(mask, state, KEY))
    assert not np.array_equal(run(mask, moved, KEY), run(mask, state, KEY))
    assert not np.array_equal(run(mask, state, jax.random.key(1)), run(mask, state, KEY))

    again = dataclasses.replace(state, stats=moved.stats, opt_state=moved.opt_state)
    assert loss(again, KEY) == loss(state, KEY)
    later = dataclasses.replace(state, step=moved.step)
    assert loss(later, KEY) != loss(state, KEY)
    assert loss(state, jax.random.key(1)) != loss(state, KEY)


def test_the_step_compiles_once():
    """Its output has the types of its input, the weak ones included."""
    graphdef, tx, state = setting()
    step = jax.jit(make_train_step(make_gradient(graphdef, train_sums), tx))
    for seed in range(3):
        state, _ = step(state, KEY, batch(seed))
    assert step._cache_size() == 1


def test_evaluation_sums_over_the_real_examples_without_dropout():
    graphdef, _, state = setting()
    examples = {**batch(), "mask": np.float32([1, 1, 0, 1, 0, 0])}
    evaluate = make_eval_step(graphdef, eval_sums)
    sums = run(evaluate, state.params, state.stats, examples)
    assert sums["count"] == 3
    kept = {name: array[[0, 1, 3]] for name, array in batch().items()}
    alone = run(evaluate, state.params, state.stats, kept)
    for name, value in alone.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-6)
    padded = {**examples, "targets": np.where(examples["mask"] > 0, examples["targets"], 0)}
    again = run(evaluate, state.params, state.stats, padded)
    assert again["loss"] == sums["loss"]


def test_a_step_runs_under_the_strict_promotion_of_types():
    """Optax itself takes powers of floats by integers."""
    graphdef, tx, state = setting()
    with jax.numpy_dtype_promotion("strict"):
        step = make_train_step(make_gradient(graphdef, train_sums, accumulate=2), tx)
        after, _ = jax.eval_shape(step, state, KEY, batch())
    assert after.step.dtype == state.step.dtype


class Scaled(nnx.Module):
    """Its input times a number at each channel."""

    def __init__(self):
        self.w = nnx.Param(jnp.array([0.5, -2.0]))

    def __call__(self, x_BLK, lengths_B, **ways):
        return x_BLK * self.w[...][None, None, :]


@pytest.mark.parametrize("missing", [(1, 4), (0, 2, 4), range(6)], ids=str)
def test_parts_of_a_batch_weigh_as_many_targets_as_they_have(missing):
    """Against a loop: a part with few examples that have targets counted as much as a full one."""
    x, y = np.random.default_rng(5).normal(size=(2, B, L, 2)).astype(np.float32)
    y[list(missing)], y[3, :2] = np.nan, np.nan
    graphdef, params, stats = split(Scaled())
    state, w = init_state(params, stats, optax.sgd(0.1)), np.array([0.5, -2.0])
    each = []
    for b in range(B):
        there = ~np.isnan(y[b])
        apart, n = np.where(there, x[b].astype(float) * w - y[b], 0.0), there.sum()
        each += [((apart**2).sum() / n, 2 * (apart * x[b]).sum(axis=0) / n)] if n else []
    each = each or [(0.0, np.zeros(2))]
    loss, slope = (np.mean([pair[i] for pair in each], axis=0) for i in (0, 1))
    for parts in (1, 2, 3):
        gradient = make_gradient(graphdef, number_train_sums, accumulate=parts)
        (found, _), grads = run(gradient, state, KEY, {"inputs": x, "targets": y})
        np.testing.assert_allclose(found, loss, rtol=1e-6)
        np.testing.assert_allclose(grads["w"], slope, rtol=2e-6)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_batch_without_a_target_has_no_part_in_the_loss_that_is_logged(parts):
    """It counted as one of loss 0: of rare targets the mean was a third of the truth."""
    x, y = np.random.default_rng(6).normal(size=(2, 4, 4, L, 2)).astype(np.float32)
    y[1], y[3] = np.nan, np.nan
    graphdef, params, stats = split(Scaled())
    state = init_state(params, stats, optax.sgd(0.0))
    gradient = make_gradient(graphdef, number_train_sums, accumulate=parts)
    step = jax.jit(make_train_step(gradient, optax.sgd(0.0)))
    cfg = SimpleNamespace(log=SimpleNamespace(every=3))
    task, written = SimpleNamespace(headline="mse"), []
    about = SimpleNamespace(cfg=cfg, task=task, total_steps=4, rows=[], schedule=lambda *_: 1.0)
    open_run = SimpleNamespace(
        experiment=about, profile=Profile(Path()), window={},
        _write=lambda kind, step, values: written.append(values),
        _write_means=lambda step: OpenRun._write_means(open_run, step),
    )  # fmt: skip
    with Progress("train", 4) as progress:
        for k in range(4):
            metrics = step(state, KEY, {"inputs": x[k], "targets": y[k]})[1]
            OpenRun.read(open_run, k + 1, metrics, None, progress, shown=False)
    each = ((x.astype(float) * np.array([0.5, -2.0]) - y) ** 2).mean(axis=(1, 2, 3))
    for name in ("loss", "mse"):
        np.testing.assert_allclose(written[0][name], each[[0, 2]].mean(), rtol=1e-6)
        assert np.isnan(written[1][name]) and written[1].keys() == {"loss", "mse", "grad_norm"}
    assert np.isfinite(written[1]["grad_norm"])


def test_the_first_evaluation_says_that_it_chooses_nothing(capsys):
    """Of a validation part without targets that was said after the last step."""
    cfg = SimpleNamespace(
        train=SimpleNamespace(select_split="val"), reference=SimpleNamespace(accuracy=0, margin=0)
    )
    about = SimpleNamespace(cfg=cfg, ranking=("loss", "min"), order=SimpleNamespace())
    about.order.steps_per_epoch = 5
    open_run = SimpleNamespace(
        experiment=about, best=None, window={}, _write=lambda *_: None, diagnose=lambda *_: None
    )
    for step, value, said in ((5, np.nan, True), (10, 1.5, False), (15, np.inf, False)):
        OpenRun.take(open_run, {"loss": value}, None, step)
        assert ("val loss is nan at step 5, which chooses no" in capsys.readouterr().err) == said
    assert open_run.best == {"step": 10, "value": 1.5}


class Spiral(nnx.Module):
    """One parameter z, complex or as two real ones; Re z and Im z should become 1 and 2."""

    def __init__(self, *parts):
        self.parts = nnx.List([nnx.Param(jnp.asarray(part)) for part in parts])

    def sums(self, *_):
        re, im = self.parts if len(self.parts) == 2 else (self.parts[0].real, self.parts[0].imag)
        return {"loss": (re - 1) ** 2 + 3 * (im - 2) ** 2, "count": jnp.ones(())}


def test_a_complex_parameter_of_ones_own_network_descends_as_its_two_parts_do():
    found = []
    for parts in [(np.complex64(0.5 - 1j),), (np.float32(0.5), np.float32(-1))]:
        graphdef, params, stats = split(Spiral(*parts))
        tx = optax.sgd(0.1)
        step = make_train_step(make_gradient(graphdef, Spiral.sums), tx)
        state = init_state(params, stats, tx)
        for _ in range(4):
            state, metrics = run(step, state, KEY, {})
        (z, *im) = jax.tree.leaves(state.params)
        found.append((z + 1j * im[0] if im else z, metrics["loss"]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    exact = 1 - 0.5 * 0.8**4 + 1j * (2 - 3 * 0.4**4)  # each part by its own factor
    np.testing.assert_allclose(found[0][0], exact, rtol=1e-5)


def test_the_average_is_that_of_a_loop_in_float64_and_what_is_constant_keeps_its_bits():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(50, 4)).astype(np.float32)
    rows[:, 1] = np.float32(0.1)
    average = {"w": jnp.asarray(rows[0]), "z": jnp.asarray(1j * rows[0]), "count": jnp.int32(0)}
    expected = rows[0].astype(float)
    for n, row in enumerate(rows[1:], start=1):
        new = {"w": row, "z": 1j * row, "count": jnp.int32(n)}
        average = run(moving_average, average, new, 0.9)
        expected = 0.9 * expected + 0.1 * row
    np.testing.assert_allclose(average["w"], expected, rtol=2e-6)
    np.testing.assert_allclose(average["z"], 1j * expected, rtol=2e-6)
    assert np.asarray(average["w"])[1] == np.float32(0.1) and int(average["count"]) == 49


def test_a_long_average_stays_that_of_a_loop_in_float64():
    """In float32 0.9999 and 1 - 0.9999 have no sum of 1: averages were 2e-4 too small."""
    rows = 1 + 0.01 * np.random.default_rng(4).normal(size=(20_000, 3)).astype(np.float32)
    expected = rows[0].astype(float)
    for row in rows:
        expected = 0.9999 * expected + 0.0001 * row
    found, _ = jax.lax.scan(lambda mean, x: (moving_average(mean, x, 0.9999), None), rows[0], rows)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


class Foreign(nnx.Module):
    """A network of somebody else's, of Flax's own layers."""

    def __init__(self):
        self.norm = nnx.BatchNorm(H, momentum=0.5, rngs=nnx.Rngs(0))
        self.drop = nnx.Dropout(0.5)

    def __call__(self, x_BLH, key):
        return self.drop(self.norm(x_BLH), rngs=key)


def test_evaluation_of_flax_layers_is_by_the_running_statistics_and_drops_nothing():
    """It was by the statistics of the batch, which nobody had asked for."""
    graphdef, params, stats = split(Foreign())

    def squares(model, batch, key=None):
        y_BLH = model(batch["inputs"], key)
        return {"loss": jnp.sum(y_BLH**2), "count": jnp.float32(B), "y": y_BLH}

    state, x = init_state(params, stats, optax.sgd(0.1)), batch()["inputs"]
    (_, (_, stats)), _ = run(make_gradient(graphdef, squares), state, KEY, batch())
    found = run(make_eval_step(graphdef, squares), params, stats, batch())["y"]
    mean, var = x.mean((0, 1)) / 2, 0.5 + x.var((0, 1)) / 2
    np.testing.assert_allclose(found, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(evaluated(graphdef, params, stats)(x, None), found)
