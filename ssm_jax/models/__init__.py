"""Networks built from the layers."""

from ssm_jax.models.block import Block
from ssm_jax.models.classifier import PairClassifier, SequenceClassifier

__all__ = ["Block", "PairClassifier", "SequenceClassifier"]
