"""LRA Path-X: Pathfinder at 128 x 128 pixels, 2 classes, 16,384 steps.

Published test accuracy: S4D with tuned frequency bias 97.84 %, S4 96.35 %, S5 98.58 %. Ours at full
size: not run.

    ssm-jax prepare pathx --from=lra_release.gz
    ssm-jax train --config=lra/pathx --workdir=runs/pathx

In 16 GB of memory: --config.train.accumulate=5 --config.model.remat=true; --dry_run states what a
step takes.
"""

from ssm_jax import config as config_lib
from ssm_jax.lra import variants


def get_config(arg=""):
    cfg, variant, size = variants.start(arg, "pathx")
    cfg.seed = 3333
    cfg.data.padded_length = 16_384
    variants.choose(cfg, variant, s4d_ft=s4d_ft, s4=s4, s5=s5)
    if variant in ("s4", "s5"):  # the others are then still warming up
        variants.early(cfg, accuracy=0.92, epoch=10)
    return variants.finish(cfg, size, reduce)


def s4d_ft(cfg):
    variants.s4d_ft(cfg, alpha=5.0)
    cfg.model.d_model = cfg.model.n_ssm = 128
    cfg.model.dt_min = 1e-4
    cfg.batch_size = 20
    cfg.train.epochs = 150.0  # 1,200,000 steps
    config_lib.rates(cfg, A=(0.001, 0.0), dt=(0.001, 0.0), beta=(0.01, 0.0), rest=(0.001, 0.03))
    cfg.schedule.warmup_steps, cfg.schedule.total_steps = 200_000, 1_250_000
    cfg.schedule.clamp = False


def s4(cfg):
    variants.s4(cfg, d_model=256, d_state=32, n_ssm=256)
    cfg.model.dt_min = 1e-4
    cfg.batch_size = 16
    cfg.train.epochs = 50.0  # 500,000 steps
    config_lib.rates(cfg, A=(0.001, 0.0), B=(0.001, 0.0), dt=(0.001, 0.0), rest=(0.001, 0.05))
    cfg.schedule.warmup_steps, cfg.schedule.total_steps = 50_000, 500_000


def s5(cfg):
    variants.s5(
        cfg, d_model=128, ssm_size=256, n_blocks=16, C_init="complex_normal",
        gate="half_glu1", norm_momentum=0.1,
    )  # fmt: skip
    cfg.data.mean, cfg.data.std = 0.5, 0.5  # S5 alone centres the pixels
    cfg.model.dt_min = 1e-4
    cfg.batch_size = 32
    cfg.train.epochs = 75.0
    variants.s5_rates(cfg, lr=0.0018, ssm_lr=0.0006, weight_decay=0.06, optimizer="BandCdecay")
    cfg.schedule.warmup_steps = 5_000  # one epoch


def reduce(cfg):
    """The same images at a quarter of the model, for a GPU of any size."""
    variants.shorten(
        cfg,
        "20,000 generated training images (LRA: 160,000), 4 blocks of 64 channels, 10 epochs.",
        batch_size=20,
        epochs=10.0,
        warmup_steps=500,
    )
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 20_000, 1_000, 1_000
    cfg.train.eval_batch_size = 20
