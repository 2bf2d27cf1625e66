"""The state of a run; its optimizer, AdamW by groups of parameters; one update, one evaluation."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from ssm_jax.tasks import Batch, Sums, mean_metrics
from ssm_jax.training.checkpoint.manifest import flatten

Params = Any  # nested dicts of arrays
Schedule = Callable[..., Any]  # (step, xp=jax.numpy) -> factor on a learning rate
Metrics = dict[str, Array]


@dataclass(frozen=True)
class Group:
    """The parameters whose path matches `match`, or with "" those that no other group matches."""

    name: str
    match: str
    lr: float  # peak learning rate
    weight_decay: float  # decoupled: p <- p - lr * factor * weight_decay * p
    schedule: str  # "cosine" or "constant"
    optional: bool = False  # may match nothing
    freeze: bool = False  # not trained


# What is not trained. Its row in the table of groups is the last.
FROZEN = Group("frozen", "", 0.0, 0.0, "constant", freeze=True)


class GroupRow(NamedTuple):
    """A line of the table of groups: the group, its parameters' paths, and their numbers in all."""

    group: Group
    paths: tuple[str, ...]
    size: int


def groups_from(options: Mapping[str, Mapping[str, Any]]) -> tuple[Group, ...]:
    """The groups of a config, {name: {match, lr, ...}}."""
    return tuple(Group(name=name, **options[name]) for name in sorted(options))


def assign(params: Params, groups: Sequence[Group]) -> tuple[Params, list[GroupRow]]:
    """Each parameter's group name, in a tree like `params`, and the table; else ValueError."""
    leaves, names, faults = flatten(params), [group.name for group in groups], []
    owner: dict[str, str] = {}
    for path in leaves:
        owners = [g.name for g in groups if g.match and re.search(g.match, path)]
        owners = owners or [g.name for g in groups if not g.match]
        owner[path] = owners[0] if len(owners) == 1 else ""
        if len(owners) != 1:
            which = f"is in the groups {', '.join(owners)}" if owners else "matches no group"
            faults.append(f"parameter {path} {which}; it must belong to exactly one of {names}.")
    rows = []
    for group in groups:
        paths = tuple(path for path in leaves if owner[path] == group.name)
        rows.append(GroupRow(group, paths, sum(math.prod(leaves[path].shape) for path in paths)))
        if not (paths or group.optional):
            faults.append(
                f"optim.groups.{group.name} matches no parameter (match={group.match!r}); "
                "correct the expression, or set optional=True."
            )
    if faults:
        raise ValueError("\n".join(faults))
    return jax.tree.unflatten(jax.tree.structure(params), owner.values()), rows


