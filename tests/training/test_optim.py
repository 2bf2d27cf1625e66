"""Schedules against Hugging Face's formula, groups, and AdamW against NumPy."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from running import run

from ssm_jax import config
from ssm_jax.models import SequenceClassifier
from ssm_jax.training.optim import (
    Group,
    assign,
    constant_with_warmup,
    cosine_with_warmup,
    groups_from,
    learning_rates,
    make_optimizer,
)
from ssm_jax.training.step import init_state, make_gradient, make_train_step, split


def hugging_face(step, warmup, total):
    """get_cosine_schedule_with_warmup with num_cycles = 0.5."""
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * progress)))


# the published ListOps run goes 3.28 half periods far, that of Text 8.6
@pytest.mark.parametrize(
    ("warmup", "total", "last"), [(5_000, 150_000, 480_000), (2_000, 20_000, 156_000), (0, 7, 30)]
)
def test_schedule_is_hugging_faces_and_rises_again_past_its_end(warmup, total, last):
    factor = cosine_with_warmup(warmup, total, clamp=False)
    steps = np.unique(np.linspace(0, last, 2000).astype(np.int32))
    exact = [hugging_face(int(s), warmup, total) for s in steps]
    np.testing.assert_allclose(run(factor, steps), exact, rtol=0, atol=2e-6)
    assert factor(2 * total - warmup) > 0.999


def test_clamped_schedule_is_the_same_up_to_its_end_and_zero_after():
    free, clamped = (cosine_with_warmup(10, 100, clamp=c) for c in (False, True))
    steps = np.arange(101, dtype=np.int32)
    np.testing.assert_allclose(run(clamped, steps), run(free, steps), rtol=0, atol=2e-7)
    np.testing.assert_array_equal(run(clamped, np.arange(100, 400, dtype=np.int32)), 0)


def test_constant_schedule_rises_and_stays():
    factor = constant_with_warmup(4)
    assert [float(factor(step)) for step in (0, 1, 3, 4, 5, 10**6)] == [0, 0.25, 0.75, 1, 1, 1]
    assert [float(constant_with_warmup(0)(step, np)) for step in (0, 1, 10)] == [1, 1, 1]


def test_first_factor_is_0_only_with_a_warmup():
    assert cosine_with_warmup(10, 100, clamp=True)(0) == 0
    assert cosine_with_warmup(10, 100, clamp=True)(10) == 1
    assert cosine_with_warmup(0, 100, clamp=True)(0) == 1


@pytest.mark.parametrize(("warmup", "total"), [(10, 10), (20, 10), (-1, 10), (0, 0)])
def test_warmup_that_outlasts_the_schedule_is_refused(warmup, total):
    with pytest.raises(ValueError, match=f"warmup_steps={warmup}, total_steps={total}"):
        cosine_with_warmup(warmup, total, clamp=True)


def params():
    rng = np.random.default_rng(0)
    shapes = {"A": (2, 3), "dt": (4,), "kernel": (3, 2), "bias": (2,)}
    return {"layer": {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}}


A = Group("A", r"/A$", lr=0.01, weight_decay=0.0, schedule="cosine")
DT = Group("dt", r"/dt$", lr=0.02, weight_decay=0.1, schedule="constant")
REST = Group("rest", "", lr=0.03, weight_decay=0.05, schedule="cosine")


def test_groups_partition_the_parameters():
    labels, rows = assign(params(), (A, DT, REST))
    assert labels == {"layer": {"A": "A", "dt": "dt", "kernel": "rest", "bias": "rest"}}
    assert [(row.group.name, row.paths, row.size) for row in rows] == [
        ("A", ("layer/A",), 6),
        ("dt", ("layer/dt",), 4),
        ("rest", ("layer/bias", "layer/kernel"), 8),
    ]


def test_groups_of_the_default_config_name_the_parameters_of_the_official_model():
    """A, dt, beta and norms get their own; C and D stay with the rest (OC-17)."""
    groups = groups_from(config.default().optim.groups.to_dict())
    _, shapes, _ = nnx.eval_shape(
        lambda: split(SequenceClassifier(n_classes=10, vocab_size=18, rngs=nnx.Rngs(params=0)))
    )
    labels, rows = assign(shapes, groups)
    members = {row.group.name: {path.split("/")[-1] for path in row.paths} for row in rows}
    assert members == {
        "A": {"A_re_raw", "A_im"},
        "A_im": set(),  # for an experiment that divides A
        "B": set(),  # B = 1
        "dt": {"dt_raw"},
        "beta": {"beta"},
        "norm": {"scale", "bias"},
        "rest": {"embedding", "kernel", "bias", "C_ri", "D"},
    }
    assert sum(row.size for row in rows) == 403_210
    assert labels["blocks"][3]["ssm"]["A_im"] == "A"


def test_optional_group_may_match_nothing():
    beta = Group("beta", r"/beta$", lr=0.1, weight_decay=0.0, schedule="cosine", optional=True)
    _, rows = assign(params(), (A, DT, beta, REST))
    assert (rows[2].paths, rows[2].size) == ((), 0)
    tx, _ = make_optimizer(params(), (A, DT, beta, REST), jnp.ones_like, **ADAM, clip_norm=0.0)
    tx.init(params())


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((A, DT), "parameter layer/kernel matches no group"),
        (
            (A, Group("all", "layer", 0.1, 0.0, "cosine"), REST),
            "parameter layer/A is in the groups A, all",
        ),
        (
            (A, Group("B", r"/B$", 0.1, 0.0, "cosine"), REST),
            r"optim.groups.B matches no parameter \(match='/B\$'\)",
        ),
        ((A, REST, Group("more", "", 0.1, 0.0, "cosine")), "layer/dt is in the groups rest, more"),
    ],
    ids=["unmatched", "doubly", "empty", "two_rests"],
)
def test_groups_that_do_not_partition_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        assign(params(), groups)


def test_every_fault_of_the_groups_is_named_at_once():
    with pytest.raises(ValueError) as caught:
        assign(params(), (A, Group("B", r"/B$", 0.1, 0.0, "cosine")))
    assert len(str(caught.value).splitlines()) == 4


ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-6}


def adamw_np(p, gradients, group, factors):
    """Loshchilov and Hutter's AdamW; the decay is scaled by the learning rate and its factor."""
    p = p.astype(float)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, (g, factor) in enumerate(zip(gradients, factors, strict=True), start=1):
        m = ADAM["b1"] * m + (1 - ADAM["b1"]) * g
        v = ADAM["b2"] * v + (1 - ADAM["b2"]) * g**2
        m_hat, v_hat = m / (1 - ADAM["b1"] ** t), v / (1 - ADAM["b2"] ** t)
        lr = group.lr * (1.0 if group.schedule == "constant" else factor)
        p = p - lr * (m_hat / (np.sqrt(v_hat) + ADAM["eps"]) + group.weight_decay * p)
    return p


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_each_group_gets_its_own_adamw(clip_norm):
    """Five updates: own learning rate, decay and schedule; one clipping over all groups."""
    rng = np.random.default_rng(1)
    start = params()
    gradients = [
        jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), start) for _ in range(5)
    ]
    tx, _ = make_optimizer(
        start, (A, DT, REST), cosine_with_warmup(2, 6, clamp=True), **ADAM, clip_norm=clip_norm
    )

    def update(p, state, g):
        updates, state = tx.update(g, state, p)
        return optax.apply_updates(p, updates), state

    p, state = start, run(tx.init, start)
    for g in gradients:
        p, state = run(update, p, state, g)

    norms = [np.sqrt(sum(np.sum(g**2.0) for g in jax.tree.leaves(tree))) for tree in gradients]
    assert min(norms) > 1, "else clipping does nothing"
    shrink = [1 / norm if clip_norm else 1.0 for norm in norms]
    factors = [hugging_face(t, 2, 6) for t in range(5)]
    for name, group in (("A", A), ("dt", DT), ("kernel", REST), ("bias", REST)):
        clipped = [
            s * g["layer"][name].astype(float) for s, g in zip(shrink, gradients, strict=True)
        ]
        exact = adamw_np(start["layer"][name], clipped, group, factors)
        np.testing.assert_allclose(p["layer"][name], exact, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("clip_norm", [0.0, 1e-3])
def test_what_is_frozen_keeps_its_bits_and_has_no_moments(clip_norm):
    start = params()
    start["layer"]["A"][0] = [-0.0, 0.0, 1e-40]
    frozen = replace(A, freeze=True)
    schedule = cosine_with_warmup(0, 6, clamp=True)
    ways = {**ADAM, "clip_norm": clip_norm}
    tx, rows = make_optimizer(start, (frozen, DT, REST), schedule, freeze="/bias$", **ways)
    assert [(row.group.name, row.size) for row in rows] == [
        ("A", 0), ("dt", 4), ("rest", 6), ("frozen", 8),
    ]  # fmt: skip
    assert learning_rates(rows, schedule, 1).keys() == {"lr/dt", "lr/rest"}
    state = run(tx.init, start)
    sizes = [leaf.size for leaf in jax.tree.leaves(state)]
    assert sum(sizes) == 2 * 10 + sizes.count(1), "moments of dt and kernel alone, and counts"
    grads = jax.tree.map(np.ones_like, start)
    frozen = {path for row in rows if row.group.freeze for path in row.paths}
    step = make_train_step(lambda *_: ((jnp.float32(1), ({}, {})), grads), tx, frozen=frozen)
    after, _ = run(step, init_state(start, {}, tx), jax.random.key(0), {})
    for name, array in after.params["layer"].items():
        same = np.asarray(array).tobytes() == start["layer"][name].tobytes()
        assert same == (name in ("A", "bias")), name


def test_a_frozen_parameter_has_no_part_in_the_gradient():
    """Its gradient is 0, so that clipping and grad_norm are of what is trained."""
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    graphdef, weights, stats = split(model)
    batch = {"x": np.ones((4, 3), np.float32)}

    def sums(model, batch, key):
        return {"loss": jnp.sum(model(batch["x"]) ** 2), "count": jnp.float32(4)}

    tx = optax.sgd(0.1)
    state = init_state(weights, stats, tx)
    key = jax.random.key(0)
    _, whole = run(make_gradient(graphdef, sums), state, key, batch)
    _, part = run(make_gradient(graphdef, sums, frozen={"kernel"}), state, key, batch)
    assert np.any(whole["kernel"] != 0) and not np.any(part["kernel"])
    np.testing.assert_array_equal(part["bias"], whole["bias"])


def test_the_real_parts_alone_can_be_frozen():
    """The group A has the frequencies too, which go on learning."""
    groups = groups_from(config.default().optim.groups.to_dict())
    _, shapes, _ = nnx.eval_shape(
        lambda: split(SequenceClassifier(n_classes=10, vocab_size=18, rngs=nnx.Rngs(params=0)))
    )
    ways = {**ADAM, "clip_norm": 0.0}
    _, rows = make_optimizer(shapes, groups, jnp.ones_like, freeze="/A_re_raw$", **ways)
    members = {row.group.name: {path.split("/")[-1] for path in row.paths} for row in rows}
    assert members["frozen"] == {"A_re_raw"} and members["A"] == {"A_im"}


@pytest.mark.parametrize(
    ("freeze", "message"),
    [("(", "no regular expression"), ("nothing", "matches no parameter"), ("", "every parameter")],
)
def test_freezing_that_cannot_be_is_refused(freeze, message):
    groups = (replace(A, freeze=True), DT, REST)
    if not freeze:
        groups = tuple(replace(group, freeze=True) for group in groups)
    with pytest.raises(ValueError, match=message):
        make_optimizer(params(), groups, jnp.ones_like, freeze=freeze, **ADAM, clip_norm=0.0)


def test_first_update_after_a_warmup_starts_moves_only_constant_groups():
    start = params()
    tx, _ = make_optimizer(
        start, (A, DT, REST), cosine_with_warmup(2, 6, clamp=True), **ADAM, clip_norm=0.0
    )
    updates, _ = run(tx.update, jax.tree.map(np.ones_like, start), run(tx.init, start), start)
    moved = {name: bool(np.any(u != 0)) for name, u in updates["layer"].items()}
    assert moved == {"A": False, "dt": True, "kernel": False, "bias": False}


def test_rates_that_are_logged_are_those_of_each_group_that_has_parameters():
    beta = Group("beta", r"/beta$", lr=0.1, weight_decay=0.0, schedule="cosine", optional=True)
    _, rows = assign(params(), (A, DT, beta, REST))
    for count in range(9):
        factor = hugging_face(count, 2, 6) if count < 6 else 0.0
        found = learning_rates(rows, cosine_with_warmup(2, 6, clamp=True), count)
        assert found.keys() == {"lr/A", "lr/dt", "lr/rest"}
        assert found["lr/dt"] == DT.lr and DT.schedule == "constant"
        for group in (A, REST):
            assert found[f"lr/{group.name}"] == pytest.approx(group.lr * factor, abs=1e-7)


def test_paths_join_keys_and_indices_by_slashes():
    tree = {"blocks": {0: {"ssm": {"C_ri": np.ones(1)}}}}
    _, [row] = assign(tree, (REST,))
    assert row.paths == ("blocks/0/ssm/C_ri",)
