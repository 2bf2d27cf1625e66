"""Figures as PNG: each is a function from data to a Figure, which `save` draws and writes.

No pyplot: nothing is shown, and no window system is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from ssm_jax.analysis.bands import band_edges
from ssm_jax.analysis.spectra import LayerView
from ssm_jax.files import replace_atomically
from ssm_jax.plots.layers import beta_figure, eigenvalues_figure, poles_figure, response_figure
from ssm_jax.plots.run import curves_figure, variation_figure


def draw_run(
    folder: Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    before: Sequence[LayerView],
    after: Sequence[LayerView],
    length: int,
    title: str,
    metric: str = "accuracy",
    step: int | None = None,
    edges_E: np.ndarray | None = None,
) -> list[Path]:
    """Draw curves, response, eigenvalues, and beta, variation and poles if there is any change.

    Args:
      folder: where; made if missing.
      rows: as `read_metrics` gives them.
      before, after: the same layers at the start and after training.
      length: L of the sequences.
      title: the run's name.
      metric: what the curves show next to the loss; step: that of `after`, which they mark.
      edges_E: of the bands of the diagnostics; None: those of this length.

    Returns:
      The paths of the files.

    Raises:
      ValueError: if before and after are not the same layers.
    """
    names = [[layer.name for layer in layers] for layers in (before, after)]
    if names[0] != names[1]:
        raise ValueError(
            f"draw_run: before and after must be the same layers, got {names[0]} and {names[1]}."
        )
    title = title.replace("$", r"\$")  # a name is no formula
    edges_E = band_edges(length) if edges_E is None else edges_E
    layers = (before, after, length, title)
    figures: dict[str, tuple[Any, ...]] = {
        "curves": (curves_figure, rows, title, metric, step),
        "response": (response_figure, *layers),
        "eigenvalues": (eigenvalues_figure, *layers),
        "beta": (beta_figure, *layers),
        "variation": (variation_figure, rows, edges_E, title),
        "poles": (poles_figure, before, after, title),
    }
    pairs = list(zip(before, after, strict=True))
    drawn = {
        "beta": any(layer.beta_learned for layer in after),
        "variation": any(row["kind"] == "diagnostics" for row in rows),
        "poles": any(not np.array_equal(old.A_HN, new.A_HN) for old, new in pairs),
    }
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        if drawn.get(name, True):
            save(path, *figure)
            paths.append(path)
        else:
            path.unlink(missing_ok=True)
    return paths


def save(path: Path, make: Callable[..., Figure], *args: Any) -> None:
    """Write make(*args) as PNG, atomically; its folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the Software entry the same numbers give the same bytes.
    options: dict[str, Any] = {"format": "png", "dpi": 130, "metadata": {"Software": None}}
    with matplotlib.style.context("default"):  # whatever this person's matplotlibrc says
        figure = make(*args)
        replace_atomically(path, lambda file: figure.savefig(file, **options))
