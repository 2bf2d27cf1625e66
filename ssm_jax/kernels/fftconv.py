r"""Causal and two-sided convolution by FFT, with a gain on the kernel's spectrum.

    causal     y_t = sum_{j >= 0} k[j] u_{t-j}
    two-sided  y_t = sum_{j >= 0} k[j] u_{t-j}  +  sum_{j >= 0} k_rev[j] u_{t+1+j}

Sequences are zero-padded to n = 2L, so nothing wraps around unless a gain is applied: a gain that
is no polynomial in the shift reaches both ways and, as in the official code (OC-9, OC-11), on the
circle of length n. k_rev[0] meets u_{t+1} (OC-12): the reverse part is strictly anti-causal, and
the present is counted once.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from ssm_jax.kernels.materialize import materialize

DATA_AXIS = "data"  # the mesh axis over which a batch is split


def fft_conv(
    u_BLH: Array,
    k_HL: Array,
    *,
    reverse_kernel_HL: Array | None = None,
    gain_HF: Array | None = None,
    skip_H: Array | None = None,
) -> Array:
    """Convolve every channel with its kernel.

    Args:
      u_BLH: real input.
      k_HL: real kernel, as long as the input.
      reverse_kernel_HL: kernel of the future inputs; None: causal.
      gain_HF: real factor on the spectrum, on the F = L + 1 bins of a real FFT of length 2L; None:
        1. It multiplies the kernel's spectrum, (H, F), not the output's, (B, H, F): the same
        numbers, B times cheaper.
      skip_H: real D of y = k * u + D u, outside the gain. It is added to the spectrum, where it is
        one number for all frequencies: the input is not read a second time.

    Returns:
      y_BLH.

    Raises:
      ValueError: if a shape does not fit.
    """
    _, L, H = u_BLH.shape
    if k_HL.shape != (H, L):
        raise ValueError(
            f"fft_conv: input {u_BLH.shape} needs a kernel {(H, L)}, got {k_HL.shape}."
        )
    if reverse_kernel_HL is not None and reverse_kernel_HL.shape != (H, L):
        raise ValueError(
            f"fft_conv: input {u_BLH.shape} needs a reverse kernel {(H, L)}, "
            f"got {reverse_kernel_HL.shape}."
        )
    if gain_HF is not None and gain_HF.shape != (H, L + 1):
        raise ValueError(
            f"fft_conv: input {u_BLH.shape} needs a gain on {L + 1} bins, {(H, L + 1)}, "
            f"got {gain_HF.shape}."
        )
    if skip_H is not None and skip_H.shape != (H,):
        raise ValueError(f"fft_conv: input {u_BLH.shape} needs a skip {(H,)}, got {skip_H.shape}.")
    n = 2 * L
    if reverse_kernel_HL is not None:
        # On a circle of length 2L the tap for u_{t+1+j} stands at -(1 + j).
        k_HL = jnp.concatenate([k_HL, reverse_kernel_HL[:, ::-1]], axis=-1)
    K_HF = jnp.fft.rfft(k_HL, n)
    if gain_HF is not None:
        K_HF = K_HF * gain_HF
    if skip_H is not None:
        K_HF = K_HF + skip_H[:, None]
    # The walls hold what else would be computed in strides, next to the transposition of time and
    # channels, and keep the sum over the batch apart from sums over frequencies.
    guard = k_HL[0, 0]
    K_HF = materialize(K_HF, guard)
    return materialize(_per_device(_filter, u_BLH.shape[0])(u_BLH, K_HF), guard)


def _filter(u_BLH: Array, K_HF: Array) -> Array:
    """The inputs times the spectrum K of the kernel, cut back to their length."""
    L = u_BLH.shape[1]
    u_BHL = jnp.swapaxes(u_BLH, 1, 2)
    y_BHL = jnp.fft.irfft(jnp.fft.rfft(u_BHL, 2 * L) * K_HF[None], 2 * L)[..., :L]
    return jnp.swapaxes(y_BHL, 1, 2)


def _per_device(function, batch: int):
    """`function(u, K)` on each device's part of the batch, if `jax.set_mesh` has a data axis.

    XLA's partitioner does not split an FFT over its batch: left to itself it gathers the whole
    batch on every device.
    """
    devices = dict(jax.sharding.get_abstract_mesh().shape).get(DATA_AXIS, 1)
    if devices == 1 or batch % devices:
        return function
    split, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
    return jax.shard_map(function, in_specs=(split, whole), out_specs=split)
