"""What a run that met a non-finite number leaves behind."""

from __future__ import annotations

from collections.abc import Mapping

from ssm_jax import config as config_lib
from ssm_jax.train.checkpoint import CheckpointError, CheckpointStore
from ssm_jax.train.experiment import Experiment
from ssm_jax.train.state import TrainState
from ssm_jax.train.step import non_finite_leaves
from ssm_jax.train.workdir import Workdir, write_json_atomic


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
    batch = experiment.place_batch(experiment.dataset.gather("train", indices_B, length))
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
    report = {
        "step": step,
        "loss": repr(values["loss"]),
        "grad_norm": repr(values["grad_norm"]),
        "last_finite_loss": last,
        "non_finite": leaves,
        "examples": [int(i) for i in indices_B],
    }
    try:
        write_json_atomic(workdir.crash / "report.json", report)
    except OSError as error:
        saved = f"what is needed to look into it could not be written ({error})"
    shown = ", ".join(leaves[:4]) + (f" and {len(leaves) - 4} more" if len(leaves) > 4 else "")
    return FloatingPointError(
        f"loss {values['loss']:.4g} or its gradient is not finite at step {step} "
        f"(last finite loss: {last}); not finite: {shown}; {saved}."
    )
