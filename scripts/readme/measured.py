"""Tables of runs and of their data, at equal budget beside one another: columns of results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from readme.common import FROM, Result, load, table, where
from ssm_jax import tables
from ssm_jax.lra.published import ANCHORS, COLUMNS
from ssm_jax.report.results import device_of
from ssm_jax.spread import half_width, paired
from ssm_jax.sweep.tables import caption, to_markdown
from ssm_jax.tables import Columns


def listops_small() -> str:
    columns: Columns = {
        "seed": "{seed}",
        "test accuracy": "{test[accuracy]:.1%}",
        "majority class": "{majority_rate:.1%}",
        "steps": "{steps:,}",
        "device": "{device}",
        **FROM,
    }
    results = load("listops_small/seed*.json")
    notes = sorted({result["notes"] for result in results})
    return "\n".join(notes) + "\n\n" + table(columns, results)


def truncation() -> str:
    """A trained model with fewer modes, scored."""
    columns: Columns = {
        "modes of a channel": "{d_state}",
        "parameters": "{parameters:,}",
        "validation accuracy": "{val[accuracy]:.1%}",
        "loss": "{val[loss]:.3f}",
        "test accuracy": "{test[accuracy]:.1%}",
        "loss ": "{test[loss]:.3f}",
        "left out of the sum of singular values, most of any layer": lambda model: (
            f"{max(layer['lost_of_sum'] for layer in model['layers']):.0%}"
            if model["layers"]
            else "-"
        ),
    }
    text = []
    for result in load("diagnostics/truncation.json"):
        run = result["run"]
        about = {"device": device_of(run["devices"]), "commit": run["git"]["commit"][:9]}
        size = f"{result['examples']['val']:,} and {result['examples']['test']:,} expressions"
        note = f"\n{result['notes']} Seed {run['seed']}, step {result['step']:,}; {size}.\n"
        text.append(table(columns, result["models"]) + note + where({**result, **about}))
    return "\n".join(text) or "Not run.\n"


def activations() -> str:
    """The same runs with activations in half precision."""
    full = {result["seed"]: result["test"] for result in load("listops_small/seed*.json")}
    columns: Columns = {
        "seed": "{seed}",
        "float32": "{full[accuracy]:.1%}",
        "bfloat16": "{test[accuracy]:.1%}",
        **FROM,
    }
    half = load("activations/bfloat16_seed*.json")
    return table(columns, [{**result, "full": full[result["seed"]]} for result in half])


def lra() -> str:
    """Runs of the Long Range Arena in its order; what each reduces is under the table."""
    tuned = next(anchor.scores for anchor in ANCHORS if anchor.model.startswith("S4D-FT"))
    columns: Columns = {
        "task": lambda result: COLUMNS[result["task"]],
        "variant": lambda result: result["name"].split(":")[1],
        "data": "{data[source]}",
        "test accuracy, reduced": "{test[accuracy]:.1%}",
        "majority class": "{majority_rate:.1%}",
        "steps": "{steps:,}",
        "published, full size (S4D-FT)": lambda result: f"{tuned[result['task']].mean} %",
        "device": "{device}",
        **FROM,
    }
    order = list(COLUMNS)
    results = sorted(load("lra/*_reduced.json"), key=lambda result: order.index(result["task"]))
    notes = [f"* {COLUMNS[result['task']]}: {result['notes']}\n" for result in results]
    return table(columns, results) + "\n" + "".join(dict.fromkeys(notes))


def data() -> str:
    """One row for each prepared data set."""

    def shares(result: Result) -> str:
        train = result["splits"]["train"]
        parts = [100 * n / train["examples"] for n in train["classes"]]
        return f"{min(parts):.1f} to {max(parts):.1f} %"

    def steps(result: Result) -> str:
        splits = result["splits"]
        most = max(split["steps"]["most"] for split in splits.values())
        return f"{splits['train']['steps']['mean']:,.0f} / {most:,}"

    columns: Columns = {
        "task": "{task}",
        "source": "{source}",
        "train / val / test": lambda result: " / ".join(
            f"{split['examples']:,}" for split in result["splits"].values()
        ),
        "steps: mean / most": steps,
        "token ids": lambda result: str(result["token_ids"] or "-"),
        "shares of the classes": shares,
        "size": lambda result: f"{result['bytes'] / 1e6:,.0f} MB",
        "prepared in": "{seconds:,.0f} s",
        **FROM,
    }
    return table(columns, load("data/*.json"))


def resume() -> str:
    def compared(result: Result) -> str:
        leaves = f" and {result['leaves']} leaves" if result["leaves"] else ""
        return f"{result['metrics_lines']} lines{leaves}"

    columns: Columns = {
        "config": "{config}",
        "steps": "{steps:,}",
        "interruptions": "{kills}",
        "by": lambda result: ", ".join(f"{n} {name}" for name, n in result["signals"].items()),
        "compared": compared,
        "bit for bit": lambda result: "equal" if result["equal"] else "NOT equal",
        "": "{file}",
    }
    return table(columns, [result for result in load("resume/*.json") if "kills" in result])


DAMAGE = {  # how outcomes of benchmarks/damage.py begin, and their column
    "the same result": "the same result",
    "the next best": "the next best, said",
    "refused": "refused, and the way on works",
    "stopped": "stopped, then the same result",
    "survived": "survived, the same result",
}


def damage() -> str:
    def count(result: Result, start: str) -> int:
        return sum(n for outcome, n in result["outcomes"].items() if outcome.startswith(start))

    def wrong(result: Result) -> str:
        return str(len(result["cases"]) - sum(count(result, start) for start in DAMAGE))

    columns: Columns = {
        "config": "{config}",
        "cases": lambda result: str(len(result["cases"])),
        **{
            head: lambda result, start=start: str(count(result, start))
            for start, head in DAMAGE.items()
        },
        "wrong": wrong,
        **FROM,
    }
    return table(columns, [result for result in load("resume/*.json") if "outcomes" in result])


def ablation() -> str:
    return swept("ablation/*.json")


def series() -> str:
    return swept("series/*.json")


def series_rates() -> str:
    """Validation loss at each learning rate of the packaged sets, which chose their rates."""
    found: dict[tuple[str, str], dict[str, dict[float, float]]] = {}
    for result in load("series/rates/*.json"):
        name, variant = result["name"].split(":")
        at = {run["options"]["optim.lr"]: run["validation"]["loss"] for run in result["runs"]}
        found.setdefault((name, result["commit"]), {})[variant] = at
    rates = sorted({rate for rows in found.values() for at in rows.values() for rate in at})

    def cell(at: Mapping[float, float], rate: float) -> str:
        text = f"{at[rate]:.3f}"
        return f"**{text}**" if at[rate] == min(at.values()) else text

    head = ["set", "variant", *(f"{rate:g}" for rate in rates), "commit"]
    rows = [
        [name, variant, *(cell(at, rate) for rate in rates), commit]
        for (name, commit), variants in found.items()
        for variant, at in variants.items()
    ]
    return tables.to_markdown(head, rows) if rows else "Not run.\n"


def swept(pattern: str) -> str:
    """A table for each sweep, with what is reduced and where it was measured."""
    parts = []
    for result in load(pattern):
        notes = f"\n{result['notes']}" if result["notes"] else ""
        foot = f"\n{caption(result)}{notes}\n{where(result)}"
        parts.append(f"`{result['name']}`\n\n{to_markdown(result)}{foot}")
    return "\n".join(parts) or "Not run.\n"


def spectrum() -> str:
    """One row for each spectrum: slope, bands of energy, and the starting alpha and beta."""

    def start(result: Result) -> Result:
        window = next(w for w in result["windows"] if w["alpha"] == result["alpha"])
        return {**result, "start": window, "task": result["name"].split(":")[0]}

    columns: Columns = {
        "task": "{task}",
        "inputs": "{inputs}",
        "gamma": "{fit[gamma]:.2f} ± {fit[half_width]:.2f}",
        "50 / 90 / 99 % of the energy below, rad per sample": lambda result: " / ".join(
            f"{result['energy_below'][share]:.2f}" for share in ("0.5", "0.9", "0.99")
        ),
        "beta": "{beta:.2f}",
        "alpha": "{alpha:.2g}",
        "modes beyond Nyquist": "{start[aliased]:.0%} of {layer[d_state]}",
        "energy within reach": "{start[reached]:.0%}",
        **FROM,
    }
    return table(columns, map(start, load("spectrum/*.json")))


def windows() -> str:
    """For each spectrum and alpha, what the modes of a new layer see of it."""
    rows = [
        {
            **window,
            "task": result["name"].split(":")[0],
            "mark": " (start)" if window["alpha"] == result["alpha"] else "",
            **{key: result[key] for key in ("layer", "file")},
        }
        for result in load("spectrum/*.json")
        for window in result["windows"]
    ]
    columns: Columns = {
        "task": "{task}",
        "alpha": "{alpha:.3g}{mark}",
        "highest mode, rad per sample": "{lowest:.3g} to {highest:.3g}",
        "modes beyond Nyquist": "{aliased:.0%}",
        "channels without such": "{clean:.0%}",
        "energy within reach": "{reached:.0%}",
        "modes in the 90 % band": "{within:.1f} of {layer[d_state]}",
        "": "{file}",
    }
    return table(columns, rows)


REFERENCE = "s4d"


def uea() -> str:
    """A table for each set: mean, spread and interval of each layer, and its lead on S4D."""
    return "\n".join(map(_of_set, load("uea/*.json"))) or "Not run.\n"


def _of_set(result: Result) -> str:
    sizes, name = result["examples"], result["name"].partition(":")[0].removeprefix("uea/")
    cells = {cell["options"]["config"].rpartition(":")[2]: cell for cell in result["cells"]}
    reference = cells[REFERENCE]["values"]
    rows = []
    for variant, cell in cells.items():
        values = list(cell["values"].values())
        ahead = paired(cell["values"], reference) if variant != REFERENCE else None
        rows.append(
            [
                variant,
                f"{cell['parameters']:,}",
                f"{100 * cell['validation']['mean']:.1f}",
                f"{100 * cell['mean']:.1f} ({100 * statistics.pstdev(values):.1f})",
                _interval(cell["mean"], half_width(values), ""),
                _interval(ahead["mean"], ahead["half_width"], "+") if ahead else "",
                f"{cell['n']}",
            ]
        )
    constant = cells[REFERENCE]["baselines"]["majority class"]
    rows.append(["*majority class*", "", "", f"{100 * constant:.1f}", "", "", ""])
    head = (
        *("layer", "parameters", "validation", "test (spread)", "95 % interval of the mean"),
        *(f"minus {REFERENCE}, seed by seed", "seeds"),
    )
    title = (
        f"{name}: n = {sizes['test']} test series of "
        f"{sum(sizes.values())}; one is {100 / sizes['test']:.1f} points:\n\n"
    )
    return title + tables.to_markdown(head, rows) + f"\n{result['notes']}\n" + where(result)


def _interval(mean: float, half: float | None, sign: str) -> str:
    text = f"{100 * mean:{sign}.1f}"
    return text if half is None else f"{text} ± {100 * half:.1f}"
