"""The options: every rule can fail, every option but the cosmetic ones names the run."""

import math
import re

import pytest
from flax import nnx
from ml_collections import ConfigDict

from ssm_jax import config
from ssm_jax.config import check as config_check
from ssm_jax.config.load import load_config, shipped
from ssm_jax.layers import S4D
from ssm_jax.tasks import TASKS, find_task


def valid() -> ConfigDict:
    cfg = config.default()
    cfg.train.steps = 100
    return cfg


# A value out of range for each rule that looks at one option.
WRONG = {
    "data.source": "elsewhere",
    "data.denoise.height": 0,
    "data.denoise.width": 0,
    "data.denoise.amplitude": 0.0,
    "model.layer": "s6",
    "model.real_transform": "tanh",
    "model.activations": "float16",
    "model.precision": "float32",
    "model.s4d.input_norm": "gamma",
    "model.s5.C_init": "normal",
    "model.lru.r_min": 1.0,
    "model.lru.r_max": 0.0,
    "model.lru.max_phase": 7.0,
    "model.linoss.scheme": "rk4",
    "model.dlinoss.r_min": -0.5,
    "model.beta.unit": "hz",
    "model.dt_transform": "log",
    "model.dt_rule": "largest",
    "model.dt_kappa": 0.0,
    "model.dt_apply_to": "last",
    "model.spectrum_steps": -1,
    "model.discretization": "euler",
    "model.norm": "group",
    "model.pool": "max",
    "train.select_metric": "f1",
    "train.select_split": "test",
    "seed": -1,
    "batch_size": 0,
    "data.seed": -2,
    "data.order_seed": -2,
    "data.n_train": -1,
    "data.n_val": -1,
    "data.n_test": -1,
    "data.padded_length": -1,
    "data.arrays.decorrelate": -0.1,
    "data.copying.memorize": 0,
    "data.video.canvas": 0,
    "data.video.digit": 0,
    "data.video.colours": 4,
    "data.video.fast": 0.0,
    "data.video.slow": -1.0,
    "model.video.width": 0,
    "data.video.context": 0,
    "data.video.horizon": 0,
    "model.video.cell": "lstm",
    "model.video.window": 0,
    "model.video.groups": 0,
    "model.video.chunk": -1,
    "model.video.l1": 1.5,
    "model.video.loss_beta": 5.0,
    "data.copying.tokens": 2,
    "data.delay.lag": -1,
    "data.delay.band": 0.0,
    "data.arrays.split": "half",
    "data.runoff.weight": "flow",
    "data.arrays.missing": "zero",
    "data.arrays.standardize": "true",
    "data.arrays.val": 0.0,
    "data.arrays.test": 0.6,
    "data.arrays.context": 0,
    "data.arrays.horizon": 0,
    "data.arrays.stride": 0,
    "data.arrays.season": -1,
    "data.buckets": 0,
    "data.std": 0.0,
    "data.listops.longer_than": -1,
    "data.listops.max_depth": 11,
    "data.listops.max_args": 1,
    "data.text.vocab": "word",
    "data.text.min_freq": 0,
    "data.text.val_fraction": 0.6,
    "data.image.n_held_out": 0,
    "model.gate": "relu",
    "model.norm_momentum": 1.5,
    "train.accumulate": 0,
    "reference.epoch": -1.0,
    "reference.accuracy": 1.5,
    "reference.margin": -0.1,
    "model.depth": 0,
    "model.d_model": 0,
    "model.d_state": 0,
    "model.n_ssm": 0,
    "model.init_seed": -1,
    "model.alpha": 0.0,
    "model.alpha_real": -1.0,
    "model.s5.n_blocks": 0,
    "model.s4.b_clip": -1.0,
    "model.beta.init": -4.5,
    "model.dt_min": 0.0,
    "model.dt_max": 0.0,
    "model.dropout": 1.0,
    "train.epochs": -1.0,
    "train.steps": -1,
    "train.eval_every": -1,
    "train.eval_batch_size": -1,
    "optim.lr": -1.0,
    "optim.b1": 1.0,
    "optim.b2": 1.0,
    "optim.eps": 0.0,
    "optim.clip_norm": -1.0,
    "optim.groups.A.lr": -1e-3,
    "optim.groups.rest.weight_decay": -0.1,
    "optim.groups.dt.schedule": "linear",
    "schedule.shape": "linear",
    "train.patience": -1,
    "train.ema": 1.0,
    "schedule.warmup_steps": -1,
    "schedule.total_steps": -1,
    "checkpoint.every": 0,
    "checkpoint.keep": 0,
    "log.every": 0,
    "figures_format": "gif",
}


