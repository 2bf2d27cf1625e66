"""Figures of the studies of initialization from the autocorrelation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssm_jax.plots import legend_below, log_ticks, titled

RULE_COLOURS = {
    "1 / L": "#8a4fb0", "1 / sqrt(L)": "#2f8f5b", "rule": "#1f6fb4", "log-uniform": "#d1590a",
}  # fmt: skip
RULE_NAMES = {"rule": "1 / sqrt(L $\\lambda_{max}$)", "log-uniform": "log-uniform, 0.001 to 0.1"}
CURVES = ("#1f6fb4", "#d1590a", "#2f8f5b", "#8a4fb0")
REAL_COLOURS = {"-0.5": "#d1590a", "-0.05": "#2f8f5b", "0": "#1f6fb4", "0 frozen": "#8a4fb0"}
TIMESCALES = {"1/L": "1 / L", "rule": "1 / sqrt(L $\\lambda_{max}$)", "S4": "log-uniform"}


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


def memory_figure(results: Mapping[str, Any]) -> Figure:
    """What the last output owes to each lag, by timescale and Re A, before and after training."""
    rows = results["runs"]
    names = list(dict.fromkeys(row["timescale"] for row in rows))
    title = "How far back the last output reaches: dashed before training, solid after"
    figure = titled(title, 3.6 * len(names), 4.4)
    panels = figure.subplots(1, len(names), sharey=True)
    width = results["average"]
    for axes, name in zip(panels, names, strict=True):
        for row in rows:
            if row["timescale"] != name:
                continue
            colour = REAL_COLOURS[f"{row['real_part']:g}" + ("" if row["trained"] else " frozen")]
            lag = width * (np.arange(len(row["curve_before"])) + 0.5)
            if row["trained"]:  # at the start the frozen one is the same
                axes.plot(lag, row["curve_before"], color=colour, ls="--", lw=1)
            axes.plot(lag, row["curve_after"], color=colour, lw=1.4)
        axes.axvline(results["delay"], color="0.75", lw=0.8, zorder=0)
        low, high = next(row["dt"] for row in rows if row["timescale"] == name)
        step = f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
        axes.set(xlabel="lag (steps)", yscale="log")
        axes.set_title(f"dt = {TIMESCALES[name]}: {step}", fontsize=9)
        axes.grid(color="0.93")
    panels[0].set_ylim(bottom=1e-6)
    panels[0].set_ylabel("$|\\partial c_{h,L} / \\partial x_{L-lag}|$, mean")
    handles = [
        Line2D([], [], color=colour, label=f"Re A = {name}")
        for name, colour in REAL_COLOURS.items()
    ]
    legend_below(figure, [*handles, Line2D([], [], color="0.75", lw=0.8, label="the delay")])
    return figure


def conditioning_figure(results: Mapping[str, Any]) -> Figure:
    """Condition number and losses by spacing; condition number and total variation by alpha."""
    title = "What the imaginary part does: to the conditioning, and to the frequencies in reach"
    figure = titled(title, 11, 8)
    (by_spacing, losses), (by_alpha, variation) = figure.subplots(2, 2)
    rows = results["spacings"]
    spacing = [row["spacing"] for row in rows]
    for kind, colour in zip(("real", "pairs", "complex"), CURVES, strict=False):
        values = [row[kind] or np.nan for row in rows]
        by_spacing.plot(
            spacing, values, "o-", color=colour, ms=3.5, lw=1.3, label=f"{kind} features"
        )
    finest = np.geomspace(spacing[0], spacing[-1], 200)
    by_spacing.plot(finest, np.exp(2 * np.pi / finest), color="0.4", ls=":", label="limit, complex")
    by_spacing.axvline(results["gershgorin"], color="0.8", lw=0.8, zorder=0)
    by_spacing.axvline(np.pi, color="0.8", lw=0.8, ls="--", zorder=0)
    by_spacing.set(ylim=(0.8, 1e14), ylabel="condition number")
    by_spacing.set_title("lines: Gershgorin's spacing 1.64, and pi of S4D-Lin", fontsize=9)
    for kind, style in (("close", "-"), ("on", ":")):
        found = [row for row in results["trade_off"] if row["kind"] == kind]
        x = [row["spacing"] for row in found]
        for i, steps in enumerate(results["steps"]):
            label = f"{steps:,} steps" if kind == "close" else None
            y = [max(row["losses"][i], 1e-7) for row in found]
            losses.plot(x, y, style, color=CURVES[i], lw=1.3, label=label)
        if kind == "close":
            best = [max(row["least"], 1e-7) for row in found]
            losses.plot(x, best, color="0.2", lw=1, ls="--", label="best read-out")
    losses.set(ylim=(5e-8, 2), ylabel="loss, relative")
    losses.set_title("read-out by gradient descent; dotted: target on multiples of pi", fontsize=9)
    for axes in (by_spacing, losses):
        axes.set(xscale="log", yscale="log", xlabel="spacing of Im A (rad / unit of time)")
        log_ticks(axes.xaxis)
    rows = results["alpha"]
    alpha = [row["alpha"] for row in rows]
    plain = [row["continuous"] or np.nan for row in rows]
    by_alpha.plot(alpha, plain, color="0.2", lw=2, label="continuous time")
    for i, dt in enumerate(results["dts"]):
        values = [row["sampled"][i] or np.nan for row in rows]
        by_alpha.plot(
            alpha, values, "o-", color=CURVES[i], ms=2.5, lw=1, label=f"steps dt = {dt:g}"
        )
    by_alpha.set(ylim=(1, 1e10), ylabel="condition number, real features")
    by_alpha.set_title("S4D-Lin under alpha; gaps: singular", fontsize=9)
    edges = results["band_edges"]
    for k, colour in zip(range(len(edges) - 1), CURVES, strict=False):
        label = f"{edges[k]:.2g} to {edges[k + 1]:.2g} rad / sample"
        variation.plot(alpha, [row["variation"][k] for row in rows], color=colour, label=label)
    layer = results["layer"]
    nyquist = np.pi / (layer["dt"] * np.pi * (results["modes"] - 1))
    variation.axvline(nyquist, color="0.15", ls="--", lw=1)
    variation.set(ylabel="total variation, median channel")
    variation.set_title(
        f"dt = {layer['dt']:g}; right of the line the fastest mode aliases", fontsize=9
    )
    for axes in (by_alpha, variation):
        axes.set(xscale="log", yscale="log", xlabel="alpha")
    for axes in (by_spacing, losses, by_alpha, variation):
        axes.grid(color="0.93")
        axes.legend(frameon=False, fontsize=8)
    return figure
