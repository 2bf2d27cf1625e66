"""What predictions are worth: who is taken for whom, how sure that is, and at which lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest

LENGTH_BINS = 8  # of 2,000 test expressions 250 each, whose accuracy is known to 6 %


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a rate of which `right` in `n` were seen, n >= 1.

    Holds its level near 0 and 1 too, where p +- 2 sqrt(p (1 - p) / n) has no width.
    Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    found = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def confusion_matrix(targets_n: np.ndarray, predicted_n: np.ndarray, n_classes: int) -> np.ndarray:
    """How many examples of class i (row) were taken for class j (column), int64 (K, K)."""
    cells_n = targets_n.astype(np.int64) * n_classes + predicted_n
    return np.bincount(cells_n, minlength=n_classes**2).reshape(n_classes, n_classes)


def class_scores(confusion_KK: np.ndarray) -> list[dict[str, Any]]:
    """Of each class its support, precision and recall; None for a rate of nothing."""
    rows = []
    for label, right in enumerate(confusion_KK.diagonal().tolist()):
        support, predicted = int(confusion_KK[label].sum()), int(confusion_KK[:, label].sum())
        rows.append(
            {
                "class": label,
                "support": support,
                "predicted": predicted,
                "precision": right / predicted if predicted else None,
                "recall": right / support if support else None,
            }
        )
    return rows


def length_table(
    lengths_n: np.ndarray, right_n: np.ndarray, bins: int = LENGTH_BINS
) -> list[dict[str, Any]]:
    """Accuracy by length: {"lo", "hi", "n", "accuracy", "interval_95"}, from short to long.

    The bins end at the quantiles of the lengths, so that they hold about as many examples each.
    Equal lengths share a bin; there are fewer bins where there are few different lengths.

    Args:
      lengths_n: steps of each example.
      right_n: whether it was predicted right.
      bins: at most so many.
    """
    ends = np.quantile(lengths_n, np.arange(1, bins + 1) / bins, method="inverted_cdf")
    ends = np.unique(ends)
    bin_n = np.searchsorted(ends, lengths_n)
    rows = []
    for number in range(ends.size):
        inside_n = bin_n == number
        n, right = int(inside_n.sum()), int(right_n[inside_n].sum())
        rows.append(
            {
                "lo": int(lengths_n[inside_n].min()),
                "hi": int(lengths_n[inside_n].max()),
                "n": n,
                "accuracy": right / n,
                "interval_95": list(wilson_interval(right, n)),
            }
        )
    return rows
