"""The result of an evaluation as a person reads it.

The result of `analyze` as a person reads it.
"""

from __future__ import annotations

import itertools
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


def print_analysis(result: Mapping[str, Any]) -> None:
    """Print a result of `analyze.analyze` to stdout."""
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    edges = result["band_edges_rad_per_sample"]
    bands = [f"{low:.3g}-{high:.3g}" for low, high in itertools.pairwise(edges)]
    console.print(f"{result['name']}: step {result['step']:,}, L = {result['length']:,}")
    layers = result["layers"]
    for quantity, title in (
        ("variation", "Total variation of the transfer function, median of the channels"),
        ("energy", "Energy, median of the channels"),
    ):
        console.print(f"{title}, before > after, by band in rad per sample")
        rows = [
            [f"{a:.3g} > {b:.3g}" for a, b in zip(*_both(layer, quantity), strict=True)]
            for layer in layers
        ]
        console.print(_table_analyze_tables(layers, bands, rows))
    console.print("Poles: |change of Im a| and of Re a, times the first dt; median / max")
    names = ("Im a dt, rad", "Re a dt", "Im a, spacings", "with dt, rad", "aliased")
    rows = []
    for layer in layers:
        after = layer["after"]
        drifts = ("drift_im", "drift_re", "drift_spacings", "drift_with_dt")
        cells = [_pair(after[quantity]) for quantity in drifts]
        share = " > ".join(f"{layer[when]['aliased']:.1%}" for when in ("before", "after"))
        rows.append([*cells, share])
    console.print(_table_analyze_tables(layers, names, rows))
    console.print("Filter: beta of the channels, least / median / most")
    rows = [
        [" / ".join(f"{b:.3g}" for b in layer[when]["beta"]) for when in ("before", "after")]
        for layer in layers
    ]
    console.print(_table_analyze_tables(layers, ("before", "after"), rows))
    taken = [layer for layer in layers if layer["after"]["gradient_share"] is not None]
    if not taken:
        console.print(
            "Gradient: not taken; either --nogradient, fixed poles, or layers other than S4D and "
            "S4 that the model calls."
        )
        return
    console.print("Gradient by Im a: share of each band, first training batch, before > after")
    rows = [
        [
            f"{'-' if a is None else f'{a:.1%}'} > {b:.1%}"
            for a, b in zip(
                layer["before"]["gradient_share"] or [None] * len(bands),
                layer["after"]["gradient_share"],
                strict=True,
            )
        ]
        for layer in taken
    ]
    console.print(_table_analyze_tables(taken, bands, rows))


def _both(layer: Mapping[str, Any], quantity: str) -> tuple[list[float], list[float]]:
    return layer["before"][quantity], layer["after"][quantity]


def _pair(drift: Mapping[str, float] | None) -> str:
    return "-" if drift is None else f"{drift['median']:.2g} / {drift['max']:.2g}"


def _table_analyze_tables(
    layers: Sequence[Mapping[str, Any]], columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("layer", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for layer, row in zip(layers, rows, strict=True):
        table.add_row(layer["layer"], *row)
    return table
