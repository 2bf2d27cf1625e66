"""The loss and a metric over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ssm_jax.analysis.figures.panels import AFTER, EVALUATION, note, plain_log_ticks

SMOOTH_FROM = 200  # logged training steps; fewer are a readable line
LABELS = {"accuracy": "accuracy (share correct)"}  # of metrics whose name does not say enough


def curves_figure(
    rows: Sequence[Mapping[str, Any]], title: str, metric: str = "accuracy"
) -> Figure:
    """The loss and a metric against step: training as logged, its running mean, and evaluations.

    A cross at the foot marks a step whose value is not finite.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    figure.suptitle(f"{title}: training")
    kinds = sorted({row["kind"] for row in rows}, key=lambda kind: (kind != "train", kind))
    loss = "loss (cross-entropy, nats)" if metric == "accuracy" else "loss"
    labels = {"loss": loss, metric: LABELS.get(metric, metric)}
    for axes, name in zip(figure.subplots(1, 2), labels, strict=True):
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
        axes.set_xlim(left=0)
        axes.set_xlabel("training step")
        axes.set_ylabel(labels[name])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(color="0.9")
        if axes.lines:
            axes.legend(frameon=False)
        else:
            note(axes, "no metrics yet")
    return figure


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over `window` values, over fewer at the ends."""
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones(values.size), ones, "same")
