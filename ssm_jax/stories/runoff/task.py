"""The sums of rainfall and runoff: squared errors, weighted by basin, and moments of each basin."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.stories.runoff.data import RunoffDataset
from ssm_jax.tasks import Batch, Sums
from ssm_jax.tasks.heads import outputs
from ssm_jax.tasks.metrics import efficiencies, moment_sums


def train_sums(model: nnx.Module, batch: Batch, key: Array | None) -> Sums:
    """Weighted and plain squared errors of standardized flow.

    Source of the weight, 1 / (standard deviation of the basin + 0.1 mm)^2: Kratzert et al., HESS 23
    (2019).
    """
    return _errors(outputs(model, batch, train=True, key=key), batch)


def _errors(said_B1: Array, batch: Batch) -> Sums:
    error_B = (said_B1 - batch["targets"])[:, 0] ** 2
    mask_B = batch.get("mask", jnp.ones_like(error_B))
    return {
        "loss": jnp.sum(error_B * batch["weight"] * mask_B),
        "mse": jnp.sum(error_B * mask_B),
        "count": jnp.sum(mask_B),
    }


def eval_sums(model: nnx.Module, batch: Batch) -> Sums:
    """The same, and for each of K basins what its scores are made of; no flow is below 0."""
    said_B1, y_B1 = outputs(model, batch), batch["targets"]
    sums = _errors(said_B1, batch)
    mask_B = batch.get("mask", jnp.ones_like(y_B1[:, 0]))
    none_B1, least_B1 = batch["levels"][:, :1], batch["levels"][:, 1:]
    # As K targets of which an example has the one of its basin
    y_BK = jnp.where(batch["basin"] > 0, y_B1, jnp.nan)
    p_BK = jnp.broadcast_to(jnp.maximum(said_B1, none_B1), y_BK.shape)
    peak_BK = jnp.where(y_B1 >= least_B1, y_BK, jnp.nan)
    missed_BK = jnp.where(p_BK < least_B1, peak_BK, jnp.nan)
    sums |= moment_sums(y_BK, p_BK, mask_B)
    sums |= {f"peak_{k}": v for k, v in moment_sums(peak_BK, p_BK, mask_B).items() if k in "nyp"}
    return {**sums, "missed": moment_sums(missed_BK, p_BK, mask_B)["n"]}


def summary(sums: Mapping[str, Any], dataset: RunoffDataset) -> dict[str, float]:
    """Medians over the basins: NSE, KGE, bias at the peaks, and the share of peaks missed."""
    p = dataset.preprocessing
    center, unit = np.array(p.target_mean), np.array(p.target_std)
    each = efficiencies(sums, center, unit, rounding=1e-6)  # the sums are of float32
    with np.errstate(all="ignore"):
        n = np.asarray(sums["peak_n"])
        y, said = (center * n + unit * np.asarray(sums[f"peak_{k}"]) for k in "yp")
        each |= {"peak_bias": said / y - 1, "missed_peaks": np.asarray(sums["missed"]) / n}
    found = {}
    for name in ("nse", "kge", "peak_bias", "missed_peaks"):
        there = each[name][np.isfinite(each[name])]
        found[name] = float(np.median(there)) if there.size else np.nan
    return found | {name: float(sums[name] / sums["count"]) for name in ("mse", "loss")}
