"""Image denoising: a frequency bias strengthened, weakened and reversed.

A linear state space autoencoder is trained on clean images. Which stripes it lets through depends
on alpha, the distance of the frequencies Im a, and on beta. Source: arXiv:2410.02035.
"""

import math

from ssm_jax import config as config_lib
from ssm_jax.options.rows import POSITIVE, SIZE, Option
from ssm_jax.stories import setting, smoke, story_config
from ssm_jax.tasks import Lazy, Task

_HERE = "ssm_jax.stories.denoise"
DENOISE = Task(
    open_data=Lazy(f"{_HERE}.data:open_denoise"),
    build_model=Lazy(f"{_HERE}.task:build_denoiser"),
    train_sums=Lazy(f"{_HERE}.task:train_sums"),
    eval_sums=Lazy(f"{_HERE}.task:eval_sums"),
    metrics={"psnr": "max", "loss": "min"},
    options={
        "data.denoise.height": Option(
            2_048, "height * width is data.padded_length", SIZE, unit="pixels"
        ),
        "data.denoise.width": Option(128, "of an image", SIZE, unit="pixels"),
        "data.denoise.amplitude": Option(
            0.5, "of stripes, at most", POSITIVE, unit="units of full white"
        ),
    },
    sources=("photographs", "official", "tfds"),
    network=Lazy(f"{_HERE}.task:Denoiser"),
)

SPACING = {"enhance": math.pi / 3, "raw": math.pi, "middle": 10 * math.pi, "flip": 490.52}
BETAS = (-1.0, -0.5, 0.0, 0.5, 1.0)


def get_config(arg=""):
    spacings = ("raw", "enhance", "middle", "flip")
    cfg, spacing, size = story_config("denoise", arg, spacing=spacings)
    cfg.batch_size = 32
    cfg.data.source = "official"
    cfg.data.padded_length = 2_048 * 128
    cfg.model.d_state = 64
    cfg.model.alpha = SPACING[spacing] / math.pi
    cfg.model.beta.learn, cfg.model.beta.unit = False, "denoise"
    cfg.model.dt_min = cfg.model.dt_max = 1e-4
    cfg.train.epochs = 20.0  # 101,720 steps
    cfg.train.select_metric = "loss"
    config_lib.rates(cfg, A=(0.0, 0.0), dt=(0.0, 0.0), rest=(0.001, 0.0))  # OC-21: A is frozen
    cfg.schedule.total_steps = 21 * 5_086  # the cosine ends at epoch 21
    if size != "full":
        reduce(cfg)
    if size == "smoke":
        smoke(cfg, 8, 4)
        cfg.data.denoise.height, cfg.data.padded_length = 16, 16 * 128
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


def sweep():
    """The official grid of spacing and beta, as options over `get_config()`."""
    return [setting(gap / math.pi, beta) for gap in SPACING.values() for beta in BETAS]
