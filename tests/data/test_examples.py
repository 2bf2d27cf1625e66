"""Examples in flat arrays: joined, divided, and refused where they do not fit together."""

import dataclasses

import numpy as np
import pytest
from small_examples import EXAMPLES, KIND, SPLITS, made_of, recipe_for

from ssm_jax.data.dataset import LabelledDataset, Provenance, open_dataset
from ssm_jax.data.examples import Content, Images, Pairs, Ragged, consecutive, joined, spread
from ssm_jax.data.prepare import prepare
from ssm_jax.data.store import stores_of


def test_every_kind_has_its_name():
    assert {name: examples.kind for name, examples in EXAMPLES.items()} == KIND


def test_joined_tables_keep_their_rows():
    tables = {
        "train": Ragged.from_rows([(b"\x05\x06", 1), (b"", 2), (b"\x08\x09\x0a", 0)]),
        "val": Ragged.from_rows([]),
        "test": Ragged.from_rows([(b"", 7), (b"\x0b", 3)]),
    }
    examples, splits = joined(tables)
    rows = list(examples.rows())
    assert len(rows) == 5
    for split, table in tables.items():
        assert [rows[i] for i in splits[split]] == list(table.rows())


def test_consecutive_splits_number_everything_once():
    splits = consecutive({"train": 3, "val": 0, "test": 2})
    assert {k: v.tolist() for k, v in splits.items()} == {
        "train": [0, 1, 2],
        "val": [],
        "test": [3, 4],
    }
    assert all(numbers.dtype == np.int64 for numbers in splits.values())


@pytest.mark.parametrize("n", [1, 2, 3, 7, 49, 50])
def test_spread_numbers_are_distinct_in_order_and_evenly_apart(n):
    numbers = np.arange(50)[::-1] * 3
    chosen = spread(numbers, n)
    places = np.flatnonzero(np.isin(numbers, chosen))
    np.testing.assert_array_equal(numbers[places], chosen)
    assert chosen.size == n and places[0] == 0
    gaps = np.diff([*places, 50])
    assert gaps.max() - gaps.min() <= 1


def test_all_are_spread_for_zero_and_no_more_than_there_are():
    assert spread(np.arange(5), 0).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"only 5 examples, 6 are asked for"):
        spread(np.arange(5), 6)
    n = 10**5  # places times n go beyond 32 bits
    np.testing.assert_array_equal(spread(np.arange(n), n), np.arange(n))


@pytest.mark.parametrize("name", EXAMPLES)
def test_steps_count_the_end_of_sequence_of_the_longest_member(name):
    examples = EXAMPLES[name]
    numbers = np.array([11, 3, 3, 0])
    expected = [max(row.size for row in examples.features(i).values()) for i in numbers]
    extra = 0 if name == "images" else 1
    found = examples.steps(numbers)
    assert found.dtype == np.int64 and found.tolist() == [n + extra for n in expected]


