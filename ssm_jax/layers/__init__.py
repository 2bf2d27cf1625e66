"""Flax NNX modules: parameters, and one call into the kernels."""

from ssm_jax.layers.filter import NoStateForm
from ssm_jax.layers.s4 import S4
from ssm_jax.layers.s4d import S4D
from ssm_jax.layers.s5 import S5

LAYERS = {"s4d": S4D, "s4": S4, "s5": S5}

__all__ = ["LAYERS", "S4", "S4D", "S5", "NoStateForm", "find_layer", "section_of"]


def find_layer(name: str) -> type:
    """The layer of a name.

    Raises:
      ValueError: there is none.
    """
    if not isinstance(name, str) or name not in LAYERS:
        raise ValueError(f"unknown layer {name!r}; choose one of {', '.join(LAYERS)}.")
    return LAYERS[name]


def section_of(name: str) -> str:
    """The section of `cfg.model` with the options that a layer alone has."""
    return name
