"""Train LinOSS under different alpha on several sets, and show what that changes."""

import dataclasses
import itertools
import zipfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from ml_collections import ConfigDict

from ssm_jax import plots
from ssm_jax.analysis.bands import BANDS
from ssm_jax.spread import paired
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.stories.linoss import sweep
from ssm_jax.stories.runs import About, FinishedRun, about, by_setting, publish, train, with_spread
from ssm_jax.stories.waves.run import COLOURS
from ssm_jax.sweep.results import shared_of
from ssm_jax.sweep.runs import Job
from ssm_jax.tables import Columns
from ssm_jax.tasks import find_task
from ssm_jax.training.workdir import Workdir

SETTINGS = tuple(sweep())
WHEN = {"before": plots.BEFORE, "after": plots.AFTER}
Cell = Mapping[str, Any]


def run_story(studies: Mapping[str, tuple[ConfigDict, Job]], seeds: int, job: Job) -> int:
    """Train all settings of each study, by the name of its set, and write what they show into the
    folder of `job`; the exit code."""
    found: list[Cell] = []
    each: dict[str, About] = {}
    for name, (cfg, own) in studies.items():
        runs = train(cfg, SETTINGS, seeds, own)
        if runs is None:
            return EXIT_STOPPED
        each[name] = about(runs)
        task = find_task(cfg.task)
        of = {"set": name, "metric": task.headline, "better": task.metrics[task.headline]}
        measured = [{**of, **cell} for cell in by_setting([*map(with_variation, runs)])]
        usual = next(cell for cell in measured if cell["alpha"] == 1)
        found += [{**cell, "against_1": difference(cell, usual)} for cell in measured]
    figure = f"alpha.{cfg.figures_format}"
    plots.save(job.folder / figure, alpha_figure, found)
    facts, apart = [known for known, _ in each.values()], ("steps", "data")
    keys = [key for key in facts[0] if key not in apart]
    shared, remarks = shared_of(facts, "the sets have", "the first one's is shown", keys)
    shared |= {key: {name: known[key] for name, (known, _) in each.items()} for key in apart}
    remarks += [f"{name}: {line}" for name, (_, lines) in each.items() for line in lines]
    notes = " ".join(cfg.notes for cfg, _ in studies.values())
    title = "LinOSS: test metric and total variation under alpha"
    columns = columns_of(dict.fromkeys(cell["metric"] for cell in found))
    return publish(job, (shared, remarks), notes, found, columns, title, figure)


def with_variation(run: FinishedRun) -> FinishedRun:
    """A run whose test metrics have beside them, before training and at the tested checkpoint:

    high_WHEN: total variation of the layers' transfer functions in the highest band, pi L^(-1/4) to
      pi rad / sample, mean of all channels (`analysis.bands`); low_WHEN: in the three below.
    moved: how far the median pole turned, in rad / sample.
    """
    test = dict(run.summary["test"])
    for when, step in (("before", 0), ("after", run.summary["best"]["step"])):
        path = Workdir(run.path).diagnostics / f"{step}.npz"
        try:
            with np.load(path) as arrays:
                rows = [arrays[k].reshape(-1, BANDS) for k in arrays if k.endswith(":variation")]
                angles = [arrays[k].ravel() for k in arrays if k.endswith(":drift_im")]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path}, whose variation the study shows, cannot be read ({error}); remove "
                f"{run.path} and give the command again: it is trained anew."
            ) from None
        by_band = np.concatenate(rows).mean(axis=0, dtype=np.float64)
        test[f"low_{when}"], test[f"high_{when}"] = float(by_band[:-1].sum()), float(by_band[-1])
    test["moved"] = float(np.median(np.concatenate(angles)))
    return dataclasses.replace(run, summary={**run.summary, "test": test})


def difference(cell: Cell, usual: Cell) -> dict[str, Any] | None:
    """Of the metric to that of alpha = 1, seed by seed, see `spread.paired`."""
    ours, theirs = (
        {seed: test[cell["metric"]] for seed, test in each["seeds"].items()}
        for each in (cell, usual)
    )
    return paired(ours, theirs) if cell is not usual else None


