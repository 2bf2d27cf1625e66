"""beta, the exponent of a layer's filter: learned, fixed or none, and what it takes away.

The filter (1 + |s|)^beta multiplies the spectrum of a whole sequence. It is no rational function of
the shift, so no state of finite size carries it from one step to the next, and it reaches ahead:
only layers without a filter run as a recurrence, and step by step only causal ones.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ssm_jax.kernels.arrays import known_values
from ssm_jax.options import check

WHOLE_SEQUENCE = "mode='scan'"  # the one recurrence that sees the future


class Knob(nnx.Variable):
    """A number of the forward pass that is not trained; populations may differ in it."""


class NoStateForm(ValueError):  # noqa: N818 - it names a property, as StopIteration does
    """The layer cannot be run as a recurrence, or not step by step."""


def filter_exponent(
    layer: str, channels: int, beta: ArrayLike | None, learn_beta: bool | None
) -> nnx.Variable:
    """beta_H at its start value, zeros for None: a Param if it is learned, else a Knob.

    Raises:
      ValueError: if a filter that does not exist is to be learned; for a start out of range.
    """
    check(layer, learn_beta=learn_beta)
    if beta is None and learn_beta:
        raise ValueError(
            f"{layer}: learn_beta=True needs a filter, and beta=None means none; "
            "use beta=0.0 to start from the identity."
        )
    start = 0.0 if beta is None else beta
    if np.shape(start) not in ((), (channels,)):
        raise ValueError(
            f"{layer}: beta must be one number or one for each of {channels} channels, "
            f"got the shape {np.shape(start)}."
        )
    known = known_values(start)
    for value in () if known is None else np.ravel(known).tolist():
        check(layer, beta=value)
    kind = Knob if beta is None or learn_beta is False else nnx.Param
    return kind(jnp.full((channels,), start, jnp.float32))


def require_state_form(
    layer: str, what: str, *, bidirectional: bool, filtered: bool, beta_H: Array
) -> None:
    """Raise NoStateForm unless a layer has the form that `what` needs: "step", "prefill" or scan.

    Known values of beta decide. Where they are not known, as under jit with the parameters as
    arguments, it counts whether the layer was made with a filter.
    """
    if bidirectional and what != WHOLE_SEQUENCE:
        raise NoStateForm(
            f"{layer}: {what} needs a causal layer, this one is bidirectional; "
            "make it with bidirectional=False."
        )
    values = known_values(beta_H)
    if values is None:
        if filtered:
            raise NoStateForm(
                f"{layer}: {what} needs beta = 0, and this beta is traced and may differ; "
                "make the layer with beta=None."
            )
    elif (values != 0).any():
        raise NoStateForm(
            f"{layer}: {what} needs beta = 0, since the filter has no finite state; "
            f"got beta up to {np.abs(values).max():g}. Use mode='conv'."
        )
