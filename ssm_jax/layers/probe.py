"""A layer with a kernel of zeros beside its own, by which a loss can be differentiated."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ssm_jax.kernels import fft_conv
from ssm_jax.kernels.arrays import checked_lengths, without_padding
from ssm_jax.layers.inputs import computed_in
from ssm_jax.layers.s4 import S4
from ssm_jax.layers.s4d import S4D


class Probe(nnx.Variable):
    """Taps of zeros that are added to a layer's filtered kernel: forward, reverse; (2, H, L)."""


def _with_probe(kind: type) -> type:
    """The class of the layers of a kind that have a probe."""

    class Probed(kind):
        def __call__(
            self,
            u_BLH: Array,
            lengths_B: Array | None = None,
            *,
            key: Array | None = None,
        ) -> Array:
            y_BLH = super().__call__(u_BLH, lengths_B, key=key)
            return y_BLH + _through(self, u_BLH, lengths_B).astype(y_BLH.dtype)

    return Probed


PROBED: dict[type, type] = {kind: _with_probe(kind) for kind in (S4D, S4)}


def probe(layer: Any, length: int) -> bool:
    """Give a layer a probe in place, if its kernel joins each channel with itself; else False.

    The layer computes the same numbers. The gradient of a loss by the probe is that by the taps of
    the filtered kernel, which is k[j] for the input j steps ago and k_rev[j] for that in 1 + j
    steps. A layer that its model does not call has a gradient of zeros.

    Args:
      layer: an S4D or S4, called without `mode` and `step_scale`; to others nothing is done.
      length: taps: the layer's horizon, or the steps of its input.
    """
    if type(layer) not in PROBED:
        return False
    # Its class, and no wrapper in its place: a model may ask its layer for more than an output.
    layer.__class__ = PROBED[type(layer)]
    layer.probe = Probe(jnp.zeros((2, layer.D.shape[0], length), jnp.float32))
    return True


def probe_of(layer: Any) -> Array:
    """The probe of a layer, or what stands in its place, such as a gradient; (2, H, L)."""
    return layer.probe[...]


def _through(layer: Any, u_BLH: Array, lengths_B: Array | None) -> Array:
    lengths_B = checked_lengths(layer.NAME, lengths_B, u_BLH.shape[:1], u_BLH.shape[1])
    probe_2HL = probe_of(layer)
    v_BLH = without_padding(u_BLH.astype(computed_in(u_BLH, probe_2HL)), lengths_B)
    probe_2HL = probe_2HL.astype(v_BLH.dtype)
    return fft_conv(v_BLH, probe_2HL[0], reverse_kernel_HL=probe_2HL[1])
