"""The tables that a person reads: the plan of a run, an evaluation, an analysis."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssm_jax.tables import to_screen
from ssm_jax.train.checkpoint.manifest import flatten
from ssm_jax.train.experiment import Experiment, timed_compile
from ssm_jax.train.optim import GroupRow

WIDTH = 100  # where the output is no terminal: ten classes fit
MIB = 2**20


def parameter_table(rows: Iterable[GroupRow]) -> Table:
    """The parameter groups and their sum."""
    rows = list(rows)
    head = ("group", "tensors", "parameters", "learning rate", "weight decay", "schedule")
    table = to_screen(
        head,
        [
            (g.name, f"{len(paths)}", f"{size:,}", f"{g.lr:g}", f"{g.weight_decay:g}", g.schedule)
            for g, paths, size in rows
        ],
        title="Parameters",
        words={0, 5},
    )
    table.add_section()
    tensors, size = sum(len(row.paths) for row in rows), sum(row.size for row in rows)
    table.add_row("all", f"{tensors}", f"{size:,}", "", "", "")
    return table


def print_plan(experiment: Experiment) -> None:
    """Print what a run would be: shapes, parameter groups, memory of the compiled step."""
    state = experiment.abstract_state()
    arrays = {f"batch/{name}": x for name, x in experiment.abstract_batch().items()}
    leaves = flatten(state.params)
    repeated = len({name.split("/")[1] for name in leaves if name.startswith("blocks/")}) - 1
    rows = [
        (name, str(leaf.shape), leaf.dtype.name)
        for name, leaf in (arrays | leaves).items()
        if not name.startswith("blocks/") or name.startswith("blocks/0/")
    ]
    if repeated > 0:
        rows.append((f"blocks/1..{repeated}", "as blocks/0", ""))

    def mib(tree: Any) -> str:
        sizes = (math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        return f"{sum(sizes) / MIB:,.1f} MiB"

    step, seconds = timed_compile(experiment.compile_train_step)
    lines = [
        f"state: {mib(state)}, of which parameters {mib(state.params)}",
        f"training step: compiled in {seconds:.1f} s for {experiment.mesh.size} device(s)",
    ]
    if (memory := step.memory_analysis()) is not None:  # some backends do not tell
        lines.append(
            f"memory per device as XLA plans it: arguments "
            f"{memory.argument_size_in_bytes / MIB:,.1f} MiB, temporaries "
            f"{memory.temp_size_in_bytes / MIB:,.1f} MiB"
        )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    shapes = to_screen(("array", "shape", "dtype"), rows, title="Shapes", words={0, 1, 2})
    for shown in (*experiment.describe(), shapes, parameter_table(experiment.rows), *lines):
        console.print(shown)


def _console() -> Console:
    # Notes and the origin of data may hold brackets, which are no markup.
    width = None if sys.stdout.isatty() else WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def print_evaluation(result: Mapping[str, Any]) -> None:
    """Print a result of `evaluate.evaluate_run` to stdout."""
    console = _console()
    # Titles stand alone: rich would fold them to the width of their tables.
    console.print(f"{result['name']}: {result['split']} split, step {result['step']:,}")
    console.print(_summary(result))
    if "confusion" not in result:
        return
    console.print("Confusion: rows true, columns predicted; percent of the row, and examples")
    console.print(_confusion(result))
    if "lengths" in result:
        console.print("Accuracy by length (steps with the end of sequence)")
        rows = [
            (
                f"{row['lo']:,} - {row['hi']:,}" if row["lo"] < row["hi"] else f"{row['lo']:,}",
                f"{row['n']:,}",
                f"{row['accuracy']:.4f}",
                _interval(row["interval_95"]),
            )
            for row in result["lengths"]
        ]
        head = ("length", "examples", "accuracy", "95 % interval")
        console.print(to_screen(head, rows, no_wrap=True, plain=True))


def _summary(result: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    run, now = result["run"], result["evaluation"]
    if "accuracy" in result:
        interval = _interval(result["accuracy_interval_95"])
        found = {
            "accuracy": f"{result['accuracy']:.4f}, 95 % interval {interval}",
            "majority class": f"{result['majority_rate']:.4f}",
            "loss": f"{result['loss']:.4f} nats",
        }
    else:
        found = {name: f"{value:.4g}" for name, value in result["metrics"].items()}
    rows = {
        **found,
        "examples": f"{result['examples']:,}",
        "checkpoint": f"step {result['step']:,} ({result['chosen_as']})",
        "run": f"seed {run['seed']}, config {run['config_digest']}, code {_code(run['git'])}",
        "data": f"{run['data']['detail']} ({run['data']['fingerprint']})",
        "evaluated by": f"code {_code(now['git'])}, {now['devices']['kind']}",
        "notes": result["notes"],
    }
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    return table


def _confusion(result: Mapping[str, Any]) -> Table:
    """Rows are true classes; a cell has the percent of its row above the count."""
    classes = result["classes"]

    def cell(count: int, support: int, right: bool) -> Text:
        # Zeros are left out: where a model errs shows then at a glance.
        text = f"{100 * count / support:.1f}\n{count:,}" if count else "\n"
        return Text(text, style="bold" if right else "")

    rows = [
        (
            Text(f"{true['class']}", style="bold"),
            *(
                cell(count, true["support"], named["class"] == true["class"])
                for count, named in zip(counts, classes, strict=True)
            ),
            f"\n{true['support']:,}",
        )
        for true, counts in zip(classes, result["confusion"], strict=True)
    ]
    head = ("true", *(f"{entry['class']}" for entry in classes), "all")
    table = to_screen(head, rows, no_wrap=True, plain=True)
    table.add_section()
    named = [f"{entry['predicted']:,}" for entry in classes]
    table.add_row(Text("all", style="bold"), *named, f"{result['examples']:,}")
    for name in ("precision", "recall"):
        rates = (entry[name] for entry in classes)
        cells = ("-" if rate is None else f"{100 * rate:.1f}" for rate in rates)
        table.add_row(Text(name, style="bold"), *cells, "")
    return table


def _interval(bounds: Sequence[float]) -> str:
    return f"[{bounds[0]:.4f}, {bounds[1]:.4f}]"


def _code(git: Mapping[str, Any]) -> str:
    if git["commit"] is None:
        return "of no commit"
    return f"{git['commit'][:12]}{' with changes' if git['dirty'] else ''}"


def print_analysis(result: Mapping[str, Any]) -> None:
    """Print a result of `analyze.analyze` to stdout."""
    console = _console()
    edges = result["band_edges_rad_per_sample"]
    bands = [f"{low:.3g}-{high:.3g}" for low, high in itertools.pairwise(edges)]
    layers = result["layers"]

    def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        console.print(title)
        console.print(to_screen(("layer", *columns), rows, words={0}, plain=True))

    def change(layer: Mapping[str, Any], quantity: str, form: str) -> list[str]:
        """Of each band, before > after."""
        after = layer["after"][quantity]
        before = layer["before"][quantity] or [None] * len(after)
        pairs = zip(before, after, strict=True)
        return [f"{'-' if a is None else format(a, form)} > {b:{form}}" for a, b in pairs]

    console.print(f"{result['name']}: step {result['step']:,}, L = {result['length']:,}")
    for quantity, title in (
        ("variation", "Total variation of the transfer function, median of the channels"),
        ("energy", "Energy, median of the channels"),
    ):
        rows = [(layer["layer"], *change(layer, quantity, ".3g")) for layer in layers]
        table(f"{title}, before > after, by band in rad per sample", bands, rows)
    drifts = {
        "drift_im": "Im a dt, rad",
        "drift_re": "Re a dt",
        "drift_spacings": "Im a, spacings",
        "drift_with_dt": "with dt, rad",
    }
    rows = [
        (
            layer["layer"],
            *(_pair(layer["after"][quantity]) for quantity in drifts),
            " > ".join(f"{layer[when]['aliased']:.1%}" for when in ("before", "after")),
        )
        for layer in layers
    ]
    title = "Poles: |change of Im a| and of Re a, times the first dt; median / max"
    table(title, (*drifts.values(), "aliased"), rows)
    ends = ("before", "after")
    rows = [
        (layer["layer"], *(" / ".join(f"{b:.3g}" for b in layer[when]["beta"]) for when in ends))
        for layer in layers
    ]
    table("Filter: beta of the channels, least / median / most", ends, rows)
    taken = [layer for layer in layers if layer["after"]["gradient_share"] is not None]
    if not taken:
        console.print(
            "Gradient: not taken; either --nogradient, fixed poles, or layers other than S4D and "
            "S4 that the model calls."
        )
        return
    rows = [(layer["layer"], *change(layer, "gradient_share", ".1%")) for layer in taken]
    title = "Gradient by Im a: share of each band, first training batch, before > after"
    table(title, bands, rows)


def _pair(drift: Mapping[str, float] | None) -> str:
    return "-" if drift is None else f"{drift['median']:.2g} / {drift['max']:.2g}"
