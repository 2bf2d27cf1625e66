"""The sums and scores of rainfall and runoff.

Sums are squared errors, weighted by basin, and moments of each basin. Scores say, in float64, how
well a hydrograph follows another: as a whole, at its peaks, and by frequency.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.stories.runoff.data import PEAKS, RunoffDataset, least_peak
from ssm_jax.tasks import Batch, Sums
from ssm_jax.tasks.heads import outputs
from ssm_jax.tasks.metrics import (
    ROUNDING,
    efficiencies,
    masked_sums,
    moment_sums,
    moments_of,
)

PERIODS = (np.inf, 90.0, 10.0, 0.0)  # ends of the bands, in steps
BANDS = ("error_over_90", "error_10_90", "error_under_10")


def train_sums(model: nnx.Module, batch: Batch, key: Array | None) -> Sums:
    """Weighted and plain squared errors of standardized flow.

    Source of the weight, 1 / (standard deviation of the basin + 0.1 mm)^2: Kratzert et al., HESS 23
    (2019).
    """
    return _errors(outputs(model, batch, train=True, key=key), batch)


def _errors(said_B1: Array, batch: Batch) -> Sums:
    error_B = (said_B1 - batch["targets"])[:, 0] ** 2
    return masked_sums({"loss": error_B * batch["weight"], "mse": error_B}, batch)


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
    sums |= {f"peak_{k}": v for k, v in moment_sums(peak_BK, p_BK, mask_B).items() if k in "nypc"}
    return {**sums, "missed": moment_sums(missed_BK, p_BK, mask_B)["n"]}


def summary(sums: Mapping[str, Any], dataset: RunoffDataset) -> dict[str, float]:
    """Medians over the basins: NSE, KGE, bias at the peaks, and the share of peaks missed."""
    p = dataset.preprocessing
    center, unit = np.array(p.target_mean), np.array(p.target_std)
    each = efficiencies(sums, center, unit, rounding=ROUNDING)
    with np.errstate(all="ignore"):
        n = np.asarray(sums["peak_n"])
        y, said = (center * n + unit * (sums[f"peak_{k}"] + sums["peak_c"]) for k in "yp")
        each |= {"peak_bias": said / y - 1, "missed_peaks": np.asarray(sums["missed"]) / n}
    found = {}
    for name in ("nse", "kge", "peak_bias", "missed_peaks"):
        there = each[name][np.isfinite(each[name])]
        found[name] = float(np.median(there)) if there.size else np.nan
    return found | {name: float(sums[name] / sums["count"]) for name in ("mse", "loss")}


def flow_scores(observed_T: np.ndarray, said_T: np.ndarray) -> dict[str, float]:
    """Scores of a basin; what has none, as the NSE of a constant flow, is left out.

    "fhv": relative bias of the largest PEAKS of each flow, each sorted (Yilmaz et al., Water
    Resour. Res. 44, 2008); "peak_bias": that at the steps of the observed peaks; "missed_peaks":
    share of these where what is said stays below the least of them. BANDS see `band_errors`.
    """
    there_T = ~np.isnan(observed_T)
    y, p = observed_T[there_T], said_T[there_T]
    moments = moments_of(y[None, :, None], p[None, :, None])
    whole = efficiencies(moments, np.zeros(1), np.ones(1))
    found = {name: float(whole[name].item()) for name in ("nse", "kge")}
    n = max(1, round(PEAKS * y.size))
    top, of_said = np.sort(y)[-n:].sum(), np.sort(p)[-n:].sum()
    at_peak = y >= least_peak(y)
    with np.errstate(all="ignore"):
        found["fhv"] = float((of_said - top) / top)
        found["peak_bias"] = float(p[at_peak].sum() / y[at_peak].sum() - 1)
    found["missed_peaks"] = float(np.mean(p[at_peak] < least_peak(y)))
    found |= dict(zip(BANDS, band_errors(*_longest(observed_T, said_T)), strict=True))
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _longest(observed_T: np.ndarray, said_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The longest stretch in which no observation is missing."""
    gaps = np.flatnonzero(np.isnan(observed_T))
    cuts = np.concatenate([[-1], gaps, [observed_T.size]])
    k = int(np.argmax(np.diff(cuts)))
    return observed_T[cuts[k] + 1 : cuts[k + 1]], said_T[cuts[k] + 1 : cuts[k + 1]]


def band_errors(observed_T: np.ndarray, said_T: np.ndarray) -> list[float]:
    """Root of the energy of the error over that of the observed flow, by period of PERIODS.

    Of both less their means, under a Hann window: a flow does not end as it begins. NaN where fewer
    than two of the longest periods fit.
    """
    T = observed_T.size
    if 2 * PERIODS[1] > T:
        return [np.nan] * len(BANDS)
    window_T = np.hanning(T)
    energies = []
    for x_T in (said_T - observed_T, observed_T):
        energies.append(np.abs(np.fft.rfft((x_T - x_T.mean()) * window_T)) ** 2)
    share_F = np.arange(T // 2 + 1) / T  # cycles a step
    found = []
    for slow, fast in itertools.pairwise(PERIODS):
        low, high = 1 / slow, 1 / fast if fast else np.inf
        inside_F = (share_F >= low) & (share_F < high) & (share_F > 0)
        error, energy = (float(power_F[inside_F].sum()) for power_F in energies)
        found.append((error / energy) ** 0.5 if energy > 0 else np.nan)
    return found


def scores(dataset: RunoffDataset, split: str, said: np.ndarray) -> list[dict[str, Any]]:
    """The scores of each basin."""
    hydrographs = dataset.hydrographs(split, said)
    return [{"series": name, **flow_scores(*both)} for name, both in hydrographs]
