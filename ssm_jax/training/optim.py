"""AdamW with a learning rate, a weight decay and a schedule for each group of parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

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


class GroupRow(NamedTuple):
    """A line of the table of groups: the group, its parameters' paths, and their numbers in all."""

    group: Group
    paths: tuple[str, ...]
    size: int


def path_name(path: tuple) -> str:
    """blocks/0/ssm/C_ri for a key path of JAX."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def assign(params: Params, groups: tuple[Group, ...]) -> tuple[Params, list[GroupRow]]:
    """Each parameter's group name, in a tree like `params`, and the table.

    Raises:
      ValueError: for a parameter that matches no group or several, or a group without parameters
        that is not optional.
    """
    named = [group for group in groups if group.match]
    rest = [group for group in groups if not group.match]
    paths: dict[str, list[str]] = {group.name: [] for group in groups}
    sizes = dict.fromkeys(paths, 0)
    faults = []

    def label(path: tuple, leaf: Any) -> str:
        name = path_name(path)
        owners = [g.name for g in named if re.search(g.match, name)] or [g.name for g in rest]
        if len(owners) != 1:
            which = f"is in the groups {', '.join(owners)}" if owners else "matches no group"
            faults.append(
                f"parameter {name} {which}; it must belong to exactly one of {list(paths)}."
            )
            return ""
        paths[owners[0]].append(name)
        sizes[owners[0]] += math.prod(leaf.shape)
        return owners[0]

    labels = jax.tree_util.tree_map_with_path(label, params)
    for group in groups:
        if not paths[group.name] and not group.optional:
            faults.append(
                f"optim.groups.{group.name} matches no parameter (match={group.match!r}); "
                "correct the expression, or set optional=True."
            )
    if faults:
        raise ValueError("\n".join(faults))
    return labels, [GroupRow(g, tuple(paths[g.name]), sizes[g.name]) for g in groups]


def cosine_with_warmup(warmup_steps: int, total_steps: int, *, clamp: bool) -> Schedule:
    """Factor on a learning rate: a linear rise from 0 to 1, then half a cosine down to 0.

    As the official code's `cosine_warmup`, which is Hugging Face's get_cosine_schedule_with_warmup:
    the first update has the factor 0, and past total_steps, without `clamp`, the cosine rises again
    (published ListOps runs: 3.28 half periods).

    Args:
      warmup_steps: at least 0, below total_steps.
      total_steps: step at which the factor is 0.
      clamp: stay at 0 past total_steps.
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


def learning_rates(rows: Iterable[GroupRow], schedule: Schedule, count: int) -> dict[str, float]:
    """The rate "lr/GROUP" of each group with parameters, in the update after `count` others.

    In NumPy: a device computes the next step meanwhile, and is not waited for.
    """
    factor = float(schedule(count, np))
    return {
        f"lr/{group.name}": group.lr * (1.0 if group.schedule == "constant" else factor)
        for group, paths, _ in rows
        if paths
    }


def make_optimizer(
    params: Params,
    groups: tuple[Group, ...],
    schedule: Schedule,
    *,
    b1: float,
    b2: float,
    eps: float,
    clip_norm: float,
) -> tuple[optax.GradientTransformation, list[GroupRow]]:
    """AdamW by groups, and the table of groups.

    `params` is a tree of arrays or shapes; `schedule` is for the groups whose schedule is "cosine";
    `clip_norm` is the largest global norm of the gradient, over all groups, and 0 no clipping.
    """
    labels, rows = assign(params, groups)

    def adamw(group: Group) -> optax.GradientTransformation:
        def lr(step):
            return group.lr * schedule(step)

        rate = group.lr if group.schedule == "constant" else lr
        return optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=group.weight_decay)

    tx = optax.multi_transform({g.name: adamw(g) for g in groups}, labels)
    if clip_norm > 0:
        tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
    return tx, rows


def groups_from(options: Mapping[str, Mapping[str, Any]]) -> tuple[Group, ...]:
    """The groups of a config, {name: {match, lr, ...}}."""
    return tuple(Group(name=name, **options[name]) for name in sorted(options))
