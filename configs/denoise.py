"""Image denoising: a linear state space autoencoder, and which stripes it lets through.

    python scripts/train.py --config=configs/denoise.py:flip --workdir=runs/flip
    python scripts/train.py --config=configs/denoise.py:full,raw --from=img_align_celeba.zip --workdir=runs/celeba

The argument names the distance of the frequencies Im a: enhance (pi/3), raw (pi), middle (10 pi) or
flip (490.52), as the official code does; beta is --config.model.beta.init. The official grid is
`sweep()`. Size `full` is the official experiment on CelebA, `reduced` (the default) is for a
minute on two CPU cores, on the photographs that come with the package: rows of the same length, so
both disturbances and all poles stand at the same angles per sample; an eighth of the rows.
"""  # noqa: E501

import math

from ssm_jax import config as config_lib

SPACING = {"enhance": math.pi / 3, "raw": math.pi, "middle": 10 * math.pi, "flip": 490.52}
BETAS = (-1.0, -0.5, 0.0, 0.5, 1.0)


def get_config(arg=""):
    chosen = config_lib.parse_arg(
        arg, spacing=("raw", "enhance", "middle", "flip"), size=("reduced", "full", "smoke")
    )
    cfg = config_lib.default()
    cfg.name, cfg.task = f"denoise:{chosen['spacing']}", "denoise"
    cfg.batch_size = 32
    cfg.data.source = "official"
    cfg.data.padded_length = 2_048 * 128
    cfg.model.d_state = 64
    cfg.model.alpha = SPACING[chosen["spacing"]] / math.pi
    cfg.model.beta.learn, cfg.model.beta.unit = False, "denoise"
    cfg.model.dt_min = cfg.model.dt_max = 1e-4
    cfg.train.epochs = 20.0  # 101,720 steps
    cfg.train.select_metric = "loss"
    config_lib.rates(cfg, A=(0.0, 0.0), dt=(0.0, 0.0), rest=(0.001, 0.0))  # OC-21: A is frozen
    cfg.schedule.total_steps = 21 * 5_086  # the cosine ends at epoch 21
    if chosen["size"] != "full":
        reduce(cfg)
    if chosen["size"] == "smoke":
        smoke(cfg)
    return cfg


def reduce(cfg):
    cfg.name += ":reduced"
    cfg.notes = (
        "Reduced: 96 crops of 256 x 128 pixels from three photographs (published: 162,770 images "
        "of CelebA, 2,048 x 128), 300 steps of 8."
    )
    cfg.batch_size = 8
    cfg.data.source = "photographs"
    cfg.data.denoise.height = 256
    cfg.data.padded_length = 256 * 128
    cfg.train.epochs, cfg.train.steps, cfg.train.eval_every = 0.0, 300, 100
    config_lib.rates(cfg, A=(0.0, 0.0), dt=(0.0, 0.0), rest=(0.01, 0.0))
    cfg.schedule.total_steps = 0
    cfg.checkpoint.every, cfg.log.every = 100, 10


def smoke(cfg):
    cfg.name = cfg.name.replace(":reduced", ":smoke")
    cfg.notes = "Smoke run: a few steps of the same code. Its numbers mean nothing."
    cfg.data.denoise.height = 16
    cfg.data.padded_length = 16 * 128
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 8, 4, 4
    cfg.batch_size, cfg.train.steps, cfg.train.eval_every = 4, 6, 3
    cfg.checkpoint.every, cfg.log.every, cfg.log.gradient = 3, 1, False
    cfg.figures = False


def sweep():
    """The official grid of spacing and beta, as options over `get_config()`."""
    return [
        {"model.alpha": spacing / math.pi, "model.beta.init": beta}
        for spacing in SPACING.values()
        for beta in BETAS
    ]
