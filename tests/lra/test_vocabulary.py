"""Ids of characters by torchtext's rule, and of bytes; counting with weights."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm_jax.lra.vocabulary import Vocabulary, character_counts

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=8)


def slow_tokens(corpus, min_freq, max_length):
    """torchtext's build_vocab_from_iterator, written out."""
    counter = Counter()
    for text in corpus:
        counter.update(list(text)[: max_length - 1])
    pairs = sorted(counter.items(), key=lambda pair: pair[0])
    pairs.sort(key=lambda pair: pair[1], reverse=True)  # stable: equal ones stay by name
    return tuple(token for token, n in pairs if n >= min_freq)


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(1, 3), st.integers(2, 20))
def test_the_order_is_torchtexts(corpus, min_freq, max_length):
    made = Vocabulary.of_characters(corpus, min_freq=min_freq, max_length=max_length)
    assert made.tokens == slow_tokens(corpus, min_freq, max_length)
    ids = {token: 3 + i for i, token in enumerate(made.tokens)}
    for text in [*corpus, "\U0010ffff unseen", ""]:
        expected = [ids.get(c, 1) for c in text][: max_length - 1]
        assert made.encode(text).tolist() == expected
        assert made.encode(text).dtype == np.uint8


def test_equal_frequencies_are_in_order_of_code_points():
    made = Vocabulary.of_characters(["bac", "ßcé"], min_freq=1, max_length=10)
    assert made.tokens == ("c", "a", "b", "ß", "é")
    assert made.size == 8
    assert made.encode("cab?").tolist() == [3, 4, 5, 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text("abé\U0001f600", max_size=9), st.integers(0, 4)), max_size=8))
def test_a_weight_counts_as_that_many_copies(pairs):
    weights = np.array([n for _, n in pairs], np.int64)
    copies = [text for text, n in pairs for _ in range(n)]
    found = character_counts((t for t, _ in pairs), max_length=7, weights=weights)
    assert found == Counter("".join(text[:6] for text in copies))


@pytest.mark.parametrize("n", [1, 3])
def test_texts_and_weights_must_be_as_many(n):
    with pytest.raises(ValueError, match=rf"2 texts and {n} weights"):
        character_counts(["a", "b"], max_length=5, weights=np.ones(n, np.int64))


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.integers(2, 20))
def test_bytes_are_cut_after_encoding(text, max_length):
    made = Vocabulary.of_bytes(max_length)
    assert made.size == 259 and made.dtype == np.uint16
    assert made.encode(text).tolist() == [3 + b for b in text.encode()[: max_length - 1]]
    assert made.encode(text).dtype == np.uint16


@pytest.mark.parametrize(("size", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_more_than_256_ids_take_two_bytes(size, dtype):
    text = "".join(chr(0x4E00 + i) for i in range(size - 3))
    made = Vocabulary.of_characters([text], min_freq=1, max_length=1_000)
    assert made.size == size
    ids = made.encode(text)
    assert ids.dtype == dtype and ids.tolist() == list(range(3, size))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("character", ("a", "a"), 5), "distinct"),
        (("character", ("ab",), 5), "single"),
        (("word", ("a",), 5), "unknown unit 'word'"),
        (("byte", ("a",), 1), "max_length=1 has no room"),
    ],
)
def test_what_is_no_vocabulary_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(*arguments)
