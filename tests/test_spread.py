"""Intervals over seeds, against scipy.stats and a direct computation."""

import math

import numpy as np
import pytest
from scipy import stats

from ssm_jax.spread import half_width, paired

ONE = {"0": 0.61, "1": 0.64, "2": 0.60, "3": 0.70}
OTHER = {"3": 0.66, "1": 0.61, "0": 0.60, "2": 0.59}  # in another order


def test_the_interval_of_differences_is_that_of_the_paired_t_test():
    found = paired(ONE, OTHER)
    matched = stats.ttest_rel([ONE[s] for s in "0123"], [OTHER[s] for s in "0123"])
    low, high = matched.confidence_interval(0.95)
    assert found["n"] == 4
    assert found["mean"] == pytest.approx((low + high) / 2, rel=1e-9)
    assert found["half_width"] == pytest.approx((high - low) / 2, rel=1e-9)


def test_two_seeds_have_the_interval_of_cauchys_distribution():
    """In closed form: t with one degree of freedom."""
    differences = (0.61 - 0.60, 0.64 - 0.61)
    found = paired({"0": 0.61, "1": 0.64}, OTHER)
    closed = math.tan(math.pi * 0.475) * abs(differences[0] - differences[1]) / 2
    assert found == {"mean": pytest.approx(0.02), "half_width": pytest.approx(closed), "n": 2}


def test_a_shift_that_all_seeds_share_has_a_narrow_interval():
    """And the two means taken apart do not."""
    shifted = {seed: value + 0.01 + 1e-4 * int(seed) for seed, value in ONE.items()}
    assert paired(shifted, ONE)["half_width"] < 3e-4 < 0.05 < half_width(list(ONE.values()))


@pytest.mark.parametrize("other", [{}, {"7": 0.6}, {"0": 0.6, "7": 0.5}])
def test_fewer_than_two_shared_seeds_say_nothing(other):
    assert paired(ONE, other) is None
    assert half_width([0.6]) is None


def test_of_normal_differences_nineteen_in_twenty_intervals_hold_the_mean():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.3, 2.0, (4_000, 3)).tolist()
    zero = {str(seed): 0.0 for seed in range(3)}
    found = [paired({str(s): x for s, x in enumerate(draw)}, zero) for draw in draws]
    inside = np.mean([abs(each["mean"] - 0.3) <= each["half_width"] for each in found])
    assert abs(inside - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4_000)
