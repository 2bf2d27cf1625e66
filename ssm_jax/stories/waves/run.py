"""The figure of wave regression: which waves a model learns to measure, and when.

Wave regression under the official settings of alpha and beta: figure, table, results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from ssm_jax.plots import save
from ssm_jax.plots.panels import BEFORE
from ssm_jax.progress import say
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.stories.cells import Finished, Place, cells_of, document, publish, run_cells
from ssm_jax.stories.waves.task import WAVES
from ssm_jax.train.logs import read_metrics
from ssm_jax.train.loop import EXIT_DONE
from ssm_jax.train.workdir import Workdir

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


PAIRS = {"baseline": (1.0, 0.0), "low": (0.01, -1.0), "middle": (10.0, 0.5), "high": (100.0, 1.0)}
CELLS = tuple({"model.alpha": alpha, "model.beta.init": beta} for alpha, beta in PAIRS.values())
HEAD = ("setting", "alpha", "beta", *(f"{wave:,} rad/s" for wave in WAVES), "mean")


def run_study(cfg: ConfigDict, seeds: int, place: Place) -> int:
    """Train the four settings and write what they show into the folder.

    Args are those of `run_cells`. Returns the exit code.
    """
    runs = run_cells(cfg, CELLS, seeds, place)
    if runs is None:
        return EXIT_STOPPED
    results, folder = results_of(runs, cfg.notes, place.argv), place.folder
    title = "Wave regression: what each setting of the knobs learns"
    save(folder / "errors.png", waves_figure(*histories(runs), title))
    publish(folder, results, "Mean |error| of the amplitude, test", HEAD, rows_of(results))
    say(f"figure and table: {folder}/errors.png, table.md, results.json")
    return EXIT_DONE


def results_of(runs: Sequence[Finished], notes: str, argv: Sequence[str]) -> dict[str, Any]:
    """The test errors of each setting and seed, and their means."""
    names = {knobs: name for name, knobs in PAIRS.items()}
    cells = [{"setting": names[c["alpha"], c["beta"]], **c} for c in cells_of(runs)]
    return document(runs, cells, notes, argv)


def rows_of(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table, row by row: means over the seeds, and the least and the most of them."""
    return [
        (
            cell["setting"],
            f"{cell['alpha']:g}",
            f"{cell['beta']:g}",
            *(_with_spread(cell, f"error_{wave}") for wave in WAVES),
            _with_spread(cell, "error"),
        )
        for cell in results["cells"]
    ]


def _with_spread(cell: Mapping[str, Any], name: str) -> str:
    found = [test[name] for test in cell["seeds"].values()]
    spread = f" ({min(found):.3f} .. {max(found):.3f})" if len(found) > 1 else ""
    return f"{cell['mean'][name]:.3f}{spread}"


def histories(runs: Sequence[Finished]) -> tuple[np.ndarray, dict[str, dict[str, np.ndarray]]]:
    """Steps of the evaluations, and the validation errors (seeds, E) by setting and wave."""
    logs = {run: read_metrics(Workdir(run.path).metrics, "val") for run in runs}
    steps_E = np.array([row["step"] for row in logs[runs[0]]])
    errors = {}
    for (name, (alpha, beta)), cell in zip(PAIRS.items(), CELLS, strict=True):
        own = [logs[run] for run in runs if run.cell == cell]
        errors[f"{name}: alpha = {alpha:g}, beta = {beta:g}"] = {
            f"{wave:,}": np.array([[row[f"error_{wave}"] for row in log] for log in own])
            for wave in WAVES
        }
    return steps_E, errors