def changed(key: str, value) -> ConfigDict:
    cfg = valid()
    cfg.update_from_flattened_dict({key: value})
    return cfg


def test_the_defaults_need_only_a_length_of_training():
    config_check.check(valid())
    with pytest.raises(ValueError, match=r"give train\.epochs or train\.steps"):
        config_check.check(config.default())


@pytest.mark.parametrize("key", WRONG)
def test_a_value_out_of_range_is_named(key):
    with pytest.raises(ValueError) as refused:
        config_check.check(changed(key, WRONG[key]))
    assert any(
        line.startswith(f"{key}={WRONG[key]!r} ") for line in str(refused.value).splitlines()
    )


def test_a_value_that_only_float32_puts_out_of_range_says_so():
    """1e-300 is greater than 0, and 0 in float32."""
    for key, value, said in (
        ("optim.eps", 1e-300, "greater than 0 in float32"),
        ("train.ema", 1 - 1e-10, "at least 0 and below 1 in float32"),
        ("optim.eps", 0.0, "greater than 0"),
    ):
        with pytest.raises(ValueError) as refused:
            config_check.check(changed(key, value))
        assert str(refused.value).endswith(f" is out of range; it must be {said}.")
    with pytest.raises(ValueError, match="alpha must be positive and finite in float32, got 1e-39"):
        S4D(4, alpha=1e-39, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"d_state must be an integer, at least 1, got 2\.5\.$"):
        S4D(4, d_state=2.5, rngs=nnx.Rngs(0))


def test_a_range_as_it_is_printed_says_whether_its_ends_are_in_it():
    every = {key: row for task in TASKS for key, row in config.rows(config.default(task)).items()}
    printed = {key: (row, re.search(r"(\S+)\.\.(\d\S*)( without (.*))?$", row.within.short))
               for key, row in every.items() if row.within}  # fmt: skip
    ends = [(key, row.within, *m.group(1, 2, 4)) for key, (row, m) in printed.items() if m]
    assert len(ends) > 20
    for key, within, low, high, out in ends:
        for end in {low, high} - {"2^32-1", f"{math.pi:.10g}"}:
            number = int(end) if within.whole else float(end)
            assert within.holds(number) == (end not in (out or "").split(" and ")), key


@pytest.mark.parametrize("key", ["seed", "data.seed", "model.init_seed"])
def test_a_seed_that_jax_would_cut_is_refused(key):
    """jax.random.key(2**32) is jax.random.key(0)."""
    ring = {"model.init": "ring", "model.discretization": "none"}
    minus = -1, key == "data.seed"  # is then the seed of the run
    for seed, fits in ((0, True), (2**32 - 1, True), (2**32, False), (2**62, False), minus):
        cfg = valid()
        cfg.update_from_flattened_dict({**ring, key: seed})
        if fits:
            config_check.check(cfg)
        else:
            with pytest.raises(ValueError, match=rf"^{key}={seed} is out of range; .*below 2\^32"):
                config_check.check(cfg)


