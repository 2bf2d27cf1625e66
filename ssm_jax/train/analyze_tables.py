"""The result of `analyze` as a person reads it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ssm_jax.train.evaluation_tables import WIDTH


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
        console.print(_table(layers, bands, rows))
    console.print("Poles: |change of Im a| and of Re a, times the first dt; median / max")
    names = ("Im a dt, rad", "Re a dt", "Im a, spacings", "with dt, rad", "aliased")
    rows = []
    for layer in layers:
        after = layer["after"]
        drifts = ("drift_im", "drift_re", "drift_spacings", "drift_with_dt")
        cells = [_pair(after[quantity]) for quantity in drifts]
        share = " > ".join(f"{layer[when]['aliased']:.1%}" for when in ("before", "after"))
        rows.append([*cells, share])
    console.print(_table(layers, names, rows))
    console.print("Filter: beta of the channels, least / median / most")
    rows = [
        [" / ".join(f"{b:.3g}" for b in layer[when]["beta"]) for when in ("before", "after")]
        for layer in layers
    ]
    console.print(_table(layers, ("before", "after"), rows))
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
    console.print(_table(taken, bands, rows))


def _both(layer: Mapping[str, Any], quantity: str) -> tuple[list[float], list[float]]:
    return layer["before"][quantity], layer["after"][quantity]


def _pair(drift: Mapping[str, float] | None) -> str:
    return "-" if drift is None else f"{drift['median']:.2g} / {drift['max']:.2g}"


def _table(
    layers: Sequence[Mapping[str, Any]], columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("layer", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for layer, row in zip(layers, rows, strict=True):
        table.add_row(layer["layer"], *row)
    return table
