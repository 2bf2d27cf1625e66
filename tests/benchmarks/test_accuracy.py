"""Every way to run every layer is as near to the float64 loop as the README's table says."""

import pytest

from benchmarks.accuracy import OPTIONS, WAYS, layer_errors


@pytest.mark.optimized
@pytest.mark.parametrize("kind", OPTIONS)
def test_every_way_is_the_loop_over_the_steps(kind):
    row = layer_errors(kind, 130)
    assert (row["layer"], row["length"]) == (kind, 130)
    for way in WAYS:
        assert 0 < row[way] < 1e-5


@pytest.mark.optimized
def test_undamped_steps_do_not_turn_by_a_rounded_angle():
    """After 4,096 steps they would be off by 1e-4 and more, were A_bar one float32 number."""
    assert layer_errors("s4d undamped", 4096)["step"] < 2e-5
