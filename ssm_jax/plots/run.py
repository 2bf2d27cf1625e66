"""A run over its steps: loss, metric and learning rates, and what its diagnostics say."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ssm_jax.analysis.bands import pole_drift
from ssm_jax.analysis.spectra import LayerView
from ssm_jax.plots.layers import NO_LAYERS, NOT_FINITE
from ssm_jax.plots.panels import (
    AFTER,
    BEFORE,
    EVALUATION,
    Grid,
    empty_figure,
    note,
    plain_log_ticks,
)

SMOOTH_FROM = 200  # logged training steps; fewer are a readable line
COLOURS = ("#1f6fb4", "#2f8f5b", "#d1590a", "#8a4fb0")  # from the lowest band to the highest
RATE_COLOURS = ("#8a4fb0", "#2f8f5b", "#b8860b", "0.4")  # none that is a split's
RATE = "lr/"  # before the name of a group, in the rows of training
LABELS = {"accuracy": "accuracy (share correct)"}  # of metrics whose name does not say enough


def curves_figure(
    rows: Sequence[Mapping[str, Any]], title: str, metric: str = "accuracy"
) -> Figure:
    """The loss and a metric against step: training as logged, its running mean, and evaluations.

    A cross at the foot marks a step whose value is not finite. A third panel has the learning rate
    of each parameter group, where the run has logged them.
    """
    rates = sorted({name for row in rows for name in row if name.startswith(RATE)})
    figure = Figure(figsize=(13 if rates else 10, 3.8), layout="constrained")
    figure.suptitle(f"{title}: training")
    ratios = (5, 5, 3) if rates else (1, 1)
    panels = figure.subplots(1, len(ratios), width_ratios=ratios)
    kinds = sorted({row["kind"] for row in rows}, key=lambda kind: (kind != "train", kind))
    loss = "loss (cross-entropy, nats)" if metric == "accuracy" else "loss"
    labels = {"loss": loss, metric: LABELS.get(metric, metric)}
    for axes, name in zip(panels, labels, strict=False):
        shown = np.empty(0)
        for kind in kinds:
            points = [(r["step"], r[name]) for r in rows if r["kind"] == kind and name in r]
            if not points:
                continue
            step, value = np.array(points, np.float64).reshape(-1, 2).T
            good = np.isfinite(value)
            shown = np.append(shown, value[good])
            if kind != "train":
                axes.plot(step[good], value[good], "o-", color=EVALUATION, ms=4, lw=1.2, label=kind)
            elif good.sum() < SMOOTH_FROM:
                axes.plot(step[good], value[good], ".-", color=AFTER, ms=4, lw=1.5, label=kind)
            else:
                window = int(good.sum()) // 50
                mean = running_mean(value[good], window)
                axes.plot(step[good], value[good], color=AFTER, lw=0.6, alpha=0.3, label=kind)
                label = f"{kind}, mean of {window} points"
                axes.plot(step[good], mean, color=AFTER, lw=1.8, label=label)
            if not good.all():
                at_foot = np.full(step[~good].shape, 0.03)
                foot, label = axes.get_xaxis_transform(), f"{kind}: not finite"
                axes.plot(step[~good], at_foot, "x", color="red", transform=foot, label=label)
        # A first loss at 30 times the last would press the rest into the foot of the panel.
        if name != "accuracy" and shown.size and 0 < 10 * shown.min() < shown.max():
            axes.set_yscale("log")
            plain_log_ticks(axes.yaxis)
        axes.set_ylabel(labels[name])
    if rates:
        _rates_panel(panels[2], rows, rates)
    for axes, ratio in zip(panels, ratios, strict=True):
        axes.set_xlim(left=0)
        axes.set_xlabel("training step")
        axes.xaxis.set_major_locator(MaxNLocator(3 if ratio == 3 else 5, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(color="0.9")
        if axes.lines:
            axes.legend(frameon=False, loc="upper right" if ratio == 3 else "best")
        else:
            note(axes, "no metrics yet")
    return figure


def _rates_panel(axes: Axes, rows: Sequence[Mapping[str, Any]], rates: Sequence[str]) -> None:
    """A line for each course of a learning rate, with the groups that share it."""
    groups: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for name in rates:
        course = tuple((row["step"], row[name]) for row in rows if name in row)
        groups.setdefault(course, []).append(name.removeprefix(RATE))
    highest = sorted(groups, key=lambda course: -max(rate for _, rate in course))
    for course, colour in zip(highest, itertools.cycle(RATE_COLOURS), strict=False):
        step, rate = np.array(course, np.float64).T
        style = ".-" if step.size < SMOOTH_FROM else "-"
        axes.plot(step, rate, style, color=colour, ms=4, lw=1.5, label=", ".join(groups[course]))
    axes.set_ylabel("learning rate")
    axes.set_ylim(0, axes.get_ylim()[1] * (1.05 + 0.1 * len(groups)))  # room for the legend
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over `window` values, over fewer at the ends."""
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones(values.size), ones, "same")


