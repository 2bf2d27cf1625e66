"""What a person reads of a trained run: an evaluation, an analysis, what truncation costs."""

import itertools
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssm_jax.analysis.hankel import SHARES, states_key
from ssm_jax.tables import Columns, cells, to_screen
from ssm_jax.tasks.metrics import ERROR_METRICS

WIDTH = 100  # where the output is no terminal: ten classes fit
MOST_CLASSES = 20  # whose confusion is a table
OF: Mapping[str, Any] = {"least": min, "median": statistics.median, "most": max}  # several series


def _console() -> Console:
    # Notes and the origin of data may hold brackets, which are no markup.
    width = None if sys.stdout.isatty() else WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def print_evaluation(result: Mapping[str, Any]) -> None:
    """Print a result of `evaluate.evaluate_run` to stdout."""
    console, run, now = _console(), result["run"], result["evaluation"]
    # Titles stand alone: rich would fold them to the width of their tables.
    console.print(f"{result['name']}: {result['split']} split, step {result['step']:,}")
    if "accuracy" in result:
        interval = _interval(result["accuracy_interval_95"])
        found = {
            "accuracy": f"{result['accuracy']:.4f}, 95 % interval {interval}",
            "majority class": f"{result['majority_rate']:.4f}",
            "balanced accuracy": f"{result['balanced_accuracy']:.4f}, F1 {result['f1']:.4f}",
            "loss": f"{result['loss']:.4f} nats",
        }
    else:
        found = {_said(name): f"{value:.4g}" for name, value in result["metrics"].items()}
        found |= {
            _said(name): f"{result[name]:.4g}"
            for name in result
            if name.endswith(("_mse", "_mae", "_accuracy"))
        }
    found |= {
        "examples": f"{result['examples']:,}",
        "checkpoint": f"step {result['step']:,} ({result['chosen_as']})",
        "run": f"seed {run['seed']}, config {run['config_digest']}, code {_code(run['git'])}",
        "data": f"{run['data']['detail']} ({run['data']['fingerprint']})",
        "evaluated by": f"code {_code(now['git'])}, {now['devices']['kind']}",
        "notes": result["notes"],
    }
    summary = Table(box=box.SIMPLE_HEAD, show_header=False)
    summary.add_column(style="dim", no_wrap=True)
    summary.add_column(overflow="fold")
    for name, text in found.items():
        if text:
            summary.add_row(name, text)
    console.print(summary)
    if len(result.get("classes", ())) > MOST_CLASSES:
        console.print(f"Classes most often taken for another, of {len(result['classes'])}")
        console.print(_confused(result))
    elif "confusion" in result:
        console.print("Confusion: rows true, columns predicted; percent of the row, and examples")
        console.print(_confusion(result))
    if "targets" in result:
        console.print(
            "Errors by target, in its own unit; those above in standard deviations of training, "
            "unless standardize=none"
        )
        shown = {k: head for k, head in TARGET.items() if any(k in r for r in result["targets"])}
        rows = [
            [row["target"], *(f"{row[k]:.4g}" if k in row else "-" for k in list(shown)[1:])]
            for row in result["targets"]
        ]
        console.print(to_screen(tuple(shown.values()), rows, words={0}, plain=True))
    if series := result.get("by_series"):
        console.print(f"Scores of {len(series):,} series")
        rows = [
            [
                n.replace("_", " "),
                *(f"{f(s[n] for s in series if n in s):.4g}" for f in OF.values()),
            ]
            for n in dict.fromkeys(n for s in series for n in s if n != "series")
        ]
        console.print(to_screen(("score", *OF), rows, words={0}, plain=True))
    if "lengths" in result:
        end = " with the end of sequence" * (result["task"] != "classification")  # of words alone
        console.print(f"Accuracy by length (steps{end})")
        columns: Columns = {
            "length": lambda row: " - ".join(f"{n:,}" for n in sorted({row["lo"], row["hi"]})),
            "examples": "{n:,}",
            "accuracy": "{accuracy:.4f}",
            "95 % interval": lambda row: _interval(row["interval_95"]),
        }
        rows = cells(columns, result["lengths"])
        console.print(to_screen(columns, rows, no_wrap=True, plain=True))


