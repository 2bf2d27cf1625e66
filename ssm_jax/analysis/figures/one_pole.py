"""The figure of one pole and a distant target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssm_jax.analysis.figures.panels import BEFORE, plain_log_ticks

COLOURS = ("#8a4fb0", "#1f6fb4", "0.2", "#2f8f5b", "#d1590a")


def one_pole_figure(results: Mapping[str, Any]) -> Figure:
    """How far a pole moves in a number of steps, and how long it takes to arrive.

    Args:
      results: of scripts/one_pole.py: "bands" and "arrival".
    """
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    figure.suptitle("A pole feels its neighbourhood: what a target at a distance does to it")
    left, right = figure.subplots(1, 2)
    for row, colour in zip(results["bands"], COLOURS, strict=True):
        distance = np.array(row["distance"])
        label = f"beta = {row['beta']:g}: slope {row['slope']:.2f} (law {row['law']:.2f})"
        left.plot(distance, np.abs(row["moved"]), "o", color=colour, ms=4, label=label)
        left.plot(distance, np.abs(row["moved_by_formula"]), color=colour, lw=1)
    left.set_xlabel("distance $|s - y|$ of the band that pulls (rad / unit of time)")
    left.set_ylabel(f"way of the pole in {results['steps']} steps")
    left.set_title("points: trained; lines: formula of T1 and T2", fontsize=9)
    arrival = results["arrival"]
    distance = np.array(arrival["distance"])
    right.plot(distance, arrival["steps"], "o", color="#1f6fb4", ms=5, label="trained")
    right.plot(distance, arrival["steps_by_formula"], color="#1f6fb4", lw=1, label="formula")
    fourth = arrival["steps"][-1] * (distance / distance[-1]) ** 4
    right.plot(distance, fourth, color=BEFORE, ls="--", lw=1, label="distance$^4$")
    right.set_xlabel("distance of the target pole (rad / unit of time)")
    right.set_ylabel("steps until half of the way is done")
    right.set_title("the whole spectrum of a pole as target, beta = 0", fontsize=9)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(color="0.92")
        axes.legend(frameon=False, fontsize=8)
    plain_log_ticks(right.xaxis)
    return figure
