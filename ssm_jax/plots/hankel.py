"""How much state counts in each layer, before and after training, and over it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ssm_jax import plots
from ssm_jax.analysis.hankel import SHARES, hankel_values, states_holding, states_key
from ssm_jax.analysis.spectra import LayerView, quartiles
from ssm_jax.plots import AFTER, BEFORE, LayerPanels

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
