"""What the options of an experiment may be, and what may go together."""

from __future__ import annotations

import math

from ml_collections import ConfigDict

from ssm_jax.config import default, flatten
from ssm_jax.ranges import LARGEST, RANGES, Range

# What each layer can start with
DISCRETE_INITS = ("dfout", "ring")
_S4D_INITS = ("s4d_lin", "s4d_inv", "s4d_legs", "fout", "ptd", *DISCRETE_INITS)
INITS = {"s4d": _S4D_INITS, "s5": ("legs", *_S4D_INITS), "s4": ("legs", "fout")}


# What can choose the best checkpoint, by task; in all others accuracy and loss
METRICS = {"denoise": ("psnr", "loss"), "waves": ("error", "loss")}
_LABELLED_METRICS = ("accuracy", "loss")
# Options of `model` that a task reads; one that is not here reads them all
READ = {
    "denoise": ("d_state", "alpha", "beta.", "dt_min", "dt_max"),
    "waves": ("d_model", "d_state", "alpha", "beta.init", "beta.learn", "waves."),
}


def _choice(key: str, *allowed: str):
    def test(cfg: ConfigDict) -> str | None:
        value = flatten(cfg)[key]
        if value in allowed:
            return None
        return f"{key}={value!r} is not known; choose one of {', '.join(allowed)}."

    return test


def _within(key: str, low: float, high: float = float("inf"), *, open_low: bool = False):
    return _in_range(key, Range(low, high, above=open_low))


def _of_constructor(key: str, name: str):
    """The range that constructors give to an argument of this name."""
    allowed = RANGES[name]
    assert isinstance(allowed, Range)
    return _in_range(key, allowed)


def _in_range(key: str, allowed: Range):
    def test(cfg: ConfigDict) -> str | None:
        value = flatten(cfg)[key]
        if allowed.holds(value):
            return None
        bounds = str(allowed).removesuffix(" and finite").replace("positive", "greater than 0")
        if isinstance(value, float) and abs(value) > LARGEST:
            bounds = "a finite number of float32"
        return f"{key}={value!r} is out of range; it must be {bounds}."

    return test


# JAX keeps the lower 32 bits of a seed, so 2**32 would be seed 0 once more.
SEEDS = 2**32


def seed_fault(key: str, seed: int) -> str | None:
    """What is wrong with a seed, in a line; None if it is one of 0 .. SEEDS - 1."""
    if 0 <= seed < SEEDS:
        return None
    return f"{key}={seed} is out of range; it must be at least 0 and below 2^32 = {SEEDS}."


def _seed(key: str):
    return lambda cfg: seed_fault(key, flatten(cfg)[key])


# Options of `model` with the name and the range of a constructor's argument
_CONSTRUCTED = (
    *("depth", "d_model", "d_state", "alpha", "alpha_real", "dt_min", "dt_max"),
    *("dropout", "norm_momentum"),
)
_TESTS = (
    _choice(
        "data.source",
        *("generated", "official", "sample", "fashion_mnist", "photographs", "stand_in"),
    ),
    _choice("data.text.vocab", "char", "byte"),
    _choice("model.layer", *INITS),
    _choice("model.real_transform", "exp", "softplus", "relu", "clip", "stable", "none"),
    _choice("model.beta.unit", "lra", "hz_1e4", "denoise", "rad"),
    _choice("model.dt_transform", "softplus", "exp"),
    _choice("model.discretization", "zoh", "bilinear", "none"),
    _choice("model.activations", "float32", "bfloat16"),
    _choice("model.s4d.input_norm", "none", "lru"),
    _choice("model.s5.C_init", "lecun_normal", "trunc_standard_normal", "complex_normal"),
    _choice("model.norm", "batch", "layer"),
    _choice("model.gate", "glu", "half_glu1", "half_glu2"),
    _choice("model.pool", "last", "mean", "first", "sum"),
    _choice("train.select_split", "train", "val"),
    _seed("seed"),
    _within("batch_size", 1),
    _seed("data.seed"),
    _within("data.n_train", 0),
    _within("data.n_val", 0),
    _within("data.n_test", 0),
    _within("data.padded_length", 2),
    _within("data.buckets", 1, 8),
    _within("data.std", 0, open_low=True),
    _within("data.listops.longer_than", 0),
    _within("data.listops.max_depth", 2, 10),
    _within("data.listops.max_args", 2, 10),
    _within("data.text.min_freq", 1),
    _within("data.text.val_fraction", 0, 0.5),
    _within("data.image.n_held_out", 1, 49_999),
    _within("data.denoise.height", 1),
    _within("data.denoise.width", 1),
    _within("data.denoise.amplitude", 0),
    _within("train.accumulate", 1),
    _within("reference.epoch", 0),
    _within("reference.accuracy", 0, 1),
    _within("reference.margin", 0, 1),
    *(_of_constructor(f"model.{name}", name) for name in _CONSTRUCTED),
    _of_constructor("model.beta.init", "beta"),
    _within("model.n_ssm", 1),
    _seed("model.init_seed"),
    _within("model.s5.n_blocks", 1),
    _within("model.s4.b_clip", 0),
    _within("train.epochs", 0),
    _within("train.steps", 0),
    _within("train.eval_every", 0),
    _within("train.eval_batch_size", 0),
    _within("optim.b1", 0, 0.999999),
    _within("optim.b2", 0, 0.999999),
    _within("optim.eps", 0, open_low=True),
    _within("optim.clip_norm", 0),
    _within("schedule.warmup_steps", 0),
    _within("schedule.total_steps", 0),
    _within("checkpoint.every", 1),
    _within("checkpoint.keep", 1),
    _within("log.every", 1),
)


