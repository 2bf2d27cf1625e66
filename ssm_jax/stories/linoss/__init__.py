"""LinOSS under four values of alpha, on four sets at one budget each."""

from ssm_jax import config as config_lib
from ssm_jax.config.load import read_config
from ssm_jax.stories import smoke

SETS = ("waves", "PLAID", "ACSF1", "smnist")
ALPHAS = (0.3, 1.0, 3.0, 10.0)


def get_config(arg=""):
    name, size = config_lib.parse_arg(arg, set=SETS, size=("reduced", "smoke")).values()
    if name == "waves":
        cfg = waves()
    else:
        of = "smnist" if name == "smnist" else f"packaged:{name},s4d"
        cfg = read_config(of).copy_and_resolve_references().unlock()
        config_lib.override(cfg, {"model.layer": "linoss"})
        cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 2, 32, 16
        cfg.model.bidirectional = False  # as LinOSS is published
        cfg.train.epochs, cfg.train.steps, cfg.batch_size = 0.0, 400, 16
        if name == "ACSF1":
            cfg.train.steps, cfg.batch_size = 250, 15
        size_of = f"{cfg.train.steps} batches of {cfg.batch_size}"
        cfg.notes = f"2 blocks of 32 channels with 16 oscillators, {size_of}."
    cfg.name, cfg.notes = f"linoss:{name}", f"{name}: {cfg.notes}"
    # At alpha = 0.3 a starts below 0.09, and an oscillator answers to a constant by 1 / a. At ten
    # times these rates of a and three times the others, its waves ended with errors above 100.
    config_lib.rates(cfg, A=(0.0003, 0.0), dt=(0.001, 0.0), rest=(0.003, 0.01))
    cfg.schedule.warmup_steps = 80
    cfg.train.eval_every = cfg.train.steps // 5
    cfg.checkpoint.every, cfg.log.every, cfg.figures = cfg.train.steps, 20, False
    cfg.log.gradient = False  # which LinOSS does not have
    if size == "smoke":
        cfg.name += ":reduced"  # which `smoke` takes for a word of its own
        smoke(cfg, 40, 8)
        cfg.schedule.warmup_steps = 0
    return cfg


def waves():
    """The four waves of configs/waves.py, through one LinOSS in the place of S4D."""
    cfg = config_lib.default("waves")
    cfg.notes = "12,288 samples, one layer of 16 channels with 64 oscillators, 300 batches of 8."
    cfg.model.waves.oscillators = True
    cfg.model.d_model, cfg.model.d_state, cfg.model.beta.learn = 16, 64, False
    cfg.batch_size, cfg.train.steps, cfg.train.eval_batch_size = 8, 300, 100
    cfg.data.padded_length, cfg.data.n_val, cfg.data.n_test = 12_288, 200, 500
    cfg.train.select_metric = "loss"
    return cfg


def sweep():
    return [{"model.alpha": alpha} for alpha in ALPHAS]