def test_every_rule_can_fail():
    """Each option with a range or choices has a wrong value above; groups have the rules of A."""
    rows = config.rows()
    ruled = {key for key, row in rows.items() if row.within or row.choices}
    assert not config_check.range_faults(valid())
    groups = {key for key in ruled if key.startswith("optim.groups.")}
    assert ruled - groups <= set(WRONG)
    for key in ruled:
        wrong = WRONG.get(key, -1.0 if rows[key].within else "?")
        (fault,) = config_check.range_faults(changed(key, wrong))
        assert fault.startswith(f"{key}={wrong!r} ")


S4 = {"model.layer": "s4", "model.init": "legs", "model.discretization": "bilinear"}
RING = {"model.init": "ring", "model.discretization": "none"}
FOUT = {"model.init": "fout", "model.real_transform": "clip"}


@pytest.mark.parametrize(
    "values",
    [
        S4,
        {**S4, "model.n_ssm": 2, "model.s4.b_clip": 0.0},
        {**S4, "model.init": "fout", "model.real_transform": "clip"},
        {**RING, "model.init_seed": 3, "model.s4d.input_norm": "lru"},
        {"model.layer": "s5", "model.init": "legs", "model.s5.n_blocks": 8},
        {"model.layer": "s5", **RING, "model.s5.conj_sym": False},
        {"model.layer": "linoss", "model.linoss.scheme": "imex", "model.alpha": 10.0},
        {"model.layer": "dlinoss", "model.alpha_real": 0.0},
        {"model.layer": "lru", "model.lru.max_phase": 0.3, "model.alpha": 10.0},
        {"model.alpha_real": 0.0, "model.real_transform": "relu"},
    ],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_options_that_go_together_pass(values):
    cfg = valid()
    cfg.update_from_flattened_dict(values)
    config_check.check(cfg)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model.n_ssm": 3}, "model.n_ssm=3 must divide model.d_model=128"),
        ({"model.dt_min": 0.2}, "model.dt_min=0.2 exceeds model.dt_max=0.1"),
        ({"model.init": "legs"}, "model.init='legs' is not known to model.layer='s4d'"),
        ({"model.layer": "dlinoss", "model.alpha": 2.0}, "model.alpha=2.0 must be at most 1"),
        ({"model.layer": "lru", "model.lru.r_max": 0.5, "model.lru.r_min": 0.6}, "r_min <= r_max"),
        ({"model.layer": "lru", "model.alpha": 2.0}, "model.layer='lru' needs alpha max_phase"),
        (
            {"model.layer": "linoss", "model.dt_max": 0.2},
            "model.dt_max=0.2 is not read with model.layer='linoss'; leave it at 0.1.",
        ),
        (
            {"model.layer": "linoss", "model.dt_rule": "fixed"},
            "model.dt_rule='fixed' is not read with model.layer='linoss'",
        ),
        (
            {"model.layer": "s4"},
            "'s4d_lin' is not known to model.layer='s4'; choose one of legs, fout",
        ),
        ({"model.layer": "s4", "model.init": "legs"}, "model.layer='s4' needs"),
        ({"model.init": "ring"}, "'ring' gives eigenvalues per sample, which"),
        ({"model.discretization": "none"}, "cannot take; use zoh or bilinear"),
        ({**RING, "model.alpha": 3.0}, "model.alpha=3.0 must be at most 1"),
        ({"model.alpha_real": 0.0}, "model.real_transform='exp' cannot represent Re A = 0"),
        ({**S4, "model.init": "fout"}, "cannot represent Re A = 0; use relu, clip or none"),
        ({"model.s4d.input_norm": "lru"}, "input_norm=lru needs model.discretization=none"),
        ({"model.layer": "s5", "model.s5.n_blocks": 3}, "must be a multiple of 3"),
        (
            {"model.layer": "s5", "model.s5.conj_sym": False, "model.d_state": 9},
            "must be a multiple of 2, that is of model.s5.n_blocks times 2",
        ),
        (
            {"model.s5.clip_eigs": True},
            "model.s5.clip_eigs=True is not read with model.layer='s4d'",
        ),
        ({**S4, "model.s4d.input_norm": "lru"}, "not read"),
        ({"model.layer": "s5", "model.n_ssm": 2}, "model.n_ssm=2 is not read with"),
        ({"model.init_seed": 3}, "model.init_seed=3 is not read with model.init='s4d_lin'"),
        ({**RING, "model.dt_min": 0.01}, "not read with model.discretization='none'; leave it at"),
        (
            {"model.norm": "layer", "model.norm_momentum": 0.2},
            "model.norm_momentum=0.2 is not read with model.norm='layer'; leave it at 0.1.",
        ),
        ({"model.norm": "layer", "model.norm_padding": False}, "is not read with model.norm="),
        ({"model.prenorm": False, "model.final_norm": False}, "not read with model.prenorm=False"),
        ({**S4, **FOUT, "model.s4.b_clip": 1.0}, "b_clip=1.0 is not read with model.init='fout'"),
        ({**S4, **FOUT, "model.alpha_real": 2.0}, "alpha_real=2.0 is not read with model.init="),
        (
            {"schedule.shape": "constant", "schedule.total_steps": 50},
            "schedule.total_steps=50 is not read with schedule.shape='constant'; leave it at 0.",
        ),
        ({"schedule.shape": "constant", "schedule.clamp": False}, "clamp=False is not read with"),
        ({"schedule.clamp": False}, "clamp=False is not read with schedule.total_steps=0; leave"),
        ({"model.beta.filter": False, "model.beta.init": 0.5}, "leave one of the two as it is"),
        ({"train.epochs": 2.0}, "got epochs=2.0, steps=100"),
        (
            {"data.listops.longer_than": 1999},
            "no expression is longer than 1999 and shorter than 2000",
        ),
        ({"data.padded_length": 1999}, "use at least 2000"),
        ({"train.accumulate": 5}, "batch_size=32 does not split into train.accumulate=5 equal"),
        ({"schedule.warmup_steps": 9, "schedule.total_steps": 9}, "must be below"),
        (
            {"optim.groups.A.match": "("},
            r"optim.groups.A.match='(' is no regular expression: missing )",
        ),
        ({"optim.freeze": "("}, "optim.freeze='(' is no regular expression: missing )"),
    ],
)
def test_options_that_contradict_each_other_are_refused(values, expected):
    cfg = valid()
    cfg.update_from_flattened_dict(values)
    with pytest.raises(ValueError) as refused:
        config_check.check(cfg)
    assert expected in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_all_faults_are_told_at_once():
    cfg = valid()
    cfg.update_from_flattened_dict({"seed": -1, "model.pool": "max", "model.n_ssm": 3})
    with pytest.raises(ValueError) as refused:
        config_check.check(cfg)
    assert len(str(refused.value).splitlines()) == 3


