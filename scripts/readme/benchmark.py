"""The table of docs/benchmark.md: layers at equal budget on packaged sets."""

from __future__ import annotations

import statistics

from readme.common import Result, load, where
from ssm_jax import tables
from ssm_jax.spread import half_width, paired

REFERENCE = "s4d"


def uea() -> str:
    """A table for each set: mean, spread and interval of each layer, and its lead on S4D."""
    return "\n".join(map(_of_set, load("uea/*.json"))) or "Not run.\n"


def _of_set(result: Result) -> str:
    sizes, name = result["examples"], result["name"].partition(":")[0].removeprefix("uea/")
    cells = {cell["options"]["config"].rpartition(":")[2]: cell for cell in result["cells"]}
    reference = cells[REFERENCE]["values"]
    rows = []
    for variant, cell in cells.items():
        values = list(cell["values"].values())
        ahead = paired(cell["values"], reference) if variant != REFERENCE else None
        rows.append(
            [
                variant,
                f"{cell['parameters']:,}",
                f"{100 * cell['validation']['mean']:.1f}",
                f"{100 * cell['mean']:.1f} ({100 * statistics.pstdev(values):.1f})",
                _interval(cell["mean"], half_width(values), ""),
                _interval(ahead["mean"], ahead["half_width"], "+") if ahead else "",
                f"{cell['n']}",
            ]
        )
    constant = cells[REFERENCE]["baselines"]["majority class"]
    rows.append(["*majority class*", "", "", f"{100 * constant:.1f}", "", "", ""])
    head = (
        *("layer", "parameters", "validation", "test (spread)", "95 % interval of the mean"),
        *(f"minus {REFERENCE}, seed by seed", "seeds"),
    )
    title = (
        f"{name}: n = {sizes['test']} test series of "
        f"{sum(sizes.values())}; one is {100 / sizes['test']:.1f} points:\n\n"
    )
    return title + tables.to_markdown(head, rows) + f"\n{result['notes']}\n" + where(result)


def _interval(mean: float, half: float | None, sign: str) -> str:
    text = f"{100 * mean:{sign}.1f}"
    return text if half is None else f"{text} ± {100 * half:.1f}"
