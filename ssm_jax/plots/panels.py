"""What the figures share: colours, the grid of one panel per layer, the Nyquist line."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ssm_jax.analysis.spectra import NYQUIST

BEFORE, AFTER = "0.5", "#1f6fb4"  # grey and blue in every figure
EVALUATION = "#d1590a"
BEYOND = "#fdecea"  # the ground beyond Nyquist
ABREAST = 4  # panels in a row


class Grid:
    """A figure with one column of `len(heights)` panels per layer, at most four layers abreast.

    panels[i][j] is panel j of layer i.
    """

    def __init__(self, n_layers: int, title: str, heights: tuple[float, ...] = (2.6,)):
        """Args: heights: of the panels of one layer, in inches."""
        lines = math.ceil(n_layers / ABREAST)
        self.columns = math.ceil(n_layers / lines)
        width = {1: 6.5, 2: 4.6}.get(self.columns, 3.4)
        self.figure = Figure(
            figsize=(width * self.columns, lines * (sum(heights) + 0.35 * len(heights)) + 1),
            layout="constrained",
        )
        self.figure.suptitle(title)
        shape = (lines * len(heights), self.columns)
        ratios = list(heights) * lines
        every = self.figure.subplots(*shape, squeeze=False, height_ratios=ratios)
        self.panels: list[list[Axes]] = []
        for i in range(lines * self.columns):
            top, column = i // self.columns * len(heights), i % self.columns
            stack = [every[top + j, column] for j in range(len(heights))]
            if i < n_layers:
                self.panels.append(stack)
            else:
                for axes in stack:
                    axes.remove()

    def share_limits(self, j: int, which: str) -> None:
        """Give panel j of every layer the widest limits of all; `which` is "x", "y" or "xy"."""
        for name in which:
            limits = [getattr(stack[j], f"get_{name}lim")() for stack in self.panels]
            low, high = min(low for low, _ in limits), max(high for _, high in limits)
            for stack in self.panels:
                stack[j].set(**{f"{name}lim": (low, high)})

    def label(self, j: int, x: str, y: str) -> None:
        """Label panel j: y at the left; x at the foot, or at each if a layer has several."""
        for i, stack in enumerate(self.panels):
            if len(stack) > 1 or i + self.columns >= len(self.panels):
                stack[j].set_xlabel(x)
            else:
                stack[j].tick_params(labelbottom=False)
            if i % self.columns == 0:
                stack[j].set_ylabel(y)
            else:
                stack[j].tick_params(labelleft=False)


def mark_nyquist(axes: Axes, low: float, high: float) -> None:
    """A line at pi on a logarithmic axis of angles from low to high, and a tint beyond it."""
    axes.set_xscale("log")
    axes.axvspan(NYQUIST, high, color=BEYOND, lw=0, zorder=0)
    axes.axvline(NYQUIST, color="0.15", ls="--", lw=1)
    axes.set_xlim(low, high)


def legend_below(grid: Grid, *more: Line2D | Patch) -> None:
    """Before, after, Nyquist and what else there is, once for all panels."""
    handles = [
        Line2D([], [], color=BEFORE, lw=1.5, label="before training"),
        Line2D([], [], color=AFTER, lw=1.5, label="after"),
        *more,
        Line2D([], [], color="0.15", ls="--", lw=1, label="Nyquist, $\\pi$ rad per sample"),
        Patch(color=BEYOND, label="beyond it: aliased"),
    ]
    columns = len(handles) if grid.columns > 2 else (len(handles) + 1) // 2
    grid.figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def plain_log_ticks(axis: Axis) -> None:
    """Ticks 1, 2, 5, 10 on a logarithmic axis of few decades, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def note(axes: Axes, text: str) -> None:
    """Say in the middle of a panel why there is nothing else."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.3")


def empty_figure(title: str, text: str) -> Figure:
    """A figure that says why it shows nothing."""
    figure = Figure(figsize=(6.5, 2), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    axes.set_axis_off()
    note(axes, text)
    return figure
