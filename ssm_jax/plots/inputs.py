"""The inputs of a task: their spectrum, autocorrelation, and what a new layer makes of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssm_jax import plots
from ssm_jax.analysis.inputs import InputSpectrum
from ssm_jax.analysis.start import mode_density
from ssm_jax.plots import AFTER, BEFORE, EVALUATION
from ssm_jax.plots.layers import ANGLE_LIMIT


def spectrum_figure(
    spectrum: InputSpectrum,
    found: Mapping[str, Any],
    y_N: np.ndarray,
    dt: tuple[float, float],
    alphas: Mapping[float, str],
    title: str,
) -> Figure:
    """Above the power with its fit and the angles below which 50, 90 and 99 % of the energy lie.

    Below, for each alpha, how the modes of all channels of a new layer spread over the angles. Then
    the autocorrelation with its interval, and the timescales that it asks for beside the layer's.
    `found` is of `start.recommend`, y_N and dt are as there; at most three alphas, with a word on
    each.
    """
    title = title.replace("$", r"\$")  # a name is no formula
    what = "spectrum of the input, modes of a new layer, autocorrelation and timescale"
    figure = plots.titled(f"{title}: {what}", 7.5, 10)
    power, modes, lags, scales = figure.subplots(4, 1, height_ratios=(1.5, 1, 1.1, 0.45))
    omega_F, power_F = spectrum.omega_F[1:], spectrum.power_F[1:]
    low, highest = omega_F[0] / 2, max(alphas) * float(np.abs(y_N).max()) * dt[1]
    high = float(np.clip(1.3 * highest, 4 * np.pi, ANGLE_LIMIT))
    power.plot(omega_F, power_F, color=AFTER, lw=1)
    fit, angles = found["fit"], found["energy_below"]
    at, gamma = np.array([fit["low"], fit["high"]]), fit["gamma"]
    label = f"$\\omega^{{-\\gamma}}$, $\\gamma$ = {gamma:.2f} ± {fit['half_width']:.2f}"
    power.plot(at, fit["scale"] * at**-gamma, color="black", ls="--", lw=1.5, label=label)
    below = ", ".join(f"{100 * float(share):.0f} % below {w:.3g}" for share, w in angles.items())
    power.set_title(f"energy (grey lines): {below} rad / sample", fontsize=9)
    power.set(yscale="log", ylabel="power per rad / sample")
    power.set_ylim(power_F[power_F > 0].min() / 2, power_F.max() * 3)
    plots.log_ticks(power.yaxis)
    edges = np.geomspace(low, high, 61)
    for (alpha, word), colour in zip(alphas.items(), (BEFORE, AFTER, EVALUATION), strict=False):
        share_E = 100 * mode_density(y_N, alpha, dt, edges)
        beyond = 100 * abs(mode_density(y_N, alpha, dt, np.array([np.pi, 1e30])).item())
        label = f"$\\alpha$ = {alpha:.3g}{f' ({word})' if word else ''}"
        label += f": {beyond:.0f} % beyond Nyquist"
        modes.stairs(share_E, edges, color=colour, lw=1.5, label=label)
    modes.set(ylim=(0, 1.5 * modes.get_ylim()[1]), ylabel="modes (%) per bar")
    for axes, right, corner in ((power, 1.1 * np.pi, "lower left"), (modes, high, "upper left")):
        foot = axes.get_xaxis_transform()
        axes.vlines(list(angles.values()), 0, 1, transform=foot, color="0.6", lw=1, zorder=0)
        axes.set_xlabel("angle $\\omega$ (rad / sample)")
        axes.legend(frameon=False, loc=corner)
        plots.mark_nyquist(axes, low, right)
    _autocorrelation(lags, found["autocorrelation"])
    _timescales(scales, found["autocorrelation"])
    return figure


def correlation_figure(facts: Mapping[str, Any], title: str) -> Figure:
    """The autocorrelation and the timescales alone, of inputs that have no spectrum."""
    title = title.replace("$", r"\$")
    figure = plots.titled(f"{title}: autocorrelation and timescale", 7.5, 4.6)
    lags, scales = figure.subplots(2, 1, height_ratios=(1.1, 0.45))
    _autocorrelation(lags, facts)
    _timescales(scales, facts)
    return figure


def _autocorrelation(axes: Axes, facts: Mapping[str, Any]) -> None:
    """r(k) / r(0) from the lag 1 on, with its interval and the share of the mean."""
    found, power = facts["lags"], facts["power"]
    axes.set(xlabel="lag $k$ (samples)", ylabel="$r(k)\\,/\\,r(0)$")
    if not power or len(found["lag"]) < 2:
        plots.note(axes, "the inputs are zero, or of one sample")
        return
    lag, r = found["lag"][1:], np.array(found["r"][1:]) / power
    axes.plot(lag, r, color=AFTER, lw=1.5, marker="o", ms=2.5, label="mean over pairs, channels")
    if found["low"] is not None:
        ends = found["low"][1:], found["high"][1:]
        axes.fill_between(lag, *ends, color=AFTER, alpha=0.25, lw=0, label="95 % by resampling")
    if (share := facts["mean"] ** 2 / power) > 0.005:
        label = f"of the mean alone: {share:.2f}"
        axes.axhline(share, color=EVALUATION, lw=1, ls=":", label=label)
    axes.axhline(0, color="0.6", lw=1, zorder=0)
    axes.set(xscale="log", xlim=(0.9, lag[-1] * 1.1))
    axes.legend(frameon=False, fontsize=9)


def _timescales(axes: Axes, facts: Mapping[str, Any]) -> None:
    """dt = 1 / sqrt(L lambda_max) with its interval, its two limits and the range of the layer."""
    axes.set(xscale="log", ylim=(0, 3), yticks=(), xlabel="$dt$ (units of time per sample)")
    if facts["dt_layer"] is not None:
        low, high, middle = facts["dt_layer"]
        axes.plot(
            [low, high], [1, 1], color=BEFORE, lw=6, solid_capstyle="butt", label="the layer's"
        )
        axes.plot(middle, 1, "|", color="black", ms=10, label="its root mean square")
    if facts["dt"] is not None:
        label = "$1/\\sqrt{L\\,\\lambda_{max}}$"
        axes.plot(facts["dt"], 2, "o", color=AFTER, ms=6, label=label)
        if facts["dt_interval"] is not None:
            axes.plot(facts["dt_interval"], [2, 2], color=AFTER, lw=2)
        for value, word in zip(
            facts["dt_limits"], ("constant, $1/L$", "white, $1/\\sqrt{L}$"), strict=True
        ):
            axes.axvline(value, color=EVALUATION, ls=":", lw=1.2)
            axes.text(value, 2.95, f" {word}", fontsize=8, va="top", color=EVALUATION)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.75))
