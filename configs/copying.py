"""Copying: symbols that have to be said again when all of them are past.

    ssm-jax train --config=copying --workdir=runs/copying          # S4's: 100 blanks, 10 symbols
    ssm-jax train --config=copying:rtf --workdir=runs/copying_rtf  # RTF's: 1,024 symbols, L = 2,048
    ssm-jax train --config=copying:reduced --workdir=runs/copying_reduced
    ssm-jax sweep --config=copying:reduced --folder=runs/copying_dt  # dt rule x Re A x L: 24 runs

Network, rates and length of training are those of RTF's run of S4 with d_state = 128 (64 pairs), 4
causal blocks of 64 channels, but for dt: theirs is 4 / M, ours S4's default. Published, for RTF's
specification: S4 29 to 35 %, RTF with a state of 256 100 % (arXiv:2405.06147). Ours at full size:
not run.
"""

from ssm_jax import config as config_lib
from ssm_jax.stories.autocorrelation import cells

ARGUMENTS = {"specification": ("s4", "rtf"), "size": ("full", "reduced", "smoke")}


def get_config(arg=""):
    chosen = config_lib.parse_arg(arg, **ARGUMENTS)
    cfg = config_lib.default("copying")
    cfg.name = f"copying:{chosen['specification']}"
    cfg.batch_size = 8
    cfg.data.copying.memorize, cfg.data.copying.tokens = 10, 10
    cfg.data.padded_length = 120
    if chosen["specification"] == "rtf":
        cfg.data.copying.memorize, cfg.data.copying.tokens = 1_024, 64
        cfg.data.padded_length = 2_048
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 4, 64, 64
    cfg.model.bidirectional, cfg.model.pool = False, "none"
    cfg.model.beta.learn, cfg.model.beta.filter = False, False
    cfg.model.real_transform = "clip"  # so that alpha_real=0 changes nothing else
    cfg.train.epochs = 50.0
    cfg.train.eval_batch_size = 100
    config_lib.rates(cfg, A=(0.001, 0.0), dt=(0.001, 0.0), rest=(0.001, 0.0))
    if chosen["size"] == "reduced":
        reduce(cfg)
        if chosen["specification"] == "rtf":
            cfg.data.copying.memorize, cfg.data.copying.tokens = 64, 18
    return config_lib.smoke(cfg) if chosen["size"] == "smoke" else cfg


def reduce(cfg):
    """For a minute on two CPU cores."""
    cfg.name += ":reduced"
    cfg.notes = "Reduced: 2 blocks of 16 channels with 16 modes, 128 steps, 400 batches of 32."
    cfg.batch_size = 32
    cfg.data.copying.memorize, cfg.data.copying.tokens, cfg.data.padded_length = 10, 10, 128
    cfg.data.n_val = cfg.data.n_test = 500
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 2, 16, 16
    cfg.train.epochs, cfg.train.steps, cfg.train.eval_every = 0.0, 400, 200
    config_lib.rates(cfg, A=(0.001, 0.0), dt=(0.001, 0.0), rest=(0.01, 0.0))
    cfg.schedule.warmup_steps = 50
    cfg.figures = False


def sweep(arg=""):
    """dt rule x Re A x L; of S4's specification the blanks change with L, of RTF's the symbols."""
    chosen = config_lib.parse_arg(arg, **ARGUMENTS)
    rtf, full = chosen["specification"] == "rtf", chosen["size"] == "full"
    published = (512, 1_024, 2_048) if rtf else (120, 520, 1_020)
    found = cells(published if full else (128, 256, 512))
    if rtf:
        found = [c | {"data.copying.memorize": c["data.padded_length"] // 2} for c in found]
    return found
