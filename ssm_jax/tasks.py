"""What is trained: a task is a model on a dataset, with a loss and its metrics."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from ssm_jax.data.catalog import CATALOG, open_data
from ssm_jax.data.dataset import Dataset
from ssm_jax.data.recipe import Place
from ssm_jax.models import PairClassifier, SequenceClassifier

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

# inputs (B, L), (B, 2, L) or (B, L, 1); targets (B,); lengths (B,) or (B, 2) where there is
# padding; in evaluation also mask (B,), 1 = real
Batch = Mapping[str, Array]


@dataclass(frozen=True)
class Task:
    """How to open the data of a task and to build its model.

    open_data(options, place) takes the plain options of `cfg.data`.
    build_model(dataset, options, rngs) takes the plain options of `cfg.model`.
    """

    open_data: Callable[[Mapping[str, Any], Place], Dataset]
    build_model: Callable[[Dataset, Mapping[str, Any], nnx.Rngs], nnx.Module]


def build_classifier(
    dataset: Dataset, options: Mapping[str, Any], rngs: nnx.Rngs
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
        rngs=rngs,
    )


def layer_arguments(layer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a layer's constructor in the options of `cfg.model` that are about it."""
    shared = {key: value for key, value in options.items() if key not in NOT_IN}
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


def classification_sums(logits_BK: Array, batch: Batch) -> dict[str, Array]:
    """Sums over the real examples of a batch: cross-entropy in nats, right answers, examples."""
    loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BK, batch["targets"])
    correct_B = (jnp.argmax(logits_BK, axis=-1) == batch["targets"]).astype(jnp.float32)
    mask_B = batch.get("mask", jnp.ones_like(loss_B))
    return {
        "loss": jnp.sum(loss_B * mask_B),
        "accuracy": jnp.sum(correct_B * mask_B),
        "count": jnp.sum(mask_B),
    }


def mean_metrics(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Sums over examples to means: {"loss": nats, "accuracy": 0..1}."""
    return {name: total / sums["count"] for name, total in sums.items() if name != "count"}


def apply_model(
    model: nnx.Module, batch: Batch, *, train: bool, key: Array | None, horizon: int | None
) -> Array:
    """Logits of a batch, whose layers run as on `horizon` steps; None: as many as it has."""
    if horizon == steps_of(batch):
        horizon = None
    return model(batch["inputs"], batch.get("lengths"), train=train, key=key, horizon=horizon)


def steps_of(batch: Batch) -> int:
    """L of a batch."""
    return batch["inputs"].shape[-1 if "lengths" in batch else 1]


def sample_batch(dataset: Dataset, batch_size: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a training batch."""
    shapes = dataset.shapes(batch_size, length)
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}


TASKS = {
    name: Task(open_data=functools.partial(open_data, name), build_model=build_classifier)
    for name in CATALOG
}
