"""AdamW by parameter groups, learning rate schedules, and the table of both."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssm_jax.training.checkpoint.manifest import flatten

Params = Any  # nested dicts of arrays
Schedule = Callable[..., Any]  # (step, xp=jax.numpy) -> factor on a learning rate


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


def assign(
    params: Params, groups: Sequence[Group], freeze: str = ""
) -> tuple[Params, list[GroupRow]]:
    """Each parameter's group name, in a tree like `params`, and the table of groups.

    All that is not trained is in a group of its own, FROZEN: what groups say, or what the regular
    expression `freeze` finds. ValueError: a parameter is not in exactly one group, a group has
    none, `freeze` is no expression or finds nothing, or nothing is left to train.
    """
    leaves, names, faults = flatten(params), [group.name for group in groups], []
    owner: dict[str, str] = {}
    for path in leaves:
        owners = [g.name for g in groups if g.match and re.search(g.match, path)]
        owners = owners or [g.name for g in groups if not g.match]
        owner[path] = owners[0] if len(owners) == 1 else ""
        if len(owners) != 1:
            which = f"is in the groups {', '.join(owners)}" if owners else "matches no group"
            faults.append(f"parameter {path} {which}; it must belong to exactly one of {names}.")
    faults += [
        f"optim.groups.{group.name} matches no parameter (match={group.match!r}); "
        "correct the expression, or set optional=True."
        for group in groups
        if not group.optional and group.name not in owner.values()
    ]
    if faults:
        raise ValueError("\n".join(faults))
    if frozen := _frozen(owner, groups, freeze):
        owner |= dict.fromkeys(frozen, FROZEN.name)
        groups = (*groups, FROZEN)
    rows = []
    for group in groups:
        paths = tuple(path for path in leaves if owner[path] == group.name)
        rows.append(GroupRow(group, paths, sum(math.prod(leaves[path].shape) for path in paths)))
    return jax.tree.unflatten(jax.tree.structure(params), owner.values()), rows


def _frozen(owner: Mapping[str, str], groups: Sequence[Group], freeze: str) -> set[str]:
    """The paths that are not trained; `owner` is the group of each. ValueError as of `assign`."""
    try:
        found = {path for path in owner if freeze and re.search(freeze, path)}
    except re.error as error:
        raise ValueError(f"optim.freeze={freeze!r} is no regular expression: {error}.") from None
    if freeze and not found:
        raise ValueError(f"optim.freeze={freeze!r} matches no parameter; correct it, or leave it.")
    kept = {group.name for group in groups if group.freeze}
    found |= {path for path, name in owner.items() if name in kept}
    if len(found) == len(owner):
        raise ValueError("every parameter is frozen (optim.freeze, optim.groups.*.freeze).")
    return found


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


def schedule_of(shape: str, *, warmup: int, last: int, clamp: bool) -> tuple[Schedule, str]:
    """The schedule of a shape, "constant" or a cosine down to step `last`; in words, too."""
    if shape == "constant":
        says = "which it keeps" if not warmup else "after the warmup constant"
        return constant_with_warmup(warmup), says
    return cosine_with_warmup(warmup, last, clamp=clamp), f"a cosine that ends at step {last:,}"


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
    of the gradient, over all groups, and 0 no clipping; `freeze` see `assign`.
    """
    labels, rows = assign(params, groups, freeze)

    def adamw(group: Group) -> optax.GradientTransformation:
        if group.freeze:
            return optax.set_to_zero()
        rate = group.lr if group.schedule == "constant" else lambda step: group.lr * schedule(step)
        return optax.adamw(rate, weight_decay=group.weight_decay, **adam)

    tx = optax.multi_transform({row.group.name: adamw(row.group) for row in rows}, labels)
    if clip_norm > 0:
        tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
    return tx, rows
