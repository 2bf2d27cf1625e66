"""Tables of what shows a frequency bias: denoising, waves, one pole."""

from __future__ import annotations

import math
from typing import Any

from readme.common import load, table, where
from ssm_jax.stories.denoise import run as denoise
from ssm_jax.stories.waves import run as waves
from ssm_jax.tables import cells


def _one(path: str) -> tuple[str, dict[str, Any]] | None:
    return next(iter(load(path).items()), None)


def _seeds(result: dict[str, Any]) -> str:
    seeds = list(result["cells"][0]["seeds"])
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    return f"Means over the seeds {', '.join(seeds)}, with the least and the most."


def denoise_story() -> str:
    return _study("denoise/story.json", denoise)


def denoise_grid() -> str:
    return _study("denoise/grid.json", denoise)


def wave_errors() -> str:
    return _study("waves/waves.json", waves, " The guess 1/2 errs by 0.25.")


def _study(file: str, study: Any, more: str = "") -> str:
    """The table of a module of ssm_jax.stories."""
    if (found := _one(file)) is None:
        return "Not run.\n"
    path, result = found
    note = f"\n{result['notes']} {_seeds(result)}{more}\n"
    return table(study.COLUMNS, cells(study.COLUMNS, result["cells"])) + note + where(result, path)


def one_pole() -> str:
    if (found := _one("theory/one_pole.json")) is None:
        return "Not run.\n"
    path, result = found
    wishes = {row["beta"]: row for row in result["wishes"]}
    rows = [
        (
            f"{row['beta']:g}",
            f"{row['slope']:.3f}",
            f"{row['law']:g}",
            f"{wishes[row['beta']]['slope']:.3f}",
            f"{wishes[row['beta']]['law']:g}",
            f"{row['worst_gradient_error']:.0e}",
        )
        for row in result["bands"]
    ]
    head = (
        "beta", "band: exponent measured", "beta - 2", "difference before the filter: measured",
        "2 beta - 2", "gradient against the formula, relative",
    )  # fmt: skip
    arrival = result["arrival"]
    worst = max(
        abs(steps / formula - 1)
        for steps, formula in zip(arrival["steps"], arrival["steps_by_formula"], strict=True)
    )
    note = (
        f"\nA whole pole as target, at distances {arrival['distance'][0]:g} to "
        f"{arrival['distance'][-1]:g}: the steps until half of the way is done are within "
        f"{worst:.1%} of the formula; their exponent at the far end is {arrival['slope']:.2f} "
        "(law: 4).\n"
    )
    return table(head, rows) + note + where(result, path)


def claims() -> str:
    """The four claims of the paper, each with what was measured here."""
    names = ("denoise/grid", "denoise/story", "waves/waves", "diagnostics/listops_small")
    files = [_one(f"{name}.json") for name in (*names, "theory/one_pole")]
    if None in files:
        return "Not run.\n"
    grid, story, wave, run, pole = (file[1] for file in files if file is not None)
    of_grid, of_story, of_wave, of_run, of_pole = (
        f"[file]({file[0]})" for file in files if file is not None
    )

    def cell(result: dict[str, Any], alpha: float, beta: float) -> dict[str, Any]:
        near = [c for c in result["cells"] if abs(c["alpha"] - alpha) < 0.01 * alpha]
        return next(c for c in near if c["beta"] == beta)

    def bias(alpha: float, beta: float) -> str:
        return f"{cell(grid, alpha, beta)['bias']:.2g}"

    def errors(alpha: float, beta: float, *of: int) -> str:
        mean = cell(wave, alpha, beta)["mean"]
        return " and ".join(f"{mean[f'error_{each}']:.3f}" for each in of)

    drift = [layer["after"]["drift_spacings"] for layer in run["layers"]]
    flip = 490.52 / math.pi
    rows = [
        (
            "There is a bias at initialization",
            f"Waves, alpha = 1, beta = 0: errors {errors(1, 0, 1, 16)} at 1 and 16 rad/s, "
            f"{errors(1, 0, 256, 4096)} at 256 and 4,096. Denoising: of low stripes "
            f"{cell(story, 1, 0)['bias']:,.0f} times as much passes as of high ones",
            f"supports: {of_wave}, {of_story}",
        ),
        (
            "Training does not move it",
            f"Small ListOps, {run['step']:,} steps: no pole moved by more than "
            f"{max(d['max'] for d in drift):.1%} of the distance to its neighbour, half of those "
            f"of any layer by less than {max(d['median'] for d in drift):.1%}. One pole: the pull "
            f"falls with the power {pole['bands'][2]['slope']:.2f} of the distance (law: -2)",
            f"supports: {of_run}, {of_pole}",
        ),
        (
            "alpha moves it",
            f"Waves, alpha = 100, beta = 1: errors {errors(100, 1, 1, 4096)} at 1 and 4,096 rad/s: "
            f"reversed. Denoising, beta = 0, low / high: {bias(1, 0)} at alpha = 1, {bias(10, 0)} "
            f"at 10, {bias(flip, 0)} at 156; but {bias(1 / 3, 0)} at 1/3, hardly a change",
            f"supports: {of_wave}, {of_grid}",
        ),
        (
            "beta moves it",
            "Denoising, alpha = 1, low / high at beta = -1, -0.5, 0, 0.5, 1: "
            + ", ".join(bias(1, beta) for beta in (-1.0, -0.5, 0.0, 0.5, 1.0))
            + ". One pole, exponents of the pull at the same beta: "
            + ", ".join(f"{row['slope']:.2f}" for row in pole["bands"])
            + " (law: beta - 2)",
            f"supports: {of_grid}, {of_pole}",
        ),
    ]
    return table(("claim", "measured here", "verdict, results"), rows)
