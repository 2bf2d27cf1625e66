"""What is counted and measured of the predictions of a split: of classes, and of numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssm_jax.data.preprocessing import Preprocessing
from ssm_jax.tasks.metrics import class_metrics, efficiencies

LENGTH_BINS = 8  # of 2,000 test expressions 250 each, whose accuracy is known to 6 %


def scores_of(found: Mapping[str, np.ndarray], names: Sequence[Any]) -> dict[str, Any]:
    """All that is counted in a result, from what `predict` gives; None for a rate of nothing.

    "confusion" has the examples of class i (row) that were taken for class j (column); `names` are
    those of the classes.
    """
    n_classes = len(names)
    right_n = found["predicted"] == found["targets"]
    n, accuracy, interval = rate_of(right_n)
    cells_n = found["targets"].astype(np.int64) * n_classes + found["predicted"]
    confusion_KK = np.bincount(cells_n, minlength=n_classes**2).reshape(n_classes, n_classes)
    counts = (confusion_KK.diagonal(), confusion_KK.sum(axis=1), confusion_KK.sum(axis=0))
    scores: dict[str, Any] = {
        "examples": n,
        "accuracy": accuracy,
        "accuracy_interval_95": interval,
        **{k: v for k, v in class_metrics(confusion_KK).items() if k != "accuracy"},
        "loss": float(found["loss"].mean(dtype=np.float64)),
        "confusion": confusion_KK.tolist(),
        "classes": [
            {
                "class": name,
                "support": support,
                "predicted": predicted,
                "precision": right / predicted if predicted else None,
                "recall": right / support if support else None,
            }
            for name, (right, support, predicted) in zip(
                names, np.stack(counts, 1).tolist(), strict=True
            )
        ],
    }
    if "lengths" in found:
        scores["lengths"] = length_table(found["lengths"], right_n)
    return scores


def rate_of(right_n: np.ndarray) -> tuple[int, float, list[float]]:
    """How many there are, n >= 1, the rate of those that are right, and its 95 % interval.

    Wilson's interval holds its level near 0 and 1 too, where p +- 2 sqrt(p (1 - p) / n) has no
    width. Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    from scipy.stats import binomtest  # half a second to import, and of use here alone

    n, right = right_n.size, int(right_n.sum())
    interval = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return n, right / n, [float(interval.low), float(interval.high)]


def length_table(lengths_n: np.ndarray, right_n: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy by length: {"lo", "hi", "n", "accuracy", "interval_95"}, from short to long.

    At most LENGTH_BINS bins, which end at the quantiles of the lengths, so that they hold about as
    many examples each. Equal lengths share a bin.
    """
    shares = np.arange(1, LENGTH_BINS + 1) / LENGTH_BINS
    ends = np.unique(np.quantile(lengths_n, shares, method="inverted_cdf"))
    bin_n = np.searchsorted(ends, lengths_n)
    rows = []
    for number in range(ends.size):
        lengths = lengths_n[bin_n == number]
        n, accuracy, interval = rate_of(right_n[bin_n == number])
        row = {"lo": int(lengths.min()), "hi": int(lengths.max())}
        rows.append({**row, "n": n, "accuracy": accuracy, "interval_95": interval})
    return rows


def errors_of(
    sums: Mapping[str, np.ndarray], series_n: np.ndarray | None, about: Preprocessing
) -> list[dict[str, Any]]:
    """Errors of each target in its own unit, from `moments_of` examples (n, K).

    NSE and KGE are over all examples, and, where examples are of different series (n,), also of
    each series: their medians, and over how many series, since a constant one has none.
    """
    center_K, unit_K = np.array(about.target_mean), np.array(about.target_std)
    whole = efficiencies({k: v.sum(0) for k, v in sums.items()}, center_K, unit_K)
    by_series: dict[str, np.ndarray] = {}
    if series_n is not None and (members := np.unique(series_n, return_inverse=True))[0].size > 1:
        parted = {k: np.zeros((members[0].size, v.shape[1])) for k, v in sums.items()}
        for name, total in parted.items():
            np.add.at(total, members[1], sums[name])
        by_series = efficiencies(parted, center_K, unit_K)
    found = []
    for k, target in enumerate(about.targets):
        row = {
            "target": target,
            "mae": whole["mae"][k] * unit_K[k],
            "rmse": whole["mse"][k] ** 0.5 * unit_K[k],
            "bias": whole["bias"][k],
            "nse": whole["nse"][k],
            "kge": whole["kge"][k],
        }
        for name in ("nse", "kge") if by_series else ():
            values = by_series[name][:, k][np.isfinite(by_series[name][:, k])]
            row[f"median_{name}"] = np.median(values) if values.size else np.nan
            row["series"] = values.size
        # JSON holds no NaN
        found.append(
            {
                name: float(value) if name not in ("target", "series") else value
                for name, value in row.items()
                if isinstance(value, str) or np.isfinite(value)
            }
        )
    return found
