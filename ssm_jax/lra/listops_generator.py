"""Random ListOps expressions by the procedure of the Long Range Arena, and their values.

An expression such as `[MAX 4 [SM 7 8 ] 0 ]` is a tree of the operators MIN, MAX, MED (median,
rounded down) and SM (sum modulo 10) over digits; its value is a digit. Source: Nangia and Bowman,
arXiv:1804.06028, in the lengths of Tay et al., arXiv:2011.04006. LRA's generator sets no seed: its
files cannot be made again, only others with the same distribution.

Token ids: 0 pad, 1 unknown, 2 end of sequence, 3 the closing bracket, 4..13 the digits 0..9,
14..17 [MAX [MED [MIN [SM: the rule of S4's vocabulary, by falling frequency and then by name, if
tokens that are equally frequent by construction count as equal. It is fixed, not counted, so that
generated and official data share it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssm_jax.data.draws import philox
from ssm_jax.data.examples import SPLITS, Ragged
from ssm_jax.lra.shards import Arrays, Sharded, fill
from ssm_jax.options import COUNT, Range, setting

CLOSE = 3
DIGIT = 4  # the id of digit 0
MAX, MED, MIN, SM = 14, 15, 16, 17
N_CLASSES = 10
TOKENS = ("]", *"0123456789", "[MAX", "[MED", "[MIN", "[SM")  # ids 3..17
_IDS = {token.encode(): CLOSE + i for i, token in enumerate(TOKENS)}


def evaluate(tokens: bytes) -> int:
    """The value of an expression, 0..9, by a stack machine that shares nothing with the generator.

    Args:
      tokens: ids, without padding and without the end of sequence.

    Raises:
      ValueError: if the tokens are not one whole expression.
    """
    values: list[int] = []
    calls: list[tuple[int, int]] = []  # (operator, number of values before its operands)
    for token in tokens:
        if DIGIT <= token < MAX:
            values.append(token - DIGIT)
        elif MAX <= token <= SM:
            calls.append((token, len(values)))
        elif token == CLOSE and calls and len(values) > calls[-1][1]:
            operator, start = calls.pop()
            args = sorted(values[start:])
            value = args[0] if operator == MIN else args[-1]
            if operator == SM:
                value = sum(args) % 10
            elif operator == MED:
                middle, odd = divmod(len(args), 2)
                value = args[middle] if odd else (args[middle - 1] + args[middle]) // 2
            values[start:] = [value]
        else:
            raise ValueError(f"token {token} cannot stand where it stands in a ListOps expression.")
    if calls or len(values) != 1:
        raise ValueError(
            f"not one whole ListOps expression: {len(calls)} brackets open, {len(values)} values."
        )
    return values[0]


def encode(source: bytes) -> bytes:
    """Ids of an expression as the official files write it, `( ( ( [MAX 3 ) 1 ) ] )`.

    The round brackets only pair an operator with its operands and are dropped. A token that is not
    one of TOKENS is a ValueError.
    """
    try:
        return bytes([_IDS[token] for token in source.translate(None, b"()").split()])
    except KeyError as error:
        raise ValueError(
            f"unknown token {error.args[0]!r}; ListOps has {' '.join(TOKENS)}."
        ) from None


def decode(tokens: bytes) -> str:
    """The expression as text without round brackets, `[MAX 3 1 ]`."""
    return " ".join(TOKENS[token - CLOSE] for token in tokens)


GENERATOR_VERSION = 1  # raise it whenever the same specification would give other expressions
SHARD_ROWS = 1_000  # expressions drawn from one random stream
# Up to this many tokens (2,000 expressions of full length, 0.7 s) no worker is worth its start.
_IN_PROCESS_TOKENS = 4_000_000
# LRA's bounds keep one tree in 12. A specification this much rarer would never finish.
_MAX_TREES_PER_ROW = 20_000
_FAMILY = 1  # of the random streams, so that they share no number with the loader's epoch order


@dataclass(frozen=True)
class Spec(Sharded):
    """A specification of distinct expressions. Lengths are without the end-of-sequence token.

    Raises:
      ValueError: for values out of range, or bounds that no expression meets.
    """

    title = "ListOps"
    compress = False

    seed: int = 0  # of all random numbers, 0..2**63-1
    n_train: int = 96_000
    n_val: int = 2_000
    n_test: int = 2_000
    shorter_than: int = setting(
        2_000, "expressions kept are strictly shorter", unit="tokens", source="LRA: 2,000"
    )
    longer_than: int = setting(500, "... and longer", COUNT, unit="tokens", source="LRA: 500")
    # Levels of the tree, the digits of the last level included
    max_depth: int = setting(10, "nesting", Range(2, 10), source="LRA: 10")
    max_args: int = setting(10, "operands of one operator", Range(2, 10), source="LRA: 10")

    def __post_init__(self) -> None:
        self.check_whole(
            **{"seed": (0, 2**63 - 1), "shorter_than": (2, 10**6), "longer_than": (0, 10**6)},
            **{"max_depth": (2, 50), "max_args": (2, 99)},
            **{f"n_{split}": (1, 10**8) for split in SPLITS},
        )
        longest = 1
        for _ in range(self.max_depth - 1):
            longest = 2 + self.max_args * longest
        if self.longer_than + 1 >= self.shorter_than or longest <= self.longer_than:
            raise ValueError(
                f"no ListOps expression is longer than {self.longer_than} and shorter than "
                f"{self.shorter_than} tokens with max_depth={self.max_depth} and "
                f"max_args={self.max_args} (the longest has {longest}); widen the bounds."
            )

    def sizes(self) -> dict[str, int]:
        """Expressions in each split."""
        return {split: getattr(self, f"n_{split}") for split in SPLITS}

    def rows(self, shard: int) -> int:
        return SHARD_ROWS

    def arrays(self, shard: int) -> Arrays:
        return dict(vars(generate_shard(self, shard)))

    def check(self, shard: int, arrays: Arrays) -> None:
        if len(rows := Ragged(**arrays)) != SHARD_ROWS:
            raise ValueError(f"shard {shard} has {len(rows)} expressions, not {SHARD_ROWS}.")


class _Draws:
    """The random numbers of one shard, drawn in blocks.

    `nodes` says of each node above the last level what it is: the id of a digit (probability 3/4)
    or of an operator; `arity` how many operands it has if it is an operator; `operators` where the
    operators are in `nodes`; `leaves` are the digits of the last level. Rounding 32 bits to at most
    4 * 98 outcomes biases them by less than 1e-7.
    """

    def __init__(self, spec: Spec, shard: int) -> None:
        self.reach = spec.shorter_than + 1  # no tree takes more numbers than that
        self.size = max(1 << 16, 32 * self.reach)
        self._arities = np.uint64(spec.max_args - 1)
        self._bits = philox(spec.seed, shard, _FAMILY)
        self.refill()

    def refill(self) -> None:
        def scaled(words: np.ndarray, n: int | np.uint64) -> np.ndarray:  # to 0..n - 1
            return (words * np.uint64(n)) >> np.uint64(32)

        words = self._bits.random_raw(self.size)
        low, high = words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)
        is_operator = high < np.uint64(1 << 30)  # probability 1/4
        kind, arity = np.divmod(scaled(low, 4 * self._arities), self._arities)
        nodes = np.where(is_operator, np.uint64(MAX) + kind, DIGIT + scaled(low, 10))
        self.nodes = nodes.astype(np.uint8).tobytes()
        self.arity = (arity + np.uint64(2)).astype(np.uint8).tobytes()
        self.operators = [*np.flatnonzero(is_operator).tolist(), self.size]
        leaves = DIGIT + scaled(self._bits.random_raw(self.size) >> np.uint64(32), 10)
        self.leaves = leaves.astype(np.uint8).tobytes()
        self.node = self.operator = self.leaf = 0  # the next unread of nodes, operators, leaves


def _apply(operator: int, args: bytearray) -> int:
    """The id of an operator's value, from the ids of its operands; ids keep the digits' order."""
    if operator == MAX:
        return max(args)
    if operator == MIN:
        return min(args)
    if operator == SM:
        return DIGIT + (sum(args) - DIGIT * len(args)) % 10
    ordered = sorted(args)
    return (ordered[(len(args) - 1) // 2] + ordered[len(args) // 2]) // 2


def _grow(draws: _Draws, shorter_than: int, max_depth: int) -> tuple[bytes, int] | None:
    """One random tree, written from left to right: (tokens, value), or None once it is too long.

    A node above the last level, at depth 10, is a digit with probability 3/4; else an operator with
    2..max_args operands, all uniform. Kept are the trees of 501 to 1,999 tokens, one in 12.
    """
    if max(draws.node, draws.leaf) + draws.reach > draws.size:
        draws.refill()
    nodes, arity, operators = draws.nodes, draws.arity, draws.operators
    i, p = draws.node, draws.operator
    if operators[p] != i:  # the root is a digit
        draws.node += 1
        return nodes[i : i + 1], nodes[i] - DIGIT
    tokens = bytearray()
    above: list[tuple[int, bytearray, int]] = []  # the open operators around this one
    operator, args, missing = nodes[i], bytearray(), arity[i]
    length = 2 + missing  # of the finished tree if all that is still missing were digits
    tokens.append(operator)
    i, p, depth = i + 1, p + 1, 2  # `depth` of the operands being drawn
    result = None
    while length < shorter_than and not result:
        # A run of digits is one step: 0.36 ms for each kept expression, 1.9 ms node by node.
        if depth == max_depth:
            digits = draws.leaves[draws.leaf : draws.leaf + missing]
            draws.leaf += missing
        else:
            digits = nodes[i : min(i + missing, operators[p])]
            i += len(digits)
        tokens += digits
        args += digits
        missing -= len(digits)
        if missing:
            above.append((operator, args, missing - 1))
            operator, args, missing = nodes[i], bytearray(), arity[i]
            length += 1 + missing
            tokens.append(operator)
            i, p, depth = i + 1, p + 1, depth + 1
            continue
        while not missing:
            tokens.append(CLOSE)
            value = _apply(operator, args)
            if not above:
                result = bytes(tokens), value - DIGIT
                break
            operator, args, missing = above.pop()
            args.append(value)
            depth -= 1
    draws.node, draws.operator = i, p
    return result


def generate_shard(spec: Spec, shard: int) -> Ragged:
    """The expressions of one shard, a function of `shard` and of `spec` without its split sizes.

    Raises:
      ValueError: if expressions of the asked length are too rare.
    """
    draws = _Draws(spec, shard)
    rows: list[tuple[bytes, int]] = []
    budget = _MAX_TREES_PER_ROW * SHARD_ROWS
    for _ in range(budget):
        tree = _grow(draws, spec.shorter_than, spec.max_depth)
        if tree and spec.longer_than < len(tree[0]) < spec.shorter_than:
            rows.append(tree)
            if len(rows) == SHARD_ROWS:
                return Ragged.from_rows(rows)
    raise ValueError(
        f"only {len(rows)} of {budget:,} random ListOps trees have more than {spec.longer_than} "
        f"and fewer than {spec.shorter_than} tokens; widen the bounds."
    )


def generate(
    spec: Spec, folder: Path, *, workers: int, advance: Callable[[int], None]
) -> dict[str, Ragged]:
    """The distinct ListOps expressions of every split, in the order of generation.

    Shards are taken in the order of their numbers and an expression that has been seen is dropped,
    so the result depends on `spec` alone; see `shards.fill` for the other arguments.

    Raises:
      ValueError: if there are not enough distinct expressions.
    """
    total = sum(spec.sizes().values())
    rows: dict[bytes, int] = {}
    alone = _IN_PROCESS_TOKENS // (SHARD_ROWS * spec.shorter_than)
    first, last = 0, -(-total // SHARD_ROWS)
    while len(rows) < total:
        before = len(rows)
        for arrays in fill(spec, folder, range(first, last), workers, advance, alone=alone):
            for tokens, target in Ragged(**arrays).rows():
                if len(rows) < total:
                    rows[tokens] = target
        # Where 49 of 50 expressions repeat, the distinct ones are running out.
        if len(rows) < total and len(rows) - before < (last - first) * SHARD_ROWS // 50:
            raise ValueError(
                f"only {len(rows):,} distinct ListOps expressions found, {total:,} are asked for; "
                "ask for fewer, or for longer ones."
            )
        first, last = last, last + -(-(total - len(rows)) // SHARD_ROWS)
    found = iter(rows.items())
    return {s: Ragged.from_rows(itertools.islice(found, n)) for s, n in spec.sizes().items()}
