"""Your own series: files in, a trained model out.

    ssm-jax train --config=arrays --from=FOLDER_OR_FILE --workdir=runs/mine
    ssm-jax train --config=arrays:forecasting --from=weather.csv --workdir=runs/weather
    ssm-jax sweep --config=arrays --from=FOLDER_OR_FILE --folder=runs/alpha        # alpha

The argument is the head: classification (the default), regression, per_step, or forecasting; and
the variant: s4d_ft, alpha = 1 and a learned beta (the default); s4d, no filter; s4d_ac and s4d_re0,
arms of it (docs/lra.md).
"""

from ssm_jax import config as config_lib
from ssm_jax.config import rates
from ssm_jax.lra import variants

HEADS = ("classification", "regression", "per_step", "forecasting")
VARIANTS = ("s4d_ft", "s4d", *variants.ARMS)


def get_config(arg=""):
    head, variant = config_lib.parse_arg(arg, head=HEADS, variant=VARIANTS).values()
    cfg = config_lib.default(head)
    cfg.name = head if variant == VARIANTS[0] else f"{head}:{variant}"
    cfg.batch_size = 32
    cfg.data.source, cfg.data.padded_length = "files", 0
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 3, 64, 32
    cfg.model.dropout, cfg.model.norm_padding = 0.1, False
    cfg.train.epochs = 50.0
    cfg.train.select_metric = "loss"
    if variant != VARIANTS[0]:
        cfg.model.beta.learn, cfg.model.beta.filter = False, False
        variants.arm(cfg, variant)
    if head == "per_step":
        cfg.model.pool = "none"
    if head == "forecasting":
        cfg.model.pool, cfg.model.bidirectional, cfg.train.epochs = "last", False, 10.0
        # A filter looks ahead (OC-11): without it the forecaster is causal, and has steps
        cfg.model.beta.filter, cfg.model.beta.learn = False, False
    rates(cfg, A=(0.001, 0.0), dt=(0.001, 0.0), beta=(0.001, 0.0), rest=(0.003, 0.01))
    cfg.log.every = 10
    return cfg


def sweep():
    """The frequencies within reach, see docs/own-data.md."""
    return [{"model.alpha": alpha} for alpha in (0.3, 1.0, 3.0, 10.0)]
