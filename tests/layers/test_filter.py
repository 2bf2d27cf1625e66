"""What beta is in a layer, and which layers may run as a recurrence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssm_jax.layers import LAYERS, S4D, NoStateForm
from ssm_jax.layers.base import Knob

WHATS = ("step", "prefill", "mode='scan'")


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
    variable = S4D(3, d_state=1, beta=beta, learn_beta=learn, rngs=nnx.Rngs(0)).beta
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


def require(what, *, bidirectional=False, filtered=False, beta=0.0):
    """Run a layer that was made with a filter or without, and whose beta is another by now."""
    made = {"beta": 0.0 if filtered else None, "bidirectional": bidirectional}
    layer = S4D(3, d_state=1, **made, rngs=nnx.Rngs(0))
    layer.beta[...] = jnp.full((3,), beta, jnp.float32)
    use(what, layer)


def use(what, layer):
    u_BLH = jax.ShapeDtypeStruct((1, 2, 3), jnp.float32)
    run = {
        "step": lambda u_BLH: layer.step(layer.initial_state(1), u_BLH[:, 0]),
        "prefill": layer.prefill,
        "mode='scan'": lambda u_BLH: layer(u_BLH, mode="scan"),
    }[what]
    jax.eval_shape(run, u_BLH)


@pytest.mark.parametrize("what", WHATS)
def test_a_causal_layer_without_a_filter_has_every_form(what):
    require(what)


@pytest.mark.parametrize("what", WHATS)
def test_only_the_whole_sequence_lets_a_layer_look_ahead(what):
    if what == "mode='scan'":
        require(what, bidirectional=True)
    else:
        with pytest.raises(NoStateForm, match=f"S4D: {what} needs a causal layer"):
            require(what, bidirectional=True)


@pytest.mark.parametrize("what", WHATS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_filter_has_no_state_form(what, bidirectional):
    with pytest.raises(NoStateForm, match=f"S4D: {what} needs"):
        require(what, beta=-0.5, bidirectional=bidirectional)


def test_known_values_of_beta_decide_whatever_was_intended():
    """A learned beta that is still 0 passes; one that has moved does not, nor does NaN."""
    require("step", filtered=True)
    for beta in (0.25, np.nan):
        with pytest.raises(NoStateForm, match="needs beta = 0"):
            require("step", filtered=False, beta=beta)
    with pytest.raises(NoStateForm, match=r"got beta up to 0\.25"):
        require("step", beta=0.25)


@pytest.mark.parametrize("what", WHATS)
def test_an_unknown_beta_passes_if_the_layer_was_made_without_a_filter(what):
    def run(beta):
        layer = S4D(3, d_state=1, beta=beta, bidirectional=False, rngs=nnx.Rngs(0))
        graphdef, state = nnx.split(layer)
        jax.eval_shape(lambda state: use(what, nnx.merge(graphdef, state)), state)

    run(None)
    with pytest.raises(NoStateForm, match=r"beta is traced.*beta=None"):
        run(0.0)


def test_the_refusal_is_a_value_error_of_one_line():
    with pytest.raises(ValueError, match="S4D") as refused:
        require("prefill", beta=1.0, filtered=True)
    assert "\n" not in str(refused.value)
