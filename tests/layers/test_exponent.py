"""What beta is in a layer: a parameter, a knob, or nothing to learn."""

import numpy as np
import pytest
from flax import nnx

from ssm_jax.layers import LAYERS
from ssm_jax.layers.exponent import Knob, filter_exponent


@pytest.mark.parametrize(
    ("beta", "learn", "kind"),
    [
        (0.0, None, nnx.Param),
        (0.5, True, nnx.Param),
        (0.5, False, Knob),
        (None, None, Knob),
        (None, False, Knob),
    ],
)
def test_beta_starts_as_asked(beta, learn, kind):
    variable = filter_exponent("S4D", 3, beta, learn)
    assert type(variable) is kind
    np.testing.assert_array_equal(variable[...], np.full(3, beta or 0.0, np.float32))


@pytest.mark.parametrize("layer", LAYERS.values())
def test_a_filter_that_there_is_not_cannot_be_learned(layer):
    with pytest.raises(ValueError, match=r"learn_beta=True needs a filter.*beta=0\.0"):
        layer(4, d_state=2, beta=None, learn_beta=True, rngs=nnx.Rngs(params=0))


@pytest.mark.parametrize("layer", LAYERS.values())
def test_other_values_of_beta_are_the_same_program(layer):
    """So a population can sweep beta through 0 in one compilation."""
    one, other = (
        nnx.graphdef(layer(4, d_state=2, beta=b, learn_beta=False, rngs=nnx.Rngs(params=0)))
        for b in (0.0, -0.5)
    )
    assert one == other
