"""What the layers of the Long Range Arena experiments have in common over all tasks.

An experiment file chooses an arm and adds what the task itself needs:

    s4d_ft  S4D with tuned frequency bias: alpha, learned beta (arXiv:2410.02035, official code)
    s4d     the same with alpha = 1 and without filter: what alpha and beta are worth at one budget
    s4      S4 with HiPPO-LegS (arXiv:2111.00396, configuration v4 of the official code)
    s5      S5 (arXiv:2208.04933, official run scripts)
"""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config import rates

ARMS = ("s4d_ft", "s4d", "s4", "s5")
SIZES = ("full", "smoke", "reduced")


def start(arg: str, task: str) -> tuple[ConfigDict, str, str]:
    """The defaults under the name lra/TASK:ARM, and the arm and the size that `arg` asks for."""
    chosen = config_lib.parse_arg(arg, arm=ARMS, size=SIZES)
    cfg = config_lib.default()
    cfg.name, cfg.task = f"lra/{task}:{chosen['arm']}", task
    return cfg, chosen["arm"], chosen["size"]


def finish(cfg: ConfigDict, size: str, reduce: Callable[[ConfigDict], None]) -> ConfigDict:
    """The experiment in the size that was asked for; `reduce` makes it small."""
    if size == "reduced":
        cfg.name += ":reduced"
        reduce(cfg)
    return config_lib.smoke(cfg) if size == "smoke" else cfg


def shorten(
    cfg: ConfigDict, notes: str, *, batch_size: int, epochs: float, warmup_steps: int
) -> None:
    """Four blocks of 64 channels, and a schedule that ends with the training.

    Args:
      cfg: changed.
      notes: what is reduced, kept in every result.
      batch_size, epochs, warmup_steps: of the reduced training.
    """
    cfg.notes = f"Reduced: {notes} Not comparable with LRA."
    cfg.model.depth, cfg.model.d_model = 4, 64
    cfg.model.n_ssm = min(cfg.model.n_ssm, 64)
    cfg.batch_size, cfg.train.epochs, cfg.train.eval_batch_size = batch_size, epochs, 250
    schedule = cfg.schedule
    schedule.warmup_steps, schedule.total_steps, schedule.clamp = warmup_steps, 0, True
    cfg.reference.accuracy = 0.0


def s4d(cfg: ConfigDict, arm: str, *, alpha: float) -> None:
    """Layers of the arms s4d_ft and s4d; 64 conjugate pairs per channel (OC-1)."""
    model = cfg.model
    model.layer, model.init = "s4d", "s4d_lin"
    model.depth, model.d_state = 6, 64
    model.alpha = alpha if arm == "s4d_ft" else 1.0  # freqscale
    model.beta.learn = arm == "s4d_ft"
    model.beta.init = 0.0  # OC-10: learned, from 0
    model.dt_min, model.dt_max = 1e-3, 1e-1


def s4(cfg: ConfigDict, *, d_model: int, d_state: int, n_ssm: int = 1) -> None:
    """Layers of the arm s4: NPLR HiPPO-LegS, bilinear, no filter, mean pooling.

    Args:
      cfg: changed.
      d_model: H.
      d_state: conjugate pairs, half of the N that S4's configurations give.
      n_ssm: distinct sets of A, B.
    """
    model = cfg.model
    model.layer, model.init, model.discretization = "s4", "legs", "bilinear"
    model.depth, model.d_model, model.d_state, model.n_ssm = 6, d_model, d_state, n_ssm
    model.beta.learn = False
    model.pool = "mean"
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
    """Layers of the arm s5: MIMO, HiPPO-N in blocks, ZOH, BatchNorm, half-GLU, mean pooling.

    Args:
      cfg: changed.
      d_model: H.
      ssm_size: P, of which conjugate symmetry stores half.
      n_blocks: J.
      C_init, gate, depth, dropout: as the options of the same name.
      norm_momentum: 1 - bn_momentum of the run scripts, whose default is 0.95.
    """
    model = cfg.model
    model.layer, model.init, model.discretization = "s5", "legs", "zoh"
    model.real_transform, model.dt_transform = "none", "exp"
    model.depth, model.d_model, model.d_state = depth, d_model, ssm_size // 2
    model.s5.n_blocks, model.s5.C_init = n_blocks, C_init
    model.gate, model.final_norm, model.norm_momentum = gate, False, norm_momentum
    model.norm, model.prenorm = "batch", True
    model.dropout, model.tie_dropout = dropout, True
    model.beta.learn = False
    model.pool = "mean"
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
    """Parameter groups of S5's run scripts: Lambda, dt and norms at ssm_lr without decay.

    Args:
      cfg: changed.
      lr: of all else, with weight decay.
      ssm_lr: of the state space parameters.
      weight_decay: of the groups that have one.
      optimizer: opt_config: "standard" has B at ssm_lr without decay, "BandCdecay" at ssm_lr with
        decay, "BfastandCdecay" at lr with decay.
      dt_global: dt at lr with decay.
    """
    ssm, rest = (ssm_lr, 0.0), (lr, weight_decay)
    B = {"standard": ssm, "BandCdecay": (ssm_lr, weight_decay), "BfastandCdecay": rest}[optimizer]
    rates(cfg, A=ssm, B=B, dt=rest if dt_global else ssm, norm=ssm, rest=rest)


def early(cfg: ConfigDict, *, accuracy: float, epoch: float) -> None:
    """What S4 reached early on (its table of experiments); a run far below says so."""
    cfg.reference.accuracy, cfg.reference.epoch = accuracy, epoch
