"""Evaluate a checkpoint of a run on a split: confusion, Wilson intervals, accuracy by length.

The run is only read, so this is safe while it is still being trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.stats import binomtest

from ssm_jax.data.dataset import LabelledDataset
from ssm_jax.progress import Progress
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.record import PROVENANCE, made_by, published
from ssm_jax.training.runs.open import open_run
from ssm_jax.training.step import TrainState, make_eval_step

LENGTH_BINS = 8  # of 2,000 test expressions 250 each, whose accuracy is known to 6 %


def evaluate_run(
    path: Path,
    *,
    split: str = "test",
    step: str = "best",
    data_dir: Path,
    files: Path | None = None,
    argv: Sequence[str] = (),
) -> dict[str, Any]:
    """The result of a checkpoint on a split, as JSON can hold it, with where it comes from.

    Args:
      path, step, data_dir, files: of the run; for the errors too, see `open.open_run`.
      split: "train", "val" or "test".
      argv: the command, for the result.
    """
    record, experiment, opened = open_run(path, step, data_dir=data_dir, files=files)
    cfg = experiment.cfg
    best = f"best {cfg.train.select_split} {cfg.train.select_metric}"
    if opened.lost is not None:
        best = f"next best after step {opened.lost['step']:,}, which is lost; by {best[5:]}"
    return published(
        {
            "name": cfg.name,
            "task": cfg.task,
            "notes": cfg.notes,
            "split": split,
            "step": opened.meta.step,
            "chosen_as": {"best": best, "newest": "newest"}.get(step, "as asked"),
            **_found(experiment, opened.state, split),
            **experiment.dataset.facts(split),
            "run": {key: record[key] for key in PROVENANCE},
            "evaluation": made_by(argv),
        }
    )


def _found(experiment: Experiment, state: TrainState, split: str) -> dict[str, Any]:
    """Scores of the classes, or the means of the metrics of a task that has none."""
    if isinstance(experiment.dataset, LabelledDataset):
        return scores_of(predict(experiment, state, split), experiment.dataset.n_classes)
    with jax.set_mesh(experiment.mesh):
        means = experiment.means(state, split)
    return {"examples": experiment.dataset.size(split), "metrics": means}


@dataclass(frozen=True)
class Predictions:
    """Arrays (n,) over the examples of a split, in the order of `Experiment.eval_batches`."""

    targets: np.ndarray  # classes, 0..K-1
    predicted: np.ndarray
    loss: np.ndarray  # in nats
    lengths: np.ndarray | None  # with the end of sequence, of a pair the more; None: none is padded


def predict(experiment: Experiment, state: TrainState, split: str) -> Predictions:
    """Predict the class of every example of a split, where the task has classes."""
    assert experiment.task.predict is not None
    step = jax.jit(
        make_eval_step(experiment.graphdef, experiment.task.predict),
        out_shardings=experiment.replicated,
    )
    total = -(-experiment.dataset.size(split) // experiment.eval_batch_size)
    parts: list[dict[str, np.ndarray]] = []
    loss = right = count = 0.0
    with jax.set_mesh(experiment.mesh), Progress(split, total) as progress:
        for number, batch in enumerate(experiment.eval_batches(split), start=1):
            found = step(state.params, state.stats, experiment.place_batch(batch))
            rows = {"targets": batch["targets"], **{k: np.asarray(v) for k, v in found.items()}}
            if "lengths" in batch:
                rows["lengths"] = batch["lengths"].reshape(len(batch["mask"]), -1).max(axis=1)
            part = {name: row[batch["mask"] > 0] for name, row in rows.items()}
            parts.append(part)
            loss += float(part["loss"].sum(dtype=np.float64))
            right += float((part["predicted"] == part["targets"]).sum())
            count += part["loss"].size
            progress.update(number, loss / count, right / count)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Predictions(whole["targets"], whole["predicted"], whole["loss"], whole.get("lengths"))


def scores_of(predictions: Predictions, n_classes: int) -> dict[str, Any]:
    """All that is counted in a result."""
    right_n = predictions.predicted == predictions.targets
    n, right = right_n.size, int(right_n.sum())
    confusion_KK = confusion_matrix(predictions.targets, predictions.predicted, n_classes)
    scores: dict[str, Any] = {
        "examples": n,
        "accuracy": right / n,
        "accuracy_interval_95": wilson_interval(right, n),
        "loss": float(predictions.loss.mean(dtype=np.float64)),
        "confusion": confusion_KK.tolist(),
        "classes": class_scores(confusion_KK),
    }
    if predictions.lengths is not None:
        scores["lengths"] = length_table(predictions.lengths, right_n)
    return scores


def wilson_interval(right: int, n: int) -> list[float]:
    """The 95 % interval of a rate of which `right` in `n` were seen, n >= 1.

    Holds its level near 0 and 1 too, where p +- 2 sqrt(p (1 - p) / n) has no width.
    Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    found = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return [float(found.low), float(found.high)]


def confusion_matrix(targets_n: np.ndarray, predicted_n: np.ndarray, n_classes: int) -> np.ndarray:
    """Numbers of examples of class i (row) that were taken for class j (column), int64 (K, K)."""
    cells_n = targets_n.astype(np.int64) * n_classes + predicted_n
    return np.bincount(cells_n, minlength=n_classes**2).reshape(n_classes, n_classes)


def class_scores(confusion_KK: np.ndarray) -> list[dict[str, Any]]:
    """Support, precision and recall of each class; None for a rate of nothing."""
    supports, named = confusion_KK.sum(axis=1).tolist(), confusion_KK.sum(axis=0).tolist()
    return [
        {
            "class": label,
            "support": supports[label],
            "predicted": named[label],
            "precision": right / named[label] if named[label] else None,
            "recall": right / supports[label] if supports[label] else None,
        }
        for label, right in enumerate(confusion_KK.diagonal().tolist())
    ]


def length_table(
    lengths_n: np.ndarray, right_n: np.ndarray, bins: int = LENGTH_BINS
) -> list[dict[str, Any]]:
    """Accuracy by length: {"lo", "hi", "n", "accuracy", "interval_95"}, from short to long.

    At most so many bins, which end at the quantiles of the lengths, so that they hold about as many
    examples each. Equal lengths share a bin.
    """
    ends = np.quantile(lengths_n, np.arange(1, bins + 1) / bins, method="inverted_cdf")
    ends = np.unique(ends)
    bin_n = np.searchsorted(ends, lengths_n)
    rows = []
    for number in range(ends.size):
        lengths, rights = lengths_n[bin_n == number], right_n[bin_n == number]
        n, right = rights.size, int(rights.sum())
        rows.append(
            {
                "lo": int(lengths.min()),
                "hi": int(lengths.max()),
                "n": n,
                "accuracy": right / n,
                "interval_95": wilson_interval(right, n),
            }
        )
    return rows
