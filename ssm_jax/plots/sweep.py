"""The results of a sweep: heat maps over two options, or a line over one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ssm_jax.plots import AFTER, EVALUATION, legend_below, save, titled
from ssm_jax.sweep import short_names, shown
from ssm_jax.sweep.results import Document, best_cell
from ssm_jax.sweep.tables import (
    PERCENT,
    is_grid,
    metric_label,
    number,
    on_split,
    splits_of,
    spread,
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

    A panel for validation, which chooses, and one for test, in the same colours; the frame is
    around the cell that validation prefers, in both. The first option goes up, the second to the
    right. Below a mean stand its standard deviation and number of seeds. A cell with runs that
    diverged is hatched and says how many, one whose runs a search ended early says so; one without
    any run is blank.
    """
    (up, rows), (across, columns) = document["options"].items()
    splits = splits_of(document)
    width, height = 2.4 + 1.15 * len(columns) * len(splits), 2.4 + 0.75 * len(rows)
    figure, (y_label, x_label) = _figure(document, width, height)
    (panels,) = figure.subplots(1, len(splits), sharey=True, squeeze=False)
    cells = {
        (rows.index(cell["options"][up]), columns.index(cell["options"][across])): cell
        for cell in document["cells"]
    }
    means = np.full((len(splits), len(rows), len(columns)), np.nan)
    for k, split in enumerate(splits):
        for at, cell in cells.items():
            means[k, *at] = _scaled(document, on_split(cell, split).get("mean"))
    finite = means[np.isfinite(means)]
    name = "viridis_r" if document["better"] == "min" else "viridis"
    colours, norm = matplotlib.colormaps[name].with_extremes(bad="white"), Normalize(0, 1)
    if finite.size:
        low, high = float(finite.min()), float(finite.max())
        norm = Normalize(low, high if high > low else low + 1)
        if low > 0 and high >= LOG_FROM * low:
            norm = LogNorm(low, high)
    for axes, split, shades in zip(panels, splits, means, strict=True):
        masked = np.ma.masked_invalid(shades)
        image = axes.imshow(masked, cmap=colours, norm=norm, origin="lower", aspect="auto")
        for at, cell in cells.items():
            _write_cell(axes, document, at, cell, split, colours(norm(shades[at])))
        axes.set_xlabel(x_label)
        axes.set_xticks(range(len(columns)), [shown(value) for value in columns])
        axes.set_yticks(range(len(rows)), [shown(value) for value in rows])
        axes.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
        axes.grid(which="minor", color="white", lw=2)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        if len(splits) > 1:
            axes.set_title(metric_label(document, split))
    panels[0].set_ylabel(y_label)
    if finite.size:
        bar = metric_label(document, "" if len(splits) > 1 else splits[0]).strip()
        figure.colorbar(image, ax=list(panels), label=bar)
    handles: list[Artist] = []
    if best_cell(document) is not None:
        label = f"best {metric_label(document, splits[0]).removesuffix(' (%)')}"
        handles.append(Patch(fill=False, edgecolor=EVALUATION, lw=2, label=label))
    if any(cell["diverged"] for cell in cells.values()):
        handles.append(Patch(facecolor="white", edgecolor="0.6", hatch=HATCH, label="diverged"))
    if any(not (c["n"] or c["diverged"] or c.get("pruned")) for c in cells.values()):
        handles.append(Patch(facecolor="white", edgecolor="0.8", label="blank: not run"))
    if handles:
        legend_below(figure, handles)
    return figure


def _write_cell(
    axes: Axes,
    document: Document,
    at: tuple[int, int],
    cell: Mapping[str, Any],
    split: str,
    colour: Any,
) -> None:
    """Write the numbers of a cell on its colour; hatch what diverged, frame what is chosen."""
    (i, j), found, failed = at, on_split(cell, split), len(cell["diverged"])
    of, lines = len(document["seeds"]), []
    mean = found.get("mean")
    if mean is not None:
        behind = "" if found["std"] is None else f"± {spread(document, found['std'])}, "
        lines += [number(document, mean), f"{behind}n = {cell['n']}"]
    if failed:
        lines.append("diverged" if failed == of else f"{failed} of {of}\ndiverged")
    if cell.get("pruned"):
        n = len(cell["pruned"])
        lines.append("ended early" if n == of else f"{n} of {of}\nended early")
    if not lines:
        lines.append("not run")
    red, green, blue, _ = colour
    dark = mean is not None and 0.2126 * red + 0.7152 * green + 0.0722 * blue <= 0.45
    text = axes.text(j, i, "\n".join(lines), ha="center", va="center", fontsize=9)
    text.set_color("white" if dark else "black")
    if failed:
        box = Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch=HATCH, lw=0, ec="0.6")
        axes.add_patch(box)
        text.set(color="black", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    if cell is best_cell(document):
        frame = Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, lw=2, ec=EVALUATION)
        axes.add_patch(frame)


