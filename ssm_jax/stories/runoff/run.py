"""What alpha and beta do to the peaks of a flow: figure, table, results."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from ssm_jax import plots, spread
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.stories.runoff import UNITS, sweep
from ssm_jax.stories.runoff.task import BANDS, scores
from ssm_jax.stories.runs import FinishedRun, about, publish, train, with_spread
from ssm_jax.sweep import by_cell
from ssm_jax.sweep.runs import Job
from ssm_jax.tables import Columns
from ssm_jax.training.runs import open_run
from ssm_jax.training.runs.evaluate import moments

COLOURS = ("#1f6fb4", "#2f8f5b", "#d1590a", "#8a4fb0", "#b8860b", "#c23b6b")
AROUND = (36, 60)  # steps shown before and after a peak
REFERENCE = 0  # the setting that the others are compared with: alpha = 1 and no filter
COMPARED = ("nse", "peak_bias", "missed_peaks")
PERIODS = ("over 90", "10 to 90", "under 10")  # steps, of BANDS
SHORT = {"hour": "h", "day": "d"}  # of the units of a step


def runoff_figure(hydrograph: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> Figure:
    """Above, the flow about the largest peak of the test as it is and as each setting has it, mean
    and range over the seeds; below, the error by period, a point for each seed."""
    figure = plots.titled("What alpha and beta do to the peaks of a flow", 11, 7.4)
    grid = figure.subplots(2, 2, sharey="row")
    observed_T, unit = np.array(hydrograph["observed"]), hydrograph.get("unit", "hour")
    hours_T = np.arange(observed_T.size) - hydrograph["peak"]
    groups = [[c for c in cells if c["beta"] == 0], [c for c in cells if c["alpha"] == 1]]
    for column, group, knob in zip(grid.T, groups, ("alpha", "beta"), strict=True):
        column[0].plot(hours_T, observed_T, color="0.1", lw=1.8, label="flow")
        for number, cell in enumerate(group):
            colour = COLOURS[list(cells).index(cell) % len(COLOURS)]
            said_ST = np.array(list(cell["said"].values()))
            column[0].fill_between(
                hours_T, said_ST.min(axis=0), said_ST.max(axis=0), color=colour, alpha=0.2, lw=0
            )
            column[0].plot(
                hours_T, said_ST.mean(axis=0), color=colour, lw=1.3, label=_called(cell, knob)
            )
            for x, name in enumerate(BANDS):
                found = [each[name] for each in cell["seeds"].values() if name in each]
                at = x + 0.13 * (number - (len(group) - 1) / 2)
                column[1].plot([at] * len(found), found, "o", color=colour, ms=4, alpha=0.7)
        column[0].set(title=f"{hydrograph['basin']}, {hydrograph['time']}", xlabel=f"{unit}s")
        column[1].set(xticks=range(len(BANDS)))
        column[1].set_xticklabels([f"{band} {unit}s" for band in PERIODS])
        column[1].grid(color="0.92")
        column[0].legend(frameon=False, fontsize=8)
        if any(line.get_xdata().size for line in column[1].lines):
            column[1].set(yscale="log")
            plots.log_ticks(column[1].yaxis)
        else:
            plots.note(column[1], "the test is too short for these periods")
    grid[0, 0].set_ylabel(f"flow (mm / {SHORT[unit]})")
    grid[1, 0].set_ylabel("error, relative to the flow's part")
    return figure


def _called(cell: Mapping[str, Any], knob: str) -> str:
    if knob == "beta":
        return f"alpha = 1, beta = {cell['beta']:g}"
    real = "" if cell["alpha_real"] == cell["alpha"] else f", real part x {cell['alpha_real']:.2g}"
    return f"alpha = {cell['alpha']:g}{real}"


def against(metric: str, show: Callable[[float], str]) -> Callable[[Mapping[str, Any]], str]:
    """A column: the difference to REFERENCE, seed by seed, with half of its 95 % interval."""

    def column(cell: Mapping[str, Any]) -> str:
        found = cell["against"][metric]
        if found is None or found["mean"] == found["half_width"] == 0:
            return "-"
        return f"{show(found['mean'])} ± {show(found['half_width']).lstrip('+')}"

    return column


SETTINGS = tuple(sweep())


def columns_of(unit: str) -> Columns:
    """The columns of the table, of steps of a "hour" or a "day"."""
    short = SHORT[unit]
    return {
        "alpha": "{alpha:g}",
        "real part": "{alpha_real:.3g}",
        "beta": "{beta:g}",
        "NSE": with_spread("nse", "{:.2f}".format),
        "NSE to row 1": against("nse", "{:+.2f}".format),
        "KGE": with_spread("kge", "{:.2f}".format),
        "FHV": with_spread("fhv", "{:+.0%}".format),
        "bias at peaks": with_spread("peak_bias", "{:+.0%}".format),
        "bias to row 1": against("peak_bias", "{:+.0%}".format),
        "missed peaks": with_spread("missed_peaks", "{:.0%}".format),
        f"error, over 90 {short}": with_spread(BANDS[0], "{:.2f}".format),
        f"10 to 90 {short}": with_spread(BANDS[1], "{:.2f}".format),
        f"under 10 {short}": with_spread(BANDS[2], "{:.2f}".format),
    }


COLUMNS = columns_of("hour")


def run_story(cfg: ConfigDict, seeds: int, job: Job) -> int:
    """Train every setting and write what they show into the folder; the exit code."""
    runs = train(cfg, SETTINGS, seeds, job)
    if runs is None:
        return EXIT_STOPPED
    cells, hydrograph = measured(runs, job)
    figure = f"peaks.{cfg.figures_format}"
    plots.save(job.folder / figure, runoff_figure, hydrograph, cells)
    title = "Flow of the test, mean over the basins"
    shown = about(runs), cfg.notes, cells, columns_of(hydrograph["unit"]), title
    return publish(job, *shown, figure, hydrograph=hydrograph)


def measured(runs: Sequence[FinishedRun], job: Job) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Of each setting {"alpha", "alpha_real", "beta", "mean", "seeds": scores of each seed, "said":
    its flows about the peak, "against": differences to REFERENCE}; and the flow about the peak.

    A score that a basin or a seed lacks has no mean over them."""
    shown: dict[str, Any] = {}
    cells: list[dict[str, Any]] = []
    for same in by_cell(runs):
        by_seed, said = dict[str, dict[str, float]](), dict[str, list[float]]()
        for run in same:
            _, experiment, opened = open_run(
                run.path, "best", data_dir=job.data_dir, files=job.files
            )
            dataset: Any = experiment.dataset
            outputs = moments(experiment, opened.state, "test", keep=True)["said"]
            each = scores(dataset, "test", outputs)
            names = [name for name in each[0] if all(name in row for row in each)]
            by_seed[str(run.seed)] = {
                name: statistics.fmean(row[name] for row in each)
                for name in names
                if name != "series"
            }
            graphs = dict(dataset.hydrographs("test", outputs))
            shown = shown or _about_peak(dataset, graphs)
            said[str(run.seed)] = graphs[shown["basin"]][1][slice(*shown["steps"])].tolist()
        rows = [*by_seed.values()]
        mean = {
            name: statistics.fmean(row[name] for row in rows)
            for name in rows[0]
            if all(name in row for row in rows)
        }
        knobs = {name: same[0].cell[key] for name, key in UNITS.items()}
        cells.append({**knobs, "mean": mean, "seeds": by_seed, "said": said})
    for cell in cells:
        cell["against"] = {
            name: spread.paired(_of(cell, name), _of(cells[REFERENCE], name)) for name in COMPARED
        }
    return cells, shown


def _of(cell: Mapping[str, Any], name: str) -> dict[str, float]:
    return {seed: row[name] for seed, row in cell["seeds"].items() if name in row}


def _about_peak(dataset: Any, graphs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The basin with the largest flow of the test, and that flow about its peak."""
    basin = max(graphs, key=lambda name: np.nanmax(graphs[name][0]))
    flow_T = graphs[basin][0]
    peak = int(np.nanargmax(flow_T))
    first, end = max(peak - AROUND[0], 0), min(peak + AROUND[1], flow_T.size)
    own = dataset.series_of("test") == dataset.basins.index(basin)
    start = dataset.times[dataset.rows["test"][own]][0]
    return {
        "basin": basin, "time": str(start + peak), "peak": peak - first, "steps": [first, end],
        "unit": {"h": "hour", "D": "day"}[np.datetime_data(start)[0]],
        "observed": flow_T[first:end].tolist(),
    }  # fmt: skip
