"""Wave regression under the official settings of alpha and beta: figure, table, results."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from ssm_jax import plots
from ssm_jax.stop import EXIT_STOPPED
from ssm_jax.stories.runs import FinishedRun, about, by_setting, publish, train, with_spread
from ssm_jax.stories.waves import PAIRS, sweep
from ssm_jax.stories.waves.task import WAVES
from ssm_jax.sweep import by_cell
from ssm_jax.sweep.runs import Job
from ssm_jax.tables import Columns
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.workdir import Workdir

COLOURS = ("#1f6fb4", "#2f8f5b", "#d1590a", "#8a4fb0")  # from the slowest to the fastest
GUESS = 0.25  # error of the constant 1/2 for amplitudes uniform in [0, 1)


def waves_figure(
    steps_E: np.ndarray, errors: Mapping[str, Mapping[str, np.ndarray]], title: str
) -> Figure:
    """Mean absolute error of each wave's amplitude against the training step.

    `errors` are (seeds, E), by setting, in the order of the panels, and by wave; NaN where a run
    had ended early.
    """
    figure = plots.titled(title, 3.1 * len(errors), 3.9)
    panels = figure.subplots(1, len(errors), sharey=True, squeeze=False)[0]
    for axes, (name, by_wave) in zip(panels, errors.items(), strict=True):
        for colour, (wave, error_SE) in zip(COLOURS, by_wave.items(), strict=True):
            axes.plot(steps_E, error_SE.T, color=colour, lw=0.5, alpha=0.5)
            axes.plot(steps_E, error_SE.mean(axis=0), color=colour, lw=2, label=f"{wave} rad/s")
        axes.axhline(GUESS, color=plots.BEFORE, ls="--", lw=1, label="guess 1/2")
        axes.set_title(name, fontsize=10)
        axes.set(yscale="log", xlabel="training step")
        axes.grid(color="0.92")
    panels[0].set_ylabel("mean |error| of the amplitude")
    plots.legend_below(figure, panels[0].get_legend_handles_labels()[0])
    return figure


def errors_of(runs: Sequence[FinishedRun]) -> tuple[np.ndarray, dict[str, dict[str, np.ndarray]]]:
    """The steps and the errors of `waves_figure`, from the logs of the runs."""
    logs = {
        run.name: {row["step"]: row for row in read_metrics(Workdir(run.path).metrics, "val")}
        for run in runs
    }
    for run in runs:
        if not logs[run.name]:
            raise ValueError(
                f"{Workdir(run.path).metrics} has no errors of {run.name}, which the study shows; "
                f"remove {run.path} and give the command again: it is trained anew."
            )
    steps = sorted({step for log in logs.values() for step in log})
    rows = {name: [log.get(step, {}) for step in steps] for name, log in logs.items()}
    errors = {}
    for (name, (alpha, beta)), same in zip(PAIRS.items(), by_cell(runs), strict=True):
        errors[f"{name}: alpha = {alpha:g}, beta = {beta:g}"] = {
            f"{wave:,}": np.array(
                [[row.get(f"error_{wave}", np.nan) for row in rows[run.name]] for run in same]
            )
            for wave in WAVES
        }
    return np.array(steps), errors


SETTINGS = tuple(sweep())
COLUMNS: Columns = {
    "setting": "{setting}",
    "alpha": "{alpha:g}",
    "beta": "{beta:g}",
    **{f"{wave:,} rad/s": with_spread(f"error_{wave}", "{:.3f}".format) for wave in WAVES},
    "mean": with_spread("error", "{:.3f}".format),
}


def run_story(cfg: ConfigDict, seeds: int, job: Job) -> int:
    """Train the four settings and write what they show into the folder; the exit code."""
    runs = train(cfg, SETTINGS, seeds, job)
    if runs is None:
        return EXIT_STOPPED
    title = "Wave regression: what each setting of the knobs learns"
    figure = f"errors.{cfg.figures_format}"
    plots.save(job.folder / figure, waves_figure, *errors_of(runs), title)
    settings = zip(PAIRS, by_setting(runs), strict=True)
    found = [{"setting": name, **one} for name, one in settings]
    title = "Mean |error| of the amplitude, test"
    return publish(job, about(runs), cfg.notes, found, COLUMNS, title, figure)
