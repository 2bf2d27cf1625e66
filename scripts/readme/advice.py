"""Tables of initializations from the autocorrelation, tried: rules for dt, and advice followed."""

from __future__ import annotations

from readme.common import FROM, Result, load, table, where
from ssm_jax.sweep.results import differences
from ssm_jax.sweep.tables import PERCENT
from ssm_jax.tables import Columns, to_markdown

RULES = {"autocorrelation": "1 / sqrt(L lambda_max)", "log_uniform": "S4's draws"}
KNOBS = ("dt", "real", "alpha", "beta", "init")


def dt_rules() -> str:
    """For copying and for delay, a row for each rule and Re A, a column for each length."""
    parts = []
    for name in ("copying", "delay"):
        for result in load(f"autocorrelation/{name}.json"):
            parts.append(f"`{result['name']}`, {result['metric']}\n\n{_by_length(result)}")
    return "\n".join(parts) or "Not run.\n"


def _by_length(result: Result) -> str:
    rows: dict[tuple[str, str], dict[int, str]] = {}
    cells = result["cells"]
    best: dict[int, float] = {}
    higher = result["better"] == "max"
    for cell in cells:  # what validation chooses at each length is bold
        length, value = cell["options"]["data.padded_length"], cell["validation"]["mean"]
        if length not in best or (value > best[length]) == higher:
            best[length] = value
    for cell in cells:
        options = cell["options"]
        length = options["data.padded_length"]
        words = _spread(result, cell)
        if cell["validation"]["mean"] == best[length]:
            words = f"**{words}**"
        real = -0.5 * options["model.alpha_real"] or 0.0  # no minus before a zero
        row = (_rule(options), f"{real:g}")
        rows.setdefault(row, {})[length] = words
    head = ["dt", "Re A", *(f"L = {length:,}" for length in best)]
    lines = [[*row, *(found[length] for length in best)] for row, found in rows.items()]
    seeds = len(result["seeds"])
    about = (
        f"\nTest, mean ± standard deviation over {seeds} seeds; bold is what validation chooses."
    )
    return to_markdown(head, lines) + f"{about} {result['notes']}\n{where(result)}"


def _rule(options: Result) -> str:
    if options["model.dt_rule"] != "fixed":
        return RULES[options["model.dt_rule"]]
    times_L = options["model.dt_min"] * options["data.padded_length"]
    return "1 / L" if abs(times_L - 1) < 1e-6 else "1 / sqrt(L)"


def _spread(result: Result, cell: Result) -> str:
    scale, digits = (100, 1) if result["metric"] in PERCENT else (1, 3)
    return f"{scale * cell['mean']:.{digits}f} ± {scale * cell['std']:.{digits}f}"


def decorrelated() -> str:
    """A row for raw and decorrelated images of each set, a column for each arm."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    feet = []
    for result in load("autocorrelation/smnist_*.json"):
        for cell in result["cells"]:
            _, inputs, images, arm = cell["options"]["config"].split(":")
            rows.setdefault((images, inputs), {})[arm] = _spread(result, cell)
        feet.append(where(result))
    if not rows:
        return "Not run.\n"
    arms = list(next(iter(rows.values())))
    lines = [[*row, *(found[arm] for arm in arms)] for row, found in rows.items()]
    notes = "\nTest accuracy in %, mean ± standard deviation over three seeds.\n"
    return to_markdown(["images", "inputs", *arms], lines) + notes + "".join(feet)


def advised(folder: str = "advised", arm: str = "advised") -> str:
    """A row for each data set: as it was, with that arm, and the paired difference of both."""
    columns: Columns = {
        "experiment": "{experiment}",
        "metric": "{metric}",
        "default": "{default}",
        arm: "{advised}",
        "difference, validation": "{on_validation}",
        "difference, test": "{on_test}",
        "on test": "{verdict}",
        **FROM,
    }
    rows = [_followed(result) for result in load(f"autocorrelation/{folder}/*.json")]
    counts = {word: sum(row["verdict"] == word for row in rows) for word in ("win", "tie", "loss")}
    foot = ", ".join(f"{word}: {count}" for word, count in counts.items())
    about = (
        f"Differences are {arm} minus default, seed by seed, with a 95 % interval; where it holds "
        "0 there is a tie."
    )
    return table(columns, rows) + (f"\n{foot}. {about}\n" if rows else "")


def alpha_alone() -> str:
    """The same for the alpha that goes with dt as it is."""
    return advised("advised_alone", "alpha alone")


def _followed(result: Result) -> Result:
    usual, new = result["cells"]
    pair = differences({**result, "cells": [new, usual]})[0]
    scale, digits = (100, 1) if result["metric"] in PERCENT else (1, 4)
    test = pair["test"]
    better = test["mean"] if result["better"] == "max" else -test["mean"]
    sure = abs(test["mean"]) > test["half_width"]
    verdict = ("win" if better > 0 else "loss") if sure else "tie"

    def interval(split: str) -> str:
        found = pair[split]
        mean, half_width = scale * found["mean"], scale * found["half_width"]
        return f"{mean:+.{digits}f} ± {half_width:.{digits}f}"

    return {
        **result,
        "experiment": result["name"],
        "default": _spread(result, usual),
        "advised": _spread(result, new),
        "on_validation": interval("validation"),
        "on_test": interval("test"),
        "verdict": verdict,
    }


def advice() -> str:
    """A row for each experiment, with what is advised on each knob."""

    def says(result: Result, knob: str) -> str:
        said = next(one for one in result["advice"] if one["knob"] == knob)
        return "not known" if said["unknown"] else said["proposal"]

    columns: Columns = {
        "experiment": "{name}",
        **{knob: lambda result, knob=knob: says(result, knob) for knob in KNOBS},
        **FROM,
    }
    return table(columns, load("autocorrelation/advice/*.json"))
