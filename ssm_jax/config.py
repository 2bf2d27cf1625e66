"""Every option of an experiment, once, with unit, range and source; and what may go together.

An experiment file calls `default()`, changes some values and returns the ConfigDict. It may not add
a key.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from ml_collections import ConfigDict

# Options that change what is shown or kept, never a number of the run: they may differ when a run
# goes on.
COSMETIC = ("name", "notes", "log", "checkpoint", "figures")

# What each layer can start with
DISCRETE_INITS = ("dfout", "ring")
_S4D_INITS = ("s4d_lin", "s4d_inv", "s4d_legs", "fout", "ptd", *DISCRETE_INITS)
INITS = {"s4d": _S4D_INITS, "s5": ("legs", *_S4D_INITS), "s4": ("legs", "fout")}


def default() -> ConfigDict:
    """Every option with its default. These reproduce no experiment; `configs/` has those."""
    cfg = ConfigDict()
    cfg.name = "unnamed"  # shown in logs and results
    cfg.notes = ""  # what is reduced or else not as published; shown, and kept in every result
    cfg.task = "listops"  # a key of ssm_jax.tasks.TASKS
    cfg.seed = 0  # of parameters, dropout and the order of the data, >= 0
    cfg.batch_size = 32  # examples per step over all devices, >= 1

    cfg.data = ConfigDict()
    cfg.data.source = "generated"  # generated (by LRA's procedure) | official (see --lra_release)
    cfg.data.seed = 0  # of the generator, >= 0; not read for official data
    cfg.data.n_train = 96_000  # expressions to generate, >= 1 (LRA: 96,000 / 2,000 / 2,000)
    cfg.data.n_val = 2_000  # likewise, for validation
    cfg.data.n_test = 2_000  # likewise, for the test
    cfg.data.shorter_than = 2_000  # tokens: a kept expression is strictly shorter (LRA: 2,000) ...
    cfg.data.longer_than = 500  # ... and strictly longer (LRA: 500)
    cfg.data.max_depth = 10  # nesting, 2..10 (LRA: 10)
    cfg.data.max_args = 10  # operands of one operator, 2..10 (LRA: 10)
    cfg.data.padded_length = 2_048  # L of every batch, with the end-of-sequence token (LRA: 2,048)

    cfg.model = ConfigDict()
    cfg.model.layer = "s4d"  # s4d | s5 | s4: a key of ssm_jax.layers.LAYERS
    cfg.model.depth = 6  # residual blocks, >= 1
    cfg.model.d_model = 128  # channels H, >= 1
    cfg.model.d_state = 64  # complex modes N kept per channel, >= 1 (OC-1: conjugates come on top)
    cfg.model.n_ssm = 1  # distinct sets of eigenvalues, a divisor of d_model (OC-6); not in s5
    cfg.model.init = "s4d_lin"  # a key of ssm_jax.init.INITS; in s5 also legs; in s4 legs | fout
    cfg.model.init_seed = 0  # of the inits that draw (ring, dfout), >= 0; not in s4
    cfg.model.alpha = 1.0  # factor on Im A at initialization, > 0 (OC-2: freqscale)
    cfg.model.alpha_real = 1.0  # factor on Re A at initialization, >= 0; 0: modes without damping
    cfg.model.real_transform = "exp"  # Re A: exp | softplus | relu | clip | stable | none (OC-3)
    cfg.model.beta = ConfigDict()  # exponent of the Sobolev filter (1 + s)^beta
    cfg.model.beta.learn = True  # learned per channel, or fixed at init (OC-10: learned)
    cfg.model.beta.init = 0.0  # start value, -4..4 (OC-10: 0)
    cfg.model.beta.unit = "lra"  # what s is: lra (k/n) | hz_1e4 (k/1e4) | rad (radians per sample)
    cfg.model.dt_min = 1e-3  # time units per sample, > 0; dt starts log-uniform in [dt_min, dt_max]
    cfg.model.dt_max = 1e-1
    cfg.model.dt_transform = "softplus"  # dt = softplus(p) | exp(p) (OC-5: softplus in LRA)
    cfg.model.discretization = "zoh"  # zoh | bilinear (in s4: this) | none (ring, dfout: no dt)
    cfg.model.bidirectional = True  # a second kernel looks ahead (LRA: yes, in all tasks)
    cfg.model.norm = "batch"  # batch | layer
    cfg.model.prenorm = True  # norm before the layer, and a final norm; or after the residual sum
    cfg.model.dropout = 0.0  # rate, 0..1, at the three places of OC-14
    cfg.model.tie_dropout = True  # one mask for all time steps of a channel
    cfg.model.pool = "mean"  # last | mean | first | sum, over the unpadded steps
    cfg.model.activations = "float32"  # float32 | bfloat16: of the residual stream, GELU and GLU
    cfg.model.s4d = ConfigDict()  # options of s4d alone
    cfg.model.s4d.input_norm = "none"  # none | lru: input times sqrt(1 - |A_bar|^2) (ring, dfout)
    cfg.model.s5 = ConfigDict()  # options of s5 alone
    cfg.model.s5.n_blocks = 1  # equal blocks of A at initialization, a divisor of d_state
    cfg.model.s5.C_init = "lecun_normal"  # or trunc_standard_normal | complex_normal (OC-26)
    cfg.model.s5.conj_sym = True  # store half of the conjugate pairs; False: all of them
    cfg.model.s5.clip_eigs = False  # keep Re A at most -1e-4
    cfg.model.s4 = ConfigDict()  # options of s4 alone
    cfg.model.s4.b_clip = 2.0  # Im B starts within +-b_clip, >= 0; 0: no clip (OC-27: 2)

    cfg.train = ConfigDict()
    cfg.train.epochs = 0.0  # length of training: give epochs or steps, the other stays 0
    cfg.train.steps = 0
    cfg.train.eval_every = 0  # steps between evaluations; 0: at the end of every epoch
    cfg.train.eval_batch_size = 0  # examples; 0: batch_size
    cfg.train.select_metric = "accuracy"  # accuracy | loss, of an evaluation; names the best one
    cfg.train.select_split = "val"  # train | val; the test split is read once, at the end

    cfg.optim = ConfigDict()  # AdamW
    cfg.optim.b1 = 0.9  # 0..1
    cfg.optim.b2 = 0.999  # 0..1
    cfg.optim.eps = 1e-8  # > 0
    cfg.optim.clip_norm = 0.0  # largest global norm of the gradient; 0: no clipping
    cfg.optim.groups = ConfigDict()  # every parameter belongs to exactly one group
    for name, match in (
        ("A", r"/(A_re_raw|A_im)$"),
        ("dt", r"/dt_raw$"),
        ("beta", r"/beta$"),
        ("rest", ""),
    ):
        group = ConfigDict()
        group.match = match  # regular expression, searched in blocks/0/ssm/C_ri; "": all others
        group.optional = name in ("dt", "beta")  # may match nothing (a fixed beta; no dt)
        group.lr = 1e-3  # peak learning rate, >= 0
        group.weight_decay = 0.0  # decoupled (AdamW), >= 0
        group.schedule = "cosine"  # cosine: with warmup, as cfg.schedule says | constant
        cfg.optim.groups[name] = group

    cfg.schedule = ConfigDict()  # factor on the learning rates: linear warmup, then a cosine
    cfg.schedule.warmup_steps = 0  # >= 0
    cfg.schedule.total_steps = 0  # step at which the cosine reaches 0; 0: the last step of training
    cfg.schedule.clamp = True  # stay at 0 past total_steps; False: rise again, as officially

    cfg.checkpoint = ConfigDict()
    cfg.checkpoint.every = 1_000  # steps between saves, >= 1; evaluations save as well
    cfg.checkpoint.keep = 2  # newest checkpoints kept, >= 1; the best one is kept besides

    cfg.log = ConfigDict()
    cfg.log.every = 50  # steps between lines of metrics.jsonl, >= 1

    cfg.figures = True  # draw the figures at the end
    return cfg


def smoke(cfg: ConfigDict) -> ConfigDict:
    """The same experiment for 20 steps, on a few generated expressions of its own length."""
    cfg.name += ":smoke"
    cfg.notes = "Smoke run: 20 steps of the same code. Its accuracy means nothing."
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 48, 8, 8
    cfg.batch_size = 4
    cfg.train.epochs, cfg.train.steps, cfg.train.eval_every = 0.0, 20, 10
    cfg.schedule.warmup_steps, cfg.schedule.total_steps = 5, 20
    cfg.checkpoint.every = 5
    cfg.log.every = 1
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
    """The flat options that a run's numbers depend on: all but the cosmetic ones."""
    return {k: v for k, v in flatten(cfg).items() if k.split(".")[0] not in COSMETIC}