def cosine_with_warmup(warmup_steps: int, total_steps: int, *, clamp: bool) -> Schedule:
    """Factor on a learning rate: a linear rise from 0 to 1, then half a cosine down to 0.

    As the official code's `cosine_warmup`, which is Hugging Face's get_cosine_schedule_with_warmup:
    the first update has the factor 0, and past total_steps, where it is 0 again, the cosine rises
    (published ListOps runs: 3.28 half periods), unless `clamp` keeps it at 0.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"the warmup must end before the schedule does: warmup_steps={warmup_steps}, "
            f"total_steps={total_steps}."
        )

    def factor(step: Any, xp: Any = jnp) -> Any:
        step = xp.asarray(step, xp.float32)
        rise = step / xp.float32(max(warmup_steps, 1))
        progress = (step - warmup_steps) / xp.float32(total_steps - warmup_steps)
        if clamp:
            progress = xp.minimum(progress, 1.0)
        cosine = 0.5 * (1 + xp.cos(xp.float32(math.pi) * progress))
        return xp.where(step < warmup_steps, rise, cosine)

    return factor


def constant_with_warmup(warmup_steps: int) -> Schedule:
    """Factor on a learning rate: a linear rise from 0 to 1, and no end."""

    def factor(step: Any, xp: Any = jnp) -> Any:
        rise = xp.asarray(step, xp.float32) / xp.float32(max(warmup_steps, 1))
        return xp.minimum(rise, 1.0) if warmup_steps else xp.ones_like(rise)

    return factor


def learning_rates(rows: Iterable[GroupRow], schedule: Schedule, count: int) -> dict[str, float]:
    """The rate "lr/GROUP" of each group that is trained, in the update after `count` others.

    In NumPy: a device computes the next step meanwhile, and is not waited for.
    """
    factor = float(schedule(count, np))
    return {
        f"lr/{group.name}": group.lr * (1.0 if group.schedule == "constant" else factor)
        for group, paths, _ in rows
        if paths and not group.freeze
    }


def set_apart(
    labels: Params, rows: Sequence[GroupRow], leaves: Mapping[str, Any], freeze: str = ""
) -> tuple[Params, list[GroupRow]]:
    """What `assign` gives, with all that is not trained in a group of its own, FROZEN.

    That is what groups say, or what the regular expression `freeze` finds. `leaves` are the
    parameters by path. ValueError: it is no expression, finds nothing, or nothing is left to train.
    """
    try:
        found = {path for path in leaves if freeze and re.search(freeze, path)}
    except re.error as error:
        raise ValueError(f"optim.freeze={freeze!r} is no regular expression: {error}.") from None
    if freeze and not found:
        raise ValueError(f"optim.freeze={freeze!r} matches no parameter; correct it, or leave it.")
    found |= {path for row in rows if row.group.freeze for path in row.paths}
    if len(found) == len(leaves):
        raise ValueError("every parameter is frozen (optim.freeze, optim.groups.*.freeze).")
    if not found:
        return labels, list(rows)
    names = [FROZEN.name if path in found else name for path, name in flatten(labels).items()]
    parts = [(g, tuple(p for p in paths if p not in found)) for g, paths, _ in rows]
    parts.append((FROZEN, tuple(path for path in leaves if path in found)))
    sizes = {path: math.prod(leaf.shape) for path, leaf in leaves.items()}
    table = [GroupRow(g, paths, sum(map(sizes.__getitem__, paths))) for g, paths in parts]
    return jax.tree.unflatten(jax.tree.structure(labels), names), table


def make_optimizer(
    params: Params,
    groups: Sequence[Group],
    schedule: Schedule,
    *,
    clip_norm: float,
    freeze: str = "",
    **adam: float,
) -> tuple[optax.GradientTransformation, list[GroupRow]]:
    """AdamW by groups, and the table of groups; `adam` are b1, b2 and eps.

    `schedule` is for the groups whose schedule is "cosine"; `clip_norm` is the largest global norm
    of the gradient, over all groups, and 0 no clipping; `freeze` see `set_apart`.
    """
    labels, rows = set_apart(*assign(params, groups), flatten(params), freeze)

    def adamw(group: Group) -> optax.GradientTransformation:
        if group.freeze:
            return optax.set_to_zero()
        rate = group.lr if group.schedule == "constant" else lambda step: group.lr * schedule(step)
        return optax.adamw(rate, weight_decay=group.weight_decay, **adam)

    tx = optax.multi_transform({row.group.name: adamw(row.group) for row in rows}, labels)
    if clip_norm > 0:
        tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
    return tx, rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """A run between two steps."""

    step: Array  # updates made, int32
    ok: Array  # no loss or gradient has been non-finite so far, bool
    params: Params  # trained numbers
    stats: Params  # running statistics and fixed knobs
    opt_state: Any
    ema: Any = None  # moving averages of {"params", "stats"}, if there are any

    def averaged(self) -> "TrainState":
        """The state with the averages in the place of its own numbers, and the other way round."""
        own = {"params": self.params, "stats": self.stats}
        return replace(self, params=self.ema["params"], stats=self.ema["stats"], ema=own)


Gradient = Callable[[TrainState, Array, Batch], tuple[Any, Any]]


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Params, Params]:
    """(graphdef, params, stats): what is trained and what is not, as pure dicts of arrays."""
    params, stats = nnx.state(model, nnx.Param, nnx.Not(nnx.Param))
    return nnx.graphdef(model), nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def init_state(
    params: Params, stats: Params, tx: optax.GradientTransformation, *, ema: bool = False
) -> TrainState:
    """The state before the first step, `ema`: with moving averages, which start from it."""
    step, ok = jnp.zeros((), jnp.int32), jnp.ones((), jnp.bool_)
    own = {"params": params, "stats": stats}
    average = jax.tree.map(jnp.copy, own) if ema else None
    return TrainState(step, ok, params, stats, tx.init(params), average)


def moving_average(average: Params, new: Params, decay: float) -> Params:
    """decay * average + (1 - decay) * new; what is constant keeps its bits, integers are `new`."""

    def leaf(old: Array, x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return jnp.where(x == old, old, optax.incremental_update(x, old, 1 - decay))

    return jax.tree.map(leaf, average, new)


def at_paths(paths: Collection[str], function: Callable[..., Any], *trees: Params) -> Params:
    """The first tree, with what a function makes of the leaves at some paths of all the trees."""
    leaves = [
        function(*each) if path in paths else each[0]
        for path, *each in zip(flatten(trees[0]), *map(jax.tree.leaves, trees), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(trees[0]), leaves)


def make_gradient(
    graphdef: nnx.GraphDef,
    sums: Callable[..., Sums],
    *,
    accumulate: int = 1,
    frozen: Collection[str] = (),
) -> Gradient:
    """(state, key, batch) -> ((loss, (metrics, new stats)), gradient); dropout by (key, step).

    The loss is the mean of `sums`, a task's `train_sums`. `accumulate` parts of a batch are
    computed in turn, so that one part's activations are in memory at a time. Part m of M has the
    examples m, m + M, ..: on several devices every device then computes at every part. Batch
    statistics are of a part. The gradient of the parameters of the paths `frozen` is 0.
    """

    def of_part(params: Params, stats: Params, key: Array, batch: Batch):
        def objective(params):
            held = at_paths(frozen, jax.lax.stop_gradient, params)
            model = nnx.merge(graphdef, held, stats)
            metrics = mean_metrics(sums(model, batch, key))
            return metrics["loss"], (metrics, split(model)[2])

        return jax.value_and_grad(objective, has_aux=True)(params)

    def gradient(state: TrainState, key: Array, batch: Batch):
        dropout_key = jax.random.fold_in(key, state.step)
        if accumulate == 1:
            return of_part(state.params, state.stats, dropout_key, batch)

        def add_part(carry, part_and_key):
            stats, total = carry
            part, part_key = part_and_key
            (_, (metrics, stats)), grads = of_part(state.params, stats, part_key, part)
            return (stats, jax.tree.map(jnp.add, total, (metrics, grads))), None

        parts = {
            name: jnp.swapaxes(x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]), 0, 1)
            for name, x in batch.items()
        }
        keys = jax.random.split(dropout_key, accumulate)
        (_, (metrics, _)), grads = jax.eval_shape(
            of_part, state.params, state.stats, keys[0], {n: a[0] for n, a in parts.items()}
        )
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (metrics, grads))
        (stats, total), _ = jax.lax.scan(add_part, (state.stats, zeros), (parts, keys))
        metrics, grads = jax.tree.map(lambda x: x / accumulate, total)
        return (metrics["loss"], (metrics, stats)), grads

    return gradient


def make_train_step(
    gradient: Gradient,
    tx: optax.GradientTransformation,
    *,
    frozen: Collection[str] = (),
    ema: float = 0.0,
) -> Callable[[TrainState, Array, Batch], tuple[TrainState, Metrics]]:
    """(state, key, batch) -> (new state, metrics), with a gradient of `make_gradient`.

    `ema` is the decay of the moving averages, if the state has any.

    Metrics: the means of the sums and grad_norm before the update, and ok. When a loss or gradient
    is not finite, `ok` falls and the state stays what it was before that step, for good: the
    metrics are read one step late, and the steps dispatched meanwhile must not touch it.
    """

    def train_step(state: TrainState, key: Array, batch: Batch) -> tuple[TrainState, Metrics]:
        (loss, (metrics, stats)), grads = gradient(state, key, batch)
        grad_norm = optax.tree.norm(grads)
        ok = state.ok & jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        with jax.numpy_dtype_promotion("standard"):  # Optax has powers of floats by counts
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # Not p + 0, which is 0 for -0 and for what is too small to be a normal number.
        params = at_paths(frozen, lambda new, old: old, params, state.params)
        own = {"params": params, "stats": stats}
        average = moving_average(state.ema, own, ema) if ema else None
        moved = TrainState(state.step + 1, ok, params, stats, opt_state, average)
        stayed = replace(state, ok=ok)
        new_state = jax.tree.map(lambda new, old: jnp.where(ok, new, old), moved, stayed)
        return new_state, {**metrics, "grad_norm": grad_norm, "ok": ok}

    return train_step


def make_eval_step(
    graphdef: nnx.GraphDef, function: Callable[[Any, Batch], Metrics]
) -> Callable[[Params, Params, Batch], Metrics]:
    """(params, stats, batch) -> what a task's `eval_sums` or `predict` makes of the batch."""

    def eval_step(params: Params, stats: Params, batch: Batch) -> Metrics:
        return function(nnx.merge(graphdef, params, stats), batch)

    return eval_step


def non_finite_leaves(gradient: Gradient, state: TrainState, key: Array, batch: Batch) -> list[str]:
    """Names of what is not finite in a step from `state`: loss, params/..., grad/...."""
    (loss, _), grads = jax.jit(gradient)(state, key, batch)
    leaves = flatten({"params": state.params}) | flatten({"grad": grads})
    broken = [path for path, leaf in leaves.items() if not jnp.all(jnp.isfinite(leaf))]
    return broken if jnp.isfinite(loss) else ["loss", *broken]
