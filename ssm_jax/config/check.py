"""Checks of a config: values, combinations, and options that have no effect."""

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from ml_collections import ConfigDict

from ssm_jax.config import flatten, rows
from ssm_jax.options.arguments import SHARED, parameters_of
from ssm_jax.options.rows import LARGEST, SEED, Option, Range
from ssm_jax.outside import Unknown
from ssm_jax.tasks import TASKS, Task, find_task

STEPS = ("dt_rule", "dt_kappa", "dt_apply_to")  # of layers whose dt can be set
OWN = ("init", "discretization", "real_transform", "dt_transform")  # a layer knows best


def check(cfg: ConfigDict, *, recorded: bool = False) -> None:
    """Refuse values and combinations that cannot work, with a ValueError of a line per fault.

    What the model reads is known from the signatures of its classes, whose modules import JAX; so
    it is looked at last, if all else is right. In a config that is `recorded` an option may be set
    for nothing: it did no harm to the run, which an earlier version made.
    """
    faults = [*range_faults(cfg), *_combination_faults(cfg)]
    try:
        task = find_task(cfg.task)
        faults += _task_faults(cfg, task)
        faults = faults or [*_model_faults(cfg, task)]
        faults = faults or ([] if recorded else [*_idle_faults(cfg)])
    except ValueError as error:  # there is no such task, or its layer is none
        faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))


def range_faults(cfg: ConfigDict) -> list[str]:
    """A line for each option that is out of its range or choices, choices first."""
    flat = flatten(cfg)
    ordered = sorted(rows(cfg).items(), key=lambda item: not item[1].choices)
    return [line for key, row in ordered if (line := fault_of(key, flat[key], row)) is not None]


def fault_of(key: str, value: Any, option: Option) -> str | None:
    """What is wrong with a value of an option, in a line; None if nothing is."""
    if option.choices and value not in option.choices:
        return _unknown(key, value, option.choices)
    if option.within is None or option.within.holds(value):
        return None
    bounds = (
        option.within.unlike(value).replace(" and finite", "").replace("positive", "greater than 0")
    )
    if option.within.whole and option.within.high == SEED.high:
        bounds = f"at least {option.within.low} and below 2^32 = {2**32}"
    elif isinstance(value, float) and abs(value) > LARGEST:
        bounds = "a finite number of float32"
    return f"{key}={value!r} is out of range; it must be {bounds}."


def _unknown(key: str, value: str, known: Iterable[str], to: str = "") -> str:
    return f"{key}={value!r} is not known{to and f' to {to}'}; choose one of {', '.join(known)}."


def _combination_faults(cfg: ConfigDict) -> Iterator[str]:
    """What does not go together, whatever the task and the layer."""
    model, train, schedule = cfg.model, cfg.train, cfg.schedule
    if (train.epochs > 0) == (train.steps > 0):
        yield (
            f"give train.epochs or train.steps, and leave the other at 0; "
            f"got epochs={train.epochs}, steps={train.steps}."
        )
    if train.accumulate > 0 and cfg.batch_size % train.accumulate:
        yield (
            f"batch_size={cfg.batch_size} does not split into train.accumulate={train.accumulate} "
            "equal parts; use a multiple of it."
        )
    if train.select_ema and not train.ema:
        yield "train.select_ema=True needs an average; give train.ema, such as 0.999."
    warmup, total = schedule.warmup_steps, schedule.total_steps
    if total and warmup >= total:
        yield f"schedule.warmup_steps={warmup} must be below schedule.total_steps={total}."
    if model.n_ssm > 0 and model.d_model % model.n_ssm:
        yield (
            f"model.n_ssm={model.n_ssm} must divide model.d_model={model.d_model}, "
            "because channel h uses set h mod n_ssm."
        )
    matches = {f"optim.groups.{name}.match": g.match for name, g in cfg.optim.groups.items()}
    for key, expression in {**matches, "optim.freeze": cfg.optim.freeze}.items():
        try:
            re.compile(expression)
        except re.error as error:
            yield f"{key}={expression!r} is no regular expression: {error}."
    if model.dt_min > model.dt_max:
        yield f"model.dt_min={model.dt_min} exceeds model.dt_max={model.dt_max}."
    if model.beta.init and not model.beta.filter:
        yield (
            f"model.beta.init={model.beta.init} is of a filter, and model.beta.filter=False means "
            "none; leave one of the two as it is by default."
        )


def _task_faults(cfg: ConfigDict, task: Task) -> Iterator[str]:
    """What the task of a config does not know, and options of other tasks that were set."""
    metric, source, flat = cfg.train.select_metric, cfg.data.source, flatten(cfg)
    if task.sources and source not in task.sources:
        yield _unknown("data.source", source, task.sources, cfg.task)
    if metric not in task.metrics:
        yield _unknown("train.select_metric", metric, task.metrics, f"task={cfg.task!r}")
    owners: dict[str, list[str]] = {}
    for name in TASKS:
        for key, row in find_task(name).options.items():
            if key not in task.options and flat[key] != row.default:
                owners.setdefault(key, []).append(name)
    for key, names in owners.items():
        tasks = f"task{'s' if names[1:] else ''} {' and '.join(names)}"
        yield f"{key} has no effect in task {cfg.task!r}; it is an option of the {tasks}."
    yield from task.faults(cfg.data.to_dict())


def _model_faults(cfg: ConfigDict, task: Task) -> Iterator[str]:
    """What the layer of a config cannot do, and options of the model that were set for nothing."""
    from ssm_jax.layers import LAYERS, find_layer
    from ssm_jax.models import SequenceClassifier

    model = cfg.model
    if "layer" in parameters_of(task.network or SequenceClassifier):
        try:
            layer = find_layer(model.layer)
        except Unknown:
            yield _unknown("model.layer", model.layer, LAYERS)
            return
        takes, inits = parameters_of(layer), getattr(layer, "INITS", ())
        if "init" in takes and inits and model.init not in inits:
            yield _unknown("model.init", model.init, inits, f"model.layer={model.layer!r}")
            return
        yield from _layer_faults(model, layer, takes)


