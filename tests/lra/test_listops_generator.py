"""The generator's distribution, against the procedure written directly and exact numbers."""

import hashlib
import random
from collections import Counter

import listops_oracle as oracle
import numpy as np
import pytest
from scipy import stats

from lra_generators.listops import Draws, grow
from ssm_jax.lra import listops
from ssm_jax.lra.listops_generator import SHARD_ROWS, Spec, generate_shard

LRA = Spec()


@pytest.fixture(scope="module")
def lra_shards():
    return [generate_shard(LRA, shard) for shard in range(4)]


@pytest.fixture(scope="module")
def listed():
    """Texts of kept trees among 16,000 grown directly: about 1,300."""
    rng = random.Random(0)
    grown = (oracle.tree(rng, LRA.max_depth, LRA.max_args) for _ in range(16_000))
    return [oracle.text(tree) for tree, n in grown if LRA.longer_than < n < LRA.shorter_than]


def test_lengths_follow_the_exact_law(lra_shards):
    """Kolmogorov-Smirnov at 4,000 kept expressions against generating functions."""
    p = oracle.length_probabilities(LRA.shorter_than - 1, LRA.max_depth, LRA.max_args)
    p[: LRA.longer_than + 1] = 0
    p /= p.sum()
    lengths = np.concatenate([shard.lengths() for shard in lra_shards])
    assert LRA.longer_than < lengths.min() <= lengths.max() < LRA.shorter_than
    exact_mean = float(p @ np.arange(p.size))
    assert abs(lengths.mean() - exact_mean) < 4 * lengths.std() / np.sqrt(lengths.size)
    assert 1_020 < exact_mean < 1_070
    cdf = np.cumsum(p)
    assert stats.ks_1samp(lengths, lambda k: cdf[np.asarray(k, int)]).pvalue > 1e-3


def test_as_many_trees_are_kept_as_the_exact_law_says():
    p = oracle.length_probabilities(LRA.shorter_than - 1, LRA.max_depth, LRA.max_args)
    acceptance = p[LRA.longer_than + 1 :].sum()
    assert 0.080 < acceptance < 0.084  # 8.2 %
    bits, n = np.random.Philox(key=10**6), 40_000
    draws = Draws(bits, LRA.shorter_than, LRA.max_args)
    trees = (grow(draws, LRA.shorter_than, LRA.max_depth) for _ in range(n))
    kept = sum(tree is not None and len(tree[0]) > LRA.longer_than for tree in trees)
    assert abs(kept / n - acceptance) < 4 * np.sqrt(acceptance * (1 - acceptance) / n)


@pytest.mark.parametrize(("max_depth", "max_args"), [(2, 2), (3, 4), (5, 3)])
def test_short_lengths_follow_the_exact_law(max_depth, max_args):
    """With no lower bound, so that digits alone and shallow trees are in the sample."""
    spec = Spec(shorter_than=40, longer_than=0, max_depth=max_depth, max_args=max_args)
    p = oracle.length_probabilities(39, max_depth, max_args)
    counts = np.bincount(
        np.concatenate([generate_shard(spec, k).lengths() for k in range(10)]), minlength=40
    )
    expected = counts.sum() * p / p.sum()
    frequent = expected >= 5
    assert counts[expected < 1e-9].sum() == 0  # irfft leaves 1e-17 for impossible lengths
    statistic = ((counts - expected)[frequent] ** 2 / expected[frequent]).sum()
    assert stats.chi2.sf(statistic, frequent.sum() - 1) > 1e-3


