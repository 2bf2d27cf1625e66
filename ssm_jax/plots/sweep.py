"""The results of a sweep: a heat map over two options, or a line over one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ssm_jax.plots import AFTER, EVALUATION, legend_below, save
from ssm_jax.sweep import (
    PERCENT,
    Document,
    best_cell,
    is_grid,
    metric_label,
    number,
    short_names,
    shown,
)

HATCH = "xx"
LOG_FROM = 10.0  # ratio of the largest to the smallest mean from which the colours are logarithmic


def draw_sweep(path: Path, document: Document) -> bool:
    """Write the figure of a sweep over one option or a whole grid of two; whether there is one."""
    single = len(document["options"]) == 1
    if single or is_grid(document):
        save(path, line_figure if single else heatmap_figure, document)
        return True
    return False


def heatmap_figure(document: Document) -> Figure:
    """The mean of each cell of a grid as a colour and a number, bright being better.

    The first option goes up, the second to the right. Below a mean stand its standard deviation
    and number of seeds. A cell with runs that diverged is hatched and says how many; one without
    any run is blank and says so; the best has a frame.
    """
    (up, rows), (across, columns) = document["options"].items()
    figure = Figure(
        figsize=(2.4 + 1.15 * len(columns), 2.2 + 0.75 * len(rows)), layout="constrained"
    )
    figure.suptitle(_title(document))
    axes = figure.subplots()
    means = np.full((len(rows), len(columns)), np.nan)
    cells = {}
    for cell in document["cells"]:
        at = rows.index(cell["options"][up]), columns.index(cell["options"][across])
        cells[at] = cell
        if cell["mean"] is not None:
            means[at] = _scale(document) * cell["mean"]
    colours, norm = _colours(document, means)
    shades = np.ma.masked_invalid(means)
    image = axes.imshow(shades, cmap=colours, norm=norm, origin="lower", aspect="auto")
    best = best_cell(document)
    for (i, j), cell in cells.items():
        dark = np.isfinite(means[i, j]) and not _is_light(colours(norm(means[i, j])))
        text = axes.text(j, i, _annotation(document, cell), ha="center", va="center", fontsize=9)
        text.set_color("white" if dark else "black")
        if cell["diverged"]:
            axes.add_patch(_box(i, j, 1.0, hatch=HATCH, lw=0, edgecolor="0.6"))
            text.set(color="black", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
        if cell is best:
            axes.add_patch(_box(i, j, 0.94, lw=2, edgecolor=EVALUATION))
    labels = short_names(document["options"])
    axes.set_xlabel(_axis(across, labels))
    axes.set_ylabel(_axis(up, labels))
    axes.set_xticks(range(len(columns)), [shown(value) for value in columns])
    axes.set_yticks(range(len(rows)), [shown(value) for value in rows])
    axes.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if np.isfinite(means).any():
        figure.colorbar(image, ax=axes, label=_metric(document))
    handles: list[Artist] = []
    if best is not None:
        handles.append(
            Patch(fill=False, edgecolor=EVALUATION, lw=2, label=f"best {document['selected_by']}")
        )
    if any(cell["diverged"] for cell in cells.values()):
        handles.append(Patch(facecolor="white", edgecolor="0.6", hatch=HATCH, label="diverged"))
    if any(not (cell["n"] or cell["diverged"]) for cell in cells.values()):
        handles.append(Patch(facecolor="white", edgecolor="0.8", label="blank: not run"))
    if handles:
        legend_below(figure, handles)
    return figure


def line_figure(document: Document) -> Figure:
    """The metric of each run, and the mean with its standard deviation, over one option.

    A cross at the foot marks a value at which runs diverged. The axis is logarithmic where the
    values are positive numbers over a factor of 10 and more; values that are no numbers stand
    evenly.
    """
    ((option, values),) = document["options"].items()
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    at = {value: value if numeric else i for i, value in enumerate(values)}
    cells = sorted(document["cells"], key=lambda cell: at[cell["options"][option]])
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    figure.suptitle(_title(document))
    axes = figure.subplots()
    scale = _scale(document)
    x = np.array([at[cell["options"][option]] for cell in cells], np.float64)
    mean = scale * np.array([np.nan if c["mean"] is None else c["mean"] for c in cells])
    spread = scale * np.array([c["std"] or 0.0 for c in cells])
    for position, cell in zip(x, cells, strict=True):
        runs = scale * np.array(list(cell["values"].values()))
        axes.plot(np.full(runs.shape, position), runs, "o", color=AFTER, ms=4, alpha=0.4, mew=0)
        if cell["diverged"]:
            foot = axes.get_xaxis_transform()
            axes.plot([position], [0.03], "x", color="red", transform=foot)
    axes.errorbar(x, mean, spread, fmt="o-", color=AFTER, ms=5, lw=1.5, capsize=3)
    if numeric and len(values) > 1 and min(values) > 0 and max(values) >= 10 * min(values):
        axes.set_xscale("log")
    axes.set_xticks(x, [shown(cell["options"][option]) for cell in cells])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(_axis(option, short_names([option])))
    axes.set_ylabel(_metric(document))
    axes.grid(color="0.9")
    handles: list[Artist] = [
        Line2D([], [], color=AFTER, marker="o", lw=1.5, label="mean ± standard deviation"),
        Line2D([], [], color=AFTER, marker="o", ls="", ms=4, alpha=0.4, label="each run"),
    ]
    if any(cell["diverged"] for cell in cells):
        handles.append(Line2D([], [], color="red", marker="x", ls="", label="diverged"))
    legend_below(figure, handles)
    return figure


def _title(document: Document) -> str:
    seeds = len(document["seeds"])
    name = document["name"].replace("$", r"\$")  # a name is no formula
    return f"{name}: {_metric(document)}, {seeds} seed{'s' if seeds > 1 else ''}"


def _metric(document: Document) -> str:
    return f"{document['split']} {metric_label(document)}"


def _axis(option: str, labels: Mapping[str, str]) -> str:
    return labels[option] if labels[option] == option else f"{labels[option]}  ({option})"


def _scale(document: Document) -> float:
    return 100.0 if document["metric"] in PERCENT else 1.0


def _colours(document: Document, values: np.ndarray) -> tuple[Colormap, Normalize]:
    """Bright is better; over a factor of LOG_FROM and more the scale is logarithmic."""
    name = "viridis_r" if document["better"] == "min" else "viridis"
    colours = matplotlib.colormaps[name].with_extremes(bad="white")
    found = values[np.isfinite(values)]
    if not found.size:
        return colours, Normalize(0, 1)
    low, high = float(found.min()), float(found.max())
    if low > 0 and high >= LOG_FROM * low:
        return colours, LogNorm(low, high)
    return colours, Normalize(low, high if high > low else low + 1)


def _is_light(colour: tuple[float, float, float, float]) -> bool:
    """Whether black is easier to read on it than white."""
    red, green, blue, _ = colour
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45


def _box(i: int, j: int, size: float, **style: Any) -> Rectangle:
    """The outline of cell (i, j)."""
    return Rectangle((j - size / 2, i - size / 2), size, size, fill=False, **style)


def _annotation(document: Document, cell: Mapping[str, Any]) -> str:
    lines = []
    if cell["mean"] is not None:
        spread = "" if cell["std"] is None else f"± {number(document, cell['std'])}, "
        lines += [number(document, cell["mean"]), f"{spread}n = {cell['n']}"]
    of = len(document["seeds"])
    if cell["diverged"]:
        n = len(cell["diverged"])
        lines.append("diverged" if n == of else f"{n} of {of}\ndiverged")
    elif cell["mean"] is None:
        lines.append("not run")
    return "\n".join(lines)
