"""What a finished run writes down: its summary and its figures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from ssm_jax import config as config_lib
from ssm_jax.files import parse_json, replace_atomically
from ssm_jax.progress import warn
from ssm_jax.train import stamps
from ssm_jax.train.checkpoint.manifest import CheckpointError, ConfigMismatch
from ssm_jax.train.checkpoint.retention import rename_aside
from ssm_jax.train.experiment import Experiment, setup_digest
from ssm_jax.train.logs import read_metrics
from ssm_jax.train.record import published
from ssm_jax.train.step import TrainState
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
    record = parse_json(workdir.record.read_text())
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


def write_summary(workdir: Workdir, summary: Mapping[str, Any]) -> None:
    """Write the summary; one that is there with another result is renamed, with a warning."""
    text = (json.dumps(summary, indent=2) + "\n").encode()
    _make_way(workdir.summary, text)
    replace_atomically(workdir.summary, text)


def _make_way(path: Path, text: bytes) -> None:
    if os.path.lexists(path) and stamps.fault(path, stamps.stamp_of(text), whole=True) is not None:
        aside = rename_aside(path, "old")
        warn(f"{path} had something else in it, which is now {aside.name}.")


def mark_done(
    experiment: Experiment, workdir: Workdir, test: Mapping[str, float], files: stamps.Stamps
) -> None:
    """Declare the run finished.

    Args:
      experiment, workdir: of the run; its summary is written.
      test: means over the test split.
      files: stamps of log and diagnostics.
    """
    summary = stamps.stamp_of(workdir.summary.read_bytes())
    digest = config_lib.digest(experiment.cfg)
    files = {**files, workdir.summary.name: summary}
    document = {"test": dict(test), "config_digest": digest, "files": files}
    _make_way(workdir.path / "DONE", (json.dumps(document, indent=2) + "\n").encode())
    workdir.mark_done(document)


def read_done(experiment: Experiment, workdir: Workdir) -> tuple[stamps.Stamps | None, str | None]:
    """What DONE says: the stamps of a finished run, and what is wrong with it; None for neither.

    Older versions wrote no stamps.
    """
    path = workdir.path / "DONE"
    if not os.path.lexists(path):
        return None, None
    digest = config_lib.digest(experiment.cfg)
    try:
        document = parse_json(path.read_bytes())
        files = document.get("files", {})
        sound = isinstance(document["test"], dict) and stamps.are_stamps(files)
        if sound and document.get("config_digest", digest) == digest:
            return files, None
        return None, "is that of another run" if sound else "is damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, "is damaged"


def result_stands(
    experiment: Experiment, workdir: Workdir, files: stamps.Stamps, testable: bool
) -> bool:
    """Whether the summary of a finished run is sound; if not, it is renamed, with a warning.

    Whatever else is not as the run has left it is said in a warning.

    Args:
      experiment, workdir: of the run.
      files: of `read_done`.
      testable: whether a checkpoint is left, so that the run can be tested again.

    Raises:
      ConfigMismatch: the result is of other options or data.
      CheckpointError: the summary is damaged, and the run cannot be tested again.
    """
    faults, path = stamps.faults(workdir.path, files, finished=True), workdir.summary
    fault = faults.pop(path.name, None)
    if faults:
        warn(f"{stamps.told(workdir.path, faults)}, says DONE; the result does not depend on it.")
    found = ("", "")
    if fault is None:
        try:
            summary = parse_json(path.read_bytes())
            found = (summary["config_digest"], summary["data"]["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            fault = "is missing or damaged"
    if fault is None:
        asked = (config_lib.digest(experiment.cfg), experiment.dataset.fingerprint)
        if found != asked:
            raise ConfigMismatch(
                f"{path} is the result of other options or data (config {found[0]}, data "
                f"{found[1]}) than this command's (config {asked[0]}, data {asked[1]}); choose a "
                "new --workdir."
            )
        return True
    if not testable:
        raise CheckpointError(
            f"{path} {fault}, and there is no checkpoint to test again; bring it back (DONE has "
            "the test result), or add --fresh to start anew."
        )
    if os.path.lexists(path):
        rename_aside(path, "damaged")
    warn(f"{path} {fault}; the run is tested again.")
    return False


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
    from ssm_jax.analysis.spectra import layers_of
    from ssm_jax.plots import draw_run

    fresh = experiment.fresh_state()
    return draw_run(
        folder or workdir.figures,
        rows=read_metrics(workdir.metrics),
        before=layers_of(nnx.merge(experiment.graphdef, fresh.params, fresh.stats)),
        after=layers_of(nnx.merge(experiment.graphdef, state.params, state.stats)),
        length=experiment.filter_period // 2,
        title=experiment.cfg.name,
        metric=experiment.task.headline,
        edges_E=band_edges(experiment.dataset.padded_length),
    )