def rated(**groups) -> ConfigDict:
    cfg = valid()
    config.rates(cfg, **{name: (lr, 0.0) for name, lr in groups.items()})
    return cfg


def test_one_learning_rate_scales_those_of_all_groups():
    cfg = rated(A=0.001, dt=0.0, beta=0.01, rest=0.004)
    config.override(cfg, {"optim.lr": 0.002, "optim.groups.beta.lr": 0.03})
    rates = {name: group.lr for name, group in cfg.optim.groups.items()}
    assert rates == {
        "A": 0.0005, "A_im": 0.0005, "B": 0.002, "norm": 0.002, "dt": 0.0, "beta": 0.03,
        "rest": 0.002,
    }  # fmt: skip
    config.scale_rates(cfg)
    assert rates == {name: group.lr for name, group in cfg.optim.groups.items()}, "it is applied"
    config.override(cfg, {"model.alpha": 2.0, "optim.groups.rest.lr": 1.0})
    assert (cfg.optim.groups.A.lr, cfg.optim.groups.rest.lr) == (0.0005, 1.0)


@pytest.mark.parametrize(
    ("rest", "values", "expected"),
    [
        (0.0, {"optim.lr": 1.0}, "by that of rest, which is 0"),
        (0.1, {"optim.lr": 1.0, "optim.groups.rest.lr": 0.5}, "are one rate; give one of them"),
        (0.1, {"model.beta.filter": False, "model.beta.learn": True}, "leave one of the two out"),
        (0.1, {"model.beta.filter": False, "model.beta.unit": "rad"}, "leave one of the two out"),
    ],
)
def test_overrides_that_contradict_each_other_are_refused(rest, values, expected):
    with pytest.raises(ValueError, match=expected) as refused:
        config.override(rated(rest=rest), values)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("given", [(), ("model.beta.learn",)])
