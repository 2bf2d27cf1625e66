"""From the options of a config to a model: each layer, and each of its options."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from running import numbers, run

from ssm_jax import config
from ssm_jax.config import check as config_check
from ssm_jax.init import DT_TRANSFORMS, INITS, REAL_TRANSFORMS
from ssm_jax.init.parameters import C_INITS
from ssm_jax.kernels.discretize import DISCRETIZE
from ssm_jax.kernels.oscillator import SCHEMES
from ssm_jax.layers import LAYERS
from ssm_jax.layers.base import Knob
from ssm_jax.layers.mimo import MimoLayer
from ssm_jax.layers.s4 import NPLR_INITS
from ssm_jax.options.arguments import parameters_of
from ssm_jax.tasks.heads import (
    build_classifier,
    classification_sums,
    layer_arguments,
)

# What each layer needs besides the defaults
LAYER = {
    "s4d": {},
    "s5": {"layer": "s5"},
    "s4": {"layer": "s4", "init": "legs", "discretization": "bilinear"},
    "lru": {"layer": "lru"},
    "linoss": {"layer": "linoss"},
    "dlinoss": {"layer": "dlinoss"},
}
RING = {"init": "ring", "discretization": "none"}


def options(**changes):
    """`cfg.model` of a small model as plain options, checked."""
    cfg = config.default()
    cfg.train.steps = 1
    small = {"depth": 1, "d_model": 6, "d_state": 4, **changes}
    cfg.update_from_flattened_dict({f"model.{key}": value for key, value in small.items()})
    config_check.check(cfg)
    return cfg.model.to_dict()


def build(**changes):
    dataset = SimpleNamespace(
        n_classes=10, vocab_size=18, d_input=None, paired=False, padded_length=12
    )
    return build_classifier(dataset, options(**changes), nnx.Rngs(params=0))


@pytest.mark.parametrize("layer", LAYERS)
def test_every_argument_of_a_layer_is_an_option_and_the_other_way_round(layer):
    chosen = options(**LAYER[layer])
    parameters = set(parameters_of(LAYERS[layer]))
    assert set(layer_arguments(chosen)) == parameters - {"d_model", "skip", "horizon", "rngs"}


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_makes_a_classifier(layer):
    model = build(**LAYER[layer])
    assert isinstance(model.blocks[0].ssm, LAYERS[layer])
    graphdef, state = nnx.split(model)
    tokens, lengths = np.arange(24, dtype=np.int32).reshape(2, 12) % 18, np.array([12, 5])
    logits = run(_forward, state, tokens, lengths.astype(np.int32), graphdef=graphdef)
    assert logits.shape == (2, 10) and np.isfinite(logits).all()


def _forward(state, tokens, lengths, graphdef):
    return nnx.merge(graphdef, state)(tokens, lengths)


@pytest.mark.parametrize(
    ("start", "key", "value", "attribute"),
    [
        (RING, "s4d.input_norm", "lru", "input_norm"),
        (LAYER["s5"], "s5.conj_sym", False, "conj_sym"),
        (LAYER["s5"], "s5.clip_eigs", True, "clip_eigs"),
        (LAYER["linoss"], "linoss.scheme", "imex", "scheme"),
        ({}, "real_transform", "clip", "real_transform"),
        ({}, "beta.unit", "rad", "beta_unit"),
    ],
)
def test_an_option_is_passed_on(start, key, value, attribute):
    assert getattr(build(**start).blocks[0].ssm, attribute) != value
    assert getattr(build(**start, **{key: value}).blocks[0].ssm, attribute) == value


@pytest.mark.parametrize("layer", LAYER)
def test_beta_is_learned_fixed_or_in_layers_of_many_inputs_absent(layer):
    """A fixed beta of 0 is a value of a knob; but without a filter these run as a scan."""
    for learn, init, kind in ((True, 0.0, nnx.Param), (False, 0.5, Knob), (False, 0.0, Knob)):
        options = {**LAYER[layer], "beta.learn": learn, "beta.init": init}
        ssm = build(**options).blocks[0].ssm
        assert type(ssm.beta) is kind
        np.testing.assert_array_equal(ssm.beta[...], np.float32(init))
        assert ssm.filtered == (not isinstance(ssm, MimoLayer) or learn or init != 0)


@pytest.mark.parametrize("layer", LAYER)
def test_without_a_filter_a_causal_layer_runs_step_by_step_also_compiled(layer):
    """The parameters are arguments of the program, so that no value of beta is known in it."""
    ssm = build(**LAYER[layer], **{"beta.filter": False, "bidirectional": False}).blocks[0].ssm
    assert not ssm.filtered and type(ssm.beta) is Knob
    graphdef, state = nnx.split(ssm)

    def step(state, x, u_BH):
        return nnx.merge(graphdef, state).step(x, u_BH)

    u_BLH = np.random.default_rng(0).normal(size=(2, 5, 6)).astype(np.float32)
    x, outputs = ssm.initial_state(2), []
    for n in range(5):
        x, y_BH = jax.jit(step)(state, x, u_BLH[:, n])
        outputs.append(y_BH)
    y_BLH = nnx.jit(lambda ssm: ssm(u_BLH))(ssm)
    np.testing.assert_allclose(np.stack(outputs, axis=1), y_BLH, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("start", "changes", "parameter"),
    [
        (RING, {"init_seed": 1}, "A_im"),
        ({}, {"alpha_real": 0.5}, "A_re_raw"),
        (LAYER["s4"], {"s4.b_clip": 0.0}, "B_ri"),
        (LAYER["s5"], {"s5.n_blocks": 2, "init": "legs"}, "A_im"),
        (LAYER["s5"], {"s5.C_init": "complex_normal"}, "C_ri"),
        (LAYER["linoss"], {"alpha": 3.0}, "A_im"),
        (LAYER["dlinoss"], {"dlinoss.r_min": 0.5}, "A_re_raw"),
        (LAYER["lru"], {"lru.r_min": 0.9}, "A_re_raw"),
        (LAYER["lru"], {"lru.r_max": 0.5}, "gamma_log"),
        (LAYER["lru"], {"lru.max_phase": 0.3}, "A_im"),
    ],
)
def test_an_option_changes_where_a_parameter_starts(start, changes, parameter):
    plain, other = (numbers(build(**start, **c).blocks[0].ssm)[parameter] for c in ({}, changes))
    assert plain.shape == other.shape
    assert np.abs(plain - other).max() > 1e-3


def test_no_clip_is_none_and_not_zero():
    B_ri = numbers(build(**LAYER["s4"], **{"s4.b_clip": 0.0}).blocks[0].ssm)["B_ri"]
    assert np.abs(B_ri[..., 1]).max() > 0.1


def test_the_choices_of_a_config_are_those_of_the_program():
    inits = {name: layer.INITS for name, layer in LAYERS.items() if hasattr(layer, "INITS")}
    assert {name: set(known) for name, known in inits.items()} == {
        "s4d": set(INITS),
        "s5": {"legs", *INITS},
        "s4": set(NPLR_INITS),
    }
    for layer, known in inits.items():
        with pytest.raises(ValueError, match="init='\\?' is not known") as refused:
            options(layer=layer, init="?")
        assert str(refused.value).endswith(f"choose one of {', '.join(known)}.")
    for key, values in (
        ("real_transform", REAL_TRANSFORMS),
        ("dt_transform", DT_TRANSFORMS),
        ("discretization", tuple(DISCRETIZE)),
        ("activations", ("float32", "bfloat16")),
        ("s4d.input_norm", ("none", "lru")),
        ("s5.C_init", C_INITS),
        ("linoss.scheme", SCHEMES),
    ):
        cfg = config.default()
        cfg.update_from_flattened_dict({f"model.{key}": "?"})
        with pytest.raises(ValueError, match=rf"choose one of {', '.join(values)}\.") as refused:
            config_check.check(cfg)
        assert f"model.{key}='?' is not known" in str(refused.value)


def test_a_target_that_is_no_class_is_named_or_not_a_number():
    """Refused where it is known; NaN where it is traced, also -1: no index from the end."""
    logits = jnp.zeros((3, 4))
    right = classification_sums(logits, {"targets": np.array([0, 3, 1])})
    np.testing.assert_allclose(right["loss"], 3 * np.log(4), rtol=1e-6)
    with jax.numpy_dtype_promotion("strict"):
        short = classification_sums(logits, {"targets": np.array([0, 3, 1], np.uint8)})
    assert short == right
    for wrong in (4, -1, 250):
        batch = {"targets": np.array([0, wrong, 1])}
        message = rf"the target at example 1 must be in 0\.\.3, got {wrong}"
        with pytest.raises(ValueError, match=message):
            classification_sums(logits, batch)
        assert np.isnan(jax.jit(lambda batch: classification_sums(logits, batch)["loss"])(batch))
