"""The residual block of S4: norm, state space layer, GELU, 1x1 convolution, GLU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ssm_jax.layers.dropout import dropout, split_or_none
from ssm_jax.layers.norm import make_norm


def torch_uniform(fan_in: int) -> Callable:
    """PyTorch's default initializer of linear weights and biases: uniform in +-1/sqrt(fan_in)."""
    bound = fan_in**-0.5

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def linear(d_in: int, d_out: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear map of the last axis, initialized as PyTorch's Linear and Conv1d(kernel_size=1)."""
    init = torch_uniform(d_in)
    return nnx.Linear(d_in, d_out, kernel_init=init, bias_init=init, rngs=rngs)


def gated_linear(x_BLH: Array, glu: nnx.Linear) -> Array:
    """GLU(W x + b): the first half of W x + b times the logistic function of the second.

    As two products of tall matrices, which makes no array of twice the width: on two CPU cores a
    gradient takes 51 ms of processor time, against 67 for one product that is split (B L = 16,384,
    H = 128). Computed in the type of x; products are summed in float32.
    """
    assert glu.bias is not None
    B, L, H = x_BLH.shape
    x_RH = x_BLH.reshape(B * L, H)
    W_HG, b_G = glu.kernel[...].astype(x_RH.dtype), glu.bias[...].astype(x_RH.dtype)
    width = W_HG.shape[1] // 2
    value_RG = x_RH @ W_HG[:, :width] + b_G[None, :width]
    gate_RG = x_RH @ W_HG[:, width:] + b_G[None, width:]
    return (value_RG * jax.nn.sigmoid(gate_RG)).reshape(B, L, width)


def gelu(x: Array) -> Array:
    """x Phi(x), with the error function as PyTorch has it.

    jax.nn.gelu(approximate=False) takes the complementary one, which XLA computes in three passes:
    its smaller error at x < -4 is below 1e-6 anyway.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * x.dtype.type(math.sqrt(0.5))))


class Block(nnx.Module):
    """x + drop(GLU(W drop(GELU(drop(ssm(norm x)))))); without `prenorm`, the norm of that sum.

    As in the official code (OC-13, OC-14, OC-15). GELU is the exact one, x Phi(x). Padding is
    masked after the norm, before the state space layer, and nowhere else. The residual stream, the
    GELU and the GLU have the type of x; norms and the state space layer compute in float32.
    """

    def __init__(
        self,
        d_model: int,
        ssm: nnx.Module,
        *,
        norm: str = "batch",
        prenorm: bool = True,
        dropout: float = 0.0,
        tie_dropout: bool = True,
        rngs: nnx.Rngs,
    ):
        """Args:
        d_model: channels H.
        ssm: maps (u_BLH, lengths_B, key=) to y_BLH; it brings the dropout before the GELU.
        norm: "batch" or "layer".
        prenorm: norm before the layer, or after the residual sum.
        dropout, tie_dropout: after the GELU and on the residual branch.
        rngs: with a "params" stream.
        """
        self.norm = make_norm(norm, d_model)
        self.ssm = ssm
        self.glu = linear(d_model, 2 * d_model, rngs)
        self.prenorm = prenorm
        self.dropout = dropout
        self.tie_dropout = tie_dropout

    def __call__(
        self, x_BLH: Array, lengths_B: Array | None, *, train: bool, key: Array | None
    ) -> Array:
        """Apply the block.

        Args:
          x_BLH: features.
          lengths_B: int number of real steps; None: all.
          train: the batch norm uses the batch's statistics, and updates the running ones.
          key: of the dropout; None: no dropout.

        Returns:
          y_BLH.
        """
        ssm_key, gelu_key, branch_key = split_or_none(key, 3)
        u = x_BLH.astype(jnp.float32)
        u = self.norm(u, train=train) if self.prenorm else u
        y = self.ssm(u, lengths_B, key=ssm_key).astype(x_BLH.dtype)
        y = dropout(gelu(y), self.dropout, gelu_key, tied=self.tie_dropout)
        y = gated_linear(y, self.glu)
        y = x_BLH + dropout(y, self.dropout, branch_key, tied=self.tie_dropout)
        if self.prenorm:
            return y
        return self.norm(y.astype(jnp.float32), train=train).astype(x_BLH.dtype)
