"""A trained model to use: loaded without its data, predicting, step by step, in a file."""

from ssm_jax.trained.model import Stream, Trained
from ssm_jax.trained.opening import load
from ssm_jax.trained.pytorch import from_torch

__all__ = ["Stream", "Trained", "from_torch", "load"]
