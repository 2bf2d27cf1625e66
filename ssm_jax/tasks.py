"""What is trained: a task is a model on a dataset, with a loss and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from ssm_jax.data.dataset import TokenDataset
from ssm_jax.data.prepare import open_listops
from ssm_jax.models import SequenceClassifier

# Options of `cfg.model` about the network around the layers
OUTER_OPTIONS = (
    "d_model",
    "depth",
    "norm",
    "prenorm",
    "dropout",
    "tie_dropout",
    "pool",
    "activations",
    "layer",
)
NOT_IN = {"s4d": (), "s5": ("n_ssm",), "s4": ("init_seed",)}  # shared options a layer lacks

Batch = Mapping[
    str, Array
]  # inputs (B, L), lengths (B,), targets (B,); in evaluation also mask (B,), 1 = real


@dataclass(frozen=True)
class Task:
    """How to open the data of a task and to build its model.

    open_data(options, data_dir=, lra_release=, prepare=) takes the plain options of `cfg.data`.
    build_model(dataset, options, rngs) takes the plain options of `cfg.model`.
    """

    open_data: Callable[..., TokenDataset]
    build_model: Callable[[TokenDataset, Mapping[str, Any], nnx.Rngs], nnx.Module]


def build_classifier(
    dataset: TokenDataset, options: Mapping[str, Any], rngs: nnx.Rngs
) -> SequenceClassifier:
    """The LRA classifier for token sequences."""
    ssm = dict(options)
    outer = {key: ssm.pop(key) for key in OUTER_OPTIONS}
    return SequenceClassifier(
        n_classes=dataset.n_classes,
        vocab_size=dataset.vocab_size,
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


def open_listops_data(
    options: Mapping[str, Any], *, data_dir: Path, lra_release: Path | None, prepare: bool
) -> TokenDataset:
    """The ListOps dataset that `cfg.data` describes."""
    return open_listops(**options, data_dir=data_dir, lra_release=lra_release, prepare=prepare)


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


def apply_model(model: nnx.Module, batch: Batch, *, train: bool, key: Array | None) -> Array:
    """Logits of a batch."""
    return model(batch["inputs"], batch["lengths"], train=train, key=key)


def sample_batch(dataset: TokenDataset, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a training batch."""
    L = dataset.padded_length
    return {
        "inputs": jax.ShapeDtypeStruct((batch_size, L), jnp.int32),
        "lengths": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        "targets": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }


TASKS = {"listops": Task(open_data=open_listops_data, build_model=build_classifier)}
