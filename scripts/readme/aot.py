"""The tables of programs that were compiled ahead of time."""

from __future__ import annotations

from readme.common import FROM, Result, load, table
from ssm_jax.tables import Columns

GIB = 2**30


def aot() -> str:
    """A row for each record, beside the one of the same name that was made before."""
    before = {row["file"].replace("/before/", "/"): row for row in load("aot/before/*.json")}

    def at(key: str, shown: str, unit: float = 1.0):
        def cell(row: Result) -> str:
            now, old = shown.format(row["train"][key] / unit), before.get(row["file"])
            return f"{now} ({shown.format(old['train'][key] / unit)})" if old else now

        return cell

    def products(row: Result) -> str:
        return ", ".join(f"{n} {what}" for what, n in sorted(row["train"]["products"].items()))

    def collectives(row: Result) -> str:
        found = row["train"]["collectives"].items()
        return ", ".join(f"{r['times']} {what}, {r['bytes'] / 2**20:.1f} MiB" for what, r in found)

    columns: Columns = {
        "config": "`{name}`",
        "devices": "{accelerators} x {target}",
        "batch": "{batch_size}",
        "GiB moved (before)": at("bytes_moved", "{:.1f}", GIB),
        "floor, ms": at("floor_ms", "{:.2f}"),
        "kernels": at("kernels", "{:,.0f}"),
        "temporaries, GiB": at("temp_bytes", "{:.2f}", GIB),
        "TFLOP": at("flops", "{:.3f}", 1e12),
        "products": products,
        "collectives": lambda row: collectives(row) or "none",
        **FROM,
    }
    made = table(columns, load("aot/*.json"))
    earlier = ", ".join(sorted({row["commit"] for row in before.values()}))
    return made + (f"\nBefore: commit {earlier}.\n" if earlier else "")


def aot_h200() -> str:
    """A row for each task, and in each cell what one of its four experiments takes on one H200."""
    steps: dict[str, Result] = {}
    for row in load("aot/h200/*.json"):
        task, arm = row["name"].removeprefix("lra/").split(":")
        step = row["train"]
        numbers = f"{step['bytes_moved'] / GIB:.1f} GiB, {step['kernels']:,.0f}"
        task_row = steps.setdefault(task, {"task": task})
        task_row[arm] = f"{numbers}, {step['compile_s']:.0f} s"
    columns: Columns = {"task": "{task}"} | {
        arm: f"{{{arm}}}" for arm in ("s4d_ft", "s4d", "s4", "s5")
    }
    return table(columns, steps.values())
