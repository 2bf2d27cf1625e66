"""Tables of what dt, real and imaginary parts do: outputs, memory and conditioning."""

from __future__ import annotations

from readme.common import Result, load, per_file, table, where
from ssm_jax.tables import Columns


def _spread(values: list[float], show: str) -> str:
    """The mean, and the least and most of several seeds."""
    mean = sum(values) / len(values)
    return f"{mean:{show}} ({min(values):{show}} .. {max(values):{show}})"


def memory() -> str:
    """Reach and error by timescale and real part."""
    columns: Columns = {
        "dt": lambda row: {"1/L": "1 / L", "rule": "the rule", "S4": "log-uniform"}[
            row["timescale"]
        ],
        "value": lambda row: " to ".join(f"{dt:.2g}" for dt in dict.fromkeys(row["dt"])),
        "Re A": lambda row: f"{row['real_part']:g}" + ("" if row["trained"] else ", frozen"),
        "older half, before": lambda row: _spread(row["share_before"], ".1%"),
        "older half, after": lambda row: _spread(row["share_after"], ".1%"),
        "error": lambda row: _spread(row["error"], ".3f"),
        "mean Re A, after": lambda row: _spread(row["real_part_after"], ".3f"),
    }
    tables = []
    for result in load("autocorrelation/memory.json"):
        note = (
            f"\nL = {result['length']:,}, delay {result['delay']:,}, {result['channels']} channels "
            f"of {result['modes']} modes, {result['steps']} steps of {result['batch']}; means over "
            f"the seeds {', '.join(map(str, result['seeds']))}, with the least and the most. "
            "The error is relative: 1 is that of zeros.\n"
        )
        tables.append(table(columns, result["runs"]) + note + where(result))
    return "\n".join(tables) or "Not run.\n"


def _number(x: float | None) -> str:
    """A condition number; null is what float64 cannot tell from singular."""
    if x is None:
        return "singular"
    return f"{x:.1e}" if x >= 1e4 else f"{x:.3g}"


KINDS: Columns = {
    kind: lambda row, kind=kind: _number(row[kind])  # type: ignore[misc]
    for kind in ("real", "pairs", "complex")
}


def conditioning() -> str:
    """Condition numbers by spacing."""
    columns: Columns = {
        "spacing": lambda row: {"3.14": "pi", "6.28": "2 pi"}.get(
            f"{row['spacing']:.3g}", f"{row['spacing']:.3g}"
        ),
        "smallest eigenvalue, real": lambda row: f"{row['least']:.3g}",
        **KINDS,
        "limit, complex": lambda row: _number(row["limit"]),
    }
    return per_file("autocorrelation/conditioning.json", columns, "spacings")


def initializations() -> str:
    """Condition numbers of the named initializations."""
    columns: Columns = {"init": "{init}", "closest frequencies": "{closest:.2g} apart", **KINDS}
    return per_file("autocorrelation/conditioning.json", columns, "inits")


def trade_off() -> str:
    """The loss of a read-out by spacing and steps of gradient descent."""
    tables = []
    for result in load("autocorrelation/conditioning.json"):
        columns: Columns = {
            "target": lambda row: {"close": "close, anywhere", "on": "multiples of pi"}[
                row["kind"]
            ],
            "spacing": "{spacing:.3g}",
            "best loss": "{least:.1e}",
            "steps to 1.1 x best": lambda row: (
                "" if row["steps"] is None else f"{row['steps']:,.0f}"
            ),
        }
        for i, steps in enumerate(result["steps"]):
            columns[f"after {steps:,}"] = f"{{losses[{i}]:.1e}}"
        tables.append(table(columns, result["trade_off"]) + where(result))
    return "\n".join(tables) or "Not run.\n"


def alphas() -> str:
    """Condition number and total variation of S4D-Lin by alpha."""
    tables = []
    for result in load("autocorrelation/conditioning.json"):
        rows, edges = result["alpha"], result["band_edges"]
        columns: Columns = {
            "alpha": "{alpha:.2g}",
            "condition": lambda row: _number(row["continuous"]),
        }
        for i, dt in enumerate(result["dts"]):
            columns[f"in steps {dt:g}"] = lambda row, i=i: _number(row["sampled"][i])  # type: ignore[misc]
        for k in range(len(edges) - 1):
            columns[f"variation, to {edges[k + 1]:.2g}"] = f"{{variation[{k}]:.2g}}"
        layer = result["layer"]
        note = (
            "\nReal features. Variation: of the median channel, by band up to so many radians per "
            f"sample, at dt = {layer['dt']:g} over {layer['length']:,} steps.\n"
        )
        tables.append(table(columns, rows[::4]) + note + where(result))
    return "\n".join(tables) or "Not run.\n"


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
