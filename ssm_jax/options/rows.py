"""Every option of an experiment in one row: default, meaning, unit, range, choices, source.

`config.default`, --help, docs/options.md, the checks of a config and the checks of constructors all
read these rows. The options of one task are rows of that task (`tasks.Task.options`), and those of
a layer of your own come from its constructor (`layers.layer_options`).
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

LARGEST = float(np.finfo(np.float32).max)
BOOLS = (bool, np.bool_)
_SMALLEST = float(np.finfo(np.float32).tiny)  # below it float32 arithmetic has only 0


class Range(NamedTuple):
    """Finite numbers between two bounds; `str` says which, after "must be"."""

    low: float
    high: float = math.inf
    above: bool = False  # low itself is out
    below: bool = False  # high itself is out
    whole: bool = False  # integers alone

    def holds(self, value: Any) -> bool:
        """Whether a value is such a number, and finite and inside when rounded to float32."""
        if isinstance(value, (*BOOLS, str, bytes)) or np.ndim(value):
            return False
        if self.whole and not isinstance(value, numbers.Integral):
            return False
        try:
            with np.errstate(over="ignore", under="ignore"):
                number, rounded = float(value), float(np.float32(value))
        except (TypeError, ValueError, OverflowError):
            return False
        above = not self.above or rounded >= self.low + _SMALLEST
        below = not self.below or rounded < self.high
        return math.isfinite(rounded) and self.low <= number <= self.high and above and below

    def unlike(self, value: Any) -> str:
        """What a value should be that it is not: of one that rounding puts out, in float32."""
        number = isinstance(value, float) and not self.whole
        inside = number and self.low < value < self.high
        return f"{self}{' in float32' * inside}"

    def __str__(self) -> str:
        bound = f"{'above' if self.above else 'at least'} {self.low:g}"
        low = "positive" if self.above and self.low == 0 else bound
        if self.high < math.inf:
            return f"{low} and {'below' if self.below else 'at most'} {self.high:.10g}"
        return low if self.whole else f"{low} and finite"

    @property
    def short(self) -> str:
        """The same as signs: > 0, >= 1, 0..1, 0..1 without 1."""
        if self.high < math.inf:
            high = "2^32-1" if self.high == SEED.high else f"{self.high:.10g}"
            out = [f"{self.low:g}"] * self.above + [high] * self.below
            return f"{self.low:g}..{high}" + (f" without {' and '.join(out)}" if out else "")
        return f"{'>' if self.above else '>='} {self.low:g}"


class Option(NamedTuple):
    """One option of an experiment."""

    default: Any  # its type is the option's: bool, int, float, str or tuple
    doc: str  # what it is, without a full stop
    within: Range | None = None  # the numbers it may be; None: all of its type
    choices: tuple[str, ...] = ()  # the words it may be; (): all
    unit: str = ""  # of the number
    source: str = ""  # where the default is from
    absent: Any = None  # the value that is None to a constructor
    # The version that added it. At its default it is not part of what names a run, so that older
    # runs can be read and continued.
    since: str = ""
    # By another option its values with which a run reads this one: a tuple, or a Range
    when: Mapping[str, Any] = {}

    @property
    def help(self) -> str:
        """One line: meaning, unit, range or choices, source."""
        words = " | ".join(self.choices)
        line = f"{self.doc}: {words}" if words else self.doc
        unit = f"in {self.unit}" if self.unit else ""
        line = ", ".join(filter(None, (line, unit, self.within.short if self.within else "")))
        return f"{line} ({self.source})" if self.source else line


since_0_2 = functools.partial(Option, since="0.2")


def setting(default: Any, doc: str, *args: Any, **kwargs: Any) -> Any:
    """A field of a dataclass that is an option too; the arguments are those of its row."""
    row = Option(default, doc, *args, **kwargs)
    return dataclasses.field(default=default, metadata={"option": row})


SIZE = Range(1, whole=True)
COUNT = Range(0, whole=True)
POSITIVE = Range(0, above=True)
SHARE = Range(0, 1)
# JAX keeps the lower 32 bits of a seed, so 2**32 would be seed 0 once more.
SEED = Range(0, 2**32 - 1, whole=True)
SEED_OR_NOT = Range(-1, 2**32 - 1, whole=True)


def _group(name: str, match: str) -> dict[str, Option]:
    """The rows of a group of parameters; every parameter belongs to exactly one."""
    about = 'regular expression, searched in blocks/0/ssm/C_ri; "": all others'
    shape = "as schedule.* says, or without warmup at the peak rate throughout"
    optional = name not in ("A", "rest")
    rows = {
        "match": Option(match, about),
        "optional": Option(optional, "may match nothing (A_im: to divide A)"),
        "lr": Option(1e-3, "peak learning rate", Range(0)),
        "weight_decay": Option(0.0, "decoupled weight decay (AdamW)", Range(0)),
        "schedule": Option("cosine", shape, choices=("cosine", "constant")),
        "freeze": since_0_2(False, "not trained, keeps its bits"),
    }
    return {f"optim.groups.{name}.{key}": row for key, row in rows.items()}


_TRANSFORMS = ("exp", "softplus", "relu", "clip", "stable", "none")
_RULES = ("zoh", "bilinear", "none")
DT_RULES = ("log_uniform", "fixed", "autocorrelation")
_C_INITS = ("lecun_normal", "trunc_standard_normal", "complex_normal")
_DT = "time units per sample"
_RADIUS = Range(0, 1, below=True)

OPTIONS: dict[str, Option] = {
    "name": Option("unnamed", "shown in logs and results"),
    "changed": since_0_2("", "by a command or a sweep, which set it; beside the name"),
    "notes": Option("", "what is reduced or not as published; shown, and kept in every result"),
    "task": Option("listops", "a task: a key of ssm_jax.tasks.TASKS"),
    "parent": since_0_2(
        "", "set by --init_from and --continue_from: names the state it begins from"
    ),
    "seed": Option(0, "of parameters, dropout and the order of the data", SEED),
    "batch_size": Option(32, "examples per step over all devices", SIZE),
    "data.source": Option("generated", "where the examples come from; each task has its own"),
    "data.seed": Option(
        0, "of what is generated or split; not read for official data; -1: seed", SEED_OR_NOT
    ),
    "data.order_seed": since_0_2(
        -1, "of the order of the training examples; -1: seed", SEED_OR_NOT
    ),
    "data.n_train": Option(0, "training examples, spread evenly; 0: all, or as published", COUNT),
    "data.n_val": Option(0, "validation examples, likewise", COUNT),
    "data.n_test": Option(0, "test examples, likewise", COUNT),
    "data.padded_length": Option(
        2_048, "L of a batch, with the end token; 0: the longest series", COUNT, unit="steps"
    ),
    "data.buckets": Option(1, "lengths of a batch: L, L/2, L/4, ...; 1: always L", Range(1, 8)),
    "model.layer": Option(
        "s4d", "s4d | s4 | s5 | lru | linoss | dlinoss: a key of ssm_jax.layers.LAYERS"
    ),
    "model.depth": Option(6, "residual blocks", SIZE),
    "model.d_model": Option(128, "channels H", SIZE),
    "model.d_state": Option(
        64, "complex modes N kept per channel", SIZE, source="OC-1: conjugates come on top"
    ),
    "model.n_ssm": Option(
        1, "distinct sets of eigenvalues, a divisor of d_model; not in s5", SIZE, source="OC-6"
    ),
    "model.init": Option(
        "s4d_lin", "a key of ssm_jax.init.INITS; in s5 also legs; in s4 legs | fout"
    ),
    "model.init_seed": Option(0, "of the inits that draw, ring and dfout; not in s4", SEED),
    "model.alpha": Option(
        1.0, "factor on Im A at initialization", POSITIVE, source="OC-2: freqscale"
    ),
    "model.alpha_real": Option(1.0, "factor on Re A at initialization; 0: no damping", Range(0)),
    "model.real_transform": Option(
        "exp", "Re A as a function of the parameter", choices=_TRANSFORMS, source="OC-3"
    ),
    "model.beta.init": Option(0.0, "start value", Range(-4, 4), source="OC-10"),
    "model.beta.learn": Option(True, "learned per channel, or fixed", source="OC-10: learned"),
    "model.beta.unit": Option("lra", "of s", choices=("lra", "hz_1e4", "denoise", "rad")),
    "model.beta.filter": since_0_2(
        True, "False: no filter; a causal layer can then be stepped under jit"
    ),
    "model.dt_min": Option(1e-3, "dt starts log-uniform in [dt_min, dt_max]", POSITIVE, unit=_DT),
    "model.dt_max": Option(1e-1, "see model.dt_min", POSITIVE, unit=_DT),
    "model.dt_transform": Option(
        "softplus", "dt as a function of the parameter", choices=("softplus", "exp"), source="OC-5"
    ),
    "model.dt_rule": since_0_2(
        "log_uniform",
        "where dt starts: drawn, dt_min, or dt_kappa / sqrt(L lambda_max) of the layer's inputs",
        choices=DT_RULES,
        source="docs/autocorrelation.md",
    ),
    "model.dt_kappa": since_0_2(1.0, "factor of dt_rule=autocorrelation", POSITIVE, unit=_DT),
    "model.dt_apply_to": since_0_2(
        "all", "layers of dt_rule; of the others dt is drawn", choices=("all", "first")
    ),
    "model.spectrum_steps": since_0_2(
        0,
        "steps that fit |H| of the first layer to the spectrum of its input, before training",
        COUNT,
        source="arXiv:2509.20789",
    ),
    "model.discretization": Option(
        "zoh", "in s4 bilinear; none for ring and dfout, which have no dt", choices=_RULES
    ),
    "model.bidirectional": Option(True, "a second kernel looks ahead", source="LRA: in all tasks"),
    "model.norm": Option("batch", "of a block", choices=("batch", "layer")),
    "model.norm_momentum": Option(0.1, "of a batch in the running statistics", SHARE),
    "model.norm_padding": Option(True, "padded steps count in batch statistics", source="OC-15"),
    "model.prenorm": Option(True, "norm before the layer, and last; or after the residual sum"),
    "model.final_norm": Option(True, "with prenorm: a norm last", source="S4: yes; S5: no"),
    "model.gate": Option("glu", "S4's, or S5's two", choices=("glu", "half_glu1", "half_glu2")),
    "model.dropout": Option(0.0, "rate, at the three places of OC-14", Range(0, 1, below=True)),
    "model.tie_dropout": Option(True, "one mask for all time steps of a channel"),
    "model.pool": Option(
        "mean", "over unpadded steps", choices=("last", "mean", "first", "sum", "none")
    ),
    "model.activations": Option(
        "float32", "of the residual stream, GELU and gate", choices=("float32", "bfloat16")
    ),
    "model.precision": since_0_2(
        "default",
        "of products in gate, encoder, decoder: TF32 on GPUs, bfloat16 on TPUs; highest: float32",
        choices=("default", "high", "highest"),
        source="docs/accelerators.md",
    ),
    "model.remat": Option(False, "compute blocks again in the backward pass, to save memory"),
    "model.s4d.input_norm": Option(
        "none", "lru: input times sqrt(1 - |A_bar|^2), for ring and dfout", choices=("none", "lru")
    ),
    "model.s5.n_blocks": Option(1, "equal blocks of A at first, a divisor of d_state", SIZE),
    "model.s5.C_init": Option("lecun_normal", "draws of C", choices=_C_INITS, source="OC-26"),
    "model.s5.conj_sym": Option(True, "store half of the conjugate pairs; False: all of them"),
    "model.s5.clip_eigs": Option(False, "keep Re A at most -1e-4"),
    "model.s4.b_clip": Option(
        2.0, "Im B starts within +-b_clip; 0: no clip", Range(0), source="OC-27: 2", absent=0.0
    ),
    "model.lru.r_min": since_0_2(
        0.0, "poles start between this radius ...", _RADIUS, source="arXiv:2303.06349"
    ),
    "model.lru.r_max": since_0_2(1.0, "... and this one", Range(0, 1, above=True)),
    "model.lru.max_phase": since_0_2(
        math.pi, "their largest angle", Range(0, math.pi, above=True), unit="rad"
    ),
    "model.linoss.scheme": since_0_2(
        "im",
        "steps: implicit, where fast modes forget first, or on the unit circle",
        choices=("im", "imex"),
        source="arXiv:2410.03943",
    ),
    "model.dlinoss.r_min": since_0_2(
        0.9, "smallest radius of a pole at the start", _RADIUS, source="arXiv:2505.12171"
    ),
    "train.epochs": Option(0.0, "length of training; or give steps, and leave this 0", Range(0)),
    "train.steps": Option(0, "length of training", COUNT),
    "train.accumulate": Option(1, "parts of a batch in turn, a divisor of batch_size", SIZE),
    "train.deterministic": since_0_2(
        False,
        "on GPUs: nothing is tuned by timing, so that a resumed run has the same bits",
        source="docs/accelerators.md",
    ),
    "train.eval_every": Option(0, "steps between evaluations; 0: at the end of an epoch", COUNT),
    "train.eval_batch_size": Option(0, "examples; 0: batch_size", COUNT),
    "train.select_metric": Option("accuracy", "of the task; it names the best evaluation"),
    "train.select_split": Option("val", "test is read once, at the end", choices=("train", "val")),
    "train.patience": since_0_2(
        0, "evaluations without a better one before training ends; 0: none", COUNT
    ),
    "train.ema": since_0_2(
        0.0,
        "decay of a moving average of parameters and statistics, evaluated beside; 0: none",
        Range(0, 1, below=True),
    ),
    "train.select_ema": since_0_2(
        False, "the average is the result, and chooses the best evaluation"
    ),
    "reference.epoch": Option(0.0, "at this epoch ...", Range(0)),
    "reference.accuracy": Option(0.0, "... the published validation accuracy; 0: none", SHARE),
    "reference.margin": Option(0.1, "how far below it is far", SHARE),
    "optim.lr": since_0_2(
        0.0, "rate of the group rest; others keep their ratio; 0: no change", Range(0)
    ),
    "optim.freeze": since_0_2(
        "", "regular expression of parameters that are not trained; '': none"
    ),
    "optim.b1": Option(0.9, "decay of the mean of gradients", Range(0, 0.999999)),
    "optim.b2": Option(0.999, "decay of the mean of their squares", Range(0, 0.999999)),
    "optim.eps": Option(1e-8, "added to the root of that", POSITIVE),
    "optim.clip_norm": Option(0.0, "largest global norm of the gradient; 0: no clipping", Range(0)),
    **_group("A", r"/(A_re_raw|A_im|P_ri)$"),
    **_group("A_im", r"$^"),
    **_group("B", r"/B_ri$"),
    **_group("dt", r"/dt_raw$"),
    **_group("beta", r"/beta$"),
    **_group("norm", r"(^|/)norm/(scale|bias)$"),
    **_group("rest", ""),
    "schedule.shape": since_0_2("cosine", "after the warmup", choices=("cosine", "constant")),
    "schedule.warmup_steps": Option(0, "linear warmup", COUNT, unit="steps"),
    "schedule.total_steps": Option(0, "end of the cosine; 0: of training", COUNT, unit="steps"),
    "schedule.clamp": Option(True, "stay at 0 past total_steps; False: rise again, as officially"),
    "checkpoint.every": Option(1_000, "steps between saves; evaluations save as well", SIZE),
    "checkpoint.keep": Option(2, "newest checkpoints kept; the best one is kept besides", SIZE),
    "log.every": Option(50, "steps between lines of metrics.jsonl", SIZE),
    "log.diagnostics": Option(True, "at evaluations: variation, energy and pole drift by band ..."),
    "log.gradient": Option(True, "... and the origin of the poles' gradient: a step more (T1, T2)"),
    "figures": Option(True, "draw the figures at the end"),
    "figures_format": since_0_2("png", "of figures", choices=("png", "pdf", "svg")),
}

_TIMED: Mapping[str, Any] = {"model.discretization": ("zoh", "bilinear")}
_WHEN: Mapping[str, Mapping[str, Any]] = {
    **{f"model.dt_{name}": _TIMED for name in ("min", "max", "transform", "rule")},
    "model.dt_kappa": {**_TIMED, "model.dt_rule": ("autocorrelation",)},
    "model.dt_apply_to": {**_TIMED, "model.dt_rule": ("fixed", "autocorrelation")},
    "model.spectrum_steps": _TIMED,
    "model.norm_momentum": {"model.norm": ("batch",)},
    "model.norm_padding": {"model.norm": ("batch",)},
    "model.final_norm": {"model.prenorm": (True,)},
    "model.s4.b_clip": {"model.init": ("legs",)},
    "schedule.total_steps": {"schedule.shape": ("cosine",)},
    "schedule.clamp": {"schedule.shape": ("cosine",), "schedule.total_steps": SIZE},
}
OPTIONS |= {key: OPTIONS[key]._replace(when=when) for key, when in _WHEN.items()}

# Sections that say nothing in the name of an option
_UNSAID = ("model.", "data.", "train.", "optim.groups.", "optim.", "schedule.")


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Options as people call them: model.alpha is alpha, and model.beta.init is beta.

    Where two would be one, the keys stay as they are.
    """
    short = {}
    for key in keys:
        start = next((s for s in _UNSAID if key.startswith(s)), "")
        short[key] = key.removeprefix(start).removesuffix(".init")
    return short if len(set(short.values())) == len(short) else {key: key for key in short}


def shown(value: Any) -> str:
    """A value in a name or at an axis: 3.0 is 3."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


SECTIONS: Mapping[str, str] = {
    "data": "the examples",
    "model": "the network and its layers",
    "model.beta": "exponent of the Sobolev filter (1 + |s|)^beta",
    "train": "length of training, and what chooses the best checkpoint",
    "reference": "a run far below what was published early on says so",
    "optim": "AdamW",
    "optim.groups": "every parameter belongs to exactly one group",
    "schedule": "factor on the learning rates: linear warmup, then a cosine",
}
