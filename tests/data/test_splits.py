"""Splits are torch's: published permutations, and a slow listing of the Mersenne Twister."""

import random

import numpy as np
import pytest

from ssm_jax.data.draws import held_out, torch_randperm, uniform
from ssm_jax.data.loader import Order
from ssm_jax.lra import listops_generator, pathfinder_generator, stand_in


def slow_randperm(n, seed):
    """Fisher-Yates on Python's own Mersenne Twister, its state filled by `init_genrand`."""
    state = [seed]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ (state[-1] >> 30)) + i) % 2**32)
    twister = random.Random()
    twister.setstate((3, (*state, 624), None))
    order = np.arange(n)
    for i in range(n - 1):
        j = i + twister.getrandbits(32) % (n - i)
        order[[i, j]] = order[[j, i]]
    return order


@pytest.mark.parametrize(
    ("seed", "expected"),
    [(0, [4, 1, 7, 5, 3, 9, 0, 8, 6, 2]), (42, [2, 6, 1, 8, 4, 5, 0, 9, 3, 7])],
)
def test_permutations_of_ten_are_those_torch_users_publish(seed, expected):
    assert torch_randperm(10, seed).tolist() == expected


@pytest.mark.parametrize("n", [0, 1, 2, 17, 1_500])
@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1])
def test_permutations_equal_the_slow_listing(n, seed):
    order = torch_randperm(n, seed)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(order, slow_randperm(n, seed))


def test_the_splits_of_cifar_and_pathfinder_are_pinned():
    train, val = held_out(50_000, 5_000, 42)
    assert val[:5].tolist() == [17408, 40845, 3378, 22188, 44921]
    assert (len(train), len(val)) == (45_000, 5_000)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(50_000))
    first = torch_randperm(200_000, 42)[:8].tolist()
    assert first == [37542, 143173, 127710, 58234, 152906, 31060, 95762, 141650]


@pytest.mark.parametrize(("n", "seed"), [(-1, 0), (2**32 // 20, 0), (10, -1), (10, 2**32)])
def test_what_torch_does_by_another_rule_is_refused(n, seed):
    with pytest.raises(ValueError, match=r"^torch_randperm: \S+ must be in 0 \.\. [^\n]*$"):
        torch_randperm(n, seed)


@pytest.mark.parametrize("n_val", [-1, 0, 10, 11])
def test_a_split_has_two_parts(n_val):
    with pytest.raises(ValueError, match=r"held_out: n_val=.* must be in 1 \.\. 9"):
        held_out(10, n_val, 0)


COUNTS = {"n_train": 3, "n_val": 3, "n_test": 3}
DRAWN = {
    "stand-in": lambda seed: stand_in.images(stand_in.Drawn(seed=seed, **COUNTS))[0].pixels,
    "uniform": lambda seed: uniform(seed, 1, 4),
    "order": lambda seed: Order(np.ones(40, np.int64), 4, seed, (1,)).batch(0)[0],
    "listops": lambda seed: listops_generator.generate_shard(
        listops_generator.Spec(seed=seed, shorter_than=20, longer_than=5), 0
    ).tokens[:200],
    "pathfinder": lambda seed: pathfinder_generator.generate_shard(
        pathfinder_generator.Spec(seed=seed, n_images=1), 0
    )[0],
    "permutation": lambda seed: torch_randperm(40, seed),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_seed_that_is_taken_gives_other_data_and_the_others_are_refused(name):
    """None is cut to 32 bits, in which 0 and 2**32 are one."""
    draw = DRAWN[name]
    bits = 32 if name == "permutation" else 63
    seeds = [s for s in (0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1) if s < 2**bits]
    assert len({draw(seed).tobytes() for seed in seeds}) == len(seeds)
    for seed in (-1, -(2**32), 2**64, 2**65, 0.5):
        with pytest.raises(ValueError, match="seed"):
            draw(seed)
