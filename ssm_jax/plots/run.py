"""A run: loss, metric and learning rates over its steps, its diagnostics by band, its layers."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ssm_jax import plots
from ssm_jax.analysis.hankel import SHARES, hankel_values, states_holding, states_key
from ssm_jax.analysis.spectra import LayerView, quartiles
from ssm_jax.plots import AFTER, BEFORE, EVALUATION, LayerPanels
from ssm_jax.plots.layers import beta_figure, eigenvalues_figure, poles_figure, response_figure

SMOOTH_FROM = 200  # logged training steps; fewer are a readable line
# Of metrics whose name does not say enough
LABELS = {"accuracy": "accuracy (share correct)", "psnr": "psnr (dB)"}
RATE = "lr/"  # before the name of a group, in the rows of training
RATE_COLOURS = ("#8a4fb0", "#2f8f5b", "#b8860b", "0.4")  # none that is a split's
COLOURS = ("#1f6fb4", "#2f8f5b", "#d1590a", "#8a4fb0")  # from the lowest band to the highest

Rows = Sequence[Mapping[str, Any]]


def draw_run(
    folder: Path,
    *,
    rows: Rows,
    before: Sequence[LayerView],
    after: Sequence[LayerView],
    length: int,
    title: str,
    edges_E: np.ndarray,
    metric: str = "accuracy",
    step: int | None = None,
    ending: str = "png",
) -> list[Path]:
    """Draw curves, response, eigenvalues, Hankel singular values, and what else has changed.

    Returns the paths of the files; what is not drawn is removed if it is there from before.

    Args:
      rows, edges_E: as in `variation_figure`.
      before, after: the same layers at the start and after training.
      length: L of the sequences; title: the run's name.
      metric: what the curves show next to the loss; step: that of `after`, which they mark.
      ending: png, pdf or svg.
    """
    old, new = ([layer.name for layer in layers] for layers in (before, after))
    if old != new:
        fault = f"before and after must be the same layers, got {old} and {new}."
        raise ValueError(f"draw_run: {fault}")
    title = title.replace("$", r"\$")  # a name is no formula
    layers = (before, after, length, title)
    learned = any(layer.beta_learned for layer in after)
    measured = any(row["kind"] == "diagnostics" for row in rows)
    pairs = zip(before, after, strict=True)
    moved = any(not np.array_equal(one.A_HN, other.A_HN) for one, other in pairs)
    figures: list[tuple[str, bool, tuple[Any, ...]]] = [
        ("curves", True, (curves_figure, rows, title, metric, step)),
        ("response", bool(after), (response_figure, *layers)),
        ("eigenvalues", bool(after), (eigenvalues_figure, *layers)),
        ("hankel", bool(after), (hankel_figure, before, after, title, rows)),
        ("beta", learned, (beta_figure, *layers)),
        ("variation", measured, (variation_figure, rows, edges_E, title)),
        ("poles", moved, (poles_figure, before, after, title)),
    ]
    paths = []
    for name, wanted, figure in figures:
        path = folder / f"{name}.{ending}"
        if wanted:
            plots.save(path, *figure)
            paths.append(path)
        else:
            path.unlink(missing_ok=True)
    return paths


def curves_figure(
    rows: Rows, title: str, metric: str = "accuracy", marked: int | None = None
) -> Figure:
    """The loss and a metric against step: training as logged, its running mean, and evaluations.

    A cross at the foot marks a step whose value is not finite, a line the tested checkpoint.
    A third panel has the learning rates, where the run has logged them: a line for each course,
    with the parameter groups that share it.
    """
    rates: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for name in sorted({name for row in rows for name in row if name.startswith(RATE)}):
        course = tuple((row["step"], row[name]) for row in rows if name in row)
        rates.setdefault(course, []).append(name.removeprefix(RATE))
    figure = plots.titled(f"{title}: training", 13 if rates else 10, 3.8)
    ratios = (5, 5, 3) if rates else (1, 1)
    panels = figure.subplots(1, len(ratios), width_ratios=ratios)
    kinds = sorted({row["kind"] for row in rows}, key=lambda kind: (kind != "train", kind))
    loss = "loss (cross-entropy, nats)" if metric == "accuracy" else "loss"
    for axes, name in zip(panels, ("loss", metric), strict=False):
        shown = np.empty(0)
        for kind in kinds:
            step, value = points_of([row for row in rows if row["kind"] == kind], name)
            if not step.size:
                continue
            good = np.isfinite(value)
            at, value, n = step[good], value[good], int(good.sum())
            shown = np.append(shown, value)
            if kind != "train":
                axes.plot(at, value, "o-", color=EVALUATION, ms=4, lw=1.2, label=kind)
            elif n < SMOOTH_FROM:
                size, label = (8, f"{kind}: one logged step") if n == 1 else (4, kind)
                axes.plot(at, value, ".-", color=AFTER, ms=size, lw=1.5, label=label)
            else:
                axes.plot(at, value, color=AFTER, lw=0.6, alpha=0.3, label=kind)
                mean, label = running_mean(value, n // 50), f"{kind}, mean of {n // 50} points"
                axes.plot(at, mean, color=AFTER, lw=1.8, label=label)
            if n < good.size:
                foot, label = axes.get_xaxis_transform(), f"{kind}: not finite"
                low = np.full(good.size - n, 0.03)
                axes.plot(step[~good], low, "x", color="red", transform=foot, label=label)
        if axes.lines and marked is not None:
            label = f"checkpoint of step {marked:,}"
            axes.axvline(marked, color=EVALUATION, ls=":", lw=1.2, label=label)
        # A first loss at 30 times the last would press the rest into the foot of the panel.
        if name != "accuracy" and shown.size and 0 < 10 * shown.min() < shown.max():
            axes.set_yscale("log")
            plots.log_ticks(axes.yaxis)
        axes.set_ylabel(loss if name == "loss" else LABELS.get(name, name))
    if rates:
        axes = panels[2]
        highest = sorted(rates, key=lambda course: -max(rate for _, rate in course))
        for course, colour in zip(highest, itertools.cycle(RATE_COLOURS), strict=False):
            step, rate = np.array(course, np.float64).T
            style, label = ".-" if step.size < SMOOTH_FROM else "-", ", ".join(rates[course])
            axes.plot(step, rate, style, color=colour, ms=4, lw=1.5, label=label)
        top = axes.get_ylim()[1] * (1.05 + 0.1 * len(rates))  # room for the legend
        axes.set(ylabel="learning rate", ylim=(0, top))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    for axes, ratio in zip(panels, ratios, strict=True):
        plots.step_axis(axes, 3 if ratio == 3 else 5)
        axes.set_xlim(left=0)
        if axes.lines:
            axes.legend(frameon=False, loc="upper right" if ratio == 3 else "best")
        else:
            plots.note(axes, "no metrics yet")
    return figure


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over `window` values, over fewer at the ends."""
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones(values.size), ones, "same")


