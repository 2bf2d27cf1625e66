"""What the options of an experiment may be, and what may go together."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from ssm_jax.config import default, flatten, rows
from ssm_jax.options import LARGEST, SEED, Option
from ssm_jax.tasks import TASKS, Task, find_task

# What each layer can start with
DISCRETE_INITS = ("dfout", "ring")
_S4D_INITS = ("s4d_lin", "s4d_inv", "s4d_legs", "fout", "ptd", *DISCRETE_INITS)
INITS = {"s4d": _S4D_INITS, "s5": ("legs", *_S4D_INITS), "s4": ("legs", "fout")}


# Options of `model` that a task reads; one that is not here reads them all
READ = {
    "denoise": ("d_state", "alpha", "beta.", "dt_min", "dt_max"),
    "waves": ("d_model", "d_state", "alpha", "beta.init", "beta.learn", "waves."),
}


def seed_fault(key: str, seed: int) -> str | None:
    """What is wrong with a seed, in a line; None if it is one of SEED."""
    return _fault(key, seed, Option(0, "", SEED))


def _fault(key: str, value: Any, option: Option) -> str | None:
    """What is wrong with a value of an option, in a line; None if nothing is."""
    if option.choices and value not in option.choices:
        return f"{key}={value!r} is not known; choose one of {', '.join(option.choices)}."
    if option.within is None or option.within.holds(value):
        return None
    bounds = str(option.within).removesuffix(" and finite").replace("positive", "greater than 0")
    if option.within == SEED:
        bounds = f"at least 0 and below 2^32 = {2**32}"
    elif isinstance(value, float) and abs(value) > LARGEST:
        bounds = "a finite number of float32"
    return f"{key}={value!r} is out of range; it must be {bounds}."


def range_faults(cfg: ConfigDict) -> list[str]:
    """A line for each option that is out of its range or choices, choices first."""
    flat = flatten(cfg)
    ordered = sorted(rows().items(), key=lambda item: not item[1].choices)
    return [line for key, row in ordered if (line := _fault(key, flat[key], row)) is not None]


def _model_faults(model: ConfigDict) -> list[str]:
    """What the layer of a model cannot do, and options it does not read that were set."""
    faults: list[str] = []
    layer, init, rule = model.layer, model.init, model.discretization
    if layer not in INITS:
        return [f"model.layer={layer!r} is not known; choose one of {', '.join(INITS)}."]
    if init not in INITS[layer]:
        return [
            f"model.init={init!r} is not known to model.layer={layer!r}; "
            f"choose one of {', '.join(INITS[layer])}."
        ]
    discrete = init in DISCRETE_INITS
    if layer == "s4" and rule != "bilinear":
        faults.append(f"model.layer='s4' needs model.discretization=bilinear, got {rule!r}.")
    elif discrete != (rule == "none"):
        given, use = ("sample", "none") if discrete else ("unit of time", "zoh or bilinear")
        faults.append(
            f"model.init={init!r} gives eigenvalues per {given}, "
            f"which model.discretization={rule!r} cannot take; use {use}."
        )
    if discrete and model.alpha > 1:
        faults.append(f"model.alpha={model.alpha} must be at most 1 with model.init={init!r}.")
    undamped = model.alpha_real == 0 or (layer == "s4" and init == "fout")
    if undamped and model.real_transform in ("exp", "softplus", "stable"):
        faults.append(
            f"model.real_transform={model.real_transform!r} cannot represent Re A = 0; "
            "use relu, clip or none."
        )
    if layer == "s4d" and model.s4d.input_norm == "lru" and rule != "none":
        faults.append("model.s4d.input_norm=lru needs model.discretization=none.")
    if layer != "s5" and model.n_ssm > 0 and model.d_model % model.n_ssm:
        faults.append(
            f"model.n_ssm={model.n_ssm} must divide model.d_model={model.d_model}, "
            "because channel h uses set h mod n_ssm."
        )
    blocks = max(model.s5.n_blocks, 1) * (1 if model.s5.conj_sym else 2)
    if layer == "s5" and model.d_state % blocks:
        faults.append(
            f"model.d_state={model.d_state} must be a multiple of {blocks}, that is of "
            f"model.s5.n_blocks{'' if model.s5.conj_sym else ' times 2, as conj_sym is off'}."
        )
    if model.dt_min > model.dt_max:
        faults.append(f"model.dt_min={model.dt_min} exceeds model.dt_max={model.dt_max}.")

    unread = {f"{other}.": f"model.layer={layer!r}" for other in INITS if other != layer}
    if layer == "s5":
        unread["n_ssm"] = "model.layer='s5'"
    if not discrete:
        unread["init_seed"] = f"model.init={init!r}"
    if rule == "none":
        unread["dt_"] = "model.discretization='none'"
    standard = flatten(default().model)
    for key, value in flatten(model).items():
        reason = next((why for start, why in unread.items() if key.startswith(start)), None)
        if reason and value != standard[key]:
            faults.append(
                f"model.{key}={value!r} is not read with {reason}; leave it at {standard[key]!r}."
            )
    return faults


def _network_faults(task: str, model: ConfigDict) -> list[str]:
    """Options of the model that were set and that the task's own model does not read."""
    standard = flatten(default().model)
    return [
        f"model.{key}={value!r} is not read with task={task!r}; leave it at {standard[key]!r}."
        for key, value in flatten(model).items()
        if not key.startswith(READ[task]) and value != standard[key]
    ]


