"""Networks and sums of heads: a class, numbers, numbers or a class at each step, or a forecast."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.data.arrays import ArrayDataset
from ssm_jax.models import SequenceClassifier
from ssm_jax.options.arguments import arguments_of
from ssm_jax.tasks import Batch, Sums
from ssm_jax.tasks.classification import classification_sums, layer_arguments, logits_of
from ssm_jax.tasks.metrics import (
    band_sums,
    class_metrics,
    confusion_sums,
    moment_sums,
    number_metrics,
)


def build_network(
    dataset: ArrayDataset, options: Mapping[str, Any], rngs: nnx.Rngs
) -> SequenceClassifier:
    """The network of a head; a ValueError for a forecast by a model that is not causal."""
    head, own = dataset.preprocessing.head, arguments_of(SequenceClassifier, options)
    layer = layer_arguments(options)
    if (head == "per_step") != (own["pool"] == "none"):
        raise ValueError(
            f"model.pool={own['pool']} does not fit {head}: none is for numbers at each step, and "
            "for them alone."
        )
    if head == "forecasting" and (own["pool"] != "last" or layer.get("bidirectional")):
        raise ValueError(
            "a forecast is made at the last step by a causal model; set model.pool=last and "
            "model.bidirectional=False, as configs/arrays.py:forecasting does."
        )
    return _network(dataset, own, layer, rngs)


def build_per_step(dataset: Any, options: Mapping[str, Any], rngs: nnx.Rngs) -> SequenceClassifier:
    """A network that has a class at each step; a ValueError for one with a pool."""
    own = arguments_of(SequenceClassifier, options)
    if own["pool"] != "none":
        raise ValueError(f"model.pool={own['pool']} leaves no steps; use none.")
    return _network(dataset, own, layer_arguments(options), rngs)


def _network(
    dataset: Any, own: Mapping[str, Any], layer: Mapping[str, Any], rngs: nnx.Rngs
) -> SequenceClassifier:
    return SequenceClassifier(
        n_classes=dataset.n_classes,
        vocab_size=dataset.vocab_size,
        d_input=dataset.d_input,
        **own,
        ssm=layer,
        horizon=dataset.padded_length,
        rngs=rngs,
    )


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
    """The mean squared error over what is there of each example, as a metric too."""
    axes, there = tuple(range(1, y.ndim)), ~jnp.isnan(y)
    mask_B = batch.get("mask", jnp.ones(y.shape[0], jnp.float32))
    n_B = jnp.maximum(jnp.sum(there, axis=axes), 1).astype(jnp.float32)
    error = jnp.where(there, p - jnp.where(there, y, 0.0), 0.0)
    total = jnp.sum(jnp.sum(error**2, axis=axes) / n_B * mask_B)
    return {"loss": total, "mse": total, "count": jnp.sum(mask_B)}


def number_train_sums(model: nnx.Module, batch: Batch, key: Array | None) -> Sums:
    """Squared errors of standardized targets."""
    return _loss(batch["targets"], outputs(model, batch, train=True, key=key), batch)


def number_eval_sums(model: nnx.Module, batch: Batch) -> Sums:
    """The same, and what the metrics of a split are made of."""
    y, p = batch["targets"], outputs(model, batch)
    mask_B = batch.get("mask", jnp.ones(y.shape[0], jnp.float32))
    sums = {**_loss(y, p, batch), **moment_sums(y, p, mask_B)}
    return {**sums, **band_sums(y, p, mask_B)} if y.ndim == 3 else sums


def number_summary(sums: Mapping[str, Any], dataset: ArrayDataset) -> dict[str, float]:
    """Metrics of a split."""
    p = dataset.preprocessing
    numbers = number_metrics(sums, np.array(p.target_mean), np.array(p.target_std))
    return {**numbers, "loss": float(sums["loss"] / sums["count"])}