def variation_figure(rows: Rows, edges_E: np.ndarray, title: str) -> Figure:
    """Total variation and gradient share of each band, and the poles' drift, against the step.

    Panels of what the run does not have, or of poles that do not move, are left out. Of the rows,
    as `read_metrics` gives them, those of kind "diagnostics" are shown; edges_E in rad per sample.
    """
    title = f"{title}: by frequency band (rad / sample)"
    rows = [row for row in rows if row["kind"] == "diagnostics"]
    if not rows:
        return plots.empty_figure(title, "this run has no diagnostics")
    pairs = zip(COLOURS, itertools.pairwise(edges_E), strict=True)
    bands = [(colour, "-", f"{low:.3g} to {high:.3g}") for colour, (low, high) in pairs]
    every = {
        label: {f"{quantity}_{k}": band for k, band in enumerate(bands, start=1)}
        for label, quantity in (
            ("total variation, median of channels", "variation"),
            ("share of the gradient by Im $a$", "gradient_share"),
        )
    }
    every["|Im $a - $ Im $a_0$| of all poles"] = {
        "drift_im_median": (AFTER, "-", "median, rad / sample"),
        "drift_spacings_median": (BEFORE, "-", "median, spacings of poles"),
        "drift_im_max": (AFTER, "--", "max, rad / sample"),
        "drift_spacings_max": (BEFORE, "--", "max, spacings of poles"),
    }
    panels = [
        (label, lines)
        for label, lines in every.items()
        if any(np.nan_to_num(points_of(rows, name)[1]).any() for name in lines)
    ] or [*every.items()][:1]
    figure = plots.titled(title, max(6.5, 4 * len(panels)), 4.4)
    (row,) = figure.subplots(1, len(panels), squeeze=False)
    for axes, (label, lines) in zip(row, panels, strict=True):
        for name, (colour, ls, line) in lines.items():
            step, value = points_of(rows, name)
            value = np.where(np.isfinite(value), value, np.nan)
            axes.plot(step, value, marker="o", ms=3, lw=1.3, color=colour, ls=ls, label=line)
        plots.step_axis(axes)
        axes.set_ylabel(label)
        if label.startswith("share"):
            axes.set_ylim(0, 1)
        elif any((np.asarray(line.get_ydata()) > 0).any() for line in axes.lines):
            axes.set_yscale("log", nonpositive="mask")
            plots.log_ticks(axes.yaxis)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
        axes.legend(frameon=False, fontsize=8, ncols=2, **below)
    return figure