def _task_faults(cfg: ConfigDict, task: Task) -> list[str]:
    """What the task of a config does not know, and options of other tasks that were set."""
    faults = []
    data, metric, flat = cfg.data, cfg.train.select_metric, flatten(cfg)
    if task.sources and data.source not in task.sources:
        faults.append(
            f"data.source={data.source!r} is not known to {cfg.task}; "
            f"choose one of {', '.join(task.sources)}."
        )
    if metric not in task.metrics:
        faults.append(
            f"train.select_metric={metric!r} is not known to task={cfg.task!r}; "
            f"choose one of {', '.join(task.metrics)}."
        )
    owners: dict[str, list[str]] = {}
    for name in TASKS:
        for key, row in find_task(name).options.items():
            if key not in task.options and flat[key] != row.default:
                owners.setdefault(key, []).append(name)
    for key, names in owners.items():
        tasks = f"task{'s' if names[1:] else ''} {' and '.join(names)}"
        faults.append(f"{key} has no effect in task {cfg.task!r}; it is an option of the {tasks}.")
    return [*faults, *task.faults(data.to_dict())]


def check(cfg: ConfigDict) -> None:
    """Refuse values and combinations that cannot work.

    Raises:
      ValueError: one line per fault: what was asked, what is allowed.
    """
    faults = range_faults(cfg)
    train = cfg.train
    try:
        task = find_task(cfg.task)
    except ValueError as error:
        faults.append(str(error))
    else:
        faults += _task_faults(cfg, task)
    if cfg.task in READ:
        faults += _network_faults(cfg.task, cfg.model)
    else:
        faults += _model_faults(cfg.model)
    if (train.epochs > 0) == (train.steps > 0):
        faults.append(
            f"give train.epochs or train.steps, and leave the other at 0; "
            f"got epochs={train.epochs}, steps={train.steps}."
        )
    if train.accumulate > 0 and cfg.batch_size % train.accumulate:
        faults.append(
            f"batch_size={cfg.batch_size} does not split into train.accumulate={train.accumulate} "
            "equal parts; use a multiple of it."
        )
    if cfg.schedule.total_steps and cfg.schedule.warmup_steps >= cfg.schedule.total_steps:
        faults.append(
            f"schedule.warmup_steps={cfg.schedule.warmup_steps} must be below "
            f"schedule.total_steps={cfg.schedule.total_steps}."
        )
    if faults:
        raise ValueError("\n".join(faults))