ARROWS = 24  # poles of a layer whose way is an arrow: those that went farthest
DOTS_UP_TO = 4_000  # poles that are drawn; of more, evenly chosen ones


def variation_figure(rows: Sequence[Mapping[str, Any]], edges_E: np.ndarray, title: str) -> Figure:
    """Against the step: total variation and gradient share of each band, and the poles' drift.

    Args:
      rows: as `read_metrics` gives them; those of kind "diagnostics" are shown.
      edges_E: of the bands, in rad per sample.
      title: the run's name.
    """
    title = f"{title}: by frequency band (rad / sample)"
    rows = [row for row in rows if row["kind"] == "diagnostics"]
    if not rows:
        return empty_figure(title, "this run has no diagnostics")
    figure = Figure(figsize=(12, 4), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 3)
    bands = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges_E)]
    for k, (colour, band) in enumerate(zip(COLOURS, bands, strict=True), start=1):
        for axes, name in zip(panels, ("variation", "gradient_share"), strict=False):
            _line(axes, rows, f"{name}_{k}", "o-", color=colour, label=band)
    for name, style in (("median", "o-"), ("max", "o--")):
        for quantity, colour, unit in (
            ("drift_im", AFTER, "rad per sample"),
            ("drift_spacings", BEFORE, "distances to the next pole"),
        ):
            label = f"{name}, {unit}"
            _line(panels[2], rows, f"{quantity}_{name}", style, color=colour, label=label)
    labels = (
        "total variation, median of the channels",
        "share of the gradient by Im $a$",
        "|Im $a - $ Im $a_0$| of all poles",
    )
    for axes, label in zip(panels, labels, strict=True):
        axes.set_ylabel(label)
        axes.set_xlabel("training step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(color="0.9")
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    panels[1].set_ylim(0, 1)
    if not panels[1].lines:
        note(panels[1], "not taken")
    for axes in (panels[0], panels[2]):
        shown = [np.asarray(line.get_ydata()) for line in axes.lines]
        if any((values > 0).any() for values in shown):
            axes.set_yscale("log", nonpositive="mask")
    return figure


def poles_figure(before: Sequence[LayerView], after: Sequence[LayerView], title: str) -> Figure:
    """The poles of each layer per sample, with an arrow for each of those that went farthest.

    A pole stands at -Re a dt and |Im a| dt of its channel, both with the dt of the start: an arrow
    is what training did to a, without what it did to dt. The numbers are `bands.pole_drift`'s.
    """
    title = f"{title}: poles before training, and where they went"
    if not after:
        return empty_figure(title, NO_LAYERS)
    grid = Grid(len(after), title, heights=(3.0,))
    for (axes,), old, new in zip(grid.panels, before, after, strict=True):
        drift, dt_H1 = pole_drift(old, new), old.dt_H[:, None]
        with np.errstate(invalid="ignore", over="ignore"):  # a diverged layer
            start, end = (layer.A_HN * dt_H1 for layer in (old, new))
        good = np.isfinite(start) & np.isfinite(end) & (start.real < 0) & (end.real < 0)
        start, end, moved = start[good], end[good], drift.im[good]
        axes.set_title(new.name if new.PB_HN is None else f"{new.name}, diagonal part", fontsize=10)
        if not start.size:
            note(axes, NOT_FINITE)
            continue
        some = np.unique(np.linspace(0, start.size - 1, min(start.size, DOTS_UP_TO)).astype(int))
        for poles, colour in ((start, BEFORE), (end, AFTER)):
            axes.plot(-poles[some].real, np.abs(poles[some].imag), ".", color=colour, ms=2, mew=0)
        for i in np.argsort(-moved, kind="stable")[:ARROWS]:
            tip, tail = (-end[i].real, abs(end[i].imag)), (-start[i].real, abs(start[i].imag))
            way = {"arrowstyle": "->", "color": "black", "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xy=tip, xytext=tail, arrowprops=way)
        axes.set_xscale("log")
        apart = drift.in_spacings[np.isfinite(drift.in_spacings)]
        lines = [f"|$\\Delta$ Im $a$| dt: median {np.median(moved):.2g}, max {moved.max():.2g} rad"]
        if apart.size:
            lines += [f"in spacings: median {np.median(apart):.2g}, max {apart.max():.2g}"]
        axes.text(0.02, 0.98, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=7)
    for (axes,) in grid.panels:
        if axes.get_xscale() == "log":
            axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
            plain_log_ticks(axes.xaxis)
            axes.tick_params(axis="x", labelsize=7, rotation=45)
        axes.set_xlabel("$-$Re $a\\;dt$ (nepers / sample)")
    for i, (axes,) in enumerate(grid.panels):
        if i % grid.columns == 0:
            axes.set_ylabel("|Im $a$| $dt$ (rad / sample)")
    return grid.figure


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, style: str, **options) -> None:
    points = [(row["step"], row[name]) for row in rows if name in row]
    if points:
        step, value = np.array(points, np.float64).T
        axes.plot(step, np.where(np.isfinite(value), value, np.nan), style, ms=3, lw=1.3, **options)
