"""The classification of whole sequences: cross-entropy, accuracy, and LRA's models."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from ssm_jax.data.dataset import LabelledDataset
from ssm_jax.layers import find_layer, section_of
from ssm_jax.layers.inputs import checked_ids
from ssm_jax.models import PairClassifier, SequenceClassifier
from ssm_jax.options.arguments import arguments_of
from ssm_jax.tasks import Batch, Sums


def build_classifier(
    dataset: LabelledDataset, options: Mapping[str, Any], rngs: nnx.Rngs
) -> SequenceClassifier:
    """The LRA classifier for sequences of tokens or of real numbers, or for pairs of sequences."""
    if options["pool"] == "none":
        raise ValueError("model.pool=none gives no class of a sequence; choose another pool.")
    classifier = PairClassifier if dataset.paired else SequenceClassifier
    return classifier(
        n_classes=dataset.n_classes,
        vocab_size=dataset.vocab_size,
        d_input=dataset.d_input,
        **arguments_of(classifier, options),
        ssm=layer_arguments(options),
        horizon=dataset.padded_length,
        rngs=rngs,
    )


def layer_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the layer of `cfg.model` that are among its options, but for d_model."""
    layer = options["layer"]
    found = arguments_of(find_layer(layer), options, section_of(layer))
    del found["d_model"]
    return found


def logits_of(model: Any, batch: Batch, *, train: bool = False, key: Array | None = None) -> Array:
    """What a model of sequences says of a batch."""
    return model(batch["inputs"], batch.get("lengths"), train=train, key=key)


def train_sums(model: nnx.Module, batch: Batch, key: Array | None) -> Sums:
    """Cross-entropy in nats and right answers in training."""
    return classification_sums(logits_of(model, batch, train=True, key=key), batch)


def eval_sums(model: nnx.Module, batch: Batch) -> Sums:
    """The same in evaluation."""
    return classification_sums(logits_of(model, batch), batch)


def predict(model: nnx.Module, batch: Batch) -> dict[str, Array]:
    """Of each example the predicted class, and the loss in nats."""
    logits_BK = logits_of(model, batch)
    loss_B = _cross_entropy(logits_BK, batch["targets"])
    return {"predicted": jnp.argmax(logits_BK, axis=-1), "loss": loss_B}


def classification_sums(logits_BK: Array, batch: Batch) -> Sums:
    """Sums over the real examples of a batch: cross-entropy in nats, right answers, examples."""
    loss_B = _cross_entropy(logits_BK, batch["targets"])
    targets_B = jnp.asarray(batch["targets"]).astype(jnp.int32)
    correct_B = (jnp.argmax(logits_BK, axis=-1) == targets_B).astype(jnp.float32)
    mask_B = batch.get("mask", jnp.ones_like(loss_B))
    return {
        "loss": jnp.sum(loss_B * mask_B),
        "accuracy": jnp.sum(correct_B * mask_B),
        "count": jnp.sum(mask_B),
    }


def _cross_entropy(logits_BK: Array, targets_B: Array) -> Array:
    """The loss of each example in nats. A target that is no class is a ValueError which names its
    example, or NaN if it is traced."""
    targets_B = checked_ids(
        "classification", "target", targets_B, logits_BK.shape[-1], ("example",)
    )
    return optax.softmax_cross_entropy_with_integer_labels(logits_BK, targets_B)