def points_of(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows that have an entry."""
    points = [(row["step"], row[name]) for row in rows if name in row]
    step, value = np.array(points, np.float64).reshape(-1, 2).T
    return step, value


STYLES = dict(zip(SHARES, ("-", "--"), strict=True))
FLOOR = 1e-8  # of the largest value; below it some layers' values are rounding


def hankel_figure(
    before: Sequence[LayerView],
    after: Sequence[LayerView],
    title: str,
    rows: Sequence[Mapping[str, Any]] = (),
) -> Figure:
    """Hankel singular values of each layer over the largest, and how many states hold their sum.

    Median and quartiles of `hankel.CHANNELS` channels. Below, where rows of kind "diagnostics" have
    them, the medians of `states_holding` over training.
    """
    title = f"{title}: Hankel singular values of each layer, without its filter"
    measured = [
        (new, (first, last))
        for old, new in zip(before, after, strict=True)
        if (first := hankel_values(old)) is not None and (last := hankel_values(new)) is not None
    ]
    if not measured:
        return plots.empty_figure(title, "no layer of this model has Hankel singular values")
    rows = [row for row in rows if row["kind"] == "diagnostics"]
    keys = [states_key(share, new.name) for share in SHARES for new, _ in measured]
    logged = any(key in row for row in rows for key in keys)
    grid = LayerPanels(len(measured), title, heights=(2.6, 1.5) if logged else (2.6,))
    for panels, (new, both) in zip(grid.panels, measured, strict=True):
        axes = panels[0]
        axes.set(yscale="log", ylim=(FLOOR, 2), title=new.name)
        for values_RN, colour in zip(both, (BEFORE, AFTER), strict=True):
            good = np.isfinite(values_RN[:, 0]) & (values_RN[:, 0] > 0)
            if not good.any():
                continue
            number = np.arange(1, values_RN.shape[1] + 1)
            shares_RN = np.maximum(values_RN[good] / values_RN[good, :1], FLOOR)
            low, median, high = quartiles(shares_RN)
            axes.fill_between(number, low, high, color=colour, alpha=0.25, lw=0)
            axes.plot(number, median, color=colour, lw=1.5)
            for share, ls in STYLES.items():
                states = np.median(states_holding(values_RN[good], share))
                axes.axvline(states, color=colour, ls=ls, lw=0.8)
        if not axes.lines:
            plots.note(axes, "no values: poles of radius 1 or more")
        for share, ls in STYLES.items() if logged else ():
            key = states_key(share, new.name)
            points = [(row["step"], row[key]) for row in rows if key in row]
            panels[1].plot(*np.reshape(points, (-1, 2)).T, "o", ls=ls, color=AFTER, ms=3, lw=1.3)
        if logged:
            plots.step_axis(panels[1], 3)
    grid.label(0, "number of the real state", "over the largest, median")
    if logged:
        grid.label(1, "training step", "states")
        most = max(stack[1].dataLim.y1 for stack in grid.panels)
        panels[1].set_ylim(0, 1.1 * most)  # of all of them
    marks = [
        Line2D([], [], color="0.15", ls=ls, lw=0.8, label=f"holds {100 * share:g} % of the sum")
        for share, ls in STYLES.items()
    ]
    band = Patch(color="0.8", label="middle half of the channels")
    grid.legend(*marks, band, nyquist=False)
    return grid.figure
