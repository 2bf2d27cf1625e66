"""Figures of the studies of initialization from the autocorrelation."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssm_jax.plots import legend_below, titled

RULE_COLOURS = {
    "1 / L": "#8a4fb0", "1 / sqrt(L)": "#2f8f5b", "rule": "#1f6fb4", "log-uniform": "#d1590a",
}  # fmt: skip
RULE_NAMES = {"rule": "1 / sqrt(L $\\lambda_{max}$)", "log-uniform": "log-uniform, 0.001 to 0.1"}


def bound_figure(results: Mapping[str, Any]) -> Figure:
    """E|y_L|^2 against L by input (columns), Re A (rows) and rule, and the bounds, by `measure`."""
    rows = results["rows"]
    inputs = list(dict.fromkeys(row["input"] for row in rows))
    reals = list(dict.fromkeys(row["real"] for row in rows))
    title = "How large a new layer's last output is: dots measured, dashed the bound"
    figure = titled(title, 3.1 * len(inputs), 2.9 * len(reals) + 0.9)
    panels = figure.subplots(len(reals), len(inputs), sharex=True, sharey=True, squeeze=False)
    for i, real in enumerate(reals):
        for j, name in enumerate(inputs):
            axes = panels[i][j]
            for rule, colour in RULE_COLOURS.items():
                asked = {"input": name, "rule": rule, "real": real}
                found = [row for row in rows if asked.items() <= row.items()]
                length = [row["length"] for row in found]
                measured = [row["measured"] for row in found]
                axes.plot(length, [row["bound"] for row in found], color=colour, ls="--", lw=1)
                width = 1.3 if rule in RULE_NAMES else 3.2  # the rule lies on its two limits
                axes.plot(length, measured, "o-", color=colour, ms=3.5, lw=width)
            axes.axhline(1, color="0.6", lw=0.8, zorder=0)
            axes.set(xscale="log", yscale="log")
            axes.set_title(f"{name}, Re A = {real:g}", fontsize=9)
            axes.grid(color="0.93")
            if i == len(reals) - 1:
                axes.set_xlabel("length L (steps)")
            if j == 0:
                axes.set_ylabel("$E|y_L|^2$")
    handles = [
        Line2D([], [], color=colour, marker="o", ms=3.5, label=f"dt = {RULE_NAMES.get(rule, rule)}")
        for rule, colour in RULE_COLOURS.items()
    ]
    legend_below(figure, handles)
    return figure
