"""Dropout as a function of its key."""

import jax
import numpy as np
import pytest

from ssm_jax.layers.inputs import dropout

X = np.random.default_rng(0).normal(size=(8, 50, 100)).astype(np.float32)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_zeroes_at_its_rate_and_scales_the_rest(rate, tied):
    y = np.asarray(dropout(X, rate, jax.random.key(0), tied=tied))
    zero = y == 0
    draws = 8 * 100 * (1 if tied else 50)
    assert abs(zero.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / draws)
    np.testing.assert_allclose(y[~zero], X[~zero] / (1 - rate), rtol=1e-6)


def test_tied_dropout_draws_once_per_sequence_and_channel():
    zero = np.asarray(dropout(X, 0.5, jax.random.key(0), tied=True)) == 0
    assert (zero == zero[:, :1]).all()
    assert len({z.tobytes() for z in zero[:, 0]}) == 8, "sequences draw alike"
    free = np.asarray(dropout(X, 0.5, jax.random.key(0), tied=False)) == 0
    assert abs(np.corrcoef(free[:, 0].ravel(), free[:, 1].ravel())[0, 1]) < 0.2


def test_without_key_or_rate_nothing_is_dropped():
    np.testing.assert_array_equal(dropout(X, 0.5, None, tied=True), X)
    np.testing.assert_array_equal(dropout(X, 0.0, jax.random.key(0), tied=True), X)
