"""The layers of a model before and after training."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ssm_jax import plots
from ssm_jax.analysis import spectra
from ssm_jax.analysis.bands import pole_drift
from ssm_jax.analysis.spectra import NYQUIST, LayerView, mode_angles, quartiles
from ssm_jax.plots import AFTER, BEFORE, LayerPanels

Layers = Sequence[LayerView]

LINES_UP_TO = 300  # modes of one panel whose way is drawn; more hide each other
ARROWS = 24  # poles of a layer whose way is an arrow: those that went farthest
DOTS_UP_TO = 4_000  # poles that are drawn; of more, evenly chosen ones
NO_LAYERS = "no layer of this model has eigenvalues"
ANGLE_LIMIT = 1e4  # rad per sample: a diverged dt does not stretch a figure further
GAIN_LIMITS = (1e-8, 1e8)  # nor does a diverged gain
NOT_FINITE = "no finite values"


def response_figure(before: Layers, after: Layers, length: int, title: str) -> Figure:
    """|G(i omega)| of each layer: median and quartiles of channels and read-outs, with Nyquist."""
    title = f"{title}: frequency response of each layer, filter included"
    if not after:
        return plots.empty_figure(title, NO_LAYERS)
    grid = LayerPanels(len(after), title)
    low, high = angle_range([*before, *after], length)
    omega_F = np.geomspace(low, high, 400)
    for (axes,), old, new in zip(grid.panels, before, after, strict=True):
        for layer, colour in ((old, BEFORE), (new, AFTER)):
            gain_CHF = spectra.response_magnitude(layer, omega_F, 2 * length)
            bottom_F, median_F, top_F = quartiles(gain_CHF)
            axes.fill_between(omega_F, bottom_F, top_F, color=colour, alpha=0.25, lw=0)
            axes.plot(omega_F, median_F, color=colour, lw=1.5)
        if not np.isfinite(median_F).any():
            plots.note(axes, NOT_FINITE)
        axes.set(yscale="log", title=new.name)
        plots.mark_nyquist(axes, low, high)
    axes.set_ylim(*np.clip(axes.get_ylim(), *GAIN_LIMITS))
    grid.label(0, "$\\omega\\,dt$ (rad / sample)", "gain $|G(i\\omega)|$, median")
    grid.legend(Patch(color="0.8", label="band: middle half of the channels"))
    return grid.figure


def eigenvalues_figure(before: Layers, after: Layers, length: int, title: str) -> Figure:
    """Each layer's eigenvalues, and below them what angles per sample its channels make of them.

    Channels that share eigenvalues have a dt each: Nyquist is no line in the plane of a, but it is
    one for Im a dt.
    """
    title = f"{title}: eigenvalues $a$ of each layer"
    if not after:
        return plots.empty_figure(title, NO_LAYERS)
    grid = LayerPanels(len(after), title, heights=(2.6, 1.5))
    low, high = angle_range([*before, *after], length)
    edges = np.geomspace(low, high, 41)
    still = _still(*(layer.A_HN for layer in (*before, *after)))
    for (plane, angles), old, new in zip(grid.panels, before, after, strict=True):
        both = np.concatenate([old.A_HN, new.A_HN], axis=1)
        own = np.sort(np.unique(both, axis=0, return_index=True)[1])  # channels may share them
        way = np.stack([layer.A_HN[own].ravel() for layer in (old, new)])
        way = way[:, np.isfinite(way).all(axis=0)]
        _say_growing(plane, way)
        way.real[way.real == 0] = -still
        few = way.shape[1] <= LINES_UP_TO
        if few:
            plane.plot(-way.real, way.imag, color=AFTER, lw=0.7, alpha=0.6)
        start, end = way
        plane.plot(-end.real, end.imag, "o", color=AFTER, ms=3.5 if few else 1.5, mew=0)
        plane.plot(-start.real, start.imag, "o", color=BEFORE, ms=3.5 if few else 1, mfc="none")
        if not end.size:
            plots.note(plane, NOT_FINITE)
        plane.set(xscale="log", title=_name(new))
        bars = []
        for layer in (old, new):
            angle = mode_angles(layer).astype(np.float64)  # in float32 low may round to below it
            angle = np.clip(angle[np.isfinite(angle)], low, high)  # the rest in the outermost bars
            bars.append(100 * np.histogram(angle, edges)[0] / max(angle.size, 1))
        angles.stairs(bars[0], edges, color=BEFORE, alpha=0.5, fill=True)
        angles.stairs(bars[1], edges, color=AFTER, lw=1.5)
        shares = [f"{spectra.share_aliased(layer):.0%}" for layer in (old, new)]
        angles.set_title(f"beyond Nyquist: {shares[0]} before, {shares[1]} after", fontsize=9)
        plots.mark_nyquist(angles, low, high)
    # At least a decade: eigenvalues that hardly moved shall look it.
    slow, fast = plane.get_xlim()
    half = max(10.0, fast / slow) ** 0.5
    plane.set_xlim((slow * fast) ** 0.5 / half, (slow * fast) ** 0.5 * half)
    plots.log_ticks(plane.xaxis)
    grid.label(
        0,
        f"decay rate $-$Re $a$ (1 / unit of time){_EDGE[still > 0]}",
        "Im $a$ (rad / unit of time)",
    )
    grid.label(1, "angle of a mode (rad / sample; first bar: all below)", "modes (%)")
    grid.legend()
    return grid.figure


def beta_figure(before: Layers, after: Layers, length: int, title: str) -> Figure:
    """beta of every channel by layer, with median, quartiles and start value.

    The axis at the right says what gain such a beta gives at Nyquist.
    """
    title = f"{title}: exponent $\\beta$ of the filter $(1+|s|)^\\beta$"
    if not after:
        return plots.empty_figure(title, NO_LAYERS)
    figure = plots.titled(title, max(6.5, 1.1 * len(after) + 2.5), 4)
    axes = figure.subplots()
    jitter = np.random.default_rng(0)
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        start, end = (layer.beta_H[np.isfinite(layer.beta_H)] for layer in (old, new))
        axes.hlines(np.unique(start), i - 0.4, i + 0.4, color=BEFORE, ls="--", lw=1.5)
        x = i + jitter.uniform(-0.2, 0.2, end.size)
        axes.plot(x, end, "o", color=AFTER, ms=4, alpha=0.4, mew=0)
        low, median, high = quartiles(end[:, None])[:, 0]
        axes.vlines(i + 0.3, low, high, color="black", lw=1.5)
        axes.plot(i + 0.3, median, "o", color="black", ms=5)
    values = np.concatenate([layer.beta_H for layer in (*before, *after)])
    values = values[np.isfinite(values)]
    if values.size:
        centre, reach = (values.max() + values.min()) / 2, max(0.05, 0.6 * np.ptp(values))
        axes.set_ylim(centre - reach, centre + reach)
    else:
        plots.note(axes, NOT_FINITE)
    if not any(layer.beta_learned for layer in after):
        axes.set_title("fixed: $\\beta$ is not learned in this run", fontsize=10)
    axes.set_xticks(range(len(after)), [layer.name for layer in after])
    axes.set(xlim=(-0.6, len(after) - 0.4), ylabel="$\\beta$ of each channel")
    axes.grid(axis="y", color="0.9")
    one = replace(after[0], beta_H=np.ones(1))
    base = spectra.filter_gain(one, np.array([NYQUIST]), 2 * length).item()
    if values.size and np.abs(values).max() * np.log(base) < 300:  # else the gain overflows
        smallest = np.finfo(np.float64).tiny  # a new axis begins with the limits 0 and 1
        ways = (
            lambda beta: base**beta,
            lambda gain: np.log(np.maximum(gain, smallest)) / np.log(base),
        )
        gain = axes.secondary_yaxis("right", functions=ways)
        gain.set_ylabel(f"gain at Nyquist, {base:.3g}$^\\beta$")
    legend = [
        Line2D([], [], color=BEFORE, ls="--", lw=1.5, label="start value"),
        Line2D([], [], color=AFTER, marker="o", ls="", ms=4, label="channels after training"),
        Line2D([], [], color="black", marker="o", lw=1.5, ms=5, label="median, quartiles"),
    ]
    plots.legend_below(figure, legend)
    return figure


def poles_figure(before: Layers, after: Layers, title: str) -> Figure:
    """The poles of each layer per sample, with an arrow for each of those that went farthest.

    A pole stands at -Re a dt and |Im a| dt of its channel, both with the dt of the start: an arrow
    is what training did to a, without what it did to dt. The numbers are `bands.pole_drift`'s.
    """
    title = f"{title}: poles before training, and where they went"
    if not after:
        return plots.empty_figure(title, NO_LAYERS)
    grid = LayerPanels(len(after), title, heights=(3.0,))
    starts = (*before, *before)
    with np.errstate(invalid="ignore", over="ignore"):  # a diverged layer
        pairs = zip((*before, *after), starts, strict=True)
        still = _still(*(layer.A_HN * start.dt_H[:, None] for layer, start in pairs))
    for (axes,), old, new in zip(grid.panels, before, after, strict=True):
        drift, dt_H1 = pole_drift(old, new), old.dt_H[:, None]
        with np.errstate(invalid="ignore", over="ignore"):  # a diverged layer
            both = np.stack([layer.A_HN * dt_H1 for layer in (old, new)])
        _say_growing(axes, both)
        both.real[both.real == 0] = -still
        good = (np.isfinite(both) & (both.real < 0)).all(axis=0)
        places, moved = (-both.real + 1j * np.abs(both.imag))[:, good], drift["drift_im"][good]
        axes.set_title(_name(new), fontsize=10)
        axes.set_xscale("log")
        n = moved.size
        some = np.unique(np.linspace(0, n - 1, min(n, DOTS_UP_TO)).astype(int))
        sizes = (5, 2.5) if n <= LINES_UP_TO else (2.5, 1.5)
        for each, colour, ms in zip(places[:, some], (BEFORE, AFTER), sizes, strict=True):
            axes.plot(each.real, each.imag, "o", color=colour, ms=ms, mew=0, alpha=0.6)
        way = {"arrowstyle": "->", "color": "black", "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
        for start, end in places.T[np.argsort(-moved, kind="stable")[:ARROWS]]:
            axes.annotate("", (end.real, end.imag), (start.real, start.imag), arrowprops=way)
        shown = {
            "|$\\Delta$ Im $a$| dt": ("drift_im", " rad"),
            "in spacings": ("drift_spacings", ""),
        }
        lines = []
        for word, (name, unit) in shown.items():
            of = drift[name][np.isfinite(drift[name])]
            if of.size:
                lines.append(f"{word}: median {np.median(of):.2g}, max {of.max():.2g}{unit}")
        axes.text(0.02, 0.98, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=7)
        if not lines:
            plots.note(axes, NOT_FINITE)
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])  # room for the numbers
    plots.log_ticks(axes.xaxis)
    grid.label(
        0, f"$-$Re $a\\;dt$ (nepers / sample){_EDGE[still > 0]}", "|Im $a$| $dt$ (rad / sample)"
    )
    arrow = Line2D([], [], color="black", marker=">", lw=0.8, ms=4, label=f"{ARROWS} farthest")
    grid.legend(arrow, nyquist=False, marker="o", ms=4, ls="")
    return grid.figure


_EDGE = ("", "; leftmost: 0")


def _still(*poles: np.ndarray) -> float:
    """Where a decay of 0 stands on a logarithmic axis, left of the least other one; 0: no need."""
    decays = -np.concatenate([pole.real.ravel() for pole in poles])
    there = decays[np.isfinite(decays) & (decays > 0)]
    if not (decays == 0).any():
        return 0.0
    return float(there.min() / 3) if there.size else 1e-3


def _say_growing(axes: Axes, poles: np.ndarray) -> None:
    """How many poles (before and after, ..) an axis of decays has no place for."""
    if n := int((np.isfinite(poles) & (poles.real > 0)).any(axis=0).sum()):
        text = f"not drawn: {n} that grow{'s' * (n == 1)}, Re $a$ > 0"
        axes.text(0.98, 0.02, text, transform=axes.transAxes, ha="right", color="red", fontsize=7)


def _name(layer: LayerView) -> str:
    return layer.name if layer.PB_HN is None else f"{layer.name}, diagonal part"


def angle_range(layers: Layers, length: int) -> tuple[float, float]:
    """What angles to draw: one turn in twice the length, to past Nyquist and nearly all modes."""
    angles = np.concatenate([mode_angles(layer).ravel() for layer in layers])
    angles = angles[np.isfinite(angles)]
    # One channel whose dt ran away would move the rest to the left edge.
    widest = np.quantile(angles, 0.995) if angles.size else 0.0
    return np.pi / length, float(np.clip(1.3 * widest, 4 * np.pi, ANGLE_LIMIT))
