"""Networks and sums of heads: a class, numbers, numbers or a class at each step, or a forecast."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from ssm_jax.data.arrays import ArrayDataset
from ssm_jax.data.dataset import LabelledDataset
from ssm_jax.layers import find_layer, section_of
from ssm_jax.layers.inputs import checked_ids
from ssm_jax.models import PairClassifier, SequenceClassifier
from ssm_jax.options.arguments import arguments_of
from ssm_jax.tasks import ANY, Batch, Sums
from ssm_jax.tasks.metrics import (
    band_sums,
    class_metrics,
    confusion_sums,
    masked_sums,
    moment_sums,
    number_metrics,
)


def build_classifier(
    dataset: LabelledDataset, options: Mapping[str, Any], rngs: nnx.Rngs
) -> SequenceClassifier:
    """The LRA classifier for sequences of tokens or of real numbers, or for pairs of sequences."""
    if options["pool"] == "none":
        raise ValueError("model.pool=none gives no class of a sequence; choose another pool.")
    kind = PairClassifier if dataset.paired else SequenceClassifier
    return _network(dataset, options, rngs, kind)


def build_network(
    dataset: ArrayDataset, options: Mapping[str, Any], rngs: nnx.Rngs
) -> SequenceClassifier:
    """The network of a head; a ValueError for a forecast by a model that is not causal."""
    head, pool = dataset.preprocessing.head, options["pool"]
    if (head == "per_step") != (pool == "none"):
        raise ValueError(
            f"model.pool={pool} does not fit {head}: none is for numbers at each step, and for "
            "them alone."
        )
    if head == "forecasting" and (pool != "last" or layer_arguments(options).get("bidirectional")):
        raise ValueError(
            "a forecast is made at the last step by a causal model; set model.pool=last and "
            "model.bidirectional=False, as configs/arrays.py:forecasting does."
        )
    return _network(dataset, options, rngs)


def build_per_step(dataset: Any, options: Mapping[str, Any], rngs: nnx.Rngs) -> SequenceClassifier:
    """A network that has a class at each step; a ValueError for one with a pool."""
    if options["pool"] != "none":
        raise ValueError(f"model.pool={options['pool']} leaves no steps; use none.")
    return _network(dataset, options, rngs)


def _network(
    dataset: Any,
    options: Mapping[str, Any],
    rngs: nnx.Rngs,
    kind: type[SequenceClassifier] = SequenceClassifier,
) -> SequenceClassifier:
    return kind(
        n_classes=dataset.n_classes,
        vocab_size=dataset.vocab_size,
        d_input=dataset.d_input,
        **arguments_of(kind, options),
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
    return masked_sums({"loss": loss_B, "accuracy": correct_B}, batch)


def _cross_entropy(logits_BK: Array, targets_B: Array) -> Array:
    """The loss of each example in nats. A target that is no class is a ValueError which names its
    example, or NaN if it is traced."""
    targets_B = checked_ids(
        "classification", "target", targets_B, logits_BK.shape[-1], ("example",)
    )
    return optax.softmax_cross_entropy_with_integer_labels(logits_BK, targets_B)


def class_eval_sums(model: nnx.Module, batch: Batch) -> Sums:
    """Cross-entropy in nats and right answers, and the confusion matrix."""
    logits_BK = logits_of(model, batch)
    sums = classification_sums(logits_BK, batch)
    mask_B = batch.get("mask", jnp.ones_like(logits_BK[:, 0]))
    return {**sums, **confusion_sums(logits_BK, batch["targets"], mask_B)}


def class_summary(sums: Mapping[str, Any], dataset: ArrayDataset) -> dict[str, float]:
    """Metrics of a split."""
    del dataset
    return {**class_metrics(sums["confusion"]), "loss": float(sums["loss"] / sums["count"])}


def last_steps_train_sums(model: nnx.Module, batch: Batch, key: Array | None) -> Sums:
    """Cross-entropy in nats and right answers, means over the last steps, which have targets."""
    return _last_steps_sums(logits_of(model, batch, train=True, key=key), batch)


def last_steps_eval_sums(model: nnx.Module, batch: Batch) -> Sums:
    """The same in evaluation."""
    return _last_steps_sums(logits_of(model, batch), batch)


def _last_steps_sums(logits_BLK: Array, batch: Batch) -> Sums:
    """Classes of the last M steps against targets (B, M), summed over the real examples."""
    B, M = batch["targets"].shape
    steps = {"targets": jnp.asarray(batch["targets"]).reshape(B * M)}
    steps["mask"] = jnp.repeat(batch.get("mask", jnp.ones(B, jnp.float32)), M)
    sums = classification_sums(logits_BLK[:, -M:].reshape(B * M, -1), steps)
    return {name: total / M for name, total in sums.items()}


def outputs(model: Any, batch: Batch, *, train: bool = False, key: Array | None = None) -> Array:
    """What the model says, of the shape of the targets: (B, K), (B, L, K) or (B, horizon, K)."""
    found = logits_of(model, batch, train=train, key=key).astype(jnp.float32)
    found = found.reshape(batch["targets"].shape)
    return found + batch["last"] if "last" in batch else found


def _loss(y: Array, p: Array, batch: Batch) -> Sums:
    """The mean squared error over what is there of each example, as a metric too.

    An example of which all is missing does not count.
    """
    axes, there = tuple(range(1, y.ndim)), ~jnp.isnan(y)
    n_B = jnp.sum(there, axis=axes).astype(jnp.float32)
    apart = jnp.where(there, p - jnp.where(there, y, 0.0), 0.0)
    error_B = jnp.sum(apart**2, axis=axes) / jnp.maximum(n_B, 1.0)
    mask_B = batch.get("mask", jnp.ones_like(n_B)) * (n_B > 0).astype(jnp.float32)
    return masked_sums({"loss": error_B, "mse": error_B}, {"mask": mask_B})


def number_train_sums(model: nnx.Module, batch: Batch, key: Array | None) -> Sums:
    """Squared errors of standardized targets."""
    sums = _loss(batch["targets"], outputs(model, batch, train=True, key=key), batch)
    # All may be missing in a batch, or in a part of one, which then weighs nothing, and has no loss
    return {**sums, ANY: sums["count"], "count": jnp.maximum(sums["count"], 1e-9)}


def number_eval_sums(model: nnx.Module, batch: Batch) -> Sums:
    """The same, and what the metrics of a split are made of."""
    y, p = batch["targets"], outputs(model, batch)
    mask_B = batch.get("mask", jnp.ones(y.shape[0], jnp.float32))
    sums = {**_loss(y, p, batch), **moment_sums(y, p, mask_B)}
    return {**sums, **band_sums(y, p, mask_B, batch.get("lengths"))} if y.ndim == 3 else sums


def number_summary(sums: Mapping[str, Any], dataset: ArrayDataset) -> dict[str, float]:
    """Metrics of a split."""
    p = dataset.preprocessing
    numbers = number_metrics(sums, np.array(p.target_mean), np.array(p.target_std))
    with np.errstate(invalid="ignore"):  # NaN where all is missing
        return {**numbers, "loss": float(sums["loss"] / sums["count"])}
