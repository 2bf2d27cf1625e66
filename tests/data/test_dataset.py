"""Batches gathered from a store are its rows, padded, and nothing else."""

import numpy as np
import pytest
from small_listops import SMALL

from ssm_jax.data import prepare
from ssm_jax.data.dataset import TokenDataset
from ssm_jax.data.listops import EOS, PAD, evaluate


@pytest.fixture(scope="module")
def folder(small_data_dir):
    return prepare.generated_folder(SMALL, small_data_dir)


@pytest.fixture(scope="module")
def data(folder):
    return TokenDataset.open(folder, padded_length=64)


def test_gathered_rows_hold_tokens_then_eos_then_padding(data):
    indices = np.array([7, 0, 169, 7])
    batch = data.gather("train", indices)
    assert {k: (v.dtype, v.shape) for k, v in batch.items()} == {
        "inputs": (np.int32, (4, 64)),
        "lengths": (np.int32, (4,)),
        "targets": (np.int32, (4,)),
    }
    for index, inputs_L, length, target in zip(indices, *batch.values(), strict=True):
        expected = data.rows("train").row(index).astype(np.int32)
        assert length == expected.size + 1
        np.testing.assert_array_equal(inputs_L[: length - 1], expected)
        assert inputs_L[length - 1] == EOS
        assert (inputs_L[length:] == PAD).all()
        assert evaluate(expected.astype(np.uint8).tobytes()) == target


def test_sizes_classes_and_majority(data):
    assert [data.size(s) for s in ("train", "val", "test")] == [170, 50, 30]
    assert (data.name, data.vocab_size, data.n_classes) == ("listops", 18, 10)
    targets = data.gather("val", np.arange(50))["targets"]
    assert data.majority_rate("val") == max(np.mean(targets == k) for k in range(10))


def test_the_longest_expression_and_its_eos_must_fit(folder, data):
    longest = max(data.rows(s).lengths().max() for s in ("train", "val", "test"))
    assert TokenDataset.open(folder, longest + 1).padded_length == longest + 1
    with pytest.raises(ValueError, match=rf"padded_length={longest} .* use at least {longest + 1}"):
        TokenDataset.open(folder, longest)


@pytest.mark.parametrize("index", [-1, 50])
def test_an_example_outside_the_split_is_an_error(data, index):
    with pytest.raises(IndexError, match=r"val has examples 0\.\.49"):
        data.gather("val", np.array([3, index]))


def test_an_unknown_split_is_an_error(data):
    with pytest.raises(ValueError, match="no split 'dev'; choose one of train, val, test"):
        data.size("dev")


def test_the_fingerprint_changes_with_the_data_alone(data, folder, tmp_path):
    assert TokenDataset.open(folder, 128).fingerprint == data.fingerprint
    other = prepare.prepare_generated(
        type(SMALL)(4, 170, 50, 30, SMALL.shorter_than, SMALL.longer_than), tmp_path
    )
    assert TokenDataset.open(other, 64).fingerprint != data.fingerprint
    assert data.provenance.as_dict()["sha256"].startswith(data.fingerprint)