@pytest.mark.parametrize(
    ("pixels", "targets", "message"),
    [
        (np.zeros((3, 4), np.float32), np.zeros(3, np.uint8), "must be uint8; got float32"),
        (np.zeros((3, 4), np.uint8), np.zeros(3, np.int64), "got uint8 and int64"),
        (np.zeros((3, 2, 2), np.uint8), np.zeros(3, np.uint8), r"got \(3, 2, 2\), \(3,\)"),
        (np.zeros((3, 4), np.uint8), np.zeros(2, np.uint8), r"got \(3, 4\), \(2,\)"),
    ],
)
def test_images_that_do_not_fit_are_refused(pixels, targets, message):
    with pytest.raises(ValueError, match=message):
        Images(pixels, targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": np.zeros(2, np.int64)}, "as many int32 numbers; got first int64"),
        ({"second": np.zeros(3, np.int32)}, r"2 pairs need .* got second int32 \(3,\)"),
        ({"first": np.array([0, 2], np.int32)}, r"a document outside 0\.\.1"),
        ({"second": np.array([-1, 1], np.int32)}, r"a document outside 0\.\.1"),
        ({"targets": np.zeros(2, np.int32)}, "targets must be uint8; got int32"),
        ({"offsets": np.array([0, 3, 2], np.int64)}, "from 0 to 3; they run from 0 to 2"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(changes, message):
    arrays = {
        "tokens": np.zeros(3, np.uint8),
        "offsets": np.array([0, 1, 3], np.int64),
        "first": np.array([0, 1], np.int32),
        "second": np.array([1, 1], np.int32),
        "targets": np.zeros(2, np.uint8),
    }
    Pairs(**arrays)
    with pytest.raises(ValueError, match=message):
        Pairs(**{**arrays, **changes})


def dataset_of(name, *, examples=None, splits=SPLITS, vocab=81, n_classes=3):
    examples = EXAMPLES[name] if examples is None else examples
    vocabulary = () if name == "images" else tuple(map(str, range(vocab)))
    content = Content(examples, splits, "", {}, vocabulary, n_classes)
    return LabelledDataset("mine", content, 36, Provenance("mine", "", "0" * 64))


def with_token(value, row, step):
    """The examples "tokens" with another token."""
    tokens = EXAMPLES["tokens"].tokens.copy()
    tokens[EXAMPLES["tokens"].offsets[row] + step] = value
    return Ragged(tokens, EXAMPLES["tokens"].offsets, EXAMPLES["tokens"].targets)


def with_target(name, value, number):
    targets = EXAMPLES[name].targets.copy()
    targets[number] = value
    return dataclasses.replace(EXAMPLES[name], targets=targets)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("tokens", {"examples": with_token(201, 4, 2)}, "train example 2 .* token 201 at step 2"),
        ("tokens", {"examples": with_token(255, 5, 0)}, "test example 1 .* token 255 at step 0"),
        ("tokens", {"examples": with_token(255, 3, 0)}, "example 3 of no split .* token 255"),
        ("tokens", {"examples": with_target("tokens", 3, 9)}, "train example 5 .* target 3"),
        ("images", {"examples": with_target("images", 255, 6)}, "val example 2 .* target 255"),
        ("pairs", {"examples": with_target("pairs", 3, 8)}, "test example 2 .* target 3"),
        ("pairs", {"vocab": 5}, r"example \d .* token \d+ at step \d+; the vocabulary has 5"),
        ("images", {"n_classes": 2}, "has the target 2; there are 2 classes"),
        ("images", {"splits": {**SPLITS, "val": np.array([1, 12])}}, r"'val' .*\.11; got \[12\]"),
        ("images", {"splits": {**SPLITS, "val": np.array([-1])}}, r"'val' .*\.11; got \[-1\]"),
        ("images", {"splits": {**SPLITS, "val": np.array([0.5])}}, "got float64"),
        ("images", {"splits": {**SPLITS, "val": np.array([], np.int64)}}, "'val' .* no examples"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_example(name, changes, message):
    vocab = {"vocab": 201} if name == "tokens" else {}
    dataset_of(name, **vocab)
    with pytest.raises(ValueError, match=message):
        dataset_of(name, **{**vocab, **changes})


def test_the_longest_sequence_is_named_with_its_example():
    with pytest.raises(ValueError, match=r"21 steps \(train example \d\); use at least 21"):
        content = Content(EXAMPLES["tokens"], {"train": np.arange(12)}, "", {}, (), 10)
        LabelledDataset("mine", content, 20, None)


@pytest.mark.parametrize(("mean", "std"), [(np.nan, 1.0), (0.0, 0.0), (0.0, np.inf), (0.0, -1.0)])
def test_pixels_stay_finite(tmp_path, mean, std):
    folder = prepare(recipe_for(made_of("images")), tmp_path)
    with pytest.raises(ValueError, match=r"mean=.* must be finite, std="):
        open_dataset(folder, 36, mean=mean, std=std)
    with pytest.raises(ValueError, match="images must be uint8"):
        Images(np.zeros((2, 4), np.float32), np.zeros(2, np.uint8))


def test_what_cannot_be_is_not_stored(tmp_path):
    made = dataclasses.replace(made_of("tokens"), n_classes=2)
    with pytest.raises(ValueError, match="has the target 2; there are 2 classes"):
        prepare(recipe_for(made), tmp_path)
    assert stores_of(tmp_path, "small") == []
