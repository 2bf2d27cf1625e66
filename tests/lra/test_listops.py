"""The value of an expression, and the two ways to write it."""

import random

import listops_oracle as oracle
import pytest

from ssm_jax.data.examples import EOS, PAD, UNKNOWN
from ssm_jax.lra import listops


def encoded(text: str) -> bytes:
    return bytes([3 + listops.TOKENS.index(token) for token in text.split()])


def test_evaluation_agrees_with_recursion_over_the_text():
    rng = random.Random(0)
    for _ in range(3_000):
        tree, _ = oracle.tree(rng, max_depth=6, max_args=6)
        text = oracle.text(tree)
        assert listops.evaluate(encoded(text)) == oracle.value(text), text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("[MED 1 2 ]", 1),  # the median 1.5 is rounded down
        ("[MED 9 0 4 ]", 4),
        ("[MED 3 3 4 9 ]", 3),
        ("[SM 9 9 9 ]", 7),
        ("[MIN [MAX 2 8 ] [SM 5 6 ] ]", 1),
    ],
)
def test_known_values(text, value):
    assert listops.evaluate(encoded(text)) == value


@pytest.mark.parametrize(
    "text", ["", "1 2", "]", "[MAX ]", "[MAX 1 2", "[MAX 1 2 ] ]", "[MAX 1 ] 2", "[MAX [MIN ] 1 ]"]
)
def test_what_is_not_one_expression_has_no_value(text):
    with pytest.raises(ValueError, match="expression"):
        listops.evaluate(encoded(text))


@pytest.mark.parametrize("token", [PAD, UNKNOWN, EOS, 18, 255])
def test_special_tokens_are_no_part_of_an_expression(token):
    with pytest.raises(ValueError, match=f"token {token} "):
        listops.evaluate(bytes([token]))


def test_the_official_notation_encodes_to_the_same_tokens():
    rng = random.Random(1)
    for _ in range(300):
        tree, length = oracle.tree(rng, max_depth=5, max_args=5)
        tokens = listops.encode(oracle.official(tree).encode())
        assert tokens == encoded(oracle.text(tree))
        assert len(tokens) == length
        assert oracle.decode(tokens) == oracle.text(tree)


def test_an_unknown_token_is_named():
    with pytest.raises(ValueError, match=r"unknown token b'\[AVG'"):
        listops.encode(b"( ( [AVG 1 ) ] )")


def test_the_vocabulary_is_eighteen_ids_in_a_fixed_order():
    assert 3 + len(listops.TOKENS) == 18
    assert listops.encode(b"] 0 9 [MAX [MED [MIN [SM") == bytes([3, 4, 13, 14, 15, 16, 17])
