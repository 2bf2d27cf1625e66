"""Network and layers of the Long Range Arena experiments, as far as all tasks share them.

An experiment file has a function for each variant and adds what its task needs:

    s4d_ft  S4D with tuned frequency bias: alpha, learned beta (arXiv:2410.02035, official code)
    s4d     the same with alpha = 1 and without filter: what alpha and beta are worth at one budget
    s4d_ac  s4d with dt = 1 / sqrt(L lambda_max) of the inputs of each layer (arXiv:2411.19455)
    s4d_re0 s4d with Re A = 0 at the start, and at most 0 in training (likewise)
    s4      S4 with HiPPO-LegS (arXiv:2111.00396, configuration v4 of the official code)
    s5      S5 (arXiv:2208.04933, official run scripts)

The name of any other layer (see `layers.find_layer`) is a variant as well: that of s4d, with it.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config import rates
from ssm_jax.outside import Unknown

ARMS: dict[str, dict[str, Any]] = {  # of s4d, by the source above
    "s4d_ac": {"dt_rule": "autocorrelation"},
    "s4d_re0": {"alpha_real": 0.0, "real_transform": "clip"},
}
VARIANTS = ("s4d_ft", "s4d", "s4", "s5", *ARMS)
SIZES = ("full", "smoke", "reduced")


def start(arg: str, task: str) -> tuple[ConfigDict, str, str]:
    """The defaults under the name lra/TASK:VARIANT, and the variant and the size of `arg`."""
    known = with_layers(arg, variant=VARIANTS, size=SIZES)
    variant, size = config_lib.parse_arg(arg, **known).values()
    cfg = config_lib.default(task)
    cfg.name = f"lra/{task}:{variant.rpartition(':')[2]}"
    return cfg, variant, size


def with_layers(arg: str, **known: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """What the argument of a config may say, `known`, of which those words of it that are no known
    ones and name layers are variants, too."""
    taken = {word for words in known.values() for word in words}

    def is_layer(word: str) -> bool:
        if word.rpartition("=")[2] in taken:
            return False
        from ssm_jax.layers import find_layer  # imports JAX

        with contextlib.suppress(Unknown):
            return find_layer(word) is not None
        return False

    words = (word.removeprefix("variant=") for word in arg.split(",") if word)
    return {**known, "variant": (*known["variant"], *filter(is_layer, words))}


def choose(cfg: ConfigDict, variant: str, **tuned: Callable[[ConfigDict], None]) -> None:
    """Make a config that of a variant; `tuned` makes it that of s4d_ft, s4 and s5 in its task.

    Another layer is parametrized as its constructor is by default.
    """
    if variant in tuned:
        tuned[variant](cfg)
        return
    tuned["s4d_ft"](cfg)
    cfg.model.alpha, cfg.model.beta.learn = 1.0, False
    arm(cfg, variant)
    if variant in ("s4", "s5"):
        raise ValueError(f"the task {cfg.task} has no variant {variant}; choose another.")
    if variant not in VARIANTS:
        config_lib.override(cfg, {"model.layer": variant})


def arm(cfg: ConfigDict, variant: str) -> None:
    """Set what an arm of s4d differs in from it; other variants are no arm."""
    cfg.model.update(ARMS.get(variant, {}))


def finish(cfg: ConfigDict, size: str, reduce: Callable[[ConfigDict], None]) -> ConfigDict:
    """The experiment in the size that was asked for; `reduce` makes it small."""
    if size == "reduced":
        cfg.name += ":reduced"
        reduce(cfg)
    return config_lib.smoke(cfg) if size == "smoke" else cfg


def shorten(
    cfg: ConfigDict, notes: str, *, batch_size: int, epochs: float, warmup_steps: int
) -> None:
    """Take four blocks of 64 channels, and a schedule that ends with the training.

    `notes`, what is reduced, are kept in every result.
    """
    cfg.notes = f"Reduced: {notes} Not comparable with LRA."
    cfg.model.depth, cfg.model.d_model = 4, 64
    cfg.model.n_ssm = min(cfg.model.n_ssm, 64)
    cfg.batch_size, cfg.train.epochs, cfg.train.eval_batch_size = batch_size, epochs, 250
    schedule = cfg.schedule
    schedule.warmup_steps, schedule.total_steps, schedule.clamp = warmup_steps, 0, True
    cfg.reference.accuracy = 0.0


def s4d_ft(cfg: ConfigDict, *, alpha: float) -> None:
    """Set what s4d_ft has in all tasks; 64 conjugate pairs per channel (OC-1)."""
    model = cfg.model
    model.layer, model.init = "s4d", "s4d_lin"
    model.depth, model.d_state = 6, 64
    model.alpha = alpha  # freqscale
    model.beta.learn, model.beta.init = True, 0.0  # OC-10: learned, from 0
    model.dt_min, model.dt_max = 1e-3, 1e-1


def s4(cfg: ConfigDict, *, d_model: int, d_state: int, n_ssm: int = 1) -> None:
    """Set what s4 has in all tasks: NPLR HiPPO-LegS, bilinear, no filter, mean pooling.

    `d_state`: conjugate pairs, half of the N that S4's configurations give.
    """
    model = cfg.model
    model.layer, model.init, model.discretization = "s4", "legs", "bilinear"
    model.depth, model.d_model, model.d_state, model.n_ssm = 6, d_model, d_state, n_ssm
    model.beta.learn, model.pool = False, "mean"
    model.dt_min, model.dt_max = 1e-3, 1e-1


def s5(
    cfg: ConfigDict,
    *,
    d_model: int,
    ssm_size: int,
    n_blocks: int,
    C_init: str,
    gate: str,
    depth: int = 6,
    dropout: float = 0.0,
    norm_momentum: float = 0.05,
) -> None:
    """Set what s5 has in all tasks: MIMO, HiPPO-N in blocks, ZOH, BatchNorm, half-GLU, mean pool.

    `ssm_size`: P, of which conjugate symmetry stores half; `n_blocks`: J; `norm_momentum`:
    1 - bn_momentum of the run scripts, whose default is 0.95.
    """
    model = cfg.model
    model.layer, model.init, model.discretization = "s5", "legs", "zoh"
    model.real_transform, model.dt_transform = "none", "exp"
    model.depth, model.d_model, model.d_state = depth, d_model, ssm_size // 2
    model.s5.n_blocks, model.s5.C_init = n_blocks, C_init
    model.gate, model.final_norm, model.norm_momentum = gate, False, norm_momentum
    model.norm, model.prenorm = "batch", True
    model.dropout, model.tie_dropout = dropout, True
    model.beta.learn, model.pool = False, "mean"
    model.dt_min, model.dt_max = 1e-3, 1e-1


def s5_rates(
    cfg: ConfigDict,
    *,
    lr: float,
    ssm_lr: float,
    weight_decay: float,
    optimizer: str = "standard",
    dt_global: bool = False,
) -> None:
    """Set the rates of S5's run scripts: Lambda, dt and norms at ssm_lr without decay, all else lr.

    `optimizer` is opt_config: "standard" has B at ssm_lr without decay, "BandCdecay" at ssm_lr with
    decay, "BfastandCdecay" at lr with decay; `dt_global`: dt at lr with decay.
    """
    ssm, rest = (ssm_lr, 0.0), (lr, weight_decay)
    B = {"standard": ssm, "BandCdecay": (ssm_lr, weight_decay), "BfastandCdecay": rest}[optimizer]
    rates(cfg, A=ssm, B=B, dt=rest if dt_global else ssm, norm=ssm, rest=rest)


def early(cfg: ConfigDict, *, accuracy: float, epoch: float) -> None:
    """What S4 reached early on (its table of experiments); a run far below says so."""
    cfg.reference.accuracy, cfg.reference.epoch = accuracy, epoch
