"""The table of a new layer's last output under the rules for dt."""

from __future__ import annotations

from readme.common import Result, load, table, where
from ssm_jax.tables import Columns

ENDS = (64, 16_384)


def bound() -> str:
    """A row for each input and rule, at the shortest and the longest sequences."""

    columns: Columns = {
        "input": "{input}",
        "dt": "{rule}",
        **{
            f"Re A = {real:g}, L = {length:,}": lambda row, length=length, real=real: (
                f"{row['found'][length, real]['measured']:.2g}"
            )
            for real in (-0.5, 0.0)
            for length in ENDS
        },
        **{
            f"bound, L = {length:,}": lambda row, length=length: (
                f"{row['found'][length, 0.0]['bound']:.2g}"
            )
            for length in ENDS
        },
    }
    tables = []
    for result in load("autocorrelation/bound.json"):
        rows: dict[tuple[str, str], Result] = {}
        for row in result["rows"]:
            new = {"input": row["input"], "rule": row["rule"], "found": {}}
            one = rows.setdefault((row["input"], row["rule"]), new)
            one["found"][row["length"], row["real"]] = row
        order = list(dict.fromkeys(row["input"] for row in result["rows"]))
        listed = sorted(rows.values(), key=lambda row: order.index(row["input"]))
        about = f"\nE|y_L|^2 over {result['sequences']} sequences, {result['modes']} modes.\n"
        tables.append(table(columns, listed) + about + where(result))
    return "\n".join(tables) or "Not run.\n"
