"""Figures: each is a function from data to a Figure, which `save` draws and writes.

Here is what they share: colours, one panel per layer, axes, legends, the Nyquist line. No pyplot:
nothing is shown, and no window system is asked for.
"""

import math
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from ssm_jax.analysis.spectra import NYQUIST
from ssm_jax.files import replace_atomically

BEFORE, AFTER = "0.5", "#1f6fb4"  # grey and blue in every figure
EVALUATION = "#d1590a"
BEYOND = "#fdecea"  # the ground beyond Nyquist
ABREAST = 4  # panels in a row
# Formats, and the entries of their metadata that are of the day or the program
VARYING = {"png": ("Software",), "pdf": ("CreationDate", "Creator", "Producer"), "svg": ("Date",)}


def save(path: Path, make: Callable[..., Figure], *args: Any) -> None:
    """Write make(*args) atomically, as the ending of the path says, PNG, PDF or SVG; its folder is
    made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = path.suffix.removeprefix(".").lower()
    if ending not in VARYING:
        raise ValueError(f"{path} must end in .{', .'.join(VARYING)}.")
    # Without these entries the same numbers give the same bytes.
    varying: dict[str, Any] = dict.fromkeys(VARYING[ending])
    options: dict[str, Any] = {"format": ending, "dpi": 130, "metadata": varying}
    # Whatever this person's matplotlibrc says
    with matplotlib.style.context(["default", {"svg.hashsalt": "ssm_jax"}]):
        figure = make(*args)
        replace_atomically(path, lambda file: figure.savefig(file, **options))


def titled(title: str, width: float, height: float) -> Figure:
    """An empty figure of so many inches, whose parts keep clear of each other."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(folded(title, round(8.5 * width)))
    return figure


def folded(title: str, width: int) -> str:
    """A title "name: what is shown" in lines of at most so many letters, broken in the name alone
    and behind it; what is shown may hold formulas."""
    if len(re.sub(r"\$.*?\$", "x", title.replace(r"\$", "x"))) <= width:
        return title
    name, _, what = title.rpartition(": ")
    name = textwrap.fill(name.replace(" = ", "\xa0=\xa0"), width)  # an option and its value
    return f"{name}:\n{what}" if name else title


class LayerPanels:
    """A figure with one column of `len(heights)` panels per layer, at most four layers abreast.

    panels[i][j] is panel j of layer i, with the limits that it has in all layers; heights are in
    inches.
    """

    def __init__(self, n_layers: int, title: str, heights: tuple[float, ...] = (2.6,)):
        lines, k = math.ceil(n_layers / ABREAST), len(heights)
        self.columns = columns = math.ceil(n_layers / lines)
        width = {1: 6.5, 2: 4.6}.get(columns, 3.4) * columns
        height = lines * (sum(heights) + 0.35 * k) + 1
        self.figure = titled(title, width, height)
        ratios = list(heights) * lines
        every = self.figure.subplots(lines * k, columns, squeeze=False, height_ratios=ratios)
        stacks = every.reshape(lines, k, columns).swapaxes(1, 2).reshape(-1, k)
        self.panels: list[list[Axes]] = stacks[:n_layers].tolist()
        for axes in stacks[n_layers:].ravel():
            axes.remove()
        for stack in self.panels[1:]:
            for axes, first in zip(stack, self.panels[0], strict=True):
                axes.sharex(first)
                axes.sharey(first)

    def label(self, j: int, x: str, y: str) -> None:
        """Label panel j: y at the left; x at the foot, or at each if a layer has several."""
        for i, stack in enumerate(self.panels):
            foot, left = i + self.columns >= len(self.panels), i % self.columns == 0
            foot |= len(stack) > 1
            stack[j].set(xlabel=x if foot else "", ylabel=y if left else "")
            stack[j].tick_params(labelbottom=foot, labelleft=left)

    def legend(self, *more: Artist, nyquist: bool = True, **style: Any) -> None:
        """Before, after (lines, or of another style), what else there is, and Nyquist."""
        style = {"lw": 1.5, **style}
        handles: list[Artist] = [
            Line2D([], [], color=BEFORE, label="before training", **style),
            Line2D([], [], color=AFTER, label="after", **style),
            *more,
        ]
        if nyquist:
            label = "Nyquist, $\\pi$ rad per sample"
            handles.append(Line2D([], [], color="0.15", ls="--", lw=1, label=label))
            handles.append(Patch(color=BEYOND, label="beyond it: aliased"))
        legend_below(self.figure, handles, 0 if self.columns > 2 else (len(handles) + 1) // 2)


def legend_below(figure: Figure, handles: Sequence[Artist], columns: int = 0) -> None:
    """One legend under all panels, in one row unless a number of columns is given."""
    columns = columns or len(handles)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def mark_nyquist(axes: Axes, low: float, high: float) -> None:
    """A line at pi on a logarithmic axis of angles from low to high, and a tint beyond it."""
    axes.set_xscale("log")
    axes.axvspan(NYQUIST, high, color=BEYOND, lw=0, zorder=0)
    axes.axvline(NYQUIST, color="0.15", ls="--", lw=1)
    axes.set_xlim(low, high)


def log_ticks(axis: Axis) -> None:
    """Plain ticks where a logarithmic axis has at most two decades, not 6 x 10^0.

    1, 2, 5, 10; even steps where so few of these may be seen that they tell no scale.
    """
    low, high = axis.get_view_interval()
    if axis.get_scale() == "log" and high <= 100 * low:
        even = high <= 5 * low
        some = MaxNLocator(5, steps=(1, 2, 5, 10)) if even else LogLocator(subs=(1, 2, 5))
        axis.set_major_locator(some)
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def step_axis(axes: Axes, ticks: int = 5) -> None:
    """Training steps along x, and a grid."""
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(color="0.9")


def note(axes: Axes, text: str) -> None:
    """Say in the middle of a panel why there is nothing else."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.3")


def empty_figure(title: str, text: str) -> Figure:
    """A figure that says why it shows nothing."""
    figure = titled(title, 6.5, 2)
    axes = figure.subplots()
    axes.set_axis_off()
    note(axes, text)
    return figure
