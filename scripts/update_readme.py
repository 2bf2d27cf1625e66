"""Write the tables of README.md from results/.

    python scripts/update_readme.py            # --check only says whether they are up to date

Each table stands between `<!-- results:NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssm_jax import cli
from ssm_jax.options import Flag

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
WAYS = ("conv", "scan", "prefill", "step")
BLOCK = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def load(pattern: str) -> dict[str, Any]:
    """The JSON documents that match, by path relative to the project, in order."""
    paths = sorted(RESULTS.glob(pattern))
    return {str(path.relative_to(ROOT)): json.loads(path.read_text()) for path in paths}


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table, or words that say that there is nothing in it."""
    if not rows:
        return "Not run.\n"
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def commit_of(result: dict[str, Any]) -> str:
    """The commit, marked if the code differed from it."""
    commit = (result["git"]["commit"] or "none")[:9]
    return commit + (" + changes" if result["git"]["dirty"] else "")


def device_of(result: dict[str, Any]) -> str:
    """What it ran on."""
    devices = result["devices"]
    if devices["platform"] == "cpu":
        model = f" ({devices['cpu']})" if devices.get("cpu") else ""
        return f"{devices['cpu_cores']} CPU cores{model}"
    return f"{devices['count']} x {devices['kind']}"


def quickstart() -> str:
    rows = [
        (
            str(result["seed"]),
            f"{result['test']['accuracy']:.1%}",
            f"{result['majority_rate']:.1%}",
            f"{result['steps']:,}",
            device_of(result),
            commit_of(result),
            f"[file]({path})",
        )
        for path, result in load("quickstart/seed*.json").items()
    ]
    notes = {result["notes"] for result in load("quickstart/seed*.json").values()}
    head = ("seed", "test accuracy", "majority class", "steps", "device", "commit", "")
    return "\n".join(sorted(notes)) + "\n\n" + table(head, rows)


def activations() -> str:
    """The same runs with activations in half precision."""
    full, half = load("quickstart/seed*.json"), load("activations/bfloat16_seed*.json")
    by_seed = {result["seed"]: result for result in full.values()}
    rows = [
        (
            str(result["seed"]),
            f"{by_seed[result['seed']]['test']['accuracy']:.1%}",
            f"{result['test']['accuracy']:.1%}",
            commit_of(result),
            f"[file]({path})",
        )
        for path, result in half.items()
    ]
    return table(("seed", "float32", "bfloat16", "commit", ""), rows)


def published() -> str:
    return table(
        ("task", "published (arXiv:2410.02035)", "ours at full size"),
        [("ListOps", "62.75 %", "not run to its end")],
    )


def resume() -> str:
    rows = [
        (
            result["config"],
            f"{result['steps']:,}",
            str(result["kills"]),
            ", ".join(f"{count} {name}" for name, count in result["signals"].items()),
            f"{result['metrics_lines']} lines"
            + (f" and {result['leaves']} leaves" if result["leaves"] else ""),
            "equal" if result["equal"] else "NOT equal",
            f"[file]({path})",
        )
        for path, result in load("resume/*.json").items()
    ]
    return table(("config", "steps", "interruptions", "by", "compared", "to the bit", ""), rows)


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


def milliseconds(times: dict[str, float]) -> str:
    return f"{times['median']:,.0f} ({times['min']:,.0f})"


def where(result: dict[str, Any], path: str) -> str:
    """Device, commit and file of a table's rows, as a line under it."""
    return f"\n{device_of(result)}, commit {commit_of(result)}, [file]({path}).\n"


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


TABLES: dict[str, Callable[[], str]] = {
    "quickstart": quickstart,
    "activations": activations,
    "published": published,
    "resume": resume,
    "kernel_accuracy": kernel_accuracy,
    "layer_accuracy": layer_accuracy,
    "bench_layers": bench_layers,
    "bench_steps": bench_steps,
    "bench_kernels": bench_kernels,
}


def filled(text: str) -> str:
    """README's text with every table made anew."""
    return BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + block[3], text)


def main(argv: list[str]) -> int:
    flags = (Flag("check", "change nothing; exit 1 if a table is out of date", False, bool),)
    values = cli.load_flags(argv, flags=flags, about=__doc__ or "")
    readme = ROOT / "README.md"
    text = readme.read_text()
    new = filled(text)
    if values["check"]:
        return int(new != text)
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
