"""The config of an experiment: a ConfigDict with every option, made from the rows of `options`.

An experiment file calls `default()`, changes some values and returns the ConfigDict. It may not add
a key.
"""

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from ssm_jax.files import json_digest
from ssm_jax.options.rows import OPTIONS, Option, short_names, shown
from ssm_jax.outside import Unknown, located
from ssm_jax.tasks import TASKS, find_task

CHOSEN = ("task", "model.layer")  # what may bring further options along
# Options that change what is shown or kept, never a number of the run: they may differ when a run
# continues.
COSMETIC = (
    "name", "changed", "notes", "log", "checkpoint", "figures", "figures_format", "reference",
)  # fmt: skip
CHANGES = 4  # that a name has beside it, at most
_SECTIONS = {key.split(".")[1] for key in OPTIONS if key.count(".") == 2}  # of built-in layers, too


def rows(cfg: ConfigDict | None = None) -> dict[str, Option]:
    """The row of every option by key: those that all experiments share, then each task's own.

    With a config also those that its task and its layer bring along, where these are not built in.
    """
    found = OPTIONS | {key: row for name in TASKS for key, row in find_task(name).options.items()}
    return found if cfg is None else found | _brought(cfg.task, cfg.model.layer)


def _brought(task: str, layer: str) -> dict[str, Option]:
    found: dict[str, Option] = {}
    with contextlib.suppress(Unknown):  # which `check` says
        found |= {} if task in TASKS else find_task(task).options
    with contextlib.suppress(Unknown):
        if layer not in _SECTIONS:
            from ssm_jax.layers import layer_options  # imports JAX

            found |= layer_options(layer)
    ours = rows()
    for key, row in found.items():
        if key in ours and row.default != ours[key].default:  # which a config would have
            owner = layer if key.startswith("model.") else task
            raise ValueError(
                f"{key} of {owner} is an option of ssm_jax, with the default {ours[key].default!r} "
                f"in the place of {row.default!r}; rename it."
            )
    return found


def default(task: str = "listops", *, layer: str = "s4d") -> ConfigDict:
    """Every option with its default. These reproduce no experiment; `configs/` has those.

    The options of a task or a layer of your own (`tasks.find_task`, `layers.find_layer`) are among
    them.
    """
    cfg = ConfigDict()
    _add(cfg, rows())
    choose(cfg, task, layer)
    return cfg


def choose(cfg: ConfigDict, task: str, layer: str) -> None:
    """Give a config a task and a layer, with the options that they bring along."""
    before, task, layer = _brought(cfg.task, cfg.model.layer), located(task), located(layer)
    brought = _brought(task, layer)
    with cfg.unlocked():
        for key in before.keys() - brought.keys():
            above, section, name = key.rsplit(".", 2)
            del cfg[above][section][name]
            if not cfg[above][section]:
                del cfg[above][section]
        del cfg.task, cfg.model.layer  # they may be of another kind of text
        cfg.task, cfg.model.layer = task, layer
        known = flatten(cfg)
        _add(cfg, {key: row for key, row in brought.items() if key not in known})
        if task not in TASKS or layer not in _SECTIONS:
            cfg.optim.groups.A.optional = True  # there may be no parameters of these names


def find(key: str, name: str) -> Any:
    """The task or the layer of a name, by which option of CHOSEN asks; Unknown if there is none."""
    if key == "task":
        return find_task(name)
    from ssm_jax.layers import find_layer  # imports JAX

    return find_layer(name)


def _add(cfg: ConfigDict, options: Mapping[str, Option]) -> None:
    for key, option in options.items():
        *sections, name = key.split(".")
        node = cfg
        for section in sections:
            if section not in node:
                node[section] = ConfigDict()
            node = node[section]
        node[name] = option.default


def override(cfg: ConfigDict, values: Mapping[str, Any], keep: Collection[str] = ()) -> None:
    """Change options of a config by dotted key; optim.lr is applied to the parameter groups.

    What was given before (`keep`) is, like `values`, neither scaled by optim.lr nor given up for
    another layer, see `check.of_layer`. A number of steps takes the place of epochs, and the
    reverse; what nothing reads with these values gets its default. ValueError: optim.lr, where the
    rate of the group rest is 0 or is given as well, or a learned beta or a unit of it without a
    filter; a task or a layer of your own that cannot be found.
    """
    from ssm_jax.config.check import idle

    given, before, without = {*values, *keep}, cfg.model.layer, dict(idle(cfg))
    if not values.keys().isdisjoint(CHOSEN):
        choose(cfg, values.get("task", cfg.task), values.get("model.layer", cfg.model.layer))
    if cfg.model.layer != before:
        from ssm_jax.config.check import of_layer  # imports JAX

        of_layer(cfg, before, given)
    cfg.update_from_flattened_dict({k: v for k, v in values.items() if k not in CHOSEN})
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        if values.get(f"train.{key}") and f"train.{other}" not in given:
            cfg.train[other] = type(cfg.train[other])(0)
    known, newly = rows(cfg), dict(idle(cfg)).keys() - without - given
    cfg.update_from_flattened_dict({key: known[key].default for key in newly})
    beta = cfg.model.beta
    if beta.learn and not beta.filter and "model.beta.learn" in given:
        raise ValueError(
            "model.beta.learn=True needs a filter, and model.beta.filter=False means none; leave "
            "one of the two out."
        )
    # A config may have one for cells with a filter, and the loss of videos has a filter of its own
    if not beta.filter and "model.beta.unit" in given and not cfg.model.video.loss_beta:
        raise ValueError(
            f"model.beta.unit={beta.unit!r} is of a filter, and model.beta.filter=False means "
            "none; leave one of the two out."
        )
    if values.get("optim.lr"):
        scale_rates(cfg, given)


