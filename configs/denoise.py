"""Image denoising: a linear state space autoencoder, and which stripes it lets through.

    ssm-jax train --config=denoise:flip --workdir=runs/flip
    ssm-jax train --config=denoise:full,raw --from=img_align_celeba.zip --workdir=runs/celeba

The argument names the distance of the frequencies Im a: enhance (pi/3), raw (pi), middle (10 pi) or
flip (490.52), as the official code does; beta is --config.model.beta.init. The official grid is
`sweep()`. Size `full` is the official experiment on CelebA, `reduced` (the default) is for a
minute on two CPU cores, on the photographs that come with the package: rows of the same length, so
both disturbances and all poles stand at the same angles per sample; an eighth of the rows.
"""

from ssm_jax.stories.denoise import get_config, sweep

__all__ = ["get_config", "sweep"]
