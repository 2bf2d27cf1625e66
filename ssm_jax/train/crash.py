"""What a run that met a non-finite number leaves behind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ssm_jax import config as config_lib
from ssm_jax.data.dataset import Dataset, LabelledDataset
from ssm_jax.files import write_json
from ssm_jax.layers.inputs import checked_ids
from ssm_jax.train.checkpoint import CheckpointError, CheckpointStore
from ssm_jax.train.experiment import Experiment
from ssm_jax.train.step import TrainState, non_finite_leaves
from ssm_jax.train.workdir import Workdir


def diverged(
    experiment: Experiment,
    workdir: Workdir,
    step: int,
    state: TrainState,
    values: Mapping[str, float],
    last_finite: tuple[int, float] | None,
) -> FloatingPointError:
    """Find what is not finite, save what is needed to look into it, and return the error to raise.

    Args:
      step: the step whose loss or gradient is not finite.
      state: the one before that step; the train step has kept it.
      values: the metrics of that step.
      last_finite: the step before and its loss; None if there was none in this process.
    """
    cfg = experiment.cfg
    indices_B, length = experiment.order.batch(step - 1)
    rows = experiment.dataset.gather("train", indices_B, length)
    batch = experiment.place_batch(rows)
    leaves = non_finite_leaves(experiment.gradient(), state, experiment.key, batch)
    last = f"step {last_finite[0]}, {last_finite[1]:.4g}" if last_finite else "none"
    saved = f"the state before that step and a report are in {workdir.crash}"
    try:
        with CheckpointStore(
            workdir.crash,
            keep=1,
            best_metric=None,
            best_mode="max",
            identity=config_lib.identity(cfg),
            data_fingerprint=experiment.dataset.fingerprint,
        ) as crash:
            crash.save(step - 1, state, final=True)
    except (CheckpointError, OSError) as error:  # must not hide why the run stops
        saved = f"the state before that step could not be saved ({error})"
    outside = id_outside(experiment.dataset, rows)
    report = {
        "step": step,
        "loss": repr(values["loss"]),
        "grad_norm": repr(values["grad_norm"]),
        "last_finite_loss": last,
        "non_finite": leaves,
        "examples": [int(i) for i in indices_B],
        "outside": outside,
    }
    try:
        write_json(workdir.crash / "report.json", report)
    except OSError as error:
        saved = f"what is needed to look into it could not be written ({error})"
    shown = ", ".join(leaves[:4]) + (f" and {len(leaves) - 4} more" if len(leaves) > 4 else "")
    return FloatingPointError(
        f"loss {values['loss']:.4g} or its gradient is not finite at step {step} "
        f"(last finite loss: {last}); not finite: {shown}; {saved}."
        + (f" In its batch, {outside}" if outside else "")
    )


def id_outside(dataset: Dataset, batch: Mapping[str, np.ndarray]) -> str:
    """Which token or target of a batch is the first that there is not; "" if there is none."""
    if not isinstance(dataset, LabelledDataset):
        return ""
    axes = ("example", "sequence", "step") if dataset.paired else ("example", "step")
    try:
        checked_ids(dataset.name, "target", batch["targets"], dataset.n_classes, axes[:1])
        if dataset.vocab_size is not None:
            checked_ids(dataset.name, "token", batch["inputs"], dataset.vocab_size, axes)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""
