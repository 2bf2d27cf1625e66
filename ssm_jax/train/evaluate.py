"""Evaluate a checkpoint of a run on a split, beside whoever trains it: the run is only read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssm_jax.data.labelled import LabelledDataset
from ssm_jax.train.console import Progress
from ssm_jax.train.experiment import Experiment
from ssm_jax.train.means import evaluation_step, split_means
from ssm_jax.train.record import published, run_record
from ssm_jax.train.reopen import PROVENANCE, choose_step, open_checkpoint, read_record, rebuild
from ssm_jax.train.scores import class_scores, confusion_matrix, length_table, wilson_interval
from ssm_jax.train.state import TrainState
from ssm_jax.train.step import make_eval_step
from ssm_jax.train.workdir import Workdir

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
        make_eval_step(
            experiment.graphdef,
            experiment.task.predict,
            horizon=experiment.dataset.padded_length,
        ),
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
