"""Random ListOps expressions by LRA's procedure, in shards; a function of the specification."""

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
GENERATOR_VERSION = 1  # raise it whenever the same specification would give other expressions
SHARD_ROWS = 1_000  # expressions drawn from one random stream
# Up to this many tokens (2,000 expressions of full length, 0.7 s) no worker is worth its start.
_IN_PROCESS_TOKENS = 4_000_000
# LRA's bounds keep one tree in 12. A specification this much rarer would never finish.
_MAX_TREES_PER_ROW = 20_000
_FAMILY = 1  # of the random streams, so that they share no number with the loader's epoch order


@dataclass(frozen=True)
class Spec(Sharded):
    """A specification of distinct expressions. Lengths are without the end-of-sequence token."""

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

    Each node above the last level is the id of a digit (probability 3/4) or of an operator, of
    which `arity` is the number of operands; `operators` is where they are in `nodes`; `leaves` are
    the digits of the last level. Rounding 32 bits to 4 * 98 outcomes biases them by 1e-7 at most.
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
    """The expressions of one shard, a function of `shard` and of `spec` without its split sizes."""
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
