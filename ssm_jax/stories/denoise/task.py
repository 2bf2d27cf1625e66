r"""Image denoising: a model trained on clean images, evaluated on images with stripes.

    high    a cos(q column): vertical stripes
    low     a cos(q row):    horizontal stripes

with q = 2.99433 rad and an amplitude a for each colour. The names are those of the frequencies of
the sequence, in rad per sample: high is a tone of q where width q is whole turns, as of the
published 128, else some near it; low holds each sample of a row, so that 44 % of its energy is at
q / width, 37 % at (2 pi - q) / width, the rest q / width off multiples of 2 pi / width. Source:
denoising.py and show_faces.ipynb of the official code of arXiv:2410.02035.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.init import initial_modes
from ssm_jax.kernels.arrays import returned_in
from ssm_jax.layers import S4D
from ssm_jax.layers.inputs import checked_input, in_type
from ssm_jax.models.block import linear
from ssm_jax.options.arguments import arguments_of, check
from ssm_jax.stories.denoise.data import DenoiseDataset
from ssm_jax.tasks import Batch, Sums
from ssm_jax.tasks.metrics import masked_sums

CHANNELS = 3
Q = 2.99433  # rad per pixel
PEAK = 2.0  # from black to white


class Denoiser(nnx.Module):
    r"""y = W (k^(beta) * u) + b: one causal diagonal SSM per colour, then a 1x1 convolution.

    No activation, no skip: the model is one linear operator with the response W G^(beta)(i s), so
    what it does to a disturbance is what it does to a tone. Its eigenvalues are

        a_0 = -e^-5,    a_n = -3 + i n alpha pi,    n = 1..N - 1,

    and C starts as |Im a| / 1000 times a complex normal, so that C_0 = 0. Source: denoising.py of
    the official code (OC-21..OC-23), whose step is dt = 1e-4. There A and dt are frozen: give their
    parameter groups the rate 0.
    """

    def __init__(
        self,
        *,
        width: int,
        d_state: int = 64,
        alpha: float = 1.0,
        beta: float = 0.0,
        learn_beta: bool = False,
        beta_unit: str = "denoise",
        dt_min: float = 1e-4,
        dt_max: float = 1e-4,
        rngs: nnx.Rngs,
    ):
        """For images with rows of `width` pixels, which say where stripes are; the N modes do not
        count conjugates. The other arguments are as of S4D, see there."""
        numbers: dict[str, Any] = {"d_state": d_state, "beta": beta, "learn_beta": learn_beta}
        numbers |= {"dt_min": dt_min, "dt_max": dt_max}
        check("Denoiser", {"width": width, "alpha": alpha, **numbers})
        self.width = width
        n = np.arange(d_state)
        start_N = np.where(n == 0, -np.exp(-5.0), -3.0) + 1j * np.pi * n
        A_SN = initial_modes(start_N, d_state, alpha=alpha).A_SN
        numbers |= {"beta_unit": beta_unit, "dt_transform": "exp"}
        self.ssm = S4D(CHANNELS, init=A_SN, **numbers, bidirectional=False, skip=False, rngs=rngs)
        scale_SN = (A_SN.imag / 1000).astype(np.float32)
        self.ssm.C_ri[...] = self.ssm.C_ri[...] * scale_SN[None, :, :, None]
        self.mix = linear(CHANNELS, CHANNELS, rngs, "highest")

    def __call__(self, inputs: ArrayLike) -> Array:
        """Images (B, L, 3), flattened row by row, as the model returns them."""
        u_BL3 = checked_input("Denoiser", inputs, "(B, L, 3)", CHANNELS)
        model, dtype = in_type(self, u_BL3)
        y_BL3 = model.mix(model.ssm(u_BL3.astype(dtype)))
        return y_BL3.astype(returned_in(u_BL3, dtype))


def build_denoiser(dataset: DenoiseDataset, options: Mapping[str, Any], rngs: nnx.Rngs) -> Denoiser:
    return Denoiser(width=dataset.width, **arguments_of(Denoiser, options), rngs=rngs)


def stripes(noise_B3: Array, width: int, length: int) -> dict[str, Array]:
    """The two disturbances, (B, L, 3) each, of rows of `width` pixels; L is a multiple of it."""
    row_L, column_L = jnp.divmod(jnp.arange(length), width)
    tones = {"low": jnp.cos(Q * row_L), "high": jnp.cos(Q * column_L)}
    return {name: noise_B3[:, None, :] * tone[None, :, None] for name, tone in tones.items()}


def train_sums(model: Any, batch: Batch, key: Array | None) -> Sums:
    """Of the reconstruction of clean images the squared error per number, and the signal-to-noise
    ratio in dB."""
    del key  # there is no dropout
    return masked_sums(_reconstruction(model(batch["inputs"]), batch), batch)


def _reconstruction(outputs: Array, batch: Batch) -> dict[str, Array]:
    loss_B = _mean_square(outputs - batch["inputs"])
    return {"loss": loss_B, "psnr": 10 * jnp.log10(PEAK**2 / loss_B)}


def eval_sums(model: Any, batch: Batch) -> Sums:
    """That, and for either disturbance

    mse_NAME: squared error of the output for a disturbed image against the clean image;
    disturbed_NAME: that of the disturbed image itself;
    passed_NAME: energy of what the disturbance adds to the output, over its own."""
    clean = batch["inputs"]
    outputs = model(clean)
    each = _reconstruction(outputs, batch)
    for name, noise in stripes(batch["noise"], model.width, clean.shape[1]).items():
        disturbed, energy_B = model(clean + noise), _mean_square(noise)
        each[f"mse_{name}"] = _mean_square(disturbed - clean)
        each[f"disturbed_{name}"] = energy_B
        each[f"passed_{name}"] = _mean_square(disturbed - outputs) / energy_B
    return masked_sums(each, batch)


def _mean_square(x_BL3: Array) -> Array:
    return jnp.mean(x_BL3 * x_BL3, axis=(1, 2))