def _metric(cell: Cell) -> str:
    show = "{:.1%}" if cell["better"] == "max" else "{:.3f}"
    return with_spread(cell["metric"], show.format)(cell)


def _difference(cell: Cell) -> str:
    found, points = cell["against_1"], cell["better"] == "max"
    if found is None:
        return "-"
    scale, form = (100, "{:+.1f} ± {:.1f}") if points else (1, "{:+.3f} ± {:.3f}")
    return form.format(scale * found["mean"], scale * found["half_width"])


def columns_of(metrics: Collection[str]) -> Columns:
    """The columns of the table, of sets with these metrics."""
    shares = "accuracy" in metrics
    ordered = sorted(metrics, key=lambda name: name != "accuracy")
    named = ["in waves error" if shares and name == "error" else name for name in ordered]
    return {
        "set": "{set}",
        "alpha": "{alpha:g}",
        f"test {', '.join(named)}": _metric,
        "to alpha = 1" + ", points" * shares: _difference,
        "V low: before": with_spread("low_before", "{:.2g}".format),
        "after": with_spread("low_after", "{:.2g}".format),
        "V high: before": with_spread("high_before", "{:.2g}".format),
        "after ": with_spread("high_after", "{:.2g}".format),
        "median pole moved, rad / sample": with_spread("moved", "{:.3f}".format),
    }


COLUMNS = columns_of(("error", "accuracy"))


def alpha_figure(found: Sequence[Cell]) -> Figure:
    """Above, the test metric of each set against alpha, in waves the error of each wave; below, the
    total variation at low and at high frequencies before and after training. A dot is a seed, a
    line their median."""
    names = list(dict.fromkeys(cell["set"] for cell in found))
    figure = plots.titled("LinOSS: what alpha changes", 3.4 * len(names), 6.4)
    grid = figure.subplots(2, len(names), squeeze=False, sharex=True)
    for (above, below), name in zip(grid.T, names, strict=True):
        cells = [cell for cell in found if cell["set"] == name]
        alphas = [cell["alpha"] for cell in cells]

        def draw(axes: Any, key: str, colour: str, cells: Any = cells, alphas: Any = alphas) -> Any:
            values = np.array([[seed[key] for seed in c["seeds"].values()] for c in cells])
            axes.plot(alphas, values, ".", color=colour, ms=5, alpha=0.6)
            return axes.plot(alphas, np.median(values, axis=1), color=colour, lw=1.6)[0]

        metric, test = cells[0]["metric"], cells[0]["mean"]
        shown = {key: key.removeprefix("error_") for key in test if key.startswith("error_")}
        colours = COLOURS if shown else (plots.AFTER,)
        for key, colour in zip(shown or (metric,), colours, strict=False):
            draw(above, key, colour).set_label(f"{shown[key]} rad/s" if shown else metric)
        above.set(title=name, ylabel=f"test {metric}", yscale="log" if shown else "linear")
        if shown:
            above.legend(fontsize=7, frameon=False)
        for (when, colour), band in itertools.product(WHEN.items(), ("low", "high")):
            draw(below, f"{band}_{when}", colour).set_linestyle("-" if band == "high" else "--")
        below.set(xlabel="alpha", xscale="log", yscale="log")
        below.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas], minor=False)
        below.minorticks_off()
        for axes in (above, below):
            axes.grid(color="0.92")
    grid[1, 0].set_ylabel("total variation, mean of channels")
    handles = [
        *(Line2D([], [], color=colour, label=f"{when} training") for when, colour in WHEN.items()),
        Line2D([], [], color="0.2", label="highest band, up to Nyquist"),
        Line2D([], [], color="0.2", ls="--", label="the three bands below"),
    ]
    plots.legend_below(figure, handles, 4 if len(names) > 2 else 2)
    return figure
