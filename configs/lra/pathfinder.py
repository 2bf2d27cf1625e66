"""LRA Pathfinder: whether two ends are on one contour, 32 x 32 pixels, 2 classes, 1,024 steps.

Published test accuracy: S4D with tuned frequency bias 95.89 %, S4 94.20 %, S5 95.33 %. Ours at full
size: not run.

    ssm-jax prepare pathfinder                        # generates 200,000
    ssm-jax prepare pathfinder --from=lra_release.gz  # the official ones
    ssm-jax train --config=lra/pathfinder --workdir=runs/pathfinder

--from=PATH trains on the official images.
"""

from ssm_jax import config as config_lib
from ssm_jax.lra import variants


def get_config(arg=""):
    cfg, variant, size = variants.start(arg, "pathfinder")
    cfg.seed = 3333
    cfg.data.padded_length = 1_024
    variants.choose(cfg, variant, s4d_ft=s4d_ft, s4=s4, s5=s5)
    if variant in ("s4", "s5"):  # the others are then still warming up
        variants.early(cfg, accuracy=0.90, epoch=20)
    return variants.finish(cfg, size, reduce)


def s4d_ft(cfg):
    variants.s4d_ft(cfg, alpha=3.0)
    cfg.model.d_model = 256
    cfg.batch_size = 50
    cfg.train.epochs = 300.0  # 960,000 steps
    config_lib.rates(cfg, A=(0.001, 0.0), dt=(0.001, 0.0), beta=(0.01, 0.0), rest=(0.004, 0.03))
    cfg.schedule.warmup_steps, cfg.schedule.total_steps = 150_000, 800_000
    cfg.schedule.clamp = False


def s4(cfg):
    variants.s4(cfg, d_model=256, d_state=32, n_ssm=256)
    cfg.batch_size = 64
    cfg.train.epochs = 200.0  # 500,000 steps
    config_lib.rates(cfg, A=(0.001, 0.0), B=(0.001, 0.0), dt=(0.001, 0.0), rest=(0.004, 0.05))
    cfg.schedule.warmup_steps, cfg.schedule.total_steps = 50_000, 500_000


def s5(cfg):
    variants.s5(
        cfg, d_model=192, ssm_size=256, n_blocks=8, C_init="trunc_standard_normal",
        gate="half_glu1", dropout=0.05, norm_momentum=0.1,
    )  # fmt: skip
    cfg.data.mean, cfg.data.std = 0.5, 0.5  # S5 alone centres the pixels
    cfg.batch_size = 64
    cfg.train.epochs = 200.0
    variants.s5_rates(cfg, lr=0.0045, ssm_lr=0.0009, weight_decay=0.03)
    cfg.schedule.warmup_steps = 2_500  # one epoch


def reduce(cfg):
    """For an hour on two CPU cores: fewer images, a smaller model, a short warmup."""
    variants.shorten(
        cfg,
        "40,000 generated training images (LRA: 160,000), 4 blocks of 64 channels, 8 epochs.",
        batch_size=32,
        epochs=8.0,
        warmup_steps=500,
    )
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 40_000, 2_000, 2_000
