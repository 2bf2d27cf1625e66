"""The residual block of S4: norm, state space layer, GELU, 1x1 convolution, GLU."""

from __future__ import annotations

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


class Block(nnx.Module):
    """x + drop(GLU(W drop(GELU(drop(ssm(norm x)))))); without `prenorm`, the norm of that sum.

    As in the official code (OC-13, OC-14, OC-15). GELU is the exact one, x Phi(x). Padding is
    masked after the norm, before the state space layer, and nowhere else.
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
        y = self.norm(x_BLH, train=train) if self.prenorm else x_BLH
        y = jax.nn.gelu(self.ssm(y, lengths_B, key=ssm_key), approximate=False)
        y = dropout(y, self.dropout, gelu_key, tied=self.tie_dropout)
        y = jax.nn.glu(self.glu(y))
        y = x_BLH + dropout(y, self.dropout, branch_key, tied=self.tie_dropout)
        return y if self.prenorm else self.norm(y, train=train)
