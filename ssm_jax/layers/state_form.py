"""Which layers can run as a recurrence: those without a filter, and step by step only causal ones.

The filter (1 + |s|)^beta multiplies the spectrum of a whole sequence. It is no rational function of
the shift, so no state of finite size carries it from one step to the next, and it reaches ahead.
"""

from __future__ import annotations

import jax
from jax import Array

MODES = ("conv", "scan")  # ways to run a layer over a whole sequence
WHOLE_SEQUENCE = "mode='scan'"  # the one use that has the future at hand

Scale = float | Array  # a factor on dt: a real scalar, which may be traced


class NoStateForm(ValueError):  # noqa: N818 - it names a property, as StopIteration does
    """The layer cannot be run as a recurrence, or not step by step."""


def require_state_form(
    layer: str, what: str, *, bidirectional: bool, filtered: bool, beta_H: Array
) -> None:
    """Pass a layer that has the state form that `what` needs.

    Args:
      layer: name of the layer, for the message.
      what: "step", "prefill" or "mode='scan'". The last one sees the whole sequence, so it may
        look ahead.
      bidirectional: the layer has a kernel on the future inputs.
      filtered: the layer was made with a filter. Counts where the values of beta are not known, as
        under jit with the parameters as arguments.
      beta_H: exponents of the filter. Known values decide, whatever `filtered` says.

    Raises:
      NoStateForm: if the layer looks ahead and `what` cannot, or if it has a filter.
    """
    if bidirectional and what != WHOLE_SEQUENCE:
        raise NoStateForm(
            f"{layer}: {what} needs a causal layer, this one is bidirectional; "
            "make it with bidirectional=False."
        )
    if isinstance(beta_H, jax.core.Tracer):
        if filtered:
            raise NoStateForm(
                f"{layer}: {what} needs beta = 0, and this beta is traced and may differ; "
                "make the layer with beta=None."
            )
        return
    values = beta_H.tolist()
    if any(beta != 0 for beta in values):
        raise NoStateForm(
            f"{layer}: {what} needs beta = 0, since the filter has no finite state; "
            f"got beta up to {max(map(abs, values)):g}. Use mode='conv'."
        )
