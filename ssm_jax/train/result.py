"""What a finished run writes down: its summary and its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from ssm_jax import config as config_lib
from ssm_jax.train.experiment import Experiment, setup_digest
from ssm_jax.train.logs import read_metrics
from ssm_jax.train.record import published
from ssm_jax.train.state import TrainState
from ssm_jax.train.workdir import Workdir


def summary_of(
    experiment: Experiment,
    workdir: Workdir,
    test: Mapping[str, float],
    best: Mapping[str, Any],
    lost: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The result, with all that is needed to read it: what was reduced, the data, the code.

    Args:
      experiment: of the run.
      workdir: holds its record.
      test: means over the test split, of the best checkpoint.
      best: {"step", "value"} of the evaluation that chose it.
      lost: {"step", "value", "reason"} of a better one whose checkpoint is lost or damaged.
    """
    cfg, dataset = experiment.cfg, experiment.dataset
    record = json.loads(workdir.record.read_text())
    return {
        "name": cfg.name,
        "task": cfg.task,
        "notes": cfg.notes,
        "test": dict(test),
        "selected_by": f"{cfg.train.select_split} {cfg.train.select_metric}",
        "best": dict(best),
        **({} if lost is None else {"best_lost": published(lost)}),
        "steps": experiment.total_steps,
        "parameters": sum(row.size for row in experiment.rows),
        **dataset.facts("test"),
        "examples": {split: dataset.size(split) for split in ("train", "val", "test")},
        **{key: record[key] for key in ("seed", "data", "git", "versions", "devices", "command")},
        "config_digest": config_lib.digest(cfg),
        "setup_digest": setup_digest(cfg),
    }


def below_reference(experiment: Experiment, step: int, found: Mapping[str, float]) -> str | None:
    """A warning if an evaluation is far below what was published for so many epochs; else None.

    Args:
      experiment: its `cfg.reference` has the published point.
      step: optimizer steps done.
      found: the means of the evaluation on the selection split.
    """
    reference, epoch = experiment.cfg.reference, step / experiment.steps_per_epoch
    bound = reference.accuracy - reference.margin
    if reference.accuracy == 0 or epoch < reference.epoch or found["accuracy"] >= bound:
        return None
    return (
        f"WARNING: {experiment.cfg.train.select_split} accuracy {found['accuracy']:.3f} after "
        f"{epoch:.1f} epochs is far below the published {reference.accuracy:.2f} at epoch "
        f"{reference.epoch:g}; look at the options, the data and the curves before going on."
    )


def draw(
    experiment: Experiment, workdir: Workdir, state: TrainState, folder: Path | None = None
) -> list[Path]:
    """Draw the figures of a run: its curves, and its first state against `state`.

    Args:
      experiment, workdir: of the run.
      state: of the same experiment.
      folder: where; None: the run's own folder of figures.
    """
    # Here, because matplotlib takes half a second to import and most processes draw nothing.
    from ssm_jax.analysis.bands import band_edges
    from ssm_jax.analysis.figures import draw_run
    from ssm_jax.analysis.spectra import layers_of

    fresh = experiment.fresh_state()
    return draw_run(
        folder or workdir.figures,
        rows=read_metrics(workdir.metrics),
        before=layers_of(nnx.merge(experiment.graphdef, fresh.params, fresh.stats)),
        after=layers_of(nnx.merge(experiment.graphdef, state.params, state.stats)),
        length=experiment.dataset.circle // 2,
        title=experiment.cfg.name,
        metric=experiment.task.headline,
        edges_E=band_edges(experiment.dataset.padded_length),
    )
