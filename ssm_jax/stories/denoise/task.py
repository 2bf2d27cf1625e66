r"""Image denoising: trained to return clean images, evaluated on images with stripes.

    high    a cos(q column): stripes that stand upright; along the flattened rows a tone of q
    low     a cos(q row):    stripes that lie; along the flattened rows a tone of q / width

with q = 2.99433 rad and an amplitude a for each colour. The names are those of the frequencies of
the sequence, in rad per sample. Source: denoising.py and show_faces.ipynb of the official code of
arXiv:2410.02035.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ssm_jax.options import arguments_of
from ssm_jax.stories.denoise.data import DenoiseDataset
from ssm_jax.stories.denoise.model import Denoiser
from ssm_jax.tasks.task import Batch, Sums

Q = 2.99433  # rad per pixel
PEAK = 2.0  # from black to white


def build_denoiser(dataset: DenoiseDataset, options: Mapping[str, Any], rngs: nnx.Rngs) -> Denoiser:
    """The model for images of the data set's width."""
    return Denoiser(width=dataset.width, **arguments_of(Denoiser, options), rngs=rngs)


def stripes(noise_B3: Array, width: int, length: int) -> dict[str, Array]:
    """The two disturbances, (B, L, 3) each.

    Args:
      noise_B3: amplitudes by example and colour.
      width: pixels of a row.
      length: L, a multiple of the width.
    """
    row_L, column_L = jnp.divmod(jnp.arange(length), width)
    tones = {"low": jnp.cos(Q * row_L), "high": jnp.cos(Q * column_L)}
    return {name: noise_B3[:, None, :] * tone[None, :, None] for name, tone in tones.items()}


def reconstruction_sums(outputs: Array, batch: Batch) -> Sums:
    """Squared error per number against the clean images, and the signal-to-noise ratio in dB."""
    loss_B = _mean_square(outputs - batch["inputs"])
    mask_B = batch.get("mask", jnp.ones_like(loss_B))
    psnr_B = 10 * jnp.log10(PEAK**2 / loss_B)
    return {
        "loss": jnp.sum(loss_B * mask_B),
        "psnr": jnp.sum(psnr_B * mask_B),
        "count": jnp.sum(mask_B),
    }


def train_sums(model: Any, batch: Batch, key: Array | None) -> Sums:
    """The reconstruction of clean images; there is no dropout."""
    del key
    return reconstruction_sums(model(batch["inputs"]), batch)


def eval_sums(model: Any, batch: Batch) -> Sums:
    """That, and for either disturbance

    mse_NAME: squared error of the output for a disturbed image against the clean image;
    disturbed_NAME: that of the disturbed image itself;
    passed_NAME: energy of what the disturbance adds to the output, over its own.
    """
    clean = batch["inputs"]
    outputs = model(clean)
    sums = reconstruction_sums(outputs, batch)
    mask_B = batch.get("mask", jnp.ones(clean.shape[0]))
    for name, noise in stripes(batch["noise"], model.width, clean.shape[1]).items():
        disturbed = model(clean + noise)
        energy_B = _mean_square(noise)
        passed_B = _mean_square(disturbed - outputs) / energy_B
        sums[f"mse_{name}"] = jnp.sum(_mean_square(disturbed - clean) * mask_B)
        sums[f"disturbed_{name}"] = jnp.sum(energy_B * mask_B)
        sums[f"passed_{name}"] = jnp.sum(passed_B * mask_B)
    return sums


def _mean_square(x_BL3: Array) -> Array:
    return jnp.mean(x_BL3 * x_BL3, axis=(1, 2))
