"""Image denoising: a frequency bias strengthened, weakened and reversed."""

from ssm_jax.options import SIZE, Option, Range
from ssm_jax.tasks.task import Lazy, Task

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
            0.5, "of stripes, at most", Range(0), unit="units of full white"
        ),
    },
    sources=("photographs", "official", "tfds"),
    network=Lazy(f"{_HERE}.model:Denoiser"),
)
