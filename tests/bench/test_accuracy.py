"""Every way to run every layer is as near to the float64 loop as the README's table says."""

import pytest

from ssm_jax.bench.accuracy import OPTIONS, WAYS, layer_errors


@pytest.mark.optimized
@pytest.mark.parametrize("length", [1, 130])
@pytest.mark.parametrize("kind", OPTIONS)
def test_every_way_is_the_loop_over_the_steps(kind, length):
    row = layer_errors(kind, length)
    assert (row["layer"], row["length"]) == (kind, length)
    for way in WAYS:
        assert 0 < row[way] < 1e-5
