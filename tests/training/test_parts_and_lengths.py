"""A batch computed in parts, or padded to another length, is the same batch."""

import jax
import numpy as np
import pytest
from running import run
from tiny import tiny_experiment

from ssm_jax.tasks import mean_metrics
from ssm_jax.tasks.heads import train_sums
from ssm_jax.training import loop
from ssm_jax.training.step import make_gradient

# Statistics of a batch that neither its parts nor its padding change, and no dropout
ONE_BLOCK = {"model__dropout": 0.0, "model__depth": 1}
SAME = {**ONE_BLOCK, "model__norm_padding": False}
LAYERS = {
    "s4d": {"model__beta__init": 0.7},
    "s4": {
        "model__layer": "s4", "model__init": "legs", "model__discretization": "bilinear",
        "model__beta__init": -0.5,
    },
    "s5": {"model__layer": "s5", "model__beta__learn": False},
    "s5 with a filter": {"model__layer": "s5", "model__beta__init": 0.5},
}  # fmt: skip


def short_batch(experiment):
    """Eight examples of at most 12 steps of the 24."""
    found = np.flatnonzero(experiment.dataset.lengths("train") <= 12)[:8]
    assert found.size == 8
    return found


def gradients(experiment, batches, **options):
    gradient = make_gradient(experiment.graphdef, train_sums, **options)
    state = experiment.fresh_state()
    return [run(gradient, state, experiment.key, batch) for batch in batches]


def assert_close(found, exact, tolerance=2e-5):
    assert jax.tree.structure(found) == jax.tree.structure(exact)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max() + 1e-7)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_shorter_padding_changes_no_gradient(data_dir, layer):
    """Loss, statistics and all gradients; the filter's frequencies stay those of 24 steps."""
    experiment = tiny_experiment(data_dir, **SAME, **LAYERS[layer])
    indices = short_batch(experiment)
    batches = [experiment.dataset.gather("train", indices, length) for length in (12, 24)]
    short, long = gradients(experiment, batches)
    assert_close(short, long)


def test_padding_that_counts_in_the_norm_does_change_it(data_dir):
    experiment = tiny_experiment(data_dir, **ONE_BLOCK)
    indices = short_batch(experiment)
    batches = [experiment.dataset.gather("train", indices, length) for length in (12, 24)]
    (short, _), (long, _) = gradients(experiment, batches)
    assert abs(short[0] - long[0]) > 1e-3


def test_parts_of_a_batch_have_the_gradient_of_the_whole(data_dir):
    experiment = tiny_experiment(data_dir, **ONE_BLOCK, model__norm="layer")
    batch = experiment.dataset.gather("train", np.arange(8))
    (whole,) = gradients(experiment, [batch])
    (found,) = gradients(experiment, [batch], accumulate=4)
    assert_close(found, whole)


def test_batch_statistics_are_of_the_parts_in_turn(data_dir):
    """Part m has the examples m, m + 2, ...: gradient and loss are means over the parts."""
    experiment = tiny_experiment(data_dir, **ONE_BLOCK)
    batch = experiment.dataset.gather("train", np.arange(8))
    (((loss, (_, stats)), grads),) = gradients(experiment, [batch], accumulate=2)
    gradient = make_gradient(experiment.graphdef, train_sums)
    state = experiment.fresh_state()
    each = []
    for m in (0, 1):
        part = {name: array[m::2] for name, array in batch.items()}
        found = run(gradient, state, experiment.key, part)
        state = type(state)(state.step, state.ok, state.params, found[0][1][1], state.opt_state)
        each.append(found)
    np.testing.assert_allclose(loss, np.mean([f[0][0] for f in each]), rtol=1e-5)
    assert_close(stats, each[1][0][1][1])
    assert_close(grads, jax.tree.map(lambda a, b: (a + b) / 2, each[0][1], each[1][1]))


def test_a_run_with_parts_and_several_lengths_evaluates_as_one_without(data_dir, tmp_path):
    """The metrics of a finished run, and by hand at the full length; each length compiles once."""
    options = {**SAME, "data__buckets": 2, "train__accumulate": 2, "train__steps": 12}
    experiment = tiny_experiment(data_dir, **options, train__eval_every=12)
    assert experiment.padded_lengths == (12, 24)
    assert loop.train_and_evaluate(experiment, tmp_path / "run") == loop.EXIT_DONE
    state = experiment.fresh_state()
    sums = []
    for padded_lengths in ((12, 24), (24,)):
        step = {
            length: experiment.compile_step(length, training=False) for length in padded_lengths
        }
        found = {"loss": 0.0, "accuracy": 0.0, "count": 0.0}
        seen = set()
        batches = experiment.eval_batches("val")
        if padded_lengths == (24,):
            batches = tiny_experiment(data_dir, **SAME).eval_batches("val")
        for numbered in batches:
            batch = experiment.place_batch(numbered)
            seen.add(batch["inputs"].shape[1])
            for name, value in step[batch["inputs"].shape[1]](
                state.params, state.stats, batch
            ).items():
                found[name] += float(value)
        assert seen <= set(padded_lengths)
        sums.append(mean_metrics(found))
    assert sums[0]["accuracy"] == sums[1]["accuracy"]
    assert sums[0]["loss"] == pytest.approx(sums[1]["loss"], rel=1e-5)


def test_an_early_run_far_below_the_reference_says_so(data_dir, tmp_path, capsys):
    """Twelve steps of eight examples are an epoch; no accuracy reaches 1."""
    options = {**ONE_BLOCK, "train__steps": 24, "train__eval_every": 12}
    options["reference__accuracy"] = 1.0
    experiment = tiny_experiment(data_dir, **options, reference__epoch=2.0, reference__margin=0.05)
    loop.train_and_evaluate(experiment, tmp_path / "run")
    warned = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    assert len(warned) == 1
    assert "after 2.0 epochs is far below the published 1.00 at epoch 2" in warned[0]