def digest(cfg: ConfigDict) -> str:
    """Twelve hex digits that name the numbers of a run: SHA-256 over `identity`."""
    text = json.dumps(identity(cfg), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _choice(key: str, *allowed: str):
    def test(cfg: ConfigDict) -> str | None:
        value = flatten(cfg)[key]
        if value in allowed:
            return None
        return f"{key}={value!r} is not known; choose one of {', '.join(allowed)}."

    return test


def _within(key: str, low: float, high: float = float("inf"), *, open_low: bool = False):
    def test(cfg: ConfigDict) -> str | None:
        value = flatten(cfg)[key]
        if math.isfinite(value) and value <= high and (value > low if open_low else value >= low):
            return None
        bound = f"greater than {low:g}" if open_low else f"at least {low:g}"
        upper = "" if high == float("inf") else f" and at most {high:g}"
        return f"{key}={value!r} is out of range; it must be {bound}{upper}."

    return test


_TESTS = (
    _choice("data.source", "generated", "official"),
    _choice("model.layer", *INITS),
    _choice("model.real_transform", "exp", "softplus", "relu", "clip", "stable", "none"),
    _choice("model.beta.unit", "lra", "hz_1e4", "rad"),
    _choice("model.dt_transform", "softplus", "exp"),
    _choice("model.discretization", "zoh", "bilinear", "none"),
    _choice("model.activations", "float32", "bfloat16"),
    _choice("model.s4d.input_norm", "none", "lru"),
    _choice("model.s5.C_init", "lecun_normal", "trunc_standard_normal", "complex_normal"),
    _choice("model.norm", "batch", "layer"),
    _choice("model.pool", "last", "mean", "first", "sum"),
    _choice("train.select_metric", "accuracy", "loss"),
    _choice("train.select_split", "train", "val"),
    _within("seed", 0),
    _within("batch_size", 1),
    _within("data.seed", 0),
    _within("data.n_train", 1),
    _within("data.n_val", 1),
    _within("data.n_test", 1),
    _within("data.longer_than", 0),
    _within("data.max_depth", 2, 10),
    _within("data.max_args", 2, 10),
    _within("model.depth", 1),
    _within("model.d_model", 1),
    _within("model.d_state", 1),
    _within("model.n_ssm", 1),
    _within("model.init_seed", 0),
    _within("model.alpha", 0, open_low=True),
    _within("model.alpha_real", 0),
    _within("model.s5.n_blocks", 1),
    _within("model.s4.b_clip", 0),
    _within("model.beta.init", -4, 4),
    _within("model.dt_min", 0, open_low=True),
    _within("model.dt_max", 0, open_low=True),
    _within("model.dropout", 0, 0.999),
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
    for key, value in flatten(model).items():
        reason = next((why for start, why in unread.items() if key.startswith(start)), None)
        if reason and value != standard[key]:
            faults.append(
                f"model.{key}={value!r} is not read with {reason}; leave it at {standard[key]!r}."
            )
    return faults


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
    faults += _model_faults(cfg.model)
    if (train.epochs > 0) == (train.steps > 0):
        faults.append(
            f"give train.epochs or train.steps, and leave the other at 0; "
            f"got epochs={train.epochs}, steps={train.steps}."
        )
    if data.longer_than + 1 >= data.shorter_than:
        faults.append(
            f"no expression is longer than {data.longer_than} and shorter than "
            f"{data.shorter_than} tokens; raise data.shorter_than."
        )
    if data.shorter_than > data.padded_length:
        faults.append(
            f"data.padded_length={data.padded_length} cannot hold {data.shorter_than - 1} tokens "
            f"and the end of sequence; use at least {data.shorter_than}."
        )
    if cfg.schedule.total_steps and cfg.schedule.warmup_steps >= cfg.schedule.total_steps:
        faults.append(
            f"schedule.warmup_steps={cfg.schedule.warmup_steps} must be below "
            f"schedule.total_steps={cfg.schedule.total_steps}."
        )
    if faults:
        raise ValueError("\n".join(faults))
