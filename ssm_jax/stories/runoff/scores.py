"""How well a hydrograph follows another: as a whole, at its peaks, and by frequency; in float64."""

import itertools
from typing import Any

import numpy as np

from ssm_jax.stories.runoff.data import PEAKS, RunoffDataset, least_peak
from ssm_jax.tasks.metrics import efficiencies, moments_of

PERIODS = (np.inf, 90.0, 10.0, 0.0)  # ends of the bands, in steps
BANDS = ("error_over_90", "error_10_90", "error_under_10")


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
