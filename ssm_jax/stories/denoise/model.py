"""The linear state space autoencoder of the image denoising experiment."""

from __future__ import annotations

import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.init import initial_modes
from ssm_jax.layers import S4D
from ssm_jax.layers.inputs import checked_input, in_type, returned_in
from ssm_jax.models.block import linear
from ssm_jax.options import check

CHANNELS = 3


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
        """Args:
        width: pixels of a row of the images; says where stripes are.
        d_state: modes N, conjugates not counted.
        alpha: distance of the frequencies, in units of pi rad per unit of time; > 0.
        beta, learn_beta, beta_unit: of the filter, see S4D.
        dt_min, dt_max: units of time per sample.
        rngs: with a "params" stream.

        Raises:
          ValueError: for a value out of its range.
        """
        numbers = {"alpha": alpha, "beta": beta, "dt_min": dt_min, "dt_max": dt_max}
        check("Denoiser", width=width, d_state=d_state, learn_beta=learn_beta, **numbers)
        self.width = width
        n = np.arange(d_state)
        start_N = np.where(n == 0, -np.exp(-5.0), -3.0) + 1j * np.pi * n
        A_SN = initial_modes(start_N, d_state, alpha=alpha).A_SN
        self.ssm = S4D(
            CHANNELS,
            d_state=d_state,
            init=A_SN,
            beta=beta,
            learn_beta=learn_beta,
            beta_unit=beta_unit,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_transform="exp",
            bidirectional=False,
            skip=False,
            rngs=rngs,
        )
        scale_SN = (A_SN.imag / 1000).astype(np.float32)
        self.ssm.C_ri[...] = self.ssm.C_ri[...] * scale_SN[None, :, :, None]
        self.mix = linear(CHANNELS, CHANNELS, rngs)

    def __call__(self, inputs: ArrayLike) -> Array:
        """Images (B, L, 3), flattened row by row, as the model returns them."""
        u_BL3 = checked_input("Denoiser", inputs, "(B, L, 3)", CHANNELS)
        model, dtype = in_type(self, u_BL3)
        y_BL3 = model.mix(model.ssm(u_BL3.astype(dtype)))
        return y_BL3.astype(returned_in(u_BL3, dtype))
