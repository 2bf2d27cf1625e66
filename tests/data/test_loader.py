"""The order of the data is a function of the seed and the step."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from small_examples import EXAMPLES, made_of, recipe_for
from small_listops import SMALL, folder_of

from ssm_jax.data import loader
from ssm_jax.data.dataset import open_dataset
from ssm_jax.data.loader import Order, bucket_lengths
from ssm_jax.data.prepare import prepare

N, B = 170, 16  # 10 steps in an epoch, 10 examples left over
BUCKETS = bucket_lengths(64, 3)


@pytest.fixture(scope="module")
def data(small_data_dir):
    return open_dataset(folder_of(SMALL, small_data_dir), 64)


def plain(n, batch_size, seed):
    """The order with one bucket."""
    return Order(np.ones(n, np.int64), batch_size, seed, (64,))


def numbers(order, steps):
    return [order.batch(step)[0] for step in steps]


def assert_equal_batches(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def test_an_epoch_visits_no_example_twice_and_the_next_has_another_order():
    order = plain(N, B, 0)
    steps = order.steps_per_epoch
    assert steps == N // B == 10
    epochs = [np.concatenate(numbers(order, range(e * steps, (e + 1) * steps))) for e in range(20)]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == steps * B
        assert epoch.min() >= 0 and epoch.max() < N
    assert len({tuple(epoch) for epoch in epochs}) == 20
    # What one epoch drops another visits.
    assert len(set(np.concatenate(epochs).tolist())) == N
    whole = np.concatenate(numbers(plain(160, B, 0), range(10)))
    assert sorted(whole.tolist()) == list(range(160))


def test_every_position_of_an_epoch_is_uniform():
    """Over 4,000 epochs each of 5 examples is first, and last, 800 times within 4.5 sigma."""
    orders = np.array(numbers(plain(5, 5, 0), range(4_000)))
    for position in range(5):
        counts = np.bincount(orders[:, position], minlength=5)
        assert np.abs(counts - 800).max() < 4.5 * np.sqrt(4_000 * 0.2 * 0.8)


def test_the_order_is_a_pure_function_of_seed_and_step():
    order = plain(N, B, 3)
    first = [batch.copy() for batch in numbers(order, range(25))]
    for again in (order, plain(N, B, 3)):
        for step in reversed(range(25)):
            np.testing.assert_array_equal(again.batch(step)[0], first[step])
    assert not np.array_equal(plain(N, B, 4).batch(0)[0], first[0])


def test_the_order_is_the_same_under_any_version_of_numpy():
    """The very numbers: a run must go on in its order."""
    assert plain(10, 5, 0).batch(0)[0].tolist() == [0, 2, 9, 1, 8]
    assert plain(10, 5, 7).batch(1_001)[0].tolist() == [1, 2, 7, 4, 0]
    lengths_n = np.array([8, 1, 4, 2, 3, 8, 2, 1, 5, 4])
    order = Order(lengths_n, 2, 0, (2, 4, 8))
    # The permutation is 0 2 9 1 8 5 4 3 6 7. To 2 steps fit 1 3 6 7, to 4 then 2 9 4, to 8 the
    # others, 0 8 5; 4 and 5 are left over.
    found = [(batch.tolist(), length) for batch, length in map(order.batch, range(5))]
    assert found == [([0, 8], 8), ([2, 9], 4), ([1, 3], 2), ([4, 5], 8), ([6, 7], 2)]


class TestBuckets:
    """Batches of examples of like length."""

    lengths_n = np.random.default_rng(0).integers(1, 65, 1_003) ** 2 // 64 + 1
    padded = bucket_lengths(65, 4)
    order = Order(lengths_n, 8, 5, padded)
    steps = 1_003 // 8

    @pytest.mark.parametrize(
        ("length", "buckets", "expected"),
        [
            (2_048, 1, (2_048,)),
            (2_048, 4, (256, 512, 1_024, 2_048)),
            (65, 3, (17, 33, 65)),
            (3, 8, (1, 2, 3)),
            (1, 2, (1,)),
        ],
    )
    def test_lengths_are_halved(self, length, buckets, expected):
        assert bucket_lengths(length, buckets) == expected

    def test_a_batch_is_padded_to_the_least_length_that_holds_its_longest_member(self):
        for step in range(3 * self.steps):
            batch, length = self.order.batch(step)
            longest = self.lengths_n[batch].max()
            assert length == min(p for p in self.padded if p >= longest)

    def test_an_epoch_visits_as_many_examples_as_without_buckets_and_none_twice(self):
        for epoch in range(5):
            steps = range(epoch * self.steps, (epoch + 1) * self.steps)
            found = np.concatenate(numbers(self.order, steps))
            assert len(set(found.tolist())) == found.size == 1_003 // 8 * 8
            plain = np.concatenate(numbers(Order(self.lengths_n, 8, 5, (65,)), steps))
            assert set(found.tolist()) == set(plain.tolist())

    def test_the_order_is_a_function_of_seed_and_step(self):
        again = Order(self.lengths_n, 8, 5, self.padded)
        for step in (700, 3, 124, 125, 0, 10**9):
            (one, length), (two, other) = self.order.batch(step), again.batch(step)
            np.testing.assert_array_equal(one, two)
            assert length == other
        others = Order(self.lengths_n, 8, 6, self.padded).batch(0)[0]
        assert not np.array_equal(others, self.order.batch(0)[0])

    def test_the_order_cannot_be_changed_by_who_reads_it(self):
        for order in (self.order, plain(N, B, 0)):
            with pytest.raises(ValueError, match="read-only"):
                order.batch(3)[0][0] = 0

    def test_most_batches_are_of_one_bucket(self):
        """What fills no batch is at most B - 1 examples of a bucket."""
        bucket_n = np.searchsorted(self.padded, self.lengths_n)
        for epoch in range(3):
            steps = range(epoch * self.steps, (epoch + 1) * self.steps)
            mixed = sum(np.ptp(bucket_n[batch]) > 0 for batch in numbers(self.order, steps))
            assert mixed <= len(self.padded) * 7 // 8

    def test_lengths_are_mixed_over_the_epoch(self):
        """Not from short to long: the mean length of each third is that of the epoch."""
        found = [self.order.batch(step)[1] for step in range(20 * self.steps)]
        thirds = np.array(found).reshape(20, -1)[:, : self.steps // 3 * 3].reshape(20, 3, -1)
        means = thirds.mean(axis=(0, 2))
        np.testing.assert_allclose(means, means.mean(), rtol=0.1)

    def test_training_batches_are_gathered_at_their_length(self, data):
        order = Order(data.lengths("train"), B, 2, BUCKETS)
        batches = itertools.islice(loader.train_batches(data, "train", order, 5), 20)
        shapes = set()
        for step, batch in enumerate(batches, 5):
            indices_B, length = order.batch(step)
            assert_equal_batches(batch, data.gather("train", indices_B, length))
            assert batch["inputs"].shape == (B, length)
            assert batch["lengths"].max() <= length
            shapes.add(length)
        assert len(shapes) > 1

    @pytest.mark.parametrize("batch_size", [1, 7, 50, 64])
    def test_evaluation_covers_every_example_exactly_once(self, data, batch_size):
        batches = list(loader.eval_batches(data, "val", batch_size, BUCKETS))
        assert len(batches) == -(-50 // batch_size)
        found = []
        for batch in batches:
            length = batch["inputs"].shape[1]
            assert batch["inputs"].shape == (batch_size, length)
            longest = batch["lengths"].max()
            assert length == min(p for p in BUCKETS if p >= longest)
            for inputs, steps, target, real in zip(*batch.values(), strict=True):
                if real:
                    found.append((inputs[:steps].tolist(), int(target)))
        everything = data.gather("val", np.arange(50))
        expected = [
            (inputs[:steps].tolist(), int(target))
            for inputs, steps, target in zip(*everything.values(), strict=True)
        ]
        assert sorted(found) == sorted(expected)
        lengths = [batch["inputs"].shape[1] for batch in batches]
        assert lengths == sorted(lengths)


@pytest.mark.parametrize("name", ["pairs", "images"])
def test_pairs_and_images_are_loaded_too(tmp_path, name):
    """Pairs at the bucket of the longer document; images, of one length, at that."""
    data = open_dataset(prepare(recipe_for(made_of(name)), tmp_path), 36)
    padded = bucket_lengths(36, 3)
    order = Order(data.lengths("train"), 2, 0, padded)
    batches = list(itertools.islice(loader.train_batches(data, "train", order, 0), 6))
    for step, batch in enumerate(batches):
        assert_equal_batches(batch, data.gather("train", *order.batch(step)))
    found = np.concatenate(
        [b["targets"][b["mask"] == 1] for b in loader.eval_batches(data, "test", 2, padded)]
    )
    assert sorted(found) == sorted(EXAMPLES[name].targets[data.rows["test"]])
    steps_axis = {"pairs": 2, "images": 1}[name]
    assert {b["inputs"].shape[steps_axis] for b in batches} <= set(padded)
    if name == "images":
        assert {b["inputs"].shape for b in batches} == {(2, 36, 1)}


def test_starting_at_step_k_equals_skipping_k(data):
    k = 23  # in the third epoch
    for padded in ((64,), BUCKETS):
        order = Order(data.lengths("train"), B, 1, padded)
        skipped = itertools.islice(loader.train_batches(data, "train", order, 0), k, k + 12)
        started = loader.train_batches(data, "train", order, k)
        for expected, batch in zip(skipped, itertools.islice(started, 12), strict=True):
            assert_equal_batches(expected, batch)


def test_batch_k_holds_the_examples_of_batch_k(data):
    order = Order(data.lengths("train"), B, 2, (64,))
    for step, batch in enumerate(
        itertools.islice(loader.train_batches(data, "train", order, 0), 30)
    ):
        assert_equal_batches(batch, data.gather("train", plain(N, B, 2).batch(step)[0]))


def test_a_late_start_costs_no_more_than_an_early_one(data):
    step, order = 10**12, plain(N, B, 0)
    batch = next(loader.train_batches(data, "train", order, step))
    assert_equal_batches(batch, data.gather("train", order.batch(step)[0]))


@pytest.mark.parametrize("batch_size", [1, 7, 25, 50, 64])
def test_evaluation_covers_every_example_once_and_in_order(data, batch_size):
    batches = list(loader.eval_batches(data, "val", batch_size, (64,)))
    assert len(batches) == -(-50 // batch_size)
    assert all(b["inputs"].shape == (batch_size, 64) for b in batches)
    assert all((b["lengths"] > 0).all() for b in batches)  # the filling too: pooling divides by it
    masks = np.concatenate([b["mask"] for b in batches])
    assert masks.dtype == np.float32 and set(masks.tolist()) <= {0.0, 1.0}
    everything = data.gather("val", np.arange(50))
    for key, expected in everything.items():
        found = np.concatenate([b[key] for b in batches])
        np.testing.assert_array_equal(found[masks == 1], expected)
        filling = found[masks == 0]
        np.testing.assert_array_equal(filling, np.repeat(expected[-1:], len(filling), axis=0))


def test_training_batches_have_no_mask(data):
    assert set(next(loader.train_batches(data, "train", plain(N, B, 0), 0))) == {
        "inputs", "lengths", "targets"
    }  # fmt: skip


@pytest.mark.parametrize("batch_size", [0, 171])
def test_a_batch_that_the_data_cannot_fill_is_refused_at_once(batch_size):
    with pytest.raises(ValueError, match=rf"batch_size={batch_size} does not fit 170 examples"):
        plain(N, batch_size, 0)


def test_an_evaluation_without_a_batch_size_is_refused_at_once(data):
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        loader.eval_batches(data, "val", 0, (64,))


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (0, -1)])
def test_negative_seeds_and_steps_are_refused(data, seed, step):
    with pytest.raises(ValueError, match="must be at least 0"):
        loader.train_batches(data, "train", plain(N, B, seed), step)


def test_training_does_not_load_tensorflow_datasets_and_a_half_read_loader_lets_go(small_data_dir):
    """In a process of its own, which must also end while batches are still being prefetched."""
    folder = folder_of(SMALL, small_data_dir)
    code = f"""
import pathlib, sys
from ssm_jax.data import loader
from ssm_jax.lra import catalog
from ssm_jax.data.dataset import open_dataset
data = open_dataset(pathlib.Path({str(folder)!r}), 64)
order = loader.Order(data.lengths("train"), 16, 0, (32, 64))
batches = loader.train_batches(data, "train", order, 0)
next(batches)
print("tensorflow_datasets" in sys.modules, "tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False False"
    assert done.stderr == ""
