"""LRA ListOps: nested list operations, 10 classes, 2,000 tokens.

Published test accuracy: S4D with tuned frequency bias 62.75 %, S4 59.60 %, S5 62.15 %. Ours at full
length: not run.

    ssm-jax train --config=lra/listops --workdir=runs/listops
    ssm-jax train --config=lra/listops:s5 --workdir=runs/listops_s5
    ssm-jax train --config=lra/listops:smoke --workdir=runs/smoke

Differs from the official programs in two points: every batch is padded to 2,048 steps, not to its
longest member (one compiled program; the filter's frequency unit is k/4096 throughout), and every
example is evaluated, none dropped.
"""

from ssm_jax import config as config_lib
from ssm_jax.lra import variants


def get_config(arg=""):
    cfg, variant, size = variants.start(arg, "listops")
    cfg.seed = 2222
    cfg.batch_size = 32
    variants.choose(cfg, variant, s4d_ft=s4d_ft, s4=s4, s5=s5)
    variants.early(cfg, accuracy=0.50, epoch=10)
    return variants.finish(cfg, size, reduce)


def s4d_ft(cfg):
    variants.s4d_ft(cfg, alpha=3.0)
    cfg.model.d_model = 128
    cfg.model.pool = "last"  # inherited from the imdb pipeline (OC-18)
    cfg.train.epochs = 160.0  # 480,000 steps
    config_lib.rates(
        cfg, A=(0.004, 0.0), dt=(0.008, 0.0), beta=(0.01, 0.0), rest=(0.008, 0.03)
    )  # C and D too (OC-17)
    cfg.schedule.warmup_steps, cfg.schedule.total_steps = 5_000, 150_000
    cfg.schedule.clamp = False  # as published: past step 150,000 the rate rises again


def s4(cfg):
    variants.s4(cfg, d_model=256, d_state=2)
    cfg.model.prenorm = False
    cfg.train.epochs = 40.0  # 120,000 steps
    config_lib.rates(cfg, A=(0.001, 0.0), B=(0.001, 0.0), dt=(0.01, 0.0), rest=(0.01, 0.05))
    cfg.schedule.warmup_steps, cfg.schedule.total_steps = 12_000, 120_000


def s5(cfg):
    variants.s5(
        cfg, depth=8, d_model=128, ssm_size=16, n_blocks=8, C_init="lecun_normal",
        gate="half_glu2",
    )  # fmt: skip
    cfg.batch_size = 50
    cfg.train.epochs = 40.0
    variants.s5_rates(cfg, lr=0.003, ssm_lr=0.001, weight_decay=0.04, optimizer="BfastandCdecay")
    cfg.schedule.warmup_steps = 1_920  # one epoch


def reduce(cfg):
    """For some minutes on two CPU cores: shorter expressions, a smaller model."""
    variants.shorten(
        cfg,
        "10,000 generated expressions of 51 to 127 tokens (LRA: 96,000 of 501 to 1,999), 4 blocks "
        "of 64 channels, 8 epochs.",
        batch_size=50,
        epochs=8.0,
        warmup_steps=100,
    )
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 10_000, 1_000, 1_000
    cfg.data.listops.longer_than, cfg.data.listops.shorter_than = 50, 128
    cfg.data.padded_length = 128


def sweep():
    """The two knobs: overrides of one grid, each with beta fixed."""
    for alpha in (0.3, 1.0, 3.0, 10.0):
        for beta in (-0.5, 0.0, 0.5):
            yield {"model.alpha": alpha, "model.beta.init": beta, "model.beta.learn": False}
