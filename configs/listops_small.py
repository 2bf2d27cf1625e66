"""A reduced ListOps for two minutes on two CPU cores: S4D with alpha = 3 and learned beta.

    ssm-jax train --config=listops_small --workdir=runs/listops_small

The data are made by LRA's own procedure with shorter and fewer expressions, so its accuracy says
nothing about LRA. Three seeds of it are in results/listops_small/.
"""

from ssm_jax import config as config_lib


def get_config(arg=""):
    config_lib.parse_arg(arg)
    cfg = config_lib.default()
    cfg.name = "listops_small"
    cfg.notes = (
        "Reduced ListOps: 10,000 expressions of 11 to 63 tokens (LRA: 96,000 of 501 to 1,999) and "
        "a model of 4 x 64 channels (LRA: 6 x 128). Not comparable with LRA."
    )
    cfg.task = "listops"
    cfg.batch_size = 50

    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 10_000, 1_000, 1_000
    cfg.data.listops.longer_than, cfg.data.listops.shorter_than = 10, 64
    cfg.data.padded_length = 64

    cfg.model.depth = 4
    cfg.model.d_model = 64
    cfg.model.d_state = 32
    cfg.model.alpha = 3.0
    cfg.model.pool = "last"

    cfg.train.epochs = 6.0  # 1,200 steps
    cfg.train.eval_batch_size = 250

    config_lib.rates(cfg, A=(0.004, 0.0), dt=(0.008, 0.0), beta=(0.01, 0.0), rest=(0.008, 0.03))
    cfg.schedule.warmup_steps = 100
    cfg.checkpoint.every = 200
    return cfg
