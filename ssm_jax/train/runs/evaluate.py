"""What predictions are worth: who is taken for whom, how sure that is, and at which lengths.

Evaluate a checkpoint of a run on a split, beside whoever trains it: the run is only read.
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
from ssm_jax.train.evaluation import evaluation_step, split_means
from ssm_jax.train.experiment import Experiment
from ssm_jax.train.record import published, run_record
from ssm_jax.train.runs.open import PROVENANCE, choose_step, open_checkpoint, read_record, rebuild
from ssm_jax.train.step import TrainState, make_eval_step
from ssm_jax.train.workdir import Workdir

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


# What of the record of the evaluation itself goes into a result
OF_EVALUATION = ("git", "versions", "devices", "command", "started")


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
      path: the run's folder; nothing is written there.
      split: "train", "val" or "test".
      step: see `reopen.choose_step`.
      data_dir, files: see `experiment.build`.
      argv: the command, for the result.

    Raises:
      FileNotFoundError: there is no run, no checkpoint, or no data.
      ValueError: the record is not of this version, the data are not the run's, there is no such
        step.
      CheckpointError: the checkpoint is damaged.
    """
    workdir = Workdir(path)
    record = read_record(workdir.record)
    choose_step(workdir.checkpoints, step)  # before the data are opened
    experiment = rebuild(record, workdir.record, data_dir=data_dir, files=files)
    opened = open_checkpoint(experiment, workdir.checkpoints, step)
    cfg = experiment.cfg
    best = f"best {cfg.train.select_split} {cfg.train.select_metric}"
    if opened.lost is not None:
        best = f"next best after step {opened.lost['step']:,}, which is lost; by {best[5:]}"
    chosen = {"best": best, "newest": "newest"}.get(step, "as asked")
    now = run_record({}, "", 0, {}, argv)
    return published(
        {
            "name": cfg.name,
            "task": cfg.task,
            "notes": cfg.notes,
            "split": split,
            "step": opened.step,
            "chosen_as": chosen,
            **_found(experiment, opened.state, split),
            **experiment.dataset.facts(split),
            "run": {key: record[key] for key in PROVENANCE},
            "evaluation": {key: now[key] for key in OF_EVALUATION},
        }
    )


@dataclass(frozen=True)
class Predictions:
    """Of each example of a split, in the order of `Experiment.eval_batches`, (n,) each.

    Attributes:
      targets, predicted: classes, 0..K-1.
      loss: in nats.
      lengths: steps with the end of sequence, of a pair the more; None: none is padded.
    """

    targets: np.ndarray
    predicted: np.ndarray
    loss: np.ndarray
    lengths: np.ndarray | None


def _found(experiment: Experiment, state: TrainState, split: str) -> dict[str, Any]:
    """What is counted of classes, or the means of the metrics of a task that has none."""
    if isinstance(experiment.dataset, LabelledDataset):
        predictions = predict(experiment, state, split)
        return scores_of(predictions, experiment.dataset.n_classes)
    with jax.set_mesh(experiment.mesh):
        means = split_means(experiment, evaluation_step(experiment), state, split)
    return {"examples": experiment.dataset.size(split), "metrics": means}


def predict(experiment: Experiment, state: TrainState, split: str) -> Predictions:
    """What the model makes of every example of a split, where the task has classes."""
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
    """All that is counted in a result; see `scores`."""
    right_n = predictions.predicted == predictions.targets
    n, right = right_n.size, int(right_n.sum())
    confusion_KK = confusion_matrix(predictions.targets, predictions.predicted, n_classes)
    scores: dict[str, Any] = {
        "examples": n,
        "accuracy": right / n,
        "accuracy_interval_95": list(wilson_interval(right, n)),
        "loss": float(predictions.loss.mean(dtype=np.float64)),
        "confusion": confusion_KK.tolist(),
        "classes": class_scores(confusion_KK),
    }
    if predictions.lengths is not None:
        scores["lengths"] = length_table(predictions.lengths, right_n)
    return scores
