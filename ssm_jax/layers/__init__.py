"""Flax NNX modules: parameters, and one call into the kernels."""

from ssm_jax.layers.filter import NoStateForm
from ssm_jax.layers.s4 import S4
from ssm_jax.layers.s4d import S4D
from ssm_jax.layers.s5 import S5

LAYERS = {"s4d": S4D, "s4": S4, "s5": S5}

__all__ = ["LAYERS", "S4", "S4D", "S5", "NoStateForm"]
