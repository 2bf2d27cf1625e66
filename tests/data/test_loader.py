"""The order of the data is a function of the seed and the step."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from small_listops import SMALL

from ssm_jax.data import loader, prepare
from ssm_jax.data.dataset import TokenDataset

N, B = 170, 16  # 10 steps in an epoch, 10 examples left over


@pytest.fixture(scope="module")
def data(small_data_dir):
    return TokenDataset.open(prepare.generated_folder(SMALL, small_data_dir), padded_length=64)


def assert_equal_batches(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def test_an_epoch_visits_no_example_twice_and_the_next_has_another_order():
    steps = loader.steps_per_epoch(N, B)
    assert steps == 10
    epochs = [
        np.concatenate([loader.batch_indices(N, B, 0, e * steps + s) for s in range(steps)])
        for e in range(20)
    ]
    for order in epochs:
        assert len(set(order.tolist())) == steps * B
        assert order.min() >= 0 and order.max() < N
    assert len({tuple(order) for order in epochs}) == 20
    # What one epoch drops another visits.
    assert len(set(np.concatenate(epochs).tolist())) == N
    whole = np.concatenate([loader.batch_indices(160, B, 0, s) for s in range(10)])
    assert sorted(whole.tolist()) == list(range(160))


def test_every_position_of_an_epoch_is_uniform():
    """Over 4,000 epochs each of 5 examples is first, and last, 800 times within 4.5 sigma."""
    orders = np.array([loader._epoch_order(5, 0, epoch) for epoch in range(4_000)])
    for position in range(5):
        counts = np.bincount(orders[:, position], minlength=5)
        assert np.abs(counts - 800).max() < 4.5 * np.sqrt(4_000 * 0.2 * 0.8)


def test_the_order_is_a_pure_function_of_seed_and_step():
    first = [loader.batch_indices(N, B, 3, step).copy() for step in range(25)]
    loader._epoch_order.cache_clear()
    for step in reversed(range(25)):
        np.testing.assert_array_equal(loader.batch_indices(N, B, 3, step), first[step])
    assert not np.array_equal(loader.batch_indices(N, B, 4, 0), first[0])
    # The very numbers: a run must go on in its order under any version of NumPy.
    assert loader.batch_indices(10, 5, 0, 0).tolist() == [0, 2, 9, 1, 8]
    assert loader.batch_indices(10, 5, 7, 1_001).tolist() == [1, 2, 7, 4, 0]


def test_starting_at_step_k_equals_skipping_k(data):
    k = 23  # in the third epoch
    skipped = itertools.islice(loader.train_batches(data, "train", B, 1, 0), k, k + 12)
    started = loader.train_batches(data, "train", B, 1, k)
    for expected, batch in zip(skipped, itertools.islice(started, 12), strict=True):
        assert_equal_batches(expected, batch)


def test_batch_k_holds_the_examples_of_batch_k(data):
    for step, batch in enumerate(
        itertools.islice(loader.train_batches(data, "train", B, 2, 0), 30)
    ):
        assert_equal_batches(batch, data.gather("train", loader.batch_indices(N, B, 2, step)))


def test_a_late_start_costs_no_more_than_an_early_one(data):
    step = 10**12
    batch = next(loader.train_batches(data, "train", B, 0, step))
    assert_equal_batches(batch, data.gather("train", loader.batch_indices(N, B, 0, step)))


@pytest.mark.parametrize("batch_size", [1, 7, 25, 50, 64])
def test_evaluation_covers_every_example_once_and_in_order(data, batch_size):
    batches = list(loader.eval_batches(data, "val", batch_size))
    assert len(batches) == -(-50 // batch_size)
    assert all(b["inputs"].shape == (batch_size, 64) for b in batches)
    assert all((b["lengths"] > 0).all() for b in batches)  # the filling too: pooling divides by it
    masks = np.concatenate([b["mask"] for b in batches])
    assert masks.dtype == np.float32 and set(masks.tolist()) <= {0.0, 1.0}
    everything = data.gather("val", np.arange(50))
    for key, expected in everything.items():
        real = np.concatenate([b[key] for b in batches])[masks == 1]
        np.testing.assert_array_equal(real, expected)


def test_training_batches_have_no_mask(data):
    assert set(next(loader.train_batches(data, "train", B, 0, 0))) == {
        "inputs", "lengths", "targets"
    }  # fmt: skip


@pytest.mark.parametrize("batch_size", [0, 171])
def test_a_batch_that_the_data_cannot_fill_is_refused_at_once(data, batch_size):
    with pytest.raises(ValueError, match=rf"batch_size={batch_size} does not fit 170 examples"):
        loader.train_batches(data, "train", batch_size, 0, 0)


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (0, -1)])
def test_negative_seeds_and_steps_are_refused(data, seed, step):
    with pytest.raises(ValueError, match="must be at least 0"):
        loader.train_batches(data, "train", B, seed, step)


def test_training_does_not_load_tensorflow_datasets_and_a_half_read_loader_lets_go(small_data_dir):
    """In a process of its own, which must also end while batches are still being prefetched."""
    folder = prepare.generated_folder(SMALL, small_data_dir)
    code = f"""
import pathlib, sys
from ssm_jax.data import loader, prepare
from ssm_jax.data.dataset import TokenDataset
data = TokenDataset.open(pathlib.Path({str(folder)!r}), 64)
batches = loader.train_batches(data, "train", 16, 0, 0)
next(batches)
print("tensorflow_datasets" in sys.modules, "tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False False"
    assert done.stderr == ""
