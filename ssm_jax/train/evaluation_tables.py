"""The result of an evaluation as a person reads it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 100  # where the output is no terminal: ten classes fit


def print_evaluation(result: Mapping[str, Any]) -> None:
    """Print a result of `evaluate.evaluate_run` to stdout."""
    width = None if sys.stdout.isatty() else WIDTH
    # Notes and the origin of data may hold brackets, which are no markup.
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    # Titles apart: rich would fold them to the width of their tables.
    console.print(f"{result['name']}: {result['split']} split, step {result['step']:,}")
    console.print(_summary(result))
    if "confusion" not in result:
        return
    console.print("Confusion: rows true, columns predicted; percent of the row, and examples")
    console.print(_confusion(result))
    if "lengths" in result:
        console.print("Accuracy by length (steps with the end of sequence)")
        console.print(_lengths(result["lengths"]))


def _summary(result: Mapping[str, Any]) -> Table:
    table = _table()
    table.show_header = False
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    run, now = result["run"], result["evaluation"]
    if "accuracy" in result:
        interval = _interval(result["accuracy_interval_95"])
        found = {
            "accuracy": f"{result['accuracy']:.4f}, 95 % interval {interval}",
            "majority class": f"{result['majority_rate']:.4f}",
            "loss": f"{result['loss']:.4f} nats",
        }
    else:
        found = {name: f"{value:.4g}" for name, value in result["metrics"].items()}
    rows = {
        **found,
        "examples": f"{result['examples']:,}",
        "checkpoint": f"step {result['step']:,} ({result['chosen_as']})",
        "run": f"seed {run['seed']}, config {run['config_digest']}, code {_code(run['git'])}",
        "data": f"{run['data']['detail']} ({run['data']['fingerprint']})",
        "evaluated by": f"code {_code(now['git'])}, {now['devices']['kind']}",
        "notes": result["notes"],
    }
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    return table


def _confusion(result: Mapping[str, Any]) -> Table:
    """Rows are true classes; a cell has the percent of its row above the count."""
    classes = result["classes"]
    table = _table()
    table.add_column("true", justify="right", style="bold", no_wrap=True)
    for entry in classes:
        table.add_column(f"{entry['class']}", justify="right", no_wrap=True)
    table.add_column("all", justify="right", no_wrap=True)
    for entry, counts in zip(classes, result["confusion"], strict=True):
        cells = [_cell(count, entry["support"]) for count in counts]
        cells[entry["class"]].stylize("bold")
        table.add_row(f"{entry['class']}", *cells, f"\n{entry['support']:,}")
    table.add_section()
    predicted = [f"{entry['predicted']:,}" for entry in classes]
    table.add_row("all", *predicted, f"{result['examples']:,}")
    for name in ("precision", "recall"):
        table.add_row(name, *(_percent(entry[name]) for entry in classes), "")
    return table


def _lengths(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table()
    for name in ("length", "examples", "accuracy", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        span = f"{row['lo']:,} - {row['hi']:,}" if row["lo"] < row["hi"] else f"{row['lo']:,}"
        table.add_row(
            span, f"{row['n']:,}", f"{row['accuracy']:.4f}", _interval(row["interval_95"])
        )
    return table


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1))


def _cell(count: int, support: int) -> Text:
    # Zeros are left out: where a model errs shows then at a glance.
    return Text(f"{100 * count / support:.1f}\n{count:,}" if count else "\n")


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"


def _interval(bounds: Sequence[float]) -> str:
    return f"[{bounds[0]:.4f}, {bounds[1]:.4f}]"


def _code(git: Mapping[str, Any]) -> str:
    if git["commit"] is None:
        return "of no commit"
    return f"{git['commit'][:12]}{' with changes' if git['dirty'] else ''}"
