"""Delay: band-limited white noise a quarter of the sequence later.

    ssm-jax train --config=delay --workdir=runs/delay
    ssm-jax train --config=delay:reduced --workdir=runs/delay_reduced
    ssm-jax sweep --config=delay:reduced --folder=runs/delay_dt      # dt rule x Re A x L: 24 runs

The published experiment (S4's code for arXiv:2206.12037) has one linear layer of 4 channels with a
state of 1,024 (512 pairs) and dt = 0.002, the reciprocal of half the lag, batches of 64 and 20
epochs at 0.001. Here is a block with norm and gate around such a layer. Reduced, dt starts as S4's
default. Errors are root mean squares in the unit of the signal, whose own is near 0.6. Ours at full
size: not run.
"""

from ssm_jax import config as config_lib
from ssm_jax.stories.autocorrelation import cells

ARGUMENTS = {"size": ("full", "reduced", "smoke")}


def get_config(arg=""):
    chosen = config_lib.parse_arg(arg, **ARGUMENTS)
    cfg = config_lib.default("delay")
    cfg.name = "delay"
    cfg.batch_size = 64
    cfg.data.padded_length = 4_000
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 1, 4, 512
    cfg.model.bidirectional, cfg.model.pool, cfg.model.norm = False, "none", "layer"
    cfg.model.beta.learn, cfg.model.beta.filter = False, False
    cfg.model.dt_min = cfg.model.dt_max = 0.002
    cfg.model.real_transform = "clip"  # so that alpha_real=0 changes nothing else
    cfg.train.epochs = 20.0
    cfg.train.select_metric = "rmse"
    config_lib.rates(cfg, A=(0.001, 0.0), dt=(0.001, 0.0), rest=(0.001, 0.0))
    if chosen["size"] == "reduced":
        reduce(cfg)
    return config_lib.smoke(cfg) if chosen["size"] == "smoke" else cfg


def reduce(cfg):
    """For a minute on two CPU cores."""
    cfg.name += ":reduced"
    cfg.notes = "Reduced: 512 steps, a lag of 128, 64 modes, 600 steps of 32."
    cfg.batch_size = 32
    cfg.data.padded_length = 512
    cfg.data.n_val = cfg.data.n_test = 256
    cfg.model.d_model, cfg.model.d_state = 16, 64
    cfg.model.dt_min, cfg.model.dt_max = 0.001, 0.1
    cfg.train.epochs, cfg.train.steps, cfg.train.eval_every = 0.0, 600, 200
    config_lib.rates(cfg, A=(0.001, 0.0), dt=(0.001, 0.0), rest=(0.01, 0.0))
    cfg.schedule.warmup_steps = 50
    cfg.figures = False


def sweep(arg=""):
    """dt rule x Re A x L, with a lag of L / 4."""
    full = config_lib.parse_arg(arg, **ARGUMENTS)["size"] == "full"
    found = cells((1_000, 2_000, 4_000) if full else (256, 512, 1_024))
    return [cell | {"model.dt_max": 0.1} for cell in found] if full else found
