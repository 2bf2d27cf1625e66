"""Tables of errors, times and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from readme.common import load, milliseconds, table, where

WAYS = ("conv", "scan", "prefill", "step")
Row = dict[str, Any]


def per_file(pattern: str, columns: dict[str, Callable[[Row], str]], rows: str = "rows") -> str:
    """A table for each file that matches: its rows in the columns, and where they were measured."""
    tables = [
        table(
            tuple(columns),
            [tuple(cell(row) for cell in columns.values()) for row in result[rows]],
        )
        + where(result, path)
        for path, result in load(pattern).items()
    ]
    return "\n".join(tables) or "Not run.\n"


MEMORY: dict[str, Callable[[Row], str]] = {"memory": lambda row: f"{row['peak_mib']:,} MiB"}
LENGTH: dict[str, Callable[[Row], str]] = {"L": lambda row: f"{row['length']:,}"}
COMPILE: dict[str, Callable[[Row], str]] = {"compile": lambda row: f"{row['compile_s']:.1f} s"}
OVER_FLOOR: dict[str, Callable[[Row], str]] = {"x floor": lambda row: f"{row['over_floor']:.2f}"}


def kernel_accuracy() -> str:
    """Largest errors by alpha and length; the denoising model has a column of its own length."""
    tables = []
    for path, result in load("accuracy.json").items():
        lengths = sorted({row["length"] for row in result["kernel"]})
        by_alpha: dict[float, dict[int, float]] = {}
        for row in result["kernel"]:
            by_alpha.setdefault(row["alpha"], {})[row["length"]] = row["max"]
        rows = [
            (f"{alpha:.4g}", *(f"{e[n]:.1e}" if n in e else "" for n in lengths))
            for alpha, e in sorted(by_alpha.items())
        ]
        head = ("alpha", *(f"L = {length:,}" for length in lengths))
        tables.append(table(head, rows) + where(result, path))
    return "\n".join(tables) or "Not run.\n"


def layer_accuracy() -> str:
    ways = {way: lambda row, way=way: f"{row[way]:.1e}" for way in WAYS}
    columns = {"layer": lambda row: row["layer"], **LENGTH, **ways}
    return per_file("accuracy.json", columns, rows="layers")


def bench_layers() -> str:
    columns = {
        "layer": lambda row: row["layer"],
        **LENGTH,
        "forward + backward, ms": lambda row: milliseconds(row["layer_ms"]),
        "x FFT floor": lambda row: f"{row['over_fft']:.2f}",
        **OVER_FLOOR,
        **MEMORY,
        **COMPILE,
    }
    return per_file("bench/layers_*.json", columns)


def bench_steps() -> str:
    columns = {
        "model": lambda row: row["name"],
        "layer": lambda row: row["layer"],
        "B": lambda row: str(row["batch"]),
        **LENGTH,
        "H": lambda row: str(row["channels"]),
        "step, ms": lambda row: milliseconds(row["step_ms"]),
        **OVER_FLOOR,
        **MEMORY,
        **COMPILE,
    }
    return per_file("bench/steps_*.json", columns)


def bench_kernels() -> str:
    columns = {
        "kernel": lambda row: row["kernel"],
        "form": lambda row: row["form"],
        **LENGTH,
        "forward + backward, ms": lambda row: milliseconds(row["call_ms"]),
        **MEMORY,
        "rms error": lambda row: f"{row['rms_error']:.1e}",
    }
    return per_file("bench/kernels_*.json", columns)


def memory() -> str:
    columns: dict[str, Callable[[Row], str]] = {
        "config": lambda row: row["name"],
        "parts": lambda row: str(row["accumulate"]),
        "blocks again": lambda row: "yes" if row["remat"] else "no",
        "temporaries": lambda row: f"{row['temporaries_mib']:,.0f} MiB",
        "arguments": lambda row: f"{row['arguments_mib']:,.0f} MiB",
    }
    return per_file("bench/memory_*.json", columns)


def buckets() -> str:
    """Batches and step times by length, and an epoch with and without."""

    def by_length(row: Row) -> str:
        return "; ".join(
            f"L = {int(length):,}: {row['batches'][length]:,} x {times['median']:,.0f}"
            for length, times in row["step_ms"].items()
        )

    columns: dict[str, Callable[[Row], str]] = {
        "config": lambda row: row["name"],
        "B": lambda row: str(row["batch"]),
        "batches x ms a step": by_length,
        "epoch": lambda row: f"{row['epoch_s']:,.0f} s",
        "at one length": lambda row: f"{row['plain_epoch_s']:,.0f} s",
        "speed-up": lambda row: f"{row['speed_up']:.2f}",
    }
    return per_file("bench/buckets_*.json", columns)
