"""The tables of programs that were compiled ahead of time."""

from __future__ import annotations

from readme.common import Result, load, table
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
        "commit": "{commit}",
        "": "{file}",
    }
    made = table(columns, load("aot/*.json"))
    earlier = ", ".join(sorted({row["commit"] for row in before.values()}))
    return made + (f"\nBefore: commit {earlier}.\n" if earlier else "")
