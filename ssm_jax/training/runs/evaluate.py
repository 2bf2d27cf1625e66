"""A checkpoint of a run scored on a split, or measured: what its layers do to frequencies.

The run is only read, so this is safe while it is still being trained.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssm_jax.analysis.hankel import summary
from ssm_jax.data.arrays import ArrayDataset
from ssm_jax.data.dataset import LabelledDataset
from ssm_jax.data.loader import eval_order
from ssm_jax.files import check_writable, write_json
from ssm_jax.progress import Progress
from ssm_jax.tasks.metrics import moments_of
from ssm_jax.training.diagnose import Arrays, Diagnostics, layer_names, numbers_of
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.first_state import first_state
from ssm_jax.training.record import PROVENANCE, made_by, without_folders
from ssm_jax.training.result import draw
from ssm_jax.training.runs import open_run
from ssm_jax.training.runs.scores import errors_of, scores_of
from ssm_jax.training.step import TrainState, make_eval_step
from ssm_jax.training.workdir import Workdir


def evaluate_run(
    path: Path, *, split: str = "test", step: str = "best", argv: Sequence[str] = (), **data: Any
) -> dict[str, Any]:
    """The result of a checkpoint on a split, as JSON can hold it, with where it comes from.

    `split` is "train", "val" or "test"; `argv` the command, for the result; `data` the data_dir and
    files of `open_run`, as are the errors.
    """
    record, experiment, opened = open_run(path, step, **data)
    cfg, dataset = experiment.cfg, experiment.dataset
    best = f"best {cfg.train.select_split} {experiment.ranking[0]}"
    if opened.lost is not None:
        best = f"next best after step {opened.lost['step']:,}, which is lost; by {best[5:]}"
    found: dict[str, Any]
    if experiment.task.predict is not None and isinstance(dataset, LabelledDataset | ArrayDataset):
        found = scores_of(predict(experiment, opened.state, split), dataset.class_names)
    else:
        with jax.set_mesh(experiment.mesh):
            means = experiment.means(opened.state, split)
        found = {"examples": dataset.size(split), "metrics": means}
    if experiment.task.outputs is not None and isinstance(dataset, ArrayDataset):
        series_n, scores = dataset.series_of(split), experiment.task.scores
        sums = moments(experiment, opened.state, split, keep=scores is not None)
        said = sums.pop("said", None)
        found["targets"] = errors_of(sums, series_n, dataset.preprocessing)
        if scores is not None:
            found["by_series"] = scores(dataset, split, said)
    return without_folders(
        {
            **{key: cfg[key] for key in ("name", "task", "notes")},
            "split": split,
            "step": opened.meta.step,
            "chosen_as": {"best": best, "newest": "newest"}.get(step, "as asked"),
            **found,
            **dataset.facts(split),
            "run": {key: record[key] for key in PROVENANCE},
            "evaluation": made_by(argv),
        }
    )


def predict(experiment: Experiment, state: TrainState, split: str) -> dict[str, np.ndarray]:
    """Predict the class of every example of a split, where the task has classes.

    Returns arrays (n,) in the order of `Experiment.eval_batches`: "targets" and "predicted", "loss"
    in nats, and, unless none is padded, "lengths" with the end of sequence, of a pair the longer.
    """
    assert experiment.task.predict is not None
    total = -(-experiment.dataset.size(split) // experiment.eval_batch_size)
    parts: list[dict[str, np.ndarray]] = []
    loss = right = count = 0.0
    with jax.set_mesh(experiment.mesh), Progress(split, total) as progress:
        for part in _measured(experiment, state, split, experiment.task.predict):
            parts.append(part)
            loss += float(part["loss"].sum(dtype=np.float64))
            right += float((part["predicted"] == part["targets"]).sum())
            count += part["loss"].size
            progress.update(len(parts), loss / count, right / count)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def moments(
    experiment: Experiment, state: TrainState, split: str, *, keep: bool = False
) -> dict[str, np.ndarray]:
    """`metrics.moments_of` each example, (n, K) in the order of the split; with `keep` what the
    model says too, "said", where all targets have one shape."""
    outputs = experiment.task.outputs
    assert outputs is not None
    parts = []
    with jax.set_mesh(experiment.mesh):
        for part in _measured(experiment, state, split, lambda m, b: {"outputs": outputs(m, b)}):
            y, said = part["targets"], part["outputs"]
            parts.append(moments_of(y, said) | ({"said": said} if keep else {}))
    order_n = eval_order(experiment.dataset, split, experiment.padded_lengths)
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: rows[np.argsort(order_n)] for name, rows in found.items()}


def _measured(
    experiment: Experiment, state: TrainState, split: str, measure: Callable[..., Any]
) -> Iterator[dict[str, np.ndarray]]:
    """What a function of (model, batch) says of the examples of each batch, with their targets."""
    step = make_eval_step(experiment.graphdef, measure)
    step = jax.jit(step, out_shardings=experiment.replicated)
    for batch in experiment.eval_batches(split):
        found = step(state.params, state.stats, experiment.place_batch(batch))
        rows = {"targets": batch["targets"], **{k: np.asarray(v) for k, v in found.items()}}
        if "lengths" in batch:
            rows["lengths"] = batch["lengths"].reshape(len(batch["mask"]), -1).max(axis=1)
        yield {name: row[batch["mask"] > 0] for name, row in rows.items()}


def analyze(
    path: Path,
    *,
    step: str = "best",
    out: Path | None = None,
    gradient: bool = True,
    argv: Sequence[str] = (),
    **data: Any,
) -> tuple[dict[str, Any], list[Path]]:
    """Measure a checkpoint and the run's first state with `diagnose`, and draw them.

    Returns the result, as analysis.json has it, and the files written, which go to `out`, or to
    `analysis` in the run's folder. `gradient`: of the first training batch too. The other arguments
    are those of `evaluate_run`.
    """
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no folder {path}; give that of a run, or WORKDIR/checkpoints/STEP."
        )
    folder = path / "analysis" if out is None else out
    check_writable(folder, "folder")
    record, experiment, opened = open_run(path, step, **data)
    with jax.set_mesh(experiment.mesh):
        first = first_state(experiment, path)
        diagnostics = Diagnostics(experiment, lambda: first)
        before, after = (
            diagnostics.of(state, gradient=gradient) for state in (first, opened.state)
        )
    result = without_folders(
        {
            **{key: experiment.cfg[key] for key in ("name", "task", "notes")},
            "step": opened.meta.step,
            "length": experiment.dataset.padded_length,
            "band_edges_rad_per_sample": after["edges"].tolist(),
            "layers": [
                {"layer": name, "before": _layer(before, name), "after": _layer(after, name)}
                for name in layer_names(after)
            ],
            "all_layers": {"before": numbers_of(before), "after": numbers_of(after)},
            "run": {key: record[key] for key in PROVENANCE},
            "analysis": made_by(argv),
        }
    )
    figures = draw(experiment, Workdir(path), opened.state, folder)
    write_json(folder / "analysis.json", result)
    return result, [*figures, folder / "analysis.json"]


def _layer(arrays: Arrays, name: str) -> dict[str, Any]:
    """The numbers of a layer: medians over channels and directions, drift over all poles."""
    of = {key.removeprefix(f"{name}:"): value for key, value in arrays.items()}
    found: dict[str, Any] = {
        quantity: np.median(of[quantity], axis=(0, 1)).tolist()
        for quantity in ("variation", "energy")
    }
    for quantity in ("drift_im", "drift_re", "drift_spacings", "drift_with_dt"):
        values = of[quantity][~np.isnan(of[quantity])]
        ends = ("median", np.median), ("max", np.max)
        found[quantity] = {k: float(f(values)) for k, f in ends} if values.size else None
    found["beta"] = [float(f(of["beta"])) for f in (np.min, np.median, np.max)]
    found["aliased"] = float(of["aliased"])
    if "hankel" in of:
        found["hankel"] = summary(of["hankel"].astype(np.float64))
    norms_K = of.get("gradient")
    found["gradient_share"] = None if norms_K is None else (norms_K / norms_K.sum()).tolist()
    return found
