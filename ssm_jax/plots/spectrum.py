"""The spectrum of the input, and where the modes of a new layer stand in it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ssm_jax.analysis.choose import mode_density
from ssm_jax.analysis.input_spectrum import SHARES, InputSpectrum, PowerLaw
from ssm_jax.plots.panels import AFTER, BEFORE, EVALUATION, log_ticks, mark_nyquist

COLOURS = (BEFORE, AFTER, EVALUATION)


def spectrum_figure(
    spectrum: InputSpectrum,
    fit: PowerLaw,
    y_N: np.ndarray,
    dt: tuple[float, float],
    alphas: Mapping[float, str],
    title: str,
) -> Figure:
    """Above the power with its fit and the angles below which 50, 90 and 99 % of the energy lie.

    Below, for each alpha, how the modes of all channels of a new layer spread over the angles.

    Args:
      spectrum, fit: of the input.
      y_N: |Im a| of a channel's modes at alpha = 1.
      dt: least and largest step.
      alphas: at most three, with a word on each.
      title: of the data.
    """
    title = title.replace("$", r"\$")  # a name is no formula
    figure = Figure(figsize=(7.5, 6.6), layout="constrained")
    figure.suptitle(f"{title}: spectrum of the input, and modes of a new layer")
    power, modes = figure.subplots(2, 1, height_ratios=(1.5, 1))
    omega_F, power_F = spectrum.omega_F[1:], spectrum.power_F[1:]
    low, highest = omega_F[0] / 2, max(alphas) * float(np.abs(y_N).max()) * dt[1]
    high = float(np.clip(1.3 * highest, 4 * np.pi, 1e4))
    power.plot(omega_F, power_F, color=AFTER, lw=1)
    at = np.array([fit.low, fit.high])
    label = f"$\\omega^{{-\\gamma}}$, $\\gamma$ = {fit.gamma:.2f} ± {fit.half_width:.2f}"
    power.plot(at, fit.scale * at**-fit.gamma, color="black", ls="--", lw=1.5, label=label)
    angles = [spectrum.angle_below_which(share) for share in SHARES]
    pairs = zip(SHARES, angles, strict=True)
    below = ", ".join(f"{100 * share:.0f} % below {angle:.3g}" for share, angle in pairs)
    power.set_title(f"energy (grey lines): {below} rad / sample", fontsize=9)
    power.set_yscale("log")
    power.set_ylim(power_F[power_F > 0].min() / 2, power_F.max() * 3)
    log_ticks(power)
    power.set_ylabel("power per rad / sample")
    edges = np.geomspace(low, high, 61)
    for (alpha, word), colour in zip(alphas.items(), COLOURS, strict=False):
        share_E = 100 * mode_density(y_N, alpha, *dt, edges)
        beyond = 100 * mode_density(y_N, alpha, *dt, np.array([np.pi, 1e30])).item()
        name = f"$\\alpha$ = {alpha:.3g}{f' ({word})' if word else ''}"
        modes.stairs(
            share_E, edges, color=colour, lw=1.5, label=f"{name}: {beyond:.0f} % beyond Nyquist"
        )
    modes.set_ylim(0, 1.5 * modes.get_ylim()[1])
    modes.set_ylabel("modes (%) per bar")
    for axes, right, corner in ((power, 1.1 * np.pi, "lower left"), (modes, high, "upper left")):
        axes.vlines(angles, 0, 1, transform=axes.get_xaxis_transform(), color="0.6", lw=1, zorder=0)
        axes.set_xlabel("angle $\\omega$ (rad / sample)")
        axes.legend(frameon=False, loc=corner)
        mark_nyquist(axes, low, right)
    return figure