TARGET = {
    "target": "target", "mae": "MAE", "rmse": "RMSE", "bias": "bias", "nse": "NSE", "kge": "KGE",
    "series": "series", "median_nse": "median NSE", "median_kge": "median KGE",
}  # fmt: skip


def _said(name: str) -> str:
    """A metric in words: the error of a band with its ends, in shares of Nyquist."""
    if name.startswith("error_") and name.count("_") == 2:
        low, high = name.removeprefix("error_").split("_")
        return f"error, {low} to {high} Nyquist"
    if name in (*ERROR_METRICS, "loss"):
        return name if name == "loss" else name.upper()
    naive, _, error = name.rpartition("_")
    return f"{error.upper()} of {naive.replace('_', ' ')}" if error in ("mse", "mae") else name


def _confused(result: Mapping[str, Any]) -> Table:
    """The pairs of classes that are confused most."""
    names = [entry["class"] for entry in result["classes"]]
    cells_ = sorted(
        (-count, i, j)
        for i, row in enumerate(result["confusion"])
        for j, count in enumerate(row)
        if i != j and count
    )
    rows = [(f"{names[i]}", f"{names[j]}", f"{-count:,}") for count, i, j in cells_[:10]]
    return to_screen(("true", "taken for", "examples"), rows, words={0, 1}, plain=True)


def _confusion(result: Mapping[str, Any]) -> Table:
    """Rows are true classes; a cell has the percent of its row above the count."""
    classes = result["classes"]
    head = ("true", *(f"{entry['class']}" for entry in classes), "all")
    table = to_screen(head, (), no_wrap=True, plain=True)
    for k, (entry, counts) in enumerate(zip(classes, result["confusion"], strict=True)):
        # Zeros are left out: where a model errs shows then at a glance.
        row = [
            Text(f"{100 * count / entry['support']:.1f}\n{count:,}" if count else "\n")
            for count in counts
        ]
        row[k].stylize("bold")
        table.add_row(Text(f"{entry['class']}", "bold"), *row, f"\n{entry['support']:,}")
    table.add_section()
    named = (f"{entry['predicted']:,}" for entry in classes)
    table.add_row(Text("all", "bold"), *named, f"{result['examples']:,}")
    for name in ("precision", "recall"):
        rates = ("-" if e[name] is None else f"{100 * e[name]:.1f}" for e in classes)
        table.add_row(Text(name, "bold"), *rates, "")
    return table


def _interval(bounds: Sequence[float]) -> str:
    return f"[{bounds[0]:.4f}, {bounds[1]:.4f}]"


def _code(git: Mapping[str, Any]) -> str:
    if git["commit"] is None:
        return "of no commit"
    return f"{git['commit'][:12]}{' with changes' if git['dirty'] else ''}"


def _states(entry: Mapping[str, Any]) -> Iterable[str]:
    """The states of a layer, how many count in the least, the median and the most channel; of a
    layer that is one system one number."""
    ends = [entry[end]["hankel"] for end in ("before", "after")]
    shown = 1 if ends[1]["systems"] == 1 else 3
    yield f"{ends[1]['states']}"
    for share in SHARES:
        counts = [end[states_key(share).removesuffix("_median")] for end in ends]
        yield " > ".join(" / ".join(f"{n:g}" for n in c[:shown]) if c else "-" for c in counts)
    yield " > ".join(f"{end['unstable']} of {end['systems']}" for end in ends)


