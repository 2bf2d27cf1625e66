"""Tables of what shows a frequency bias: denoising, waves, one pole."""

from __future__ import annotations

from typing import Any

from readme.common import load, table, where
from ssm_jax.studies import denoise, waves


def _one(path: str) -> tuple[str, dict[str, Any]] | None:
    return next(iter(load(path).items()), None)


def _seeds(result: dict[str, Any]) -> str:
    seeds = list(result["cells"][0]["seeds"])
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    return f"Means over the seeds {', '.join(seeds)}, with the least and the most."


def denoise_story() -> str:
    return _denoise("denoise/story.json")


def denoise_grid() -> str:
    return _denoise("denoise/grid.json")


def _denoise(file: str) -> str:
    if (found := _one(file)) is None:
        return "Not run.\n"
    path, result = found
    note = f"\n{result['notes']} {_seeds(result)}\n"
    return table(denoise.HEAD, denoise.rows_of(result)) + note + where(result, path)


def wave_errors() -> str:
    if (found := _one("waves/waves.json")) is None:
        return "Not run.\n"
    path, result = found
    note = f"\n{result['notes']} {_seeds(result)} The guess 1/2 errs by 0.25.\n"
    return table(waves.HEAD, waves.rows_of(result)) + note + where(result, path)


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
