"""Wave regression: how much of each of four waves is in their sum.

Source: Figure 1 of arXiv:2410.02035 and its tuned version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ssm_jax.data.waves import WAVES, WaveDataset, open_waves
from ssm_jax.models.wave_regressor import WaveRegressor
from ssm_jax.tasks.task import Batch, Sums, Task


def build_regressor(
    dataset: WaveDataset, options: Mapping[str, Any], rngs: nnx.Rngs
) -> WaveRegressor:
    """The model for sequences of the data set's length."""
    beta = options["beta"]
    return WaveRegressor(
        waves=WAVES,
        length=dataset.padded_length,
        channels=options["d_model"],
        d_state=options["d_state"],
        alpha=options["alpha"],
        beta=beta["init"],
        learn_beta=beta["learn"],
        legacy_unsymmetric=options["waves"]["legacy_unsymmetric"],
        rngs=rngs,
    )


def regression_sums(model: Any, batch: Batch) -> Sums:
    """Squared error per wave, absolute error of each wave (error_16, ..) and their mean (error)."""
    amplitudes_BF = batch["inputs"]
    apart_BF = model(amplitudes_BF) - amplitudes_BF
    error_BF = jnp.abs(apart_BF)
    mask_B = batch.get("mask", jnp.ones_like(error_BF[:, 0]))
    each = {f"error_{wave}": error_BF[:, i] for i, wave in enumerate(WAVES)}
    means = {"loss": jnp.mean(apart_BF**2, axis=1), "error": jnp.mean(error_BF, axis=1), **each}
    sums = {name: jnp.sum(value_B * mask_B) for name, value_B in means.items()}
    return {**sums, "count": jnp.sum(mask_B)}


def train_sums(model: Any, batch: Batch, key: Array | None, horizon: int | None) -> Sums:
    """In training."""
    del key, horizon
    return regression_sums(model, batch)


def eval_sums(model: Any, batch: Batch, horizon: int | None) -> Sums:
    """In evaluation: the same."""
    del horizon
    return regression_sums(model, batch)


WAVE_REGRESSION = Task(
    open_data=open_waves,
    build_model=build_regressor,
    train_sums=train_sums,
    eval_sums=eval_sums,
    metrics={"error": "min", "loss": "min"},
)