def _idle_faults(cfg: ConfigDict) -> Iterator[str]:
    """Options that were set for nothing."""
    flat, standard = flatten(cfg), rows(cfg)
    for key, why in {**dict(idle(cfg)), **dict(unread(cfg))}.items():
        yield f"{key}={flat[key]!r} is not read with {why}; leave it at {standard[key].default!r}."


def _layer_faults(model: ConfigDict, layer: Any, takes: Collection[str]) -> Iterator[str]:
    """What does not go together in a layer, whose constructor takes arguments of some names.

    Its class may say RULES (of discretization), UNDAMPED (inits with Re A = 0) and `faults`.
    """
    init, rule = model.init, model.discretization
    discrete = "init" in takes and _is_discrete(init)
    rules = getattr(layer, "RULES", (rule,))
    if rule not in rules:
        needed = f"model.discretization={' or '.join(rules)}"
        yield f"model.layer={model.layer!r} needs {needed}, got {rule!r}."
    elif "discretization" in takes and discrete != (rule == "none"):
        given, use = ("sample", "none") if discrete else ("unit of time", "zoh or bilinear")
        yield (
            f"model.init={init!r} gives eigenvalues per {given}, "
            f"which model.discretization={rule!r} cannot take; use {use}."
        )
    if discrete and model.alpha > 1:
        yield f"model.alpha={model.alpha} must be at most 1 with model.init={init!r}."
    undamped = model.alpha_real == 0 or init in getattr(layer, "UNDAMPED", ())
    transform = model.real_transform
    if undamped and "real_transform" in takes and transform in ("exp", "softplus", "stable"):
        yield (
            f"model.real_transform={transform!r} cannot represent Re A = 0; use relu, clip or none."
        )
    if hasattr(layer, "faults"):
        yield from layer.faults(model.to_dict())


def idle(cfg: ConfigDict) -> Iterator[tuple[str, str]]:
    """Options that were set, and the value of another one with which they have no effect."""
    flat = flatten(cfg)
    for key, row in rows(cfg).items():
        for other, values in row.when.items() if flat.get(key, row.default) != row.default else ():
            now = flat[other]
            if not (values.holds(now) if isinstance(values, Range) else now in values):
                yield key, f"{other}={now!r}"
                break


def unread(cfg: ConfigDict) -> Iterator[tuple[str, str]]:
    """Options of the model that were set, and what does not take them: "model.layer='s4d'"."""
    from ssm_jax.layers import find_layer, section_of  # imports JAX
    from ssm_jax.models import SequenceClassifier

    model, flat, task = cfg.model, flatten(cfg), find_task(cfg.task)
    network = parameters_of(task.network or SequenceClassifier)
    takes: Collection[str] = ()
    section, why = "", f"task={cfg.task!r}"
    unless: Collection[str] = ()  # arguments that are taken and that the init leaves no effect
    if "layer" in network:
        layer = find_layer(model.layer)
        takes, section = parameters_of(layer), section_of(model.layer)
        if hasattr(layer, "set_step_sizes"):
            takes = {*takes, *STEPS}
        if hasattr(layer, "taps"):
            takes = {*takes, "spectrum_steps"}
        why = f"model.layer={model.layer!r}"
        if model.init in getattr(layer, "UNDAMPED", ()):
            unless = {"alpha_real", "init_seed"}
        elif not _is_discrete(model.init):
            unless = {"init_seed"}
    argument = {f"model.{key}": name for name, key in SHARED.items()}
    argument["model.beta.filter"] = "beta"
    for key, row in rows(cfg).items():
        if not key.startswith("model.") or flat[key] == row.default or key in task.options:
            continue
        name = argument.get(key, "")
        read = name in network or name in takes or key.startswith(f"model.{section}.")
        if not read:
            yield key, why
        elif name in unless:
            yield key, f"model.init={model.init!r}"


def of_layer(cfg: ConfigDict, before: str, keep: Collection[str] = ()) -> None:
    """Parametrize the layer of a config, which had another one `before`, but for options to keep.

    Of OWN what the other layer has by default becomes what this one has, and so does what this one
    cannot take; options of the model that it does not read get their defaults. Nothing changes
    where the task has a network without such layers, or there is no such layer.
    """
    from ssm_jax.layers import find_layer  # imports JAX
    from ssm_jax.models import SequenceClassifier

    with contextlib.suppress(Unknown):
        layer, known = find_layer(cfg.model.layer), rows(cfg)
        if "layer" not in parameters_of(find_task(cfg.task).network or SequenceClassifier):
            return
        takes, had = parameters_of(layer), parameters_of(find_layer(before))
        can = {"init": getattr(layer, "INITS", ()), "discretization": getattr(layer, "RULES", ())}
        for name in OWN:
            key, value = f"model.{name}", cfg.model[name]
            default = takes[name].default if name in takes else None
            usual = had[name].default if name in had else known[key].default
            fits = value in (can.get(name) or (value,))
            if isinstance(default, str) and key not in keep and (value == usual or not fits):
                cfg.model[name] = default
        idle = [key for key, _ in unread(cfg) if key not in keep]
        cfg.update_from_flattened_dict({key: known[key].default for key in idle})


def _is_discrete(init: str) -> bool:
    """Whether an init gives eigenvalues per sample."""
    from ssm_jax.init import INITS

    return init in INITS and INITS[init].discrete