def test_answers_tokens_and_nesting_are_distributed_as_in_the_listed_trees(lra_shards, listed):
    ours = [oracle.decode(tokens) for shard in lra_shards for tokens, _ in shard.rows()]
    answers = np.concatenate([shard.targets for shard in lra_shards])
    table = [
        np.bincount(answers, minlength=10),
        np.bincount([oracle.value(t) for t in listed], minlength=10),
    ]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    assert 0.15 < np.bincount(answers).max() / answers.size < 0.19  # the majority rate, about 17 %

    nests = [Counter(map(oracle.nesting, texts)) for texts in (ours[:1_000], listed)]
    assert min(nests[0][9] / 1_000, nests[1][9] / len(listed)) > 0.99

    # Shares of the 15 tokens within an expression: means agree within four standard errors.
    for token in listops.TOKENS:
        shares = [
            np.array([t.split().count(token) / len(t.split()) for t in texts])
            for texts in (ours[:1_000], listed[:1_000])
        ]
        error = np.sqrt(sum(s.var() / s.size for s in shares))
        assert abs(shares[0].mean() - shares[1].mean()) < 4 * error, token


def test_operators_and_operand_counts_are_uniform():
    """Over a tree whose length cannot be rejected, since rejection prefers some shapes."""
    spec = Spec(shorter_than=1_000, longer_than=0, max_depth=3, max_args=10)  # at most 122 tokens
    rows = [tokens for k in range(8) for tokens, _ in generate_shard(spec, k).rows()]
    roots = [tokens for tokens in rows if tokens[0] >= listops.MAX]
    assert abs(len(roots) / len(rows) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(rows))
    operators = Counter(token for tokens in rows for token in tokens if token >= listops.MAX)
    assert len(operators) == 4
    assert stats.chisquare(list(operators.values())).pvalue > 1e-3
    digits = Counter(t for row in rows for t in row if listops.DIGIT <= t < listops.MAX)
    assert len(digits) == 10
    assert stats.chisquare(list(digits.values())).pvalue > 1e-3
    arities = Counter()
    for tokens in roots:
        depth, children = 0, 0
        for token in tokens[1:-1]:
            children += depth == 0 and token != listops.CLOSE
            depth += (token >= listops.MAX) - (token == listops.CLOSE)
        arities[children] += 1
    assert sorted(arities) == list(range(2, 11))
    assert stats.chisquare(list(arities.values())).pvalue > 1e-3


def test_every_target_is_the_value_of_its_expression(lra_shards):
    for tokens, target in lra_shards[0].rows():
        assert listops.evaluate(tokens) == target
    for tokens, target in list(lra_shards[1].rows())[:200]:
        assert oracle.value(oracle.decode(tokens)) == target


def test_a_shard_depends_on_seed_and_number_but_not_on_the_split_sizes():
    spec = Spec(shorter_than=60, longer_than=10)

    def digest(spec, shard):
        rows = generate_shard(spec, shard)
        assert len(rows) == SHARD_ROWS
        return hashlib.sha256(rows.tokens.tobytes() + rows.targets.tobytes()).hexdigest()[:16]

    assert digest(spec, 5) == digest(Spec(n_train=1, shorter_than=60, longer_than=10), 5)
    others = [(spec, 5), (spec, 6), (Spec(seed=1, shorter_than=60, longer_than=10), 5)]
    assert len({digest(*other) for other in others}) == 3
    # The very bytes: whoever changes them raises VERSION.
    assert digest(spec, 5) == "a9a23fee3522c11b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"n_val": 0}, "n_val=0"),
        ({"max_args": 1}, "max_args=1"),
        ({"max_depth": 1}, "max_depth=1"),
        ({"longer_than": 1_999}, "no ListOps expression"),
        ({"max_depth": 2}, "the longest has 12"),
    ],
)
def test_impossible_specifications_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Spec(**changes)


def test_a_length_that_hardly_occurs_ends_in_an_error_and_not_in_a_loop(monkeypatch):
    monkeypatch.setattr("ssm_jax.lra.listops_generator._MAX_TREES_PER_ROW", 20)
    with pytest.raises(ValueError, match="of 20,000 random ListOps trees"):
        generate_shard(Spec(shorter_than=2_000, longer_than=1_990), 0)