def _model_faults(model: ConfigDict) -> list[str]:
    """What the layer of a model cannot do, and options it does not read that were set."""
    faults: list[str] = []
    layer, init, rule = model.layer, model.init, model.discretization
    if layer not in INITS:
        return faults
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
    unread["waves."] = "this task"
    for key, value in flatten(model).items():
        reason = next((why for start, why in unread.items() if key.startswith(start)), None)
        if reason and value != standard[key]:
            faults.append(
                f"model.{key}={value!r} is not read with {reason}; leave it at {standard[key]!r}."
            )
    return faults


def _task_faults(task: str, model: ConfigDict) -> list[str]:
    """Options of the model that were set and that the task's own model does not read."""
    standard = flatten(default().model)
    return [
        f"model.{key}={value!r} is not read with task={task!r}; leave it at {standard[key]!r}."
        for key, value in flatten(model).items()
        if not key.startswith(READ[task]) and value != standard[key]
    ]


def check(cfg: ConfigDict) -> None:
    """Refuse values and combinations that cannot work.

    Raises:
      ValueError: one line per fault: what was asked, what is allowed.
    """
    faults = [fault for test in _TESTS if (fault := test(cfg))]
    for name, group in cfg.optim.groups.items():
        for key in ("lr", "weight_decay"):
            if not 0 <= group[key] < math.inf:
                faults.append(
                    f"optim.groups.{name}.{key}={group[key]!r} must be finite and at least 0."
                )
        if group.schedule not in ("cosine", "constant"):
            faults.append(
                f"optim.groups.{name}.schedule={group.schedule!r} is not known; "
                "choose one of cosine, constant."
            )
    data, train = cfg.data, cfg.train
    metrics = METRICS.get(cfg.task, _LABELLED_METRICS)
    if train.select_metric not in metrics:
        faults.append(
            f"train.select_metric={train.select_metric!r} is not known to task={cfg.task!r}; "
            f"choose one of {', '.join(metrics)}."
        )
    faults += _task_faults(cfg.task, cfg.model) if cfg.task in READ else _model_faults(cfg.model)
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
    listops = data.listops
    if listops.longer_than + 1 >= listops.shorter_than:
        faults.append(
            f"no expression is longer than {listops.longer_than} and shorter than "
            f"{listops.shorter_than} tokens; raise data.listops.shorter_than."
        )
    generated = cfg.task == "listops" and data.source == "generated"
    if generated and listops.shorter_than > data.padded_length:
        faults.append(
            f"data.padded_length={data.padded_length} cannot hold {listops.shorter_than - 1} "
            f"tokens and the end of sequence; use at least {listops.shorter_than}."
        )
    if cfg.schedule.total_steps and cfg.schedule.warmup_steps >= cfg.schedule.total_steps:
        faults.append(
            f"schedule.warmup_steps={cfg.schedule.warmup_steps} must be below "
            f"schedule.total_steps={cfg.schedule.total_steps}."
        )
    if faults:
        raise ValueError("\n".join(faults))