def line_figure(document: Document) -> Figure:
    """The metric of each run, and the mean with its standard deviation, over one option.

    Test in blue; validation, which chooses, in orange, a little to the left, with a ring around the
    chosen mean. A cross at the foot marks a value at which runs diverged. The axis is logarithmic
    where the values are positive numbers over a factor of 10 and more; values that are no numbers,
    such as several configs, stand evenly and no line joins them.
    """
    ((option, values),) = document["options"].items()
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    at = {value: value if numeric else i for i, value in enumerate(values)}
    cells = sorted(document["cells"], key=lambda cell: at[cell["options"][option]])
    splits, best = splits_of(document), best_cell(document)
    figure, (x_label,) = _figure(document, max(6.5, 1.5 * len(values) * (not numeric)), 4.2)
    axes = figure.subplots()
    x = np.array([at[cell["options"][option]] for cell in cells], np.float64)
    if numeric and len(values) > 1 and min(values) > 0 and max(values) >= 10 * min(values):
        axes.set_xscale("log")
        apart = x * ((x.max() / x.min()) ** -0.01 - 1)
    else:
        apart = np.full(x.shape, -0.01 * (np.ptp(x) or 1.0) - 0.05 * (not numeric))
    line, handles, chosen = "-" if numeric else "", list[Artist](), list[Artist]()
    for split in splits:
        colour, left = (AFTER, x) if split == "test" else (EVALUATION, x + apart)
        found = [on_split(cell, split) for cell in cells]
        mean = _scaled(document, [each.get("mean") for each in found])
        above = _scaled(document, [each.get("std") or 0.0 for each in found])
        for position, each in zip(left, found, strict=True):
            runs = _scaled(document, list(each.get("values", {}).values()))
            axes.plot(
                np.full(runs.shape, position), runs, "o", color=colour, ms=4, alpha=0.4, mew=0
            )
        axes.errorbar(left, mean, above, fmt=f"o{line}", color=colour, ms=5, lw=1.5, capsize=3)
        style: dict[str, Any] = {"color": colour, "marker": "o"}
        handles.append(Line2D([], [], ls=line, label=f"{split}: mean ± std", **style))
        handles.append(Line2D([], [], ls="", ms=4, alpha=0.4, label="each run", **style))
        if best is not None and split == splits[0]:
            ring: dict[str, Any] = {
                "marker": "o",
                "mfc": "none",
                "mec": EVALUATION,
                "ms": 12,
                "mew": 1.5,
            }
            k = next(k for k, cell in enumerate(cells) if cell is best)
            axes.plot(left[k : k + 1], mean[k : k + 1], ls="", **ring)
            chosen = [Line2D([], [], ls="", label=f"best {split}", **ring)]
    handles += chosen
    for position, cell in zip(x, cells, strict=True):
        if cell["diverged"]:
            axes.plot([position], [0.03], "x", color="red", transform=axes.get_xaxis_transform())
    axes.set_xticks(x, [shown(cell["options"][option]) for cell in cells])
    axes.set_xticks([], minor=True)
    if not numeric:
        axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set(xlabel=x_label, ylabel=metric_label(document, " and ".join(splits)))
    axes.grid(color="0.9")
    if any(cell["diverged"] for cell in cells):
        handles.append(Line2D([], [], color="red", marker="x", ls="", label="diverged"))
    legend_below(figure, handles, 3 if len(handles) > 4 else 0)
    return figure


def _figure(document: Document, width: float, height: float) -> tuple[Figure, list[str]]:
    """A figure with its title, and the label of each option."""
    n = len(document["seeds"])
    name = document["name"].replace("$", r"\$")  # a name is no formula
    metric = metric_label(document, " and ".join(splits_of(document)))
    short = short_names(document["options"])
    labels = [label if label == key else f"{label}  ({key})" for key, label in short.items()]
    title = metric if "config" in document["options"] else f"{name}: {metric}"
    return titled(f"{title}, {n} seed{'s' if n > 1 else ''}", width, height), labels


def _scaled(document: Document, values: object) -> np.ndarray:
    """Values of the metric as they are shown; None is nan."""
    return (100.0 if document["metric"] in PERCENT else 1.0) * np.array(values, np.float64)
