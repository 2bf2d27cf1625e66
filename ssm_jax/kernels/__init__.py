"""Pure numerics: arrays in, arrays out. The names below are the public ones."""

from ssm_jax.kernels.diagonal import s4d_kernel
from ssm_jax.kernels.discretize import discretize_bilinear, discretize_zoh
from ssm_jax.kernels.fftconv import fft_conv
from ssm_jax.kernels.frequency import sobolev_frequency, sobolev_gain, transfer_function

__all__ = [
    "discretize_bilinear",
    "discretize_zoh",
    "fft_conv",
    "s4d_kernel",
    "sobolev_frequency",
    "sobolev_gain",
    "transfer_function",
]
