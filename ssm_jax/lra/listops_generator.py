"""Random ListOps expressions by LRA's procedure, in shards; a function of the specification."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lra_generators.listops import Draws, grow
from ssm_jax.data.draws import philox
from ssm_jax.data.examples import SPLITS, Ragged
from ssm_jax.lra.shards import Arrays, Sharded, fill
from ssm_jax.options.rows import COUNT, Range, setting

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


def generate_shard(spec: Spec, shard: int) -> Ragged:
    """The expressions of one shard, a function of `shard` and of `spec` without its split sizes."""
    draws = Draws(philox(spec.seed, shard, _FAMILY), spec.shorter_than, spec.max_args)
    rows: list[tuple[bytes, int]] = []
    budget = _MAX_TREES_PER_ROW * SHARD_ROWS
    for _ in range(budget):
        tree = grow(draws, spec.shorter_than, spec.max_depth)
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
