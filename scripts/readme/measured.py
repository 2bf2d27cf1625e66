"""Tables of errors, times and memory."""

from __future__ import annotations

from readme.common import load, milliseconds, table, where

WAYS = ("conv", "scan", "prefill", "step")


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
    tables = []
    for path, result in load("accuracy.json").items():
        rows = [
            (row["layer"], f"{row['length']:,}", *(f"{row[way]:.1e}" for way in WAYS))
            for row in result["layers"]
        ]
        tables.append(table(("layer", "L", *WAYS), rows) + where(result, path))
    return "\n".join(tables) or "Not run.\n"


def bench_layers() -> str:
    """One table for each file: a row for each layer and length."""
    head = ("layer", "L", "forward + backward, ms", "x FFT floor", "x floor", "memory", "compile")
    tables = []
    for path, result in load("bench/layers_*.json").items():
        rows = [
            (
                row["layer"],
                f"{row['length']:,}",
                milliseconds(row["layer_ms"]),
                f"{row['over_fft']:.2f}",
                f"{row['over_floor']:.2f}",
                f"{row['peak_mib']:,} MiB",
                f"{row['compile_s']:.1f} s",
            )
            for row in result["rows"]
        ]
        tables.append(table(head, rows) + where(result, path))
    return "\n".join(tables) or "Not run.\n"


def bench_steps() -> str:
    """One table for each file: a row for each model and layer."""
    head = ("model", "layer", "B", "L", "H", "step, ms", "x floor", "memory", "compile")
    tables = []
    for path, result in load("bench/steps_*.json").items():
        rows = [
            (
                row["name"],
                row["layer"],
                str(row["batch"]),
                f"{row['length']:,}",
                str(row["channels"]),
                milliseconds(row["step_ms"]),
                f"{row['over_floor']:.2f}",
                f"{row['peak_mib']:,} MiB",
                f"{row['compile_s']:.1f} s",
            )
            for row in result["rows"]
        ]
        tables.append(table(head, rows) + where(result, path))
    return "\n".join(tables) or "Not run.\n"


def bench_kernels() -> str:
    """One table for each file: a row for each form and length."""
    head = ("kernel", "form", "L", "forward + backward, ms", "memory", "rms error")
    tables = []
    for path, result in load("bench/kernels_*.json").items():
        rows = [
            (
                row["kernel"],
                row["form"],
                f"{row['length']:,}",
                milliseconds(row["call_ms"]),
                f"{row['peak_mib']:,} MiB",
                f"{row['rms_error']:.1e}",
            )
            for row in result["rows"]
        ]
        tables.append(table(head, rows) + where(result, path))
    return "\n".join(tables) or "Not run.\n"


def memory() -> str:
    head = ("config", "parts", "blocks again", "temporaries", "arguments")
    tables = []
    for path, result in load("bench/memory_*.json").items():
        rows = [
            (
                row["name"],
                str(row["accumulate"]),
                "yes" if row["remat"] else "no",
                f"{row['temporaries_mib']:,.0f} MiB",
                f"{row['arguments_mib']:,.0f} MiB",
            )
            for row in result["rows"]
        ]
        tables.append(table(head, rows) + where(result, path))
    return "\n".join(tables) or "Not run.\n"


def buckets() -> str:
    """Batches and step times by length, and an epoch with and without."""
    head = ("config", "B", "batches and ms a step by length", "epoch", "at one length", "speed-up")
    tables = []
    for path, result in load("bench/buckets_*.json").items():
        rows = [
            (
                row["name"],
                str(row["batch"]),
                "; ".join(
                    f"L = {int(length):,}: {row['batches'][length]:,} x {times['median']:,.0f}"
                    for length, times in row["step_ms"].items()
                ),
                f"{row['epoch_s']:,.0f} s",
                f"{row['plain_epoch_s']:,.0f} s",
                f"{row['speed_up']:.2f}",
            )
            for row in result["rows"]
        ]
        tables.append(table(head, rows) + where(result, path))
    return "\n".join(tables) or "Not run.\n"
