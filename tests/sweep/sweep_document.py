"""A sweep's results with known numbers, as ssm_jax.sweep.results.document_of gives them."""

from __future__ import annotations

import statistics
from typing import Any

ALPHAS, BETAS = [0.1, 1.0, 10.0], [-1.0, 1.0]
# Of each seed the accuracy, or how its run ended
ENDS: dict[tuple[float, float], list[Any]] = {
    (0.1, -1.0): [0.70, 0.72, 0.74],
    (0.1, 1.0): ["missing"] * 3,
    (1.0, -1.0): [0.80, 0.80, 0.83],
    (1.0, 1.0): [0.5, "missing", "missing"],
    (10.0, -1.0): [0.2, "diverged", 0.4],
    (10.0, 1.0): ["diverged"] * 3,
}


def cell(options: dict[str, Any], ends: list[Any]) -> dict[str, Any]:
    """One cell from what came out of its seeds; on validation half of that."""
    values = {str(seed): end for seed, end in enumerate(ends) if not isinstance(end, str)}
    half = {seed: value / 2 for seed, value in values.items()}
    return {
        "options": options,
        **over(values),
        "n": len(values),
        "validation": over(half) if half else None,
        "diverged": [seed for seed, end in enumerate(ends) if end == "diverged"],
        "missing": [seed for seed, end in enumerate(ends) if end == "missing"],
    }


def over(values: dict[str, float]) -> dict[str, Any]:
    """The mean and standard deviation of values by seed."""
    numbers = list(values.values())
    return {
        "mean": statistics.fmean(numbers) if numbers else None,
        "std": statistics.stdev(numbers) if len(numbers) > 1 else None,
        "values": values,
    }


def grid(**entries: Any) -> dict[str, Any]:
    """Three values of alpha with two of beta; `entries` replace or add some of it."""
    cells = [
        cell({"model.alpha": alpha, "model.beta.init": beta}, ends)
        for (alpha, beta), ends in ENDS.items()
    ]
    options = {"model.alpha": ALPHAS, "model.beta.init": BETAS}
    return about(options, cells) | entries


def line(**entries: Any) -> dict[str, Any]:
    """The alphas at beta = -1 alone."""
    cells = [
        cell({"model.alpha": alpha}, ends) for (alpha, beta), ends in ENDS.items() if beta == -1
    ]
    return about({"model.alpha": ALPHAS}, cells) | entries


def about(options: dict[str, list[Any]], cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole document."""
    return {
        "name": "ablation",
        "metric": "accuracy",
        "better": "max",
        "split": "test",
        "selected_by": "val accuracy",
        "options": options,
        "seeds": [0, 1, 2],
        "cells": cells,
        "remarks": [],
        "runs": [{}] * 3 * len(cells),
    }
