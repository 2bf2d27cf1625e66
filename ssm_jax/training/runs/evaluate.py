"""A checkpoint of a run scored on a split, or measured: what its layers do to frequencies.

The run is only read, so this is safe while it is still being trained.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.stats import binomtest

from ssm_jax.data.dataset import LabelledDataset
from ssm_jax.files import check_writable, write_json
from ssm_jax.progress import Progress
from ssm_jax.training.diagnose import Arrays, Diagnostics, layer_names, numbers_of
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.parent import first_state
from ssm_jax.training.record import PROVENANCE, made_by, published
from ssm_jax.training.runs import open_run
from ssm_jax.training.runs.result import draw
from ssm_jax.training.step import TrainState, make_eval_step
from ssm_jax.training.workdir import Workdir

LENGTH_BINS = 8  # of 2,000 test expressions 250 each, whose accuracy is known to 6 %


def evaluate_run(
    path: Path, *, split: str = "test", step: str = "best", argv: Sequence[str] = (), **data: Any
) -> dict[str, Any]:
    """The result of a checkpoint on a split, as JSON can hold it, with where it comes from.

    `split` is "train", "val" or "test"; `argv` the command, for the result; `data` the data_dir and
    files of `open_run`, as are the errors.
    """
    record, experiment, opened = open_run(path, step, **data)
    cfg, dataset = experiment.cfg, experiment.dataset
    best = f"best {cfg.train.select_split} {cfg.train.select_metric}"
    if opened.lost is not None:
        best = f"next best after step {opened.lost['step']:,}, which is lost; by {best[5:]}"
    found: dict[str, Any]
    if isinstance(dataset, LabelledDataset):
        found = scores_of(predict(experiment, opened.state, split), dataset.n_classes)
    else:
        with jax.set_mesh(experiment.mesh):
            means = experiment.means(opened.state, split)
        found = {"examples": dataset.size(split), "metrics": means}
    return published(
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
    step = make_eval_step(experiment.graphdef, experiment.task.predict)
    step = jax.jit(step, out_shardings=experiment.replicated)
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
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def scores_of(found: dict[str, np.ndarray], n_classes: int) -> dict[str, Any]:
    """All that is counted in a result, from what `predict` gives; None for a rate of nothing.

    "confusion" has the examples of class i (row) that were taken for class j (column).
    """
    right_n = found["predicted"] == found["targets"]
    n, accuracy, interval = rate_of(right_n)
    cells_n = found["targets"].astype(np.int64) * n_classes + found["predicted"]
    confusion_KK = np.bincount(cells_n, minlength=n_classes**2).reshape(n_classes, n_classes)
    counts = (confusion_KK.diagonal(), confusion_KK.sum(axis=1), confusion_KK.sum(axis=0))
    scores: dict[str, Any] = {
        "examples": n,
        "accuracy": accuracy,
        "accuracy_interval_95": interval,
        "loss": float(found["loss"].mean(dtype=np.float64)),
        "confusion": confusion_KK.tolist(),
        "classes": [
            {
                "class": label,
                "support": support,
                "predicted": predicted,
                "precision": right / predicted if predicted else None,
                "recall": right / support if support else None,
            }
            for label, (right, support, predicted) in enumerate(np.stack(counts, 1).tolist())
        ],
    }
    if "lengths" in found:
        scores["lengths"] = length_table(found["lengths"], right_n)
    return scores


def rate_of(right_n: np.ndarray) -> tuple[int, float, list[float]]:
    """How many there are, n >= 1, the rate of those that are right, and its 95 % interval.

    Wilson's interval holds its level near 0 and 1 too, where p +- 2 sqrt(p (1 - p) / n) has no
    width. Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    n, right = right_n.size, int(right_n.sum())
    interval = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return n, right / n, [float(interval.low), float(interval.high)]


def length_table(lengths_n: np.ndarray, right_n: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy by length: {"lo", "hi", "n", "accuracy", "interval_95"}, from short to long.

    At most LENGTH_BINS bins, which end at the quantiles of the lengths, so that they hold about as
    many examples each. Equal lengths share a bin.
    """
    shares = np.arange(1, LENGTH_BINS + 1) / LENGTH_BINS
    ends = np.unique(np.quantile(lengths_n, shares, method="inverted_cdf"))
    bin_n = np.searchsorted(ends, lengths_n)
    rows = []
    for number in range(ends.size):
        lengths = lengths_n[bin_n == number]
        n, accuracy, interval = rate_of(right_n[bin_n == number])
        row = {"lo": int(lengths.min()), "hi": int(lengths.max())}
        rows.append({**row, "n": n, "accuracy": accuracy, "interval_95": interval})
    return rows


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
    result = published(
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
    """The numbers of one layer: medians over channels and directions, drift over all poles."""
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
    norms_K = of.get("gradient")
    found["gradient_share"] = None if norms_K is None else (norms_K / norms_K.sum()).tolist()
    return found
