"""Networks built from the layers."""

from ssm_jax.models.block import Block
from ssm_jax.models.classifier import PairClassifier, SequenceClassifier
from ssm_jax.models.denoiser import Denoiser
from ssm_jax.models.wave_regressor import WaveRegressor

__all__ = ["Block", "Denoiser", "PairClassifier", "SequenceClassifier", "WaveRegressor"]