def test_a_learned_beta_that_a_config_has_by_default_is_none_without_a_filter(given):
    cfg = valid()
    if given:
        with pytest.raises(ValueError, match="needs a filter"):
            config.override(cfg, {"model.beta.filter": False}, given)
        return
    config.override(cfg, {"model.beta.filter": False})
    config_check.check(cfg)
    assert cfg.model.beta.learn


def test_a_unit_of_beta_that_a_config_has_waits_for_a_filter():
    """The sweep of `runoff:reduced` has cells with a filter and cells without."""
    cfg = load_config("runoff:reduced")
    assert (cfg.model.beta.filter, cfg.model.beta.unit) == (False, "rad")
    with pytest.raises(ValueError, match=r"^model\.beta\.unit='lra' is of a filter"):
        load_config("runoff:reduced", {"model.beta.unit": "lra"})
    with_filter = {"model.beta.filter": True, "model.beta.unit": "hz_1e4"}
    assert load_config("runoff:reduced", with_filter).model.beta.unit == "hz_1e4"
    cells = {"model.beta.unit": "rad", "model.video.loss_beta": 0.5}
    assert not load_config("video", cells).model.beta.filter, "the loss has the unit"


@pytest.mark.parametrize(
    ("name", "values", "given_up"),
    [
        ("lra/image:s5", {"model.norm": "layer"}, {"model.norm_momentum": 0.1}),
        (
            "lra/listops",
            {"schedule.shape": "constant"},
            {"schedule.total_steps": 0, "schedule.clamp": True},
        ),
        ("lra/listops", {"schedule.total_steps": 0}, {"schedule.clamp": True}),
        ("lra/listops:reduced", {"data.source": "official"}, {"data.listops.longer_than": 500}),
    ],
)
def test_what_a_config_has_gives_way_to_a_value_that_leaves_it_unread(name, values, given_up):
    """Else nobody could choose that value for a config without knowing all that it sets."""
    before = config.flatten(load_config(name))
    cfg = load_config(name, values)
    now = config.flatten(cfg)
    for key, value in given_up.items():
        assert now[key] == value != before[key]
        with pytest.raises(ValueError, match=f"^{key}={before[key]!r} is not read with "):
            load_config(name, {**values, key: before[key]})
    line = config.given_up(before, cfg, values)
    assert line.startswith("with what is given the config has ")
    assert all(f"{key}={value!r} for {before[key]!r}" in line for key, value in given_up.items())


def test_a_recorded_config_may_have_what_nothing_reads_and_no_other_fault():
    cfg = changed("model.norm", "layer")
    cfg.model.norm_momentum = 0.2
    config_check.check(cfg, recorded=True)
    cfg.model.n_ssm = 3
    with pytest.raises(ValueError, match=r"n_ssm=3 must divide"):
        config_check.check(cfg, recorded=True)


LAYER_CONFIGS = [name for name in shipped() if name not in ("denoise", "linoss", "video", "waves")]


@pytest.mark.parametrize("layer", ["s4d", "s4", "s5", "lru", "linoss", "dlinoss"])
def test_every_config_with_layers_takes_any_of_them(layer):
    for name in LAYER_CONFIGS:
        before = load_config(name)
        cfg = load_config(name, {"model.layer": layer, "model.alpha": 1.0, "model.d_state": 24})
        assert (cfg.model.layer, cfg.model.d_state) == (layer, 24)
        if before.model.layer == layer:
            assert cfg.model.dt_min == before.model.dt_min, "the layer of the config is as it was"


