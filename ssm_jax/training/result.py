"""The end of a run: its summary and figures, or the crash report of one that diverged."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax import config as config_lib
from ssm_jax.data.dataset import Dataset, LabelledDataset
from ssm_jax.files import parse_json, rename_aside, replace_atomically, write_json
from ssm_jax.layers.inputs import checked_ids
from ssm_jax.progress import warn
from ssm_jax.training import processes
from ssm_jax.training.checkpoint import CheckpointStore
from ssm_jax.training.checkpoint.manifest import CheckpointError
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.first_state import first_state
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.record import setup_digest, without_folders
from ssm_jax.training.runs import UNUSABLE, Opened, restore
from ssm_jax.training.step import TrainState, non_finite_leaves
from ssm_jax.training.workdir import Stamps, Workdir, stamp_faults, stamp_of


def open_best(
    experiment: Experiment, workdir: Workdir, best: Mapping[str, Any]
) -> tuple[Opened, dict[str, Any]]:
    """Open the checkpoint of the best evaluation, or the next best that is left; say which it is.

    Of several processes all open the same. CheckpointError: none can be opened.
    """
    checkpoints, leads = workdir.checkpoints, processes.first()
    try:
        if leads:
            opened = restore(experiment, checkpoints, best["step"], or_next=True)
        step = processes.agreed(lambda: opened.meta.step)
        if not leads:
            opened = restore(experiment, checkpoints, step, or_next=False)
    except UNUSABLE as error:
        raise CheckpointError(
            f"the checkpoint of step {best['step']}, which has the best evaluation, is "
            f"lost ({' '.join(str(error).split())}), and no other one can be tested; bring one "
            "back, or start anew with --fresh."
        ) from error
    if opened.lost is None:
        return opened, {"best": best}
    value = opened.meta.metrics[experiment.ranking[0]]
    return opened, {
        "best": {"step": opened.meta.step, "value": value},
        "best_lost": {**opened.lost, "value": best["value"]},
    }


def write_summary(
    experiment: Experiment,
    workdir: Workdir,
    test: Mapping[str, float],
    found: Mapping[str, float],
    chosen: Mapping[str, Any],
    steps: int,
) -> None:
    """Write the result of the checkpoint that was chosen.

    test, found: its metrics on the test split and on the split that chose it, "val"; chosen: the
    "best" evaluation, or the next and the "best_lost"; steps: that were trained.
    """
    cfg, dataset = experiment.cfg, experiment.dataset
    record = parse_json(workdir.record.read_text())
    summary = {
        **{key: cfg[key] for key in ("name", "task", "notes")},
        cfg.train.select_split: found,
        "test": test,
        "selected_by": f"{cfg.train.select_split} {experiment.ranking[0]}",
        **without_folders(chosen),
        "steps": steps,
        **({"planned_steps": planned} if steps < (planned := experiment.total_steps) else {}),
        "parameters": sum(row.size for row in experiment.rows),
        **dataset.facts("test"),
        "examples": {split: dataset.size(split) for split in ("train", "val", "test")},
        **{key: record[key] for key in ("seed", "data", "git", "versions", "devices", "command")},
        **_parent(record),
        "config_digest": config_lib.digest(cfg),
        "setup_digest": setup_digest(cfg),
    }
    _write(workdir.summary, summary)


def _parent(record: Mapping[str, Any]) -> dict[str, Any]:
    """The run that this one begins from, without the lists of what was taken."""
    lists = ("taken", "left")
    parent = {k: v for k, v in record.get("parent", {}).items() if k not in lists}
    return {"parent": parent} if parent else {}


def mark_done(
    experiment: Experiment, workdir: Workdir, test: Mapping[str, float], files: Stamps
) -> None:
    """Declare the run finished, whose summary is written; `files` are the stamps of its logs."""
    stamps = {**files, workdir.summary.name: stamp_of(workdir.summary.read_bytes())}
    digest = config_lib.digest(experiment.cfg)
    _write(workdir.done_mark, {"test": test, "config_digest": digest, "files": stamps})


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document; one that is there with another content is renamed, with a warning."""
    text = (json.dumps(document, indent=2) + "\n").encode()
    if os.path.lexists(path) and stamp_faults(path.parent, {path.name: stamp_of(text)}):
        aside = rename_aside(path, "old")
        warn(f"{path} had something else in it, which is now {aside}.")
    replace_atomically(path, text)


def draw(
    experiment: Experiment, workdir: Workdir, state: TrainState, folder: Path | None = None
) -> list[Path]:
    """Draw the figures of a run: its curves, and its first state against `state`; their paths."""
    # Here, because matplotlib takes half a second to import and most processes draw nothing.
    from ssm_jax.analysis.bands import band_edges
    from ssm_jax.analysis.spectra import layers_of

    before = layers_of(experiment.model(first_state(experiment, workdir.path)))
    after = layers_of(experiment.model(state))
    if not processes.first():
        return []
    from ssm_jax.plots.run import draw_run

    return draw_run(
        folder or workdir.figures,
        rows=read_metrics(workdir.metrics),
        before=before,
        after=after,
        length=experiment.filter_period // 2,
        title=config_lib.title_of(experiment.cfg),
        ending=experiment.cfg.figures_format,
        metric=experiment.task.headline,
        step=int(state.step),
        edges_E=band_edges(experiment.dataset.padded_length),
    )


def diverged(
    experiment: Experiment, folder: Path, state: TrainState, values: Mapping[str, float], last: str
) -> FloatingPointError:
    """Save in a folder what is needed to look into a divergence, and return the error to raise.

    `state` is that before the step whose `values` are not finite; `last` the last finite loss.
    """
    step = int(state.step) + 1
    indices_B, length = experiment.order.batch(step - 1)
    rows, own = (
        experiment.dataset.gather("train", indices_B, length),
        experiment.own_rows(indices_B.size),
    )
    batch = experiment.place_batch({name: array[own] for name, array in rows.items()})
    leaves = non_finite_leaves(experiment.gradient(), state, experiment.key, batch)
    outside = id_outside(experiment.dataset, rows)
    report = {
        "step": step,
        **{name: repr(values[name]) for name in ("loss", "grad_norm")},
        "last_finite_loss": last,
        "non_finite": leaves,
        "examples": indices_B.tolist(),
        "outside": outside,
    }
    saved = f"the state before that step and a report are in {folder}"
    try:  # what goes wrong must not hide why the run stops
        with CheckpointStore(folder, keep=1, identity=experiment.identity) as crash:
            crash.save(step - 1, state, final=True)
    except (CheckpointError, OSError) as error:
        saved = f"the state before that step could not be saved ({error})"
    try:
        if processes.first():
            write_json(folder / "report.json", report)
    except OSError as error:
        saved = f"what is needed to look into it could not be written ({error})"
    shown = ", ".join(leaves[:4]) + (f" and {len(leaves) - 4} more" if len(leaves) > 4 else "")
    return FloatingPointError(
        f"loss {values['loss']:.4g} or its gradient is not finite at step {step} "
        f"(last finite loss: {last}); not finite: {shown}; {saved}."
        + (f" In its batch, {outside}" if outside else "")
    )


def id_outside(dataset: Dataset, batch: Mapping[str, np.ndarray]) -> str:
    """The first token or target of a batch that the data set does not have; "" if all are sound."""
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
