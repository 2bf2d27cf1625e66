"""The six experiments of the Long Range Arena: what they say is what was published."""

import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from flax import nnx

from ssm_jax import config
from ssm_jax.config import check as config_check
from ssm_jax.config.load import read_config
from ssm_jax.lra import variants
from ssm_jax.lra.catalog import entry_of
from ssm_jax.tasks.heads import build_classifier
from ssm_jax.training.optim import assign, groups_from
from ssm_jax.training.step import split

ROOT = Path(__file__).parents[1]
TASKS = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")
# Vocabularies: ListOps 18; Text 135 as S4's code counts them; Retrieval 98
INPUTS = {"listops": (18, 10), "text": (135, 2), "retrieval": (98, 2), "image": (None, 10)}


def by_task(*values):
    return dict(zip(TASKS, values, strict=True))


# Of the official code of arXiv:2410.02035; of S4's and S5's run scripts as computed from them: in
# units of the last digit that is given there.
PARAMETERS = {
    "s4d_ft": by_task(403_210, 1_226_754, 478_082, 4_353_034, 1_192_706, 497_666),
    "s4": by_task(815e3, 843e3, 1.10e6, 3.56e6, 1.29e6, 1.29e6),
    "s5": by_task(188e3, 1.32e6, 772e3, 5.13e6, 1.11e6, 694e3),
}


def experiment(task, arg=""):
    path = ROOT / f"configs/lra/{task}.py"
    spec = importlib.util.spec_from_file_location(f"lra_{task}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


def parameters(cfg):
    """Shapes of the parameters, from a data set of the official form."""
    vocab_size, n_classes = INPUTS.get(cfg.task, (None, 2))
    dataset = SimpleNamespace(
        vocab_size=vocab_size,
        d_input=None if vocab_size else 1,
        n_classes=n_classes,
        paired=cfg.task == "retrieval",
        padded_length=cfg.data.padded_length,
    )
    options = cfg.model.to_dict()
    return nnx.eval_shape(
        lambda: split(build_classifier(dataset, options, nnx.Rngs(params=jax.random.key(0))))[1]
    )


def count(shapes):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("variant", variants.VARIANTS)
@pytest.mark.parametrize("task", TASKS)
def test_a_variant_is_valid_named_and_of_the_published_size(task, variant):
    cfg = experiment(task, variant)
    config_check.check(cfg)
    entry_of(cfg.task, cfg.data.source)
    assert (cfg.name, cfg.task) == (f"lra/{task}:{variant}", task)
    assert cfg.notes == "", "a note marks a run as reduced"
    shapes = parameters(cfg)
    assign(shapes, groups_from(cfg.optim.groups.to_dict()))
    if variant == "s4d_ft":
        assert count(shapes) == PARAMETERS[variant][task]
    elif variant in ("s4d", *variants.ARMS):  # one beta per channel and block less
        betas = cfg.model.depth * cfg.model.d_model
        assert count(shapes) == PARAMETERS["s4d_ft"][task] - betas
    else:
        digits = 10 ** (math.floor(math.log10(PARAMETERS[variant][task])) - 2)
        assert abs(count(shapes) - PARAMETERS[variant][task]) < digits


@pytest.mark.parametrize("task", TASKS)
def test_the_matched_baseline_differs_in_alpha_and_beta_alone(task):
    tuned, baseline = (config.flatten(experiment(task, variant)) for variant in ("s4d_ft", "s4d"))
    changed = {key for key in tuned if tuned[key] != baseline[key]}
    assert changed == {"name", "model.alpha", "model.beta.learn"}
    assert (baseline["model.alpha"], baseline["model.beta.init"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("s4d_ac", {"model.dt_rule": "autocorrelation"}),
        ("s4d_re0", {"model.alpha_real": 0.0, "model.real_transform": "clip"}),
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_an_arm_of_the_autocorrelation_differs_from_s4d_in_its_options_alone(
    task, variant, options
):
    arm, baseline = (config.flatten(experiment(task, each)) for each in (variant, "s4d"))
    assert {k: v for k, v in arm.items() if baseline[k] != v} == options | {"name": arm["name"]}


@pytest.mark.parametrize("variant", variants.VARIANTS)
@pytest.mark.parametrize("task", TASKS)
def test_small_versions_of_a_variant_are_valid_and_say_what_they_are(task, variant):
    for size in ("smoke", "reduced"):
        cfg = experiment(task, f"{variant},{size}")
        config_check.check(cfg)
        entry_of(cfg.task, cfg.data.source)
        assert cfg.name == f"lra/{task}:{variant}:{size}" and cfg.notes
        assert cfg.model.layer == experiment(task, variant).model.layer


@pytest.mark.parametrize(
    "spec",
    ["lra/listops:s4d_ft,linoss", "lra/image:lru,linoss", "runoff:s5,lru", "uea:GunPoint,lru,s4d"],
)
def test_two_variants_are_refused_where_one_is_the_name_of_a_layer(spec):
    """The other was passed over."""
    with pytest.raises(ValueError, match="config argument 'variant' is given twice in"):
        read_config(spec)
    assert read_config("lra/listops:size=smoke,variant=lru").name == "lra/listops:lru:smoke"


# arXiv:2410.02035's own YAML files: batch, learning rates of A, dt and the rest, decay of the rest,
# schedule
OFFICIAL = {
    "listops": (3.0, 32, 0.004, 0.008, 0.008, 0.03, 150_000, 5_000, 2222),
    "text": (5.0, 32, 0.001, 0.01, 0.01, 0.05, 20_000, 2_000, 3333),
    "retrieval": (3.0, 64, 0.001, 0.004, 0.004, 0.03, 100_000, 5_000, 3333),
    "image": (3.0, 50, 0.001, 0.001, 0.01, 0.01, 180_000, 18_000, 2222),
    "pathfinder": (3.0, 50, 0.001, 0.001, 0.004, 0.03, 800_000, 150_000, 3333),
    "pathx": (5.0, 20, 0.001, 0.001, 0.001, 0.03, 1_250_000, 200_000, 3333),
}


@pytest.mark.parametrize("task", TASKS)
def test_the_tuned_arm_has_the_official_numbers(task):
    cfg = experiment(task)
    groups, schedule = cfg.optim.groups, cfg.schedule
    assert OFFICIAL[task] == (
        cfg.model.alpha, cfg.batch_size, groups.A.lr, groups.dt.lr, groups.rest.lr,
        groups.rest.weight_decay, schedule.total_steps, schedule.warmup_steps, cfg.seed,
    )  # fmt: skip
    assert groups.beta.lr == 0.01 and not schedule.clamp
    assert all(groups[name].weight_decay == 0 for name in ("A", "dt", "beta"))
    assert (groups.norm.lr, groups.norm.weight_decay) == (groups.rest.lr, groups.rest.weight_decay)
