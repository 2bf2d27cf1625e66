"""What a trained denoiser does to each frequency, and what its knobs did to the frequency bias."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssm_jax.analysis.spectra import filter_gain, layers_of
from ssm_jax.kernels.frequency import discrete_transfer_function
from ssm_jax.models import Denoiser

FACTOR = 2.0  # a bias within this factor of the reference counts as equal to it


@dataclass(frozen=True)
class Verdict:
    """The share of the energy of either disturbance that passes, and what follows.

    Attributes:
      low, high: shares.
      bias: low / high; above 1 the model prefers low frequencies.
      word: "reversed" below 1; else "weakened" or "strengthened" if it differs from the reference
        by more than FACTOR; else "unchanged".
    """

    low: float
    high: float
    bias: float
    word: str


def judge(low: float, high: float, reference: float) -> Verdict:
    """The verdict on a model beside the bias of the reference, alpha = 1 and beta = 0."""
    bias = low / high
    if bias < 1:
        word = "reversed"
    elif bias < reference / FACTOR:
        word = "weakened"
    elif bias > reference * FACTOR:
        word = "strengthened"
    else:
        word = "unchanged"
    return Verdict(low, high, bias, word)


_transfer_function = jax.jit(
    discrete_transfer_function, static_argnames=("discretization", "length")
)


def response_of(model: Denoiser, omega_F: np.ndarray, length: int) -> np.ndarray:
    """W K^(beta)(omega): complex (F, 3, 3), from the colours of the input to those of the output.

    K is the spectrum of the kernel's first `length` taps, as the convolution has it, and the
    filter's gain is that of a transform of twice the length.

    Args:
      model: its bias b answers to no frequency and is left out.
      omega_F: radians per sample, 0..pi.
      length: L of the images.
    """
    layer = model.ssm
    (view,) = layers_of(model)
    omega_HF = jnp.broadcast_to(jnp.asarray(omega_F, jnp.float32), (len(view.dt_H), len(omega_F)))
    K_HF = _transfer_function(
        layer.eigenvalues(),
        layer.readout()[0],
        layer.step_sizes(),
        omega_HF,
        discretization=layer.discretization,
        length=length,
    )
    filtered_HF = np.asarray(K_HF) * filter_gain(view, omega_F, 2 * length)
    kernel = model.mix.kernel
    assert isinstance(kernel, nnx.Param)
    W_io = np.asarray(kernel[...])
    return np.einsum("hf,hg->fgh", filtered_HF, W_io)


def gain_of(model: Denoiser, omega_F: np.ndarray, length: int) -> np.ndarray:
    """Root mean square gain over the colours, (F,): a tone of equal, independent amplitudes in all
    colours leaves with this factor."""
    response_F33 = response_of(model, omega_F, length)
    return np.sqrt(np.mean(np.sum(np.abs(response_F33) ** 2, axis=1), axis=1))
