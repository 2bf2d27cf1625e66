"""Tables of what shows a frequency bias: denoising, waves, one pole, and the four claims."""

from __future__ import annotations

import math

from readme.common import Result, load, table, where
from ssm_jax.stories.denoise.run import COLUMNS as DENOISE
from ssm_jax.stories.linoss.run import COLUMNS as LINOSS
from ssm_jax.stories.runoff.run import COLUMNS as RUNOFF
from ssm_jax.stories.video.run import COLUMNS as VIDEO
from ssm_jax.stories.waves.run import COLUMNS as WAVES
from ssm_jax.tables import Columns, to_markdown


def denoise_story() -> str:
    return _story("denoise/story.json", DENOISE)


def denoise_grid() -> str:
    return _story("denoise/grid.json", DENOISE)


def video_story() -> str:
    return _story("video/story.json", VIDEO)


def video_grid() -> str:
    return _story("video/grid.json", VIDEO)


def linoss() -> str:
    return _story("linoss/story.json", LINOSS)


def linoss_waves() -> str:
    columns: Columns = {"alpha": "{alpha:g}", **{k: WAVES[k] for k in WAVES if "rad/s" in k}}
    files = load("linoss/story.json")
    rows = [cell for result in files for cell in result["cells"] if cell["set"] == "waves"]
    return table(columns, rows) + "".join(where(result) for result in files)


def runoff_mean() -> str:
    return _story("runoff/mean.json", RUNOFF)


def runoff_last() -> str:
    return _story("runoff/last.json", RUNOFF)


def wave_errors() -> str:
    return _story("waves/waves.json", WAVES, " The guess 1/2 errs by 0.25.")


def _story(file: str, columns: Columns, more: str = "") -> str:
    """The table of a story, with what is reduced, the seeds, and where it was measured."""
    tables = []
    for result in load(file):
        seeds = list(result["cells"][0]["seeds"])
        text = f"Means over the seeds {', '.join(seeds)}, with the least and the most."
        text = f"Seed {seeds[0]}." if len(seeds) == 1 else text
        remarks = "".join(f" Note: {remark}" for remark in result.get("remarks", []))
        note = f"\n{result['notes']} {text}{more}{remarks}\n"
        tables.append(table(columns, result["cells"]) + note + where(result))
    return "\n".join(tables) or "Not run.\n"


def one_pole() -> str:
    columns: Columns = {
        "beta": "{beta:g}",
        "band: exponent measured": "{slope:.3f}",
        "beta - 2": "{law:g}",
        "difference before the filter: measured": "{wish[slope]:.3f}",
        "2 beta - 2": "{wish[law]:g}",
        "gradient against the formula, relative": "{worst_gradient_error:.0e}",
    }
    tables = []
    for result in load("theory/one_pole.json"):
        wishes = {row["beta"]: row for row in result["wishes"]}
        rows = [{**row, "wish": wishes[row["beta"]]} for row in result["bands"]]
        arrival = result["arrival"]
        pairs = zip(arrival["steps"], arrival["steps_by_formula"], strict=True)
        worst = max(abs(steps / formula - 1) for steps, formula in pairs)
        note = (
            f"\nA whole pole as target, at distances {arrival['distance'][0]:g} to "
            f"{arrival['distance'][-1]:g}: the steps until half of the way is done are within "
            f"{worst:.1%} of the formula; their exponent at the far end is {arrival['slope']:.2f} "
            "(law: 4).\n"
        )
        tables.append(table(columns, rows) + note + where(result))
    return "\n".join(tables) or "Not run.\n"


def claims() -> str:
    """The four claims of the paper, each with what was measured here."""
    files = (
        "denoise/grid", "denoise/story", "waves/waves", "diagnostics/listops_small",
        "theory/one_pole",
    )  # fmt: skip
    results = [result for file in files for result in load(f"{file}.json")]
    if len(results) < len(files):
        return "Not run.\n"
    grid, story, wave, run, pole = results

    def cell(result: Result, alpha: float, beta: float) -> Result:
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
            f"supports: {wave['file']}, {story['file']}",
        ),
        (
            "Training does not move it",
            f"Small ListOps, {run['step']:,} steps: no pole moved by more than "
            f"{max(d['max'] for d in drift):.1%} of the distance to its neighbour, half of those "
            f"of any layer by less than {max(d['median'] for d in drift):.1%}. One pole: the pull "
            f"falls with the power {pole['bands'][2]['slope']:.2f} of the distance (law: -2)",
            f"supports: {run['file']}, {pole['file']}",
        ),
        (
            "alpha moves it",
            f"Waves, alpha = 100, beta = 1: errors {errors(100, 1, 1, 4096)} at 1 and 4,096 rad/s: "
            f"reversed. Denoising, beta = 0, low / high: {bias(1, 0)} at alpha = 1, {bias(10, 0)} "
            f"at 10, {bias(flip, 0)} at 156; but {bias(1 / 3, 0)} at 1/3, hardly a change",
            f"supports: {wave['file']}, {grid['file']}",
        ),
        (
            "beta moves it",
            "Denoising, alpha = 1, low / high at beta = -1, -0.5, 0, 0.5, 1: "
            + ", ".join(bias(1, beta) for beta in (-1.0, -0.5, 0.0, 0.5, 1.0))
            + ". One pole, exponents of the pull at the same beta: "
            + ", ".join(f"{row['slope']:.2f}" for row in pole["bands"])
            + " (law: beta - 2)",
            f"supports: {grid['file']}, {pole['file']}",
        ),
    ]
    return to_markdown(("claim", "measured here", "verdict, results"), rows)
