"""Pure numerics: arrays in, arrays out. The names below are the public ones.

An argument with a suffix is an array of JAX or NumPy, of the axes that it says (`dims.py`). All
raise ValueError for shapes that do not fit, and for a number or word out of its range or set, and
TypeError for what is no array, no real one or no integer where it must be.
"""

from ssm_jax.kernels.blocks import anticausal
from ssm_jax.kernels.diagonal import s4d_kernel, s4d_recurrence
from ssm_jax.kernels.discretize import discretize_bilinear, discretize_zoh, exponent
from ssm_jax.kernels.dplr import dplr_kernel, dplr_recurrence, dplr_step
from ssm_jax.kernels.fftconv import fft_conv
from ssm_jax.kernels.response import (
    circular_gain,
    discrete_transfer_function,
    pair_sensitivity,
    pole_sensitivity,
    sobolev_frequency,
    sobolev_gain,
    transfer_function,
)
from ssm_jax.kernels.scan import diagonal_scan

__all__ = [
    "anticausal", "circular_gain", "diagonal_scan", "discrete_transfer_function",
    "discretize_bilinear", "discretize_zoh", "dplr_kernel", "dplr_recurrence", "dplr_step",
    "exponent", "fft_conv", "pair_sensitivity", "pole_sensitivity", "s4d_kernel", "s4d_recurrence",
    "sobolev_frequency", "sobolev_gain", "transfer_function",
]  # fmt: skip
