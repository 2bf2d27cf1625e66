"""beta, the exponent of a layer's filter: learned, fixed, or none."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx


class Knob(nnx.Variable):
    """A number of the forward pass that is not trained; populations may differ in it."""


def filter_exponent(
    layer: str, channels: int, beta: float | None, learn_beta: bool | None
) -> nnx.Variable:
    """beta_H at its start value: a Param if it is learned, else a Knob.

    Args:
      layer: name of the layer, for the message.
      channels: H.
      beta: start value; None: no filter, which a Knob of zeros stands for.
      learn_beta: None: learned if there is a filter.

    Raises:
      ValueError: if a filter shall be learned that there is not.
    """
    if beta is None and learn_beta:
        raise ValueError(
            f"{layer}: learn_beta=True needs a filter, and beta=None means none; "
            "use beta=0.0 to start from the identity."
        )
    kind = Knob if beta is None or learn_beta is False else nnx.Param
    return kind(jnp.full((channels,), 0.0 if beta is None else beta, jnp.float32))
