"""Explain a checkpoint of a run: what its layers do to frequencies, and what training changed.

The run is only read, so this is safe while it is still being trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssm_jax.files import check_writable, write_json
from ssm_jax.training.diagnose import Arrays, Diagnostics, layer_names, numbers_of
from ssm_jax.training.record import PROVENANCE, made_by, published
from ssm_jax.training.runs.open import open_run
from ssm_jax.training.runs.result import draw
from ssm_jax.training.workdir import Workdir


def analyze(
    path: Path,
    *,
    step: str = "best",
    out: Path | None = None,
    gradient: bool = True,
    data_dir: Path,
    files: Path | None = None,
    argv: Sequence[str] = (),
) -> tuple[dict[str, Any], list[Path]]:
    """Measure a checkpoint and the run's first state with `diagnose`, and draw them.

    Returns the result, as analysis.json has it, and the files written.

    Args:
      path, step, data_dir, files: of the run; for the errors too, see `open.open_run`.
      out: where figures and analysis.json go; None: `analysis` in the run's folder.
      gradient: whether to take the gradient of the first training batch too.
      argv: the command, for the result.
    """
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no folder {path}; give that of a run, or WORKDIR/checkpoints/STEP."
        )
    folder = path / "analysis" if out is None else out
    check_writable(folder, "folder")
    record, experiment, opened = open_run(path, step, data_dir=data_dir, files=files)
    with jax.set_mesh(experiment.mesh):
        diagnostics = Diagnostics(experiment)
        before, after = (
            diagnostics.of(state, gradient=gradient)
            for state in (experiment.fresh_state(), opened.state)
        )
    result = published(
        {
            "name": experiment.cfg.name,
            "task": experiment.cfg.task,
            "notes": experiment.cfg.notes,
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
    found: dict[str, Any] = {
        quantity: np.median(arrays[f"{name}:{quantity}"], axis=(0, 1)).tolist()
        for quantity in ("variation", "energy")
    }
    for quantity in ("drift_im", "drift_re", "drift_spacings", "drift_with_dt"):
        values = arrays[f"{name}:{quantity}"]
        values = values[~np.isnan(values)]
        found[quantity] = None
        if values.size:
            found[quantity] = {"median": float(np.median(values)), "max": float(values.max())}
    beta_H = arrays[f"{name}:beta"]
    found["beta"] = [float(f(beta_H)) for f in (np.min, np.median, np.max)]
    found["aliased"] = float(arrays[f"{name}:aliased"])
    norms_K = arrays.get(f"{name}:gradient")
    found["gradient_share"] = None if norms_K is None else (norms_K / norms_K.sum()).tolist()
    return found