def altered(cfg: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """A copy of a config, locked, with other values of some options by dotted key."""
    cfg = cfg.copy_and_resolve_references()
    cfg.update_from_flattened_dict(values)
    return cfg.lock()


def given_up(before: Mapping[str, Any], cfg: ConfigDict, given: Collection[str]) -> str:
    """What other options have changed of those that a config had before, in a line, or "".

    `given` are options that somebody asked for.
    """
    now, told = flatten(cfg), ("model.", "data.", "schedule.")
    changed = [
        f"{key}={now[key]!r} for {value!r}"
        for key, value in before.items()
        if key.startswith(told) and key not in given and now.get(key, value) != value
    ]
    if not changed:
        return ""
    layer = now["model.layer"] != before["model.layer"]
    what = f"model.layer={cfg.model.layer}" if layer else "what is given"
    return f"with {what} the config has {', '.join(changed)}."


def note_changes(cfg: ConfigDict, values: Mapping[str, Any]) -> None:
    """Add to cfg.changed what some options were set to: "alpha = 10, beta = 1"."""
    labels = short_names(values)
    words = [f"{labels[key]} = {shown(value)}" for key, value in values.items()]
    if len(words) > CHANGES:
        words = [*words[: CHANGES - 1], f"and {len(words) - CHANGES + 1} more"]
    cfg.changed = ", ".join(filter(None, (cfg.changed, *words)))


def title_of(cfg: ConfigDict) -> str:
    """The name of an experiment, and what was changed of it."""
    return ", ".join(filter(None, (cfg.name, cfg.changed)))


def ranking_of(cfg: ConfigDict) -> tuple[str, str]:
    """The metric that names the best checkpoint of a run, and "max" or "min"."""
    metric = cfg.train.select_metric
    mode = find_task(cfg.task).metrics[metric]
    return (f"ema_{metric}" if cfg.train.select_ema else metric), mode


def as_result(cfg: ConfigDict, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of an evaluation by the names of the result: with select_ema ema_loss is loss."""
    if not cfg.train.select_ema:
        return dict(metrics)
    return {
        name.removeprefix("ema_") if name.startswith("ema_") else f"raw_{name}": value
        for name, value in metrics.items()
    }


def scale_rates(cfg: ConfigDict, keep: Collection[str] = ()) -> None:
    """Set the rate of the group rest to optim.lr, and scale the others, but those of `keep`.

    Once it is applied, applying it again changes nothing.
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
        override(cfg, {"data.source": "stand_in"})
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 48, 8, 8
    cfg.batch_size = 4
    cfg.model.depth = 2
    cfg.train.epochs, cfg.train.steps, cfg.train.eval_every = 0.0, 20, 10
    cfg.schedule.warmup_steps = 5
    cfg.schedule.total_steps = 20 if cfg.schedule.shape == "cosine" else 0
    if cfg.data.padded_length * cfg.model.d_model > 2_048 * 128:
        cfg.batch_size, cfg.train.steps, cfg.train.eval_every = 2, 6, 3
        cfg.data.n_val, cfg.data.n_test = 4, 4
    cfg.checkpoint.every = 5
    cfg.log.every, cfg.log.gradient = 1, False
    return cfg


def parse_arg(arg: str, **choices: tuple[str, ...]) -> dict[str, str]:
    """The argument after the colon of a config, `file.py:smoke` or `file.py:variant=s4d,smoke`.

    A word of it is `name=value`, or a value that one option alone has; `choices` are the allowed
    values of each option, the first being its default.
    """
    given: dict[str, str] = {}
    for word in filter(None, arg.split(",")):
        name, _, value = word.rpartition("=")
        names = [n for n, allowed in choices.items() if value in allowed and name in ("", n)]
        if len(names) != 1:
            listed = "; ".join(f"{n}: {', '.join(allowed)}" for n, allowed in choices.items())
            raise ValueError(f"unknown config argument {word!r}; choose from {listed}.")
        if names[0] in given:
            raise ValueError(f"config argument {names[0]!r} is given twice in {arg!r}.")
        given[names[0]] = value
    return {name: given.get(name, allowed[0]) for name, allowed in choices.items()}


def flatten(cfg: ConfigDict) -> dict[str, Any]:
    """The leaves of a config by dotted key: {"model.alpha": 3.0, ...}, sorted by key."""
    flat: dict[str, Any] = {}
    for key in sorted(cfg.keys()):
        value = cfg[key]
        if isinstance(value, ConfigDict):
            flat |= {f"{key}.{name}": leaf for name, leaf in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def identity(cfg: ConfigDict) -> dict[str, Any]:
    """The options that name a run's numbers: not cosmetic, nor newer ones at their default."""
    known = rows()
    return {
        key: value
        for key, value in flatten(cfg).items()
        if key.split(".")[0] not in COSMETIC
        and not (key in known and known[key].since and value == known[key].default)
    }


def digest(cfg: ConfigDict) -> str:
    """Twelve hex digits that name the numbers of a run: SHA-256 over `identity`."""
    return json_digest(identity(cfg))[:12]
