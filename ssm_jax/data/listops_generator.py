"""Random ListOps expressions by the procedure of the Long Range Arena.

A tree is grown from the root: a node is a digit with probability 3/4, else an operator with 2 to 10
operands, and always a digit at depth 10; all choices are uniform. Kept are the trees of 501 to
1,999 tokens, about one in 12. Source: the generator in the Long Range Arena's code. It sets no
seed, so its files cannot be made again, only others with the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssm_jax.data.examples import SPLITS
from ssm_jax.data.listops import CLOSE, DIGIT, MAX, MIN, SM
from ssm_jax.data.ragged import Ragged

TITLE = "ListOps"
COMPRESS = False  # of the files of shards
GENERATOR_VERSION = 1  # raise it whenever the same specification would give other expressions
SHARD_ROWS = 1_000  # expressions drawn from one random stream
# LRA's bounds keep one tree in 12. A specification this much rarer would never finish.
_MAX_TREES_PER_ROW = 20_000
# Counter of the Philox streams, so that they share no number with the loader's epoch order.
_STREAM = 1


@dataclass(frozen=True)
class Spec:
    """What to generate. Lengths are in tokens, without the end-of-sequence token.

    Attributes:
      seed: of all random numbers, 0..2**63-1.
      n_train, n_val, n_test: distinct expressions in each split, >= 1.
      shorter_than, longer_than: strict bounds on the length of an expression.
      max_depth: levels of the tree, the digits of the last level included; >= 2.
      max_args: operands of one operator, 2..99.

    Raises:
      ValueError: for values out of range, or bounds that no expression meets.
    """

    seed: int = 0
    n_train: int = 96_000
    n_val: int = 2_000
    n_test: int = 2_000
    shorter_than: int = 2_000
    longer_than: int = 500
    max_depth: int = 10
    max_args: int = 10

    def __post_init__(self) -> None:
        bounds = {
            "seed": (0, 2**63 - 1),
            "n_train": (1, 10**8),
            "n_val": (1, 10**8),
            "n_test": (1, 10**8),
            "shorter_than": (2, 10**6),
            "longer_than": (0, 10**6),
            "max_depth": (2, 50),
            "max_args": (2, 99),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(
                    f"ListOps {name}={value!r} must be a whole number from {low} to {high}."
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
        return dict(zip(SPLITS, (self.n_train, self.n_val, self.n_test), strict=True))

    def rows(self, shard: int) -> int:
        """Expressions in a shard."""
        return SHARD_ROWS


class _Draws:
    """The random numbers of one shard, drawn in blocks.

    `nodes` says of each node above the last level what it is: the id of a digit (probability 3/4)
    or of an operator; `arity` how many operands it has if it is an operator; `operators` where the
    operators are in `nodes`; `leaves` are the digits of the last level. Everything is integer
    arithmetic on Philox words, since NumPy may change the streams of its Generator methods but not
    those of its bit generators. Rounding 32 bits to at most 4 * 98 outcomes biases them by less
    than 1e-7.
    """

    def __init__(self, spec: Spec, shard: int) -> None:
        self.reach = spec.shorter_than + 1  # no tree takes more numbers than that
        self.size = max(1 << 16, 32 * self.reach)
        self._arities = spec.max_args - 1
        self._bits = np.random.Philox(
            key=np.array([spec.seed, shard], np.uint64),
            counter=np.array([0, 0, 0, _STREAM], np.uint64),
        )
        self.refill()

    def refill(self) -> None:
        words = self._bits.random_raw(self.size)
        low, high = words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)
        is_operator = high < np.uint64(1 << 30)  # probability 1/4
        digit = DIGIT + ((low * np.uint64(10)) >> np.uint64(32))
        form = (low * np.uint64(4 * self._arities)) >> np.uint64(32)
        kind, arity = np.divmod(form, np.uint64(self._arities))
        self.nodes = np.where(is_operator, np.uint64(MAX) + kind, digit).astype(np.uint8).tobytes()
        self.arity = (arity + np.uint64(2)).astype(np.uint8).tobytes()
        self.operators = [*np.flatnonzero(is_operator).tolist(), self.size]
        words = self._bits.random_raw(self.size) >> np.uint64(32)
        leaves = np.uint64(DIGIT) + ((words * np.uint64(10)) >> np.uint64(32))
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

    A node above the last level is a digit with probability 3/4; else an operator with 2..max_args
    operands, all uniform. Nodes of the last level are digits.
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
    while length < shorter_than:
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
        if result:
            break
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
    while len(rows) < SHARD_ROWS:
        tree = _grow(draws, spec.shorter_than, spec.max_depth)
        if tree and spec.longer_than < len(tree[0]) < spec.shorter_than:
            rows.append(tree)
        budget -= 1
        if not budget:
            raise ValueError(
                f"only {len(rows)} of {_MAX_TREES_PER_ROW * SHARD_ROWS:,} random ListOps trees "
                f"have more than {spec.longer_than} and fewer than {spec.shorter_than} tokens; "
                "widen the bounds."
            )
    return Ragged.from_rows(rows)


def shard_arrays(spec: Spec, shard: int) -> dict[str, np.ndarray]:
    """The arrays of `generate_shard`, by name."""
    rows = generate_shard(spec, shard)
    return {"tokens": rows.tokens, "offsets": rows.offsets, "targets": rows.targets}


def check_arrays(spec: Spec, shard: int, arrays: dict[str, np.ndarray]) -> None:
    """See that a shard is whole.

    Raises:
      ValueError: if it is not.
    """
    rows = Ragged(arrays["tokens"], arrays["offsets"], arrays["targets"])
    if len(rows) != spec.rows(shard):
        raise ValueError(f"shard {shard} has {len(rows)} expressions, not {spec.rows(shard)}.")
