"""Flax NNX modules: parameters, and one call into the kernels."""

from ssm_jax.layers.s4d import S4D

LAYERS = {"s4d": S4D}

__all__ = ["LAYERS", "S4D"]
