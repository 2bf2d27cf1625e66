"""Batches gathered from a store are its examples, padded or normalised, and nothing else."""

import itertools

import numpy as np
import pytest
from small_examples import EXAMPLES, SPLITS, made_of, recipe_for
from small_listops import SMALL, folder_of, generated

from ssm_jax.data.dataset import open_dataset
from ssm_jax.data.examples import EOS, PAD, spread
from ssm_jax.data.prepare import prepare
from ssm_jax.lra.listops import evaluate


@pytest.fixture(scope="module")
def folder(small_data_dir):
    return folder_of(SMALL, small_data_dir)


@pytest.fixture(scope="module")
def data(folder):
    return open_dataset(folder, 64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A store of every kind."""
    data_dir = tmp_path_factory.mktemp("kinds")
    return {
        name: prepare(recipe_for(made_of(name), task=name.replace(" ", "_")), data_dir)
        for name in EXAMPLES
    }


def test_gathered_rows_hold_tokens_then_eos_then_padding(data):
    indices = np.array([7, 0, 169, 7])
    batch = data.gather("train", indices)
    assert {k: (v.dtype, v.shape) for k, v in batch.items()} == {
        "inputs": (np.int32, (4, 64)),
        "lengths": (np.int32, (4,)),
        "targets": (np.int32, (4,)),
    }
    for index, inputs_L, length, target in zip(
        indices, batch["inputs"], batch["lengths"], batch["targets"], strict=True
    ):
        assert length == data.lengths("train")[index]
        assert inputs_L[length - 1] == EOS
        assert (inputs_L[length:] == PAD).all()
        assert evaluate(inputs_L[: length - 1].astype(np.uint8).tobytes()) == target


@pytest.mark.parametrize("name", ["tokens", "wide tokens"])
def test_rows_of_any_width_and_empty_ones_are_gathered(folders, name):
    """An empty row is its end of sequence."""
    data = open_dataset(folders[name], 21)
    for split, numbers in SPLITS.items():
        batch = data.gather(split, np.arange(len(numbers)))
        for number, inputs_L, length in zip(
            numbers, batch["inputs"], batch["lengths"], strict=True
        ):
            row = EXAMPLES[name].row(number).tolist()
            assert inputs_L.tolist() == row + [EOS] + [PAD] * (20 - len(row))
            assert length == len(row) + 1 >= 1
        np.testing.assert_array_equal(batch["targets"], EXAMPLES[name].targets[numbers])


def test_pairs_are_two_rows_of_the_documents(folders):
    data = open_dataset(folders["pairs"], 21)
    pairs = EXAMPLES["pairs"]
    assert data.paired and data.vocab_size == 81 and data.d_input is None
    batch = data.gather("train", np.array([5, 0, 5, 3]))
    assert {k: (v.dtype, v.shape) for k, v in batch.items()} == {
        "inputs": (np.int32, (4, 2, 21)),
        "lengths": (np.int32, (4, 2)),
        "targets": (np.int32, (4,)),
    }
    for place, number in enumerate(SPLITS["train"][[5, 0, 5, 3]]):
        assert batch["targets"][place] == pairs.targets[number]
        for side, document in enumerate((pairs.first[number], pairs.second[number])):
            row = pairs.tokens[pairs.offsets[document] : pairs.offsets[document + 1]].tolist()
            assert batch["inputs"][place, side].tolist() == row + [EOS] + [PAD] * (20 - len(row))
            assert batch["lengths"][place, side] == len(row) + 1
    longer = [max(batch["lengths"][place]) for place in range(4)]
    np.testing.assert_array_equal(data.lengths("train")[[5, 0, 5, 3]], longer)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.0, 1.0), (0.5, 0.5), (122.6 / 255, 61 / 255), (0.2860, 0.3530), (-1.0, 2.0)],
)
def test_images_are_normalised_to_1e_6(folders, mean, std):
    data = open_dataset(folders["images"], 36, mean=mean, std=std)
    batch = data.gather("train", np.arange(6))
    pixels = EXAMPLES["images"].pixels[SPLITS["train"]].astype(np.float64)
    assert batch.keys() == {"inputs", "targets"}
    assert batch["inputs"].dtype == np.float32 and batch["inputs"].shape == (6, 36, 1)
    exact = (pixels / 255 - mean) / std
    np.testing.assert_allclose(batch["inputs"][:, :, 0], exact, rtol=0, atol=1e-6)
    assert (data.d_input, data.vocab_size, data.paired) == (1, None, False)


@pytest.mark.parametrize("name", EXAMPLES)
def test_shapes_are_those_of_the_batches(folders, name):
    data = open_dataset(folders[name], 36)
    for length in (36,) if name == "images" else (21, 36):
        batch = data.gather("val", np.array([2, 1]), length)
        found = {key: (array.shape, array.dtype.type) for key, array in batch.items()}
        assert found == data.shapes(2, length)


@pytest.mark.parametrize("padded_length", [35, 37])
def test_images_are_not_padded(folders, padded_length):
    with pytest.raises(ValueError, match=rf"data.padded_length={padded_length} .* 36[ :]"):
        open_dataset(folders["images"], padded_length)


def test_the_longest_sequence_and_its_eos_must_fit(folder, folders, data):
    longest = max(data.lengths(s).max() for s in SPLITS)
    assert open_dataset(folder, longest).padded_length == longest
    with pytest.raises(ValueError, match=rf"padded_length={longest - 1} .* use at least {longest}"):
        open_dataset(folder, longest - 1)
    longest = max(open_dataset(folders["pairs"], 21).lengths(s).max() for s in SPLITS)
    with pytest.raises(ValueError, match=rf"padded_length={longest - 1} .* use at least {longest}"):
        open_dataset(folders["pairs"], longest - 1)


def test_sizes_classes_and_majority(data):
    assert [data.size(s) for s in ("train", "val", "test")] == [170, 50, 30]
    assert (data.name, data.vocab_size, data.n_classes) == ("listops", 18, 10)
    targets = data.gather("val", np.arange(50))["targets"]
    np.testing.assert_array_equal(data.targets("val"), targets)
    assert data.facts("val")["majority_rate"] == max(np.mean(targets == k) for k in range(10))


@pytest.mark.parametrize("index", [-1, 50])
def test_an_example_outside_the_split_is_an_error(data, index):
    with pytest.raises(IndexError, match=r"val has examples 0\.\.49"):
        data.gather("val", np.array([3, index]))


def test_an_unknown_split_is_an_error(data):
    with pytest.raises(ValueError, match="no split 'dev'; choose one of train, val, test"):
        data.size("dev")


def test_the_examples_that_are_used_are_evenly_spread(folder, data):
    """n gaps that differ by one at most, so all classes of a sorted file are there."""
    few = open_dataset(folder, 64, counts={"train": 37, "val": 0, "test": 30})
    assert [few.size(s) for s in ("train", "val", "test")] == [37, 50, 30]
    places = np.flatnonzero(np.isin(data.rows["train"], few.rows["train"]))
    assert places.size == 37 and places[0] == 0
    assert set(np.diff([*places, 170]).tolist()) <= {4, 5}
    expected = data.gather("train", places)
    for key, array in few.gather("train", np.arange(37)).items():
        np.testing.assert_array_equal(array, expected[key])
    for size, n in itertools.product((1, 5, 12), (1, 2, 5)):
        if n <= size:
            assert np.unique(spread(np.arange(size), n)).size == n
    n = 10**5  # positions times n must not overflow
    np.testing.assert_array_equal(spread(np.arange(n), n), np.arange(n))


def test_more_examples_than_there_are_is_an_error_in_one_line(folder):
    with pytest.raises(ValueError) as caught:
        open_dataset(folder, 64, counts={"train": 1_234, "val": 5})
    assert str(caught.value) == (
        "data.n_train=1234: there are only 170 examples, 1,234 are asked for."
    )


def test_the_fingerprint_changes_with_the_data_and_the_examples_used_alone(folder, data, tmp_path):
    sha256 = data.provenance._asdict()["sha256"]
    assert len(sha256) == 64 and data.fingerprint.startswith(sha256[:16])
    for same in ({}, {"train": 0}, {"train": 170, "test": 30}):
        assert open_dataset(folder, 128, counts=same).fingerprint == data.fingerprint
    other = type(SMALL)(4, 170, 50, 30, SMALL.shorter_than, SMALL.longer_than)
    prints = {
        data.fingerprint,
        open_dataset(folder, 64, counts={"train": 169}).fingerprint,
        open_dataset(folder, 64, counts={"val": 49}).fingerprint,
        open_dataset(prepare(generated(other, tmp_path), tmp_path), 64).fingerprint,
    }
    assert len(prints) == 4
