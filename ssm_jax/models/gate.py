"""The GELU and the gate after a state space layer, with a form of their own for GPUs.

There a step takes as long as what it reads and writes. So the maps over the channels have these
first, as `fft_conv` has: no array is transposed between its FFTs and the products, nor copied to
join the two halves of a GLU. And derivatives are rules that keep an input alone, and compute the
slope from it in the pass that multiplies by it; what JAX derives keeps the slope's factors.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ssm_jax.kernels.arrays import computed_in
from ssm_jax.kernels.devices import computed_again, on_gpu
from ssm_jax.kernels.rules import Ruled, linear_map

# With g = drop(GELU(y)) of the state space layer's y: GLU(W g), as in S4's code (OC-13), and
# g sigmoid(W g) and y sigmoid(W g), as in S5's (arXiv:2208.04933); by the outputs of W per channel.
GATES = {"glu": 2, "half_glu1": 1, "half_glu2": 1}


def gated(gate: str, y_BLH: Array, g_BLH: Array, glu: nnx.Linear) -> Array:
    """What a gate of GATES lets pass, in the type of g; W is that of `glu`."""
    if gate == "glu":
        return gated_linear(g_BLH, glu)
    value_BLH = g_BLH if gate == "half_glu1" else y_BLH
    half = _ruled_half_glu if on_gpu() else _half_glu
    return half(value_BLH, over_channels(g_BLH, *_of_type(g_BLH, glu), glu.precision))


def gated_linear(x_BLH: Array, glu: nnx.Linear) -> Array:
    """GLU(W x + b): the first half of W x + b times the logistic function of the second.

    Elsewhere as two products, which make no array of twice the width: on two cores a gradient takes
    51 ms of processor time, against 67 for one product that is split (B L = 16,384, H = 128).
    Computed in the type of x, with products of the precision of `glu`, summed in float32.
    """
    W_HG, b_G = _of_type(x_BLH, glu)
    B, L, H = x_BLH.shape
    width = W_HG.shape[1] // 2
    if on_gpu():
        both_GBL = jnp.moveaxis(over_channels(x_BLH, W_HG, b_G, glu.precision), 2, 0)
        return jnp.moveaxis(_glu(both_GBL.reshape(2, width, B, L)), 0, 2)
    x_RH = x_BLH.reshape(B * L, H)
    value_RG = jnp.matmul(x_RH, W_HG[:, :width], precision=glu.precision) + b_G[None, :width]
    gate_RG = jnp.matmul(x_RH, W_HG[:, width:], precision=glu.precision) + b_G[None, width:]
    return (value_RG * jax.nn.sigmoid(gate_RG)).reshape(B, L, width)


def over_channels(x_BLH: Array, W_HG: Array, b_G: Array, precision: Any = None) -> Array:
    """y_BLG = W x + b at every step."""
    if not on_gpu():
        return jnp.matmul(x_BLH, W_HG, precision=precision) + b_G[None, None, :]
    x_HBL = jnp.moveaxis(x_BLH, 2, 0)
    y_GBL = jax.lax.dot_general(W_HG, x_HBL, (((0,), (0,)), ((), ())), precision=precision)
    return jnp.moveaxis(y_GBL + b_G[:, None, None], 0, 2)


def gelu(x: Array) -> Array:
    """x Phi(x), with the error function as PyTorch has it.

    jax.nn.gelu(approximate=False) takes the complementary one, which XLA computes in three passes:
    its smaller error at x < -4 is below 1e-6 anyway.
    """
    return _ruled_gelu(x) if on_gpu() else _x_times_phi(x)


def _x_times_phi(x: Array) -> Array:
    return 0.5 * x * (1 + jax.lax.erf(x * x.dtype.type(math.sqrt(0.5))))


_ruled_gelu = Ruled(_x_times_phi)


@_ruled_gelu.defjvp
def _gelu_jvp(primals, tangents):
    def by_slope(x: Array, dx: Array) -> Array:  # (Phi + x phi) dx
        z = x.astype(computed_in(x))
        phi = jnp.exp(-0.5 * z * z) * z.dtype.type(1 / math.sqrt(2 * math.pi))
        slope = 0.5 * (1 + jax.lax.erf(z * z.dtype.type(math.sqrt(0.5)))) + z * phi
        return (slope * dx).astype(x.dtype)

    (x,), (dx,) = primals, tangents
    return _ruled_gelu(x), linear_map(by_slope, by_slope, computed_again(x), dx)


def _half_glu(value: Array, gate: Array) -> Array:
    return value * jax.nn.sigmoid(gate)


_ruled_half_glu = Ruled(_half_glu)


@_ruled_half_glu.defjvp
def _half_glu_jvp(primals, tangents):
    def slopes(value: Array, gate: Array) -> tuple[Array, Array]:
        value, s = (x.astype(computed_in(x)) for x in (value, gate))
        s = jax.nn.sigmoid(s)
        return s, value * s * (1 - s)

    def forward(kept, tangents):
        by_value, by_gate = slopes(*kept)
        return (by_value * tangents[0] + by_gate * tangents[1]).astype(kept[0].dtype)

    def backward(kept, g):
        return tuple((slope * g).astype(g.dtype) for slope in slopes(*kept))

    kept = computed_again(tuple(primals))
    return _ruled_half_glu(*primals), linear_map(forward, backward, kept, tuple(tangents))


@Ruled
def _glu(x_2HBL: Array) -> Array:
    return _half_glu(*x_2HBL)


@_glu.defjvp
def _glu_jvp(primals, tangents):
    def slopes(x_2HBL: Array) -> Array:
        """s and value s (1 - s), as s and 1 - s times 1 and value s, for s = sigmoid(gate).

        From sigmoid(+-gate), as one expression for both halves: XLA writes down what is expensive
        and needed for both.
        """
        value_HBL, gate_HBL = x_2HBL.astype(computed_in(x_2HBL))
        sign_2111 = jnp.asarray([1, -1], gate_HBL.dtype)[:, None, None, None]
        s_2HBL = jax.nn.sigmoid(sign_2111 * gate_HBL[None])
        return s_2HBL * jnp.where(sign_2111 > 0, 1, value_HBL[None] * (1 - s_2HBL))

    def forward(x_2HBL: Array, dx_2HBL: Array) -> Array:
        return jnp.sum(slopes(x_2HBL) * dx_2HBL, axis=0).astype(x_2HBL.dtype)

    def backward(x_2HBL: Array, g_HBL: Array) -> Array:
        return (slopes(x_2HBL) * g_HBL[None]).astype(x_2HBL.dtype)

    (x_2HBL,), (dx_2HBL,) = primals, tangents
    return _glu(x_2HBL), linear_map(forward, backward, computed_again(x_2HBL), dx_2HBL)


def _of_type(x: Array, glu: nnx.Linear) -> tuple[Array, Array]:
    """The kernel and the bias in the type of x."""
    assert glu.bias is not None
    return glu.kernel[...].astype(x.dtype), glu.bias[...].astype(x.dtype)