def test_another_layer_gives_up_what_it_does_not_read_but_not_what_is_given():
    cfg = load_config("lra/listops", {"model.layer": "linoss"})
    assert cfg.model.alpha == 3.0 and cfg.model.n_ssm == 1 and cfg.model.beta.learn
    with pytest.raises(ValueError, match=r"n_ssm=2 is not read with model\.layer='linoss'"):
        load_config("lra/listops", {"model.layer": "linoss", "model.n_ssm": 2})
    cfg = valid()
    cfg.model.real_transform, cfg.model.dt_min = "clip", 0.01
    config.override(cfg, {"model.layer": "s4"}, ["model.real_transform"])
    assert (cfg.model.init, cfg.model.discretization) == ("legs", "bilinear")
    assert (cfg.model.real_transform, cfg.model.dt_min) == ("clip", 0.01)
    config.override(cfg, {"model.layer": "s6"})
    assert cfg.model.layer == "s6", "`check` says that there is none"


@pytest.mark.parametrize("layer", ["s4", "s5"])
def test_another_layer_keeps_a_transform_that_was_chosen_and_that_it_reads(layer):
    """`exp` in its place cannot represent Re A = 0, which the config has."""
    model = load_config("arrays:s4d_re0", {"model.layer": layer}).model
    assert (model.real_transform, model.alpha_real, model.init) == ("clip", 0.0, "legs")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"train.steps": 7}, (7, 0.0)),
        ({"train.epochs": 2.0}, (0, 2.0)),
        ({"train.epochs": 2.0, "train.steps": 0}, (0, 2.0)),
        ({"train.epochs": 0.0, "train.steps": 7}, (7, 0.0)),
        ({"train.epochs": 2.0, "train.steps": 7}, (7, 2.0)),
        ({"seed": 1}, (0, 50.0)),
    ],
)
def test_steps_take_the_place_of_epochs_and_the_reverse(values, expected):
    cfg = config.default()
    cfg.train.epochs = 50.0
    config.override(cfg, values)
    assert (cfg.train.steps, cfg.train.epochs) == expected


def test_flatten_has_every_leaf_by_its_path():
    flat = config.flatten(ConfigDict({"b": {"d": 1, "c": {"x": 2}}, "a": "t"}))
    assert flat == {"a": "t", "b.c.x": 2, "b.d": 1} and list(flat) == sorted(flat)


def other(value):
    """A value of the same type that differs."""
    if isinstance(value, bool):
        return not value
    return value + "x" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("key", config.flatten(config.default()))
def test_the_digest_names_all_but_the_cosmetic_options(key):
    value = config.flatten(valid())[key]
    same = config.digest(changed(key, other(value))) == config.digest(valid())
    assert same == (key.partition(".")[0] in config.COSMETIC)


def test_the_digest_is_twelve_hex_digits_and_repeats():
    digest = config.digest(valid())
    assert len(digest) == 12 and int(digest, 16) >= 0
    assert digest == config.digest(ConfigDict(valid().to_dict()))


def test_a_smoke_run_is_a_valid_one_of_twenty_steps():
    cfg = config.default()
    cfg.train.epochs = 40.0
    config_check.check(config.smoke(cfg))
    assert cfg.train.steps == 20 and cfg.train.epochs == 0 and cfg.model.depth == 2
    cfg = config.default("text")
    cfg.data.source, cfg.data.text.val_fraction, cfg.schedule.shape = "official", 0.1, "constant"
    config_check.check(config.smoke(cfg))
    assert cfg.data.padded_length == config.default().data.padded_length


def test_an_argument_sets_options_by_name_or_by_value():
    choices = {"arm": ("s4d", "s5"), "size": ("full", "smoke")}
    assert config.parse_arg("", **choices) == {"arm": "s4d", "size": "full"}
    assert config.parse_arg("smoke", **choices) == {"arm": "s4d", "size": "smoke"}
    assert config.parse_arg("arm=s5,smoke", **choices) == {"arm": "s5", "size": "smoke"}


