"""The results of a sweep: a heat map over two options, or a line over one."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ssm_jax import sweep
from ssm_jax.plots import AFTER, EVALUATION, legend_below, save, titled
from ssm_jax.sweep import Document, metric_label, number, short_names, shown

HATCH = "xx"
LOG_FROM = 10.0  # ratio of the largest to the smallest mean from which the colours are logarithmic


def draw_sweep(path: Path, document: Document) -> bool:
    """Write the figure of a sweep over one option or a whole grid of two; whether there is one."""
    single = len(document["options"]) == 1
    if single or sweep.is_grid(document):
        save(path, line_figure if single else heatmap_figure, document)
        return True
    return False


def heatmap_figure(document: Document) -> Figure:
    """The mean of each cell of a grid as a colour and a number, bright being better.

    The first option goes up, the second to the right. Below a mean stand its standard deviation
    and number of seeds. A cell with runs that diverged is hatched and says how many; one without
    any run is blank and says so; the best, by validation, has a frame.
    """
    (up, rows), (across, columns) = document["options"].items()
    size = (2.4 + 1.15 * len(columns), 2.2 + 0.75 * len(rows))
    figure, metric, (y_label, x_label) = _figure(document, *size)
    axes = figure.subplots()
    cells = {
        (rows.index(cell["options"][up]), columns.index(cell["options"][across])): cell
        for cell in document["cells"]
    }
    means = np.full((len(rows), len(columns)), np.nan)
    for at, cell in cells.items():
        means[at] = _scaled(document, cell["mean"])
    finite = means[np.isfinite(means)]
    name = "viridis_r" if document["better"] == "min" else "viridis"
    colours, norm = matplotlib.colormaps[name].with_extremes(bad="white"), Normalize(0, 1)
    if finite.size:
        low, high = float(finite.min()), float(finite.max())
        norm = Normalize(low, high if high > low else low + 1)
        if low > 0 and high >= LOG_FROM * low:
            norm = LogNorm(low, high)
    shades = np.ma.masked_invalid(means)
    image = axes.imshow(shades, cmap=colours, norm=norm, origin="lower", aspect="auto")
    best, of = sweep.best_cell(document), len(document["seeds"])
    for (i, j), cell in cells.items():
        lines, failed = [], len(cell["diverged"])
        if cell["mean"] is not None:
            spread = "" if cell["std"] is None else f"± {number(document, cell['std'])}, "
            lines += [number(document, cell["mean"]), f"{spread}n = {cell['n']}"]
        if failed:
            lines.append("diverged" if failed == of else f"{failed} of {of}\ndiverged")
        elif not lines:
            lines.append("not run")
        red, green, blue, _ = colours(norm(means[i, j]))
        dark = np.isfinite(means[i, j]) and 0.2126 * red + 0.7152 * green + 0.0722 * blue <= 0.45
        text = axes.text(j, i, "\n".join(lines), ha="center", va="center", fontsize=9)
        text.set_color("white" if dark else "black")
        if failed:
            box = Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch=HATCH, lw=0, ec="0.6")
            axes.add_patch(box)
            text.set(color="black", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
        if cell is best:
            frame = Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, lw=2, ec=EVALUATION)
            axes.add_patch(frame)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_xticks(range(len(columns)), [shown(value) for value in columns])
    axes.set_yticks(range(len(rows)), [shown(value) for value in rows])
    axes.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if finite.size:
        figure.colorbar(image, ax=axes, label=metric)
    handles: list[Artist] = []
    if best is not None:
        label = f"best {document['selected_by']}"
        handles.append(Patch(fill=False, edgecolor=EVALUATION, lw=2, label=label))
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
    figure, metric, (x_label,) = _figure(document, 6.5, 4)
    axes = figure.subplots()
    x = np.array([at[cell["options"][option]] for cell in cells], np.float64)
    mean = _scaled(document, [cell["mean"] for cell in cells])
    spread = _scaled(document, [cell["std"] or 0.0 for cell in cells])
    for position, cell in zip(x, cells, strict=True):
        runs = _scaled(document, list(cell["values"].values()))
        axes.plot(np.full(runs.shape, position), runs, "o", color=AFTER, ms=4, alpha=0.4, mew=0)
        if cell["diverged"]:
            axes.plot([position], [0.03], "x", color="red", transform=axes.get_xaxis_transform())
    axes.errorbar(x, mean, spread, fmt="o-", color=AFTER, ms=5, lw=1.5, capsize=3)
    if numeric and len(values) > 1 and min(values) > 0 and max(values) >= 10 * min(values):
        axes.set_xscale("log")
    axes.set_xticks(x, [shown(cell["options"][option]) for cell in cells])
    axes.set_xticks([], minor=True)
    axes.set(xlabel=x_label, ylabel=metric)
    axes.grid(color="0.9")
    handles: list[Artist] = [
        Line2D([], [], color=AFTER, marker="o", lw=1.5, label="mean ± standard deviation"),
        Line2D([], [], color=AFTER, marker="o", ls="", ms=4, alpha=0.4, label="each run"),
    ]
    if any(cell["diverged"] for cell in cells):
        handles.append(Line2D([], [], color="red", marker="x", ls="", label="diverged"))
    legend_below(figure, handles)
    return figure


def _figure(document: Document, width: float, height: float) -> tuple[Figure, str, list[str]]:
    """A figure with its title, and the labels of its metric and of each option."""
    metric, seeds = f"{document['split']} {metric_label(document)}", len(document["seeds"])
    name = document["name"].replace("$", r"\$")  # a name is no formula
    title = f"{name}: {metric}, {seeds} seed{'s' if seeds > 1 else ''}"
    short = short_names(document["options"])
    labels = [label if label == key else f"{label}  ({key})" for key, label in short.items()]
    return titled(title, width, height), metric, labels


def _scaled(document: Document, values: object) -> np.ndarray:
    """Values of the metric as they are shown; None is nan."""
    return (100.0 if document["metric"] in sweep.PERCENT else 1.0) * np.array(values, np.float64)
