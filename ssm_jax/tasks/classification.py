"""The classification of whole sequences: cross-entropy, accuracy, and LRA's models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from ssm_jax.data.dataset import LabelledDataset
from ssm_jax.layers.inputs import checked_ids
from ssm_jax.models import PairClassifier, SequenceClassifier
from ssm_jax.tasks.task import Batch, Sums

# Options of `cfg.model` about the network around the layers
OUTER_OPTIONS = (
    "d_model",
    "depth",
    "norm",
    "norm_momentum",
    "norm_padding",
    "prenorm",
    "final_norm",
    "gate",
    "dropout",
    "tie_dropout",
    "pool",
    "activations",
    "remat",
    "layer",
)
NOT_IN = {"s4d": (), "s5": ("n_ssm",), "s4": ("init_seed",)}  # shared options a layer lacks


def build_classifier(
    dataset: LabelledDataset, options: Mapping[str, Any], rngs: nnx.Rngs
) -> SequenceClassifier:
    """The LRA classifier for sequences of tokens or of real numbers, or for pairs of sequences."""
    ssm = dict(options)
    outer = {key: ssm.pop(key) for key in OUTER_OPTIONS}
    classifier = PairClassifier if dataset.paired else SequenceClassifier
    return classifier(
        n_classes=dataset.n_classes,
        vocab_size=dataset.vocab_size,
        d_input=dataset.d_input,
        **outer,
        ssm=layer_arguments(outer["layer"], ssm),
        horizon=dataset.padded_length,
        rngs=rngs,
    )


def layer_arguments(layer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a layer's constructor in the options of `cfg.model` that are about it."""
    others = (*NOT_IN, "waves")  # sections of `cfg.model` that are not about every layer
    shared = {key: value for key, value in options.items() if key not in others}
    beta = shared.pop("beta")
    shared.update(beta=beta["init"], learn_beta=beta["learn"], beta_unit=beta["unit"])
    for key in NOT_IN[layer]:
        del shared[key]
    own = dict(options[layer])
    if layer == "s4":
        own["b_clip"] = own["b_clip"] or None
    if layer == "s5" and not beta["learn"] and beta["init"] == 0:
        shared["beta"] = None  # then it runs as a scan, as published
    return {**shared, **own}


def train_sums(model: nnx.Module, batch: Batch, key: Array | None) -> Sums:
    """Cross-entropy in nats and right answers in training."""
    return classification_sums(logits_of(model, batch, train=True, key=key), batch)


def eval_sums(model: nnx.Module, batch: Batch) -> Sums:
    """The same in evaluation."""
    logits_BK = logits_of(model, batch, train=False, key=None)
    return classification_sums(logits_BK, batch)


def predict(model: nnx.Module, batch: Batch) -> dict[str, Array]:
    """Of each example the predicted class, and the loss in nats."""
    logits_BK = logits_of(model, batch, train=False, key=None)
    loss_B = cross_entropy(logits_BK, batch["targets"])
    return {"predicted": jnp.argmax(logits_BK, axis=-1), "loss": loss_B}


def classification_sums(logits_BK: Array, batch: Batch) -> Sums:
    """Sums over the real examples of a batch: cross-entropy in nats, right answers, examples."""
    loss_B = cross_entropy(logits_BK, batch["targets"])
    targets_B = jnp.asarray(batch["targets"]).astype(jnp.int32)
    correct_B = (jnp.argmax(logits_BK, axis=-1) == targets_B).astype(jnp.float32)
    mask_B = batch.get("mask", jnp.ones_like(loss_B))
    return {
        "loss": jnp.sum(loss_B * mask_B),
        "accuracy": jnp.sum(correct_B * mask_B),
        "count": jnp.sum(mask_B),
    }


def cross_entropy(logits_BK: Array, targets_B: Array) -> Array:
    """The loss of each example in nats; NaN for a class that there is not, if it is traced.

    Raises:
      ValueError: for a known target that is no class: which, and of which example.
    """
    K = logits_BK.shape[-1]
    targets_B = checked_ids("classification", "target", targets_B, K, ("example",))
    return optax.softmax_cross_entropy_with_integer_labels(logits_BK, targets_B)


def logits_of(model: Any, batch: Batch, *, train: bool, key: Array | None) -> Array:
    """Logits of a batch."""
    return model(batch["inputs"], batch.get("lengths"), train=train, key=key)