@pytest.mark.parametrize("arg", ["s6", "arm=smoke", "size=", "arms=s5", "arm=s5=s4d", "smoke=size"])
def test_an_argument_that_is_no_option_is_refused(arg):
    with pytest.raises(ValueError, match=r"choose from arm: s4d, s5; size: full, smoke\."):
        config.parse_arg(arg, arm=("s4d", "s5"), size=("full", "smoke"))


@pytest.mark.parametrize("arg", ["s5,s5", "s4d,arm=s5"])
def test_an_argument_given_twice_is_refused(arg):
    with pytest.raises(ValueError, match="given twice"):
        config.parse_arg(arg, arm=("s4d", "s5"))


def test_a_value_of_two_options_needs_its_name():
    choices = {"first": ("yes", "no"), "second": ("yes", "no")}
    with pytest.raises(ValueError, match="unknown config argument 'no'"):
        config.parse_arg("no", **choices)
    assert config.parse_arg("second=no", **choices)["second"] == "no"


def test_what_may_choose_a_checkpoint_is_what_the_task_counts():
    for name in TASKS:
        cfg = changed("train.select_metric", "bleu")
        cfg.task = name
        with pytest.raises(ValueError) as refused:
            config_check.check(cfg)
        known = {"denoise": "psnr, loss", "waves": "error, loss"}
        known["classification"] = "accuracy, balanced_accuracy, f1, loss"
        known |= dict.fromkeys(
            ("regression", "per_step", "forecasting"), "mse, mae, rmse, r2, nse, kge, loss"
        )
        known |= {"delay": "mse, rmse, r2, loss", "video": "forced_mse, loss"}
        known["runoff"] = "mse, nse, kge, missed_peaks, loss"
        metrics = known.get(name, "accuracy, loss")
        assert f"'bleu' is not known to task={name!r}; choose one of {metrics}." in str(
            refused.value
        )
        assert ", ".join(find_task(name).metrics) == metrics


@pytest.mark.parametrize(
    ("task", "key", "value", "owner"),
    [
        ("text", "data.listops.max_depth", 5, "task listops"),
        ("listops", "data.pathfinder.upstream", False, "tasks pathfinder and pathx"),
        ("listops", "model.waves.legacy_unsymmetric", True, "task waves"),
        # A series of one's own has its scale by data.arrays.standardize, whatever these say.
        ("listops", "data.mean", 0.25, "tasks image and pathfinder and pathx"),
        ("listops", "data.std", 0.25, "tasks image and pathfinder and pathx"),
        ("classification", "data.mean", 0.25, "tasks image and pathfinder and pathx"),
        ("classification", "data.std", 0.25, "tasks image and pathfinder and pathx"),
        ("image", "data.mean", 0.25, ""),
        ("image", "data.std", 0.25, ""),
    ],
)
def test_an_option_of_another_task_is_refused(task, key, value, owner):
    cfg = changed(key, value)
    cfg.task, cfg.data.source = task, find_task(task).sources[0]
    if not owner:
        return config_check.check(cfg)
    with pytest.raises(ValueError) as refused:
        config_check.check(cfg)
    assert str(refused.value) == (
        f"{key} has no effect in task {task!r}; it is an option of the {owner}."
    )


def test_a_metric_of_another_task_is_refused():
    with pytest.raises(ValueError, match="'psnr' is not known to task='listops'"):
        config_check.check(changed("train.select_metric", "psnr"))


def test_an_option_that_a_tasks_model_does_not_read_is_refused():
    cfg = valid()
    cfg.task, cfg.train.select_metric = "denoise", "psnr"
    cfg.data.source = "photographs"
    config_check.check(cfg)
    cfg.model.depth = 2
    with pytest.raises(ValueError, match="depth=2 is not read with task='denoise'"):
        config_check.check(cfg)