def print_analysis(result: Mapping[str, Any]) -> None:
    """Print a result of `evaluate.analyze` to stdout."""
    console, layers, ends = _console(), result["layers"], ("before", "after")
    edges = result["band_edges_rad_per_sample"]
    bands = [f"{low:.3g}-{high:.3g}" for low, high in itertools.pairwise(edges)]

    def table(title: str, head: Sequence[str], row: Any, entries: Any = layers) -> None:
        console.print(title)
        rows = [(entry["layer"], *row(entry)) for entry in entries]
        console.print(to_screen(("layer", *head), rows, words={0}, plain=True))

    def changes(quantity: str, form: str) -> Any:
        def row(entry: Mapping[str, Any]) -> Iterable[str]:
            after = entry["after"][quantity]
            before = entry["before"][quantity] or [None] * len(after)
            for a, b in zip(before, after, strict=True):
                yield f"{'-' if a is None else format(a, form)} > {b:{form}}"

        return row

    console.print(f"{result['name']}: step {result['step']:,}, L = {result['length']:,}")
    if not layers:
        console.print("No layer of this model has eigenvalues, so there is nothing to measure.")
        return
    what = "median of the channels, before > after, by band in rad per sample"
    title = f"Total variation of the transfer function, {what}"
    table(title, bands, changes("variation", ".3g"))
    table(f"Energy, {what}", bands, changes("energy", ".3g"))

    def poles(entry: Mapping[str, Any]) -> Iterable[str]:
        for quantity in ("drift_im", "drift_re", "drift_spacings", "drift_with_dt"):
            drift = entry["after"][quantity]
            yield "-" if drift is None else f"{drift['median']:.2g} / {drift['max']:.2g}"
        yield " > ".join(f"{entry[end]['aliased']:.1%}" for end in ends)

    title = "Poles: |change of Im a| and of Re a, times the first dt; median / max"
    head = ("Im a dt, rad", "Re a dt", "Im a, spacings", "with dt, rad", "aliased")
    table(title, head, poles)
    filtered = [entry for entry in layers if any(any(entry[end]["beta"]) for end in ends)]
    if filtered:  # beta = 0 is no filter
        title = "Filter: beta of the channels, least / median / most"
        table(
            title,
            ends,
            lambda e: (" / ".join(f"{b:.3g}" for b in e[end]["beta"]) for end in ends),
            filtered,
        )
    counted = [entry for entry in layers if "hankel" in entry["after"]]
    if counted:
        title = "Hankel singular values: states that hold a share of their sum, before > after"
        shares = [f"{100 * share:g} %" for share in SHARES]
        table(title, ("real states", *shares, "with |pole| >= 1"), _states, counted)
    taken = [entry for entry in layers if entry["after"]["gradient_share"] is not None]
    if not taken:
        console.print(
            "Gradient: not taken; either --nogradient, fixed poles, or layers other than S4D and "
            "S4 that the model calls."
        )
        return
    title = "Gradient by Im a: share of each band, first training batch, before > after"
    table(title, bands, changes("gradient_share", ".1%"), taken)


def print_truncation(result: Mapping[str, Any]) -> None:
    """Print a result of `trained.truncation.truncate_run` to stdout."""
    splits = [*result["examples"]]
    scored = [(split, name) for split in splits for name in (result["metric"], "loss")]
    rows = []
    for model in result["models"]:
        lost = [layer["lost_of_sum"] for layer in model["layers"]]
        scores = [f"{model[split][name]:.4f}" for split, name in scored]
        share = f"{max(lost):.2%}" if lost else "-"
        rows.append((f"{model['d_state']:,}", f"{model['parameters']:,}", *scores, share))
    console = _console()
    console.print(f"{result['name']}: step {result['step']:,}, modes kept by balanced truncation")
    head = ("d_state", "parameters", *(f"{split} {name}" for split, name in scored), "lost")
    console.print(to_screen(head, rows, plain=True))
    console.print("lost: of the sum of the Hankel singular values, in the layer that loses most")
