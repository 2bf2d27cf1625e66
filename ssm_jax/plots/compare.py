"""Curves of several runs: a colour for each setting, a band over its seeds."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ssm_jax import plots
from ssm_jax.plots.run import LABELS, SMOOTH_FROM, Rows, points_of, running_mean

COLOURS = (
    "#1f6fb4", "#d1590a", "#2f8f5b", "#8a4fb0", "#b8860b", "#c0392b", "#17a2b8", "0.35",
)  # fmt: skip
WIDTH = 130  # letters of a legend, with 8 for what stands before a label
WORDS = {"val": "validation", "train": "training set"}


def compare_figure(
    settings: Mapping[str, Sequence[Rows]],
    metric: str,
    split: str = "val",
    chosen: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> Figure:
    """The loss of training and a metric on the split that chooses, against the step.

    Of several runs of a setting each is a thin line; the mean and the band from the least to the
    most are over the steps that all of them have. From SMOOTH_FROM logged steps on, the loss of
    each run is a running mean.

    Args:
      settings: of each setting, by label, the rows of the logs of its runs, as `read_metrics`
        gives them.
      chosen: of each setting (step, value) of the checkpoints that are tested.
    """
    n_runs, n = sum(map(len, settings.values())), len(settings)
    figure = plots.titled(f"{n_runs} runs of {n} setting{'s' if n > 1 else ''}", 11, 4.6)
    training, evaluation = figure.subplots(1, 2)
    kind = "train_eval" if split == "train" else split
    several, smoothed, shade = False, 0, 0.2 if n <= 3 else 0.1
    colours = itertools.cycle(COLOURS)
    handles: list[Artist] = []
    for (label, runs), colour in zip(settings.items(), colours, strict=False):
        panels = ((training, "train", "loss", ""), (evaluation, kind, metric, "o"))
        for axes, of, name, mark in panels:
            curves = [_finite(rows, of, name) for rows in runs]
            if of == "train":
                longest = max(value.size for _, value in curves)
                if longest >= SMOOTH_FROM:
                    smoothed = max(smoothed, longest // 50)
                    curves = [(step, running_mean(y, y.size // 50 or 1)) for step, y in curves]
            several |= _draw(axes, curves, colour, mark, shade)
        for at in (chosen or {}).get(label, ()):
            evaluation.plot(*at, "o", color=colour, mfc="white", ms=7, mew=1.5, zorder=4)
        mean = f", mean of {len(runs)} seeds" if len(runs) > 1 else ""
        shown = textwrap.fill(label, WIDTH - 40).replace("$", r"\$")  # a name is no formula
        handles.append(Line2D([], [], color=colour, lw=2, label=shown + mean))
    if several:
        handles.append(Line2D([], [], color="0.4", lw=0.7, alpha=0.6, label="each seed"))
        handles.append(Patch(color="0.4", alpha=0.2, lw=0, label="from least to most"))
    if chosen and any(chosen.values()):
        ring: dict[str, Any] = {"marker": "o", "mfc": "white", "ms": 7, "mew": 1.5, "ls": ""}
        handles.append(Line2D([], [], color="0.4", label="tested checkpoint", **ring))
    cross_entropy = any("accuracy" in row for runs in settings.values() for row in runs[0])
    unit = " (cross-entropy, nats)" if cross_entropy else ""
    running = f", mean of {smoothed} points" if smoothed else ""
    training.set_ylabel(f"training loss{unit}{running}")
    name = f"loss{unit}" if metric == "loss" else LABELS.get(metric, metric)
    evaluation.set_ylabel(f"{WORDS.get(split, split)} {name}")
    for axes, name in ((training, "loss"), (evaluation, metric)):
        plots.step_axis(axes)
        axes.set_xlim(left=0)
        values = np.array([y for line in axes.lines for y in np.asarray(line.get_ydata())])
        if not values.size:
            plots.note(axes, "no values yet")
        elif name != "accuracy" and 0 < 10 * values.min() < values.max():
            axes.set_yscale("log")
            plots.log_ticks(axes.yaxis)
    longest = max(len(str(handle.get_label())) for handle in handles)
    plots.legend_below(figure, handles, min(3, len(handles), max(1, WIDTH // (longest + 8))))
    return figure


def _finite(rows: Rows, kind: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a kind of rows, without those that are not finite."""
    step, value = points_of([row for row in rows if row["kind"] == kind], name)
    good = np.isfinite(value)
    return step[good], value[good]


def shared_steps(
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """The steps that all curves have, and the values of each there, (curves, steps)."""
    steps = curves[0][0]
    for step, _ in curves[1:]:
        steps = np.intersect1d(steps, step)
    values = [value[np.searchsorted(step, steps)] for step, value in curves]
    return steps, np.stack(values)


def _draw(
    axes: Axes,
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
    colour: str,
    mark: str,
    shade: float,
) -> bool:
    """Draw the runs of a setting, with a band so opaque; whether there are several."""
    mark = mark or ("o" if max(step.size for step, _ in curves) == 1 else "")  # no line, else
    if len(curves) == 1:
        axes.plot(*curves[0], marker=mark, ms=3, lw=1.5, color=colour)
        return False
    for step, value in curves:
        axes.plot(step, value, "." if step.size == 1 else "-", lw=0.7, alpha=0.4, color=colour)
    steps, values = shared_steps(curves)
    if steps.size:
        axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=shade, lw=0)
        axes.plot(steps, values.mean(0), marker=mark, ms=3, lw=2, color=colour)
    return True
