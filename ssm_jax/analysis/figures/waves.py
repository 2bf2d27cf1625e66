"""The figure of wave regression: which waves a model learns to measure, and when."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ssm_jax.analysis.figures.panels import BEFORE

COLOURS = ("#1f6fb4", "#2f8f5b", "#d1590a", "#8a4fb0")  # from the slowest to the fastest
GUESS = 0.25  # error of the constant 1/2 for amplitudes uniform in [0, 1)


def waves_figure(
    steps_E: np.ndarray, errors: Mapping[str, Mapping[str, np.ndarray]], title: str
) -> Figure:
    """Mean absolute error of each wave's amplitude against the training step.

    Args:
      steps_E: steps of the evaluations.
      errors: by setting, in the order of the panels, and by wave: (seeds, E).
      title: of the figure.
    """
    figure = Figure(figsize=(3.1 * len(errors), 3.9), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(errors), sharey=True, squeeze=False)[0]
    for axes, (setting, by_wave) in zip(panels, errors.items(), strict=True):
        for colour, (wave, error_SE) in zip(COLOURS, by_wave.items(), strict=True):
            axes.plot(steps_E, error_SE.T, color=colour, lw=0.5, alpha=0.5)
            axes.plot(steps_E, error_SE.mean(axis=0), color=colour, lw=2, label=f"{wave} rad/s")
        axes.axhline(GUESS, color=BEFORE, ls="--", lw=1, label="guess 1/2")
        axes.set_title(setting, fontsize=10)
        axes.set_yscale("log")
        axes.set_xlabel("training step")
        axes.grid(color="0.92")
    panels[0].set_ylabel("mean |error| of the amplitude")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure
