"""ListOps written down a second time, as directly as it can be: trees of nested lists."""

from __future__ import annotations

import random

import numpy as np

OPERATORS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(np.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


def decode(tokens: bytes) -> str:
    """The expression that ids are, as text without round brackets."""
    words = ["pad", "unknown", "eos", "]", *"0123456789", "[MAX", "[MED", "[MIN", "[SM"]
    return " ".join(words[token] for token in tokens)


def value(text: str) -> int:
    """The value of `[MAX 1 [SM 2 3 ] ]`, by recursion over the text."""
    tokens = text.split()

    def parse(position: int) -> tuple[int, int]:
        token = tokens[position]
        if token in OPERATORS:
            position, values = position + 1, []
            while tokens[position] != "]":
                operand, position = parse(position)
                values.append(operand)
            return OPERATORS[token](values), position + 1
        return int(token), position + 1

    result, end = parse(0)
    assert end == len(tokens)
    return result


def tree(rng: random.Random, max_depth: int, max_args: int, depth: int = 1):
    """(tree, length) by the procedure's own words: a digit, or [operator, operand, ...]."""
    r = rng.random() if depth < max_depth else 1.0
    if r > 0.25:
        return rng.randint(0, 9), 1
    operands = [tree(rng, max_depth, max_args, depth + 1) for _ in range(rng.randint(2, max_args))]
    operator = rng.choice(("[MIN", "[MAX", "[MED", "[SM"))
    return [operator, *(t for t, _ in operands)], 2 + sum(n for _, n in operands)


def text(node) -> str:
    """A tree as `[MAX 1 2 ]`."""
    if isinstance(node, int):
        return str(node)
    return " ".join([node[0], *map(text, node[1:]), "]"])


def official(node) -> str:
    """A tree as the official files write it: pairs in round brackets, nested to the left."""
    if isinstance(node, int):
        return str(node)
    out = node[0]
    for operand in node[1:]:
        out = f"( {out} {official(operand)} )"
    return f"( {out} ] )"


def nesting(text: str) -> int:
    """Most operators that are open at once."""
    depth = deepest = 0
    for token in text.split():
        depth += token.startswith("[") - (token == "]")
        deepest = max(deepest, depth)
    return deepest


def length_probabilities(longest: int, max_depth: int, max_args: int) -> np.ndarray:
    """P(length = k), k = 0..longest, exactly, by generating functions from the last level up."""
    level = np.zeros(longest + 1)
    level[1] = 1.0
    for _ in range(max_depth - 1):
        operands, power = np.zeros(longest + 1), np.zeros(longest + 1)
        power[0] = 1.0
        n_fft = 2 * (longest + 1)
        spectrum = np.fft.rfft(level, n_fft)
        for arity in range(1, max_args + 1):
            power = np.fft.irfft(np.fft.rfft(power, n_fft) * spectrum, n_fft)[: longest + 1]
            if arity >= 2:
                operands += power / (max_args - 1)
        level = np.zeros(longest + 1)
        level[2:] = 0.25 * operands[:-2]
        level[1] += 0.75
    return level
