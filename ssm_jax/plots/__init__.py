"""The figures of a run, as PNG: curves, frequency response, eigenvalues, beta, diagnostics.

Each is a function from data to a Figure, and `draw_run` writes them. No pyplot: nothing is shown,
and no window system is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from ssm_jax.analysis.bands import band_edges
from ssm_jax.analysis.spectra import LayerView
from ssm_jax.files import replace_atomically
from ssm_jax.plots.layers import beta_figure, eigenvalues_figure, response_figure
from ssm_jax.plots.run import curves_figure, poles_figure, variation_figure

__all__ = [
    "beta_figure",
    "curves_figure",
    "draw_run",
    "eigenvalues_figure",
    "poles_figure",
    "response_figure",
    "save",
    "variation_figure",
]


def draw_run(
    folder: Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    before: Sequence[LayerView],
    after: Sequence[LayerView],
    length: int,
    title: str,
    metric: str = "accuracy",
    edges_E: np.ndarray | None = None,
) -> list[Path]:
    """Draw and write curves, response, eigenvalues, beta, variation and poles, each atomically.

    Args:
      folder: where; made if missing.
      rows: as `read_metrics` gives them.
      before, after: the same layers at the start and after training.
      length: L of the sequences.
      title: the run's name.
      metric: what the curves show beside the loss.
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
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    edges = band_edges(length) if edges_E is None else edges_E
    with matplotlib.style.context("default"):  # whatever this person's matplotlibrc says
        for name, figure in (
            ("curves", curves_figure(rows, title, metric)),
            ("response", response_figure(before, after, length, title)),
            ("eigenvalues", eigenvalues_figure(before, after, length, title)),
            ("beta", beta_figure(before, after, length, title)),
            ("variation", variation_figure(rows, edges, title)),
            ("poles", poles_figure(before, after, title)),
        ):
            path = folder / f"{name}.png"
            save(path, figure)
            paths.append(path)
    return paths


def save(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, atomically; its folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the Software entry the same numbers give the same bytes.
    options: dict[str, Any] = {"format": "png", "dpi": 130, "metadata": {"Software": None}}
    replace_atomically(path, lambda file: figure.savefig(file, **options))
