"""The config of an experiment: a ConfigDict with every option, made from the rows of `options`.

An experiment file calls `default()`, changes some values and returns the ConfigDict. It may not add
a key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from ssm_jax.options import OPTIONS, Option
from ssm_jax.tasks import TASKS, find_task

__all__ = [
    "COSMETIC", "default", "digest", "flatten", "identity", "override", "parse_arg", "rates",
    "rows", "scale_rates", "smoke",
]  # fmt: skip

# Options that change what is shown or kept, never a number of the run: they may differ when a run
# continues.
COSMETIC = ("name", "notes", "log", "checkpoint", "figures", "reference")


def rows() -> dict[str, Option]:
    """The row of every option by key: those that all experiments share, then each task's own."""
    return OPTIONS | {key: row for name in TASKS for key, row in find_task(name).options.items()}


def default() -> ConfigDict:
    """Every option with its default. These reproduce no experiment; `configs/` has those."""
    tree: dict[str, Any] = {}
    for key, option in rows().items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = option.default
    return ConfigDict(tree)


def override(cfg: ConfigDict, values: Mapping[str, Any], keep: Collection[str] = ()) -> None:
    """Change options of a config by dotted key; optim.lr is applied to the parameter groups.

    Args:
      cfg: changed.
      values: of the options' types.
      keep: options that were given before; like those of `values`, optim.lr does not scale them.

    Raises:
      ValueError: optim.lr, where the rate of the group rest is 0 or is given as well, or a learned
        beta without a filter.
    """
    cfg.update_from_flattened_dict(values)
    given = {*values, *keep}
    beta = cfg.model.beta
    if beta.learn and not beta.filter and "model.beta.learn" in given:
        raise ValueError(
            "model.beta.learn=True needs a filter, and model.beta.filter=False means none; leave "
            "one of the two out."
        )
    if values.get("optim.lr"):
        scale_rates(cfg, given)


def scale_rates(cfg: ConfigDict, keep: Collection[str] = ()) -> None:
    """Set the learning rate of the group rest to optim.lr, and scale the others by its ratio.

    Once it is applied, applying it again changes nothing.

    Args:
      cfg: changed.
      keep: options such as optim.groups.A.lr that stay.

    Raises:
      ValueError: see `override`.
    """
    lr, groups = cfg.optim.lr, cfg.optim.groups
    usual = groups.rest.lr
    if usual != lr and "optim.groups.rest.lr" in keep:
        raise ValueError(
            f"optim.lr={lr} and optim.groups.rest.lr={usual} are one rate; give one of them."
        )
    if usual == 0 < lr:
        raise ValueError(
            f"optim.lr={lr} scales the rates of the groups by that of rest, which is 0; set "
            "optim.groups.*.lr instead."
        )
    for name, group in groups.items():
        if f"optim.groups.{name}.lr" not in keep:
            group.lr = lr if group.lr == usual else group.lr * (lr / usual)


def rates(cfg: ConfigDict, **groups: tuple[float, float]) -> None:
    """Set (learning rate, weight decay) of parameter groups; B and norms not named are as rest."""
    for name in ("B", "norm"):
        groups.setdefault(name, groups["rest"])
    for name, (lr, weight_decay) in groups.items():
        cfg.optim.groups[name].lr = lr
        cfg.optim.groups[name].weight_decay = weight_decay


def smoke(cfg: ConfigDict) -> ConfigDict:
    """The same experiment for a few steps of few sequences of its own length, with two blocks.

    Where the data are official files, a stand-in takes their place and says so.
    """
    cfg.name += ":smoke"
    cfg.notes = "Smoke run: a few steps of the same code. Its accuracy means nothing."
    if cfg.data.source != "generated":
        cfg.data.source = "stand_in"
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 48, 8, 8
    cfg.batch_size = 4
    cfg.model.depth = 2
    cfg.train.epochs, cfg.train.steps, cfg.train.eval_every = 0.0, 20, 10
    cfg.schedule.warmup_steps, cfg.schedule.total_steps = 5, 20
    if cfg.data.padded_length * cfg.model.d_model > 2_048 * 128:
        cfg.batch_size, cfg.train.steps, cfg.train.eval_every = 2, 6, 3
        cfg.data.n_val, cfg.data.n_test = 4, 4
    cfg.checkpoint.every = 5
    cfg.log.every, cfg.log.gradient = 1, False
    return cfg


def parse_arg(arg: str, **choices: tuple[str, ...]) -> dict[str, str]:
    """The mini-argument behind a config's colon, `file.py:smoke` or `file.py:arm=s4d,smoke`.

    Args:
      arg: comma-separated words; a word is `name=value`, or a value that one option alone has.
      **choices: the allowed values of each option, the first being its default.

    Returns:
      The value of each option.

    Raises:
      ValueError: for a word that no option has, or an option given twice.
    """
    values = {name: allowed[0] for name, allowed in choices.items()}
    given: set[str] = set()
    for word in filter(None, arg.split(",")):
        name, _, value = word.rpartition("=")
        names = [n for n, allowed in choices.items() if value in allowed and name in ("", n)]
        if len(names) != 1:
            listed = "; ".join(f"{n}: {', '.join(allowed)}" for n, allowed in choices.items())
            raise ValueError(f"unknown config argument {word!r}; choose from {listed}.")
        if names[0] in given:
            raise ValueError(f"config argument {names[0]!r} is given twice in {arg!r}.")
        given.add(names[0])
        values[names[0]] = value
    return values


def flatten(cfg: ConfigDict) -> dict[str, Any]:
    """The leaves of a config by dotted key: {"model.alpha": 3.0, ...}, sorted by key."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: ConfigDict) -> None:
        for key in sorted(node.keys()):
            value = node[key]
            if isinstance(value, ConfigDict):
                visit(f"{prefix}{key}.", value)
            else:
                flat[prefix + key] = value

    visit("", cfg)
    return flat


def identity(cfg: ConfigDict) -> dict[str, Any]:
    """The flat options that name a run's numbers.

    All but the cosmetic ones, and those newer than a run may be that are at their default.
    """
    return {
        key: value
        for key, value in flatten(cfg).items()
        if key.split(".")[0] not in COSMETIC and not is_newer(key, value)
    }


def is_newer(key: str, value: Any) -> bool:
    """Whether an option was added after the first runs, and a value is its default: as before."""
    option = OPTIONS.get(key)
    return option is not None and bool(option.since) and value == option.default


def digest(cfg: ConfigDict) -> str:
    """Twelve hex digits that name the numbers of a run: SHA-256 over `identity`."""
    text = json.dumps(identity(cfg), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
