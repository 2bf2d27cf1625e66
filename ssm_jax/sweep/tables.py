"""The results of a sweep as tables, in Markdown and CSV.

Validation, which chooses, and test stand side by side, or one above the other where there is a
grid of two options.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssm_jax import tables
from ssm_jax.files import replace_atomically, write_json
from ssm_jax.sweep import short_names, shown
from ssm_jax.sweep.results import Document, best_cell, name_of

PERCENT = ("accuracy", "balanced_accuracy", "f1")  # from 0 to 1, and read in per cent
SPLITS = {"val": "validation", "train": "training"}  # those that may choose, in words


ENDS = {
    "diverged": "diverged and count in no mean",
    "pruned": "were ended early and count in no mean",
    "missing": "are missing",
    "unfinished": "are not finished",
}


def write_results(folder: Path, document: Document, name: str = "sweep") -> str:
    """Write sweep.json, sweep.csv and sweep.md into the folder of a sweep; the text of the last."""
    text = to_markdown(document) + f"\n{caption(document)}\n"
    write_json(folder / f"{name}.json", document)
    replace_atomically(folder / f"{name}.csv", to_csv(document))
    replace_atomically(folder / f"{name}.md", text)
    return text


def is_grid(document: Document) -> bool:
    """Whether the cells are every value of one option with every value of another."""
    sizes = [len(values) for values in document["options"].values()]
    return len(sizes) == 2 and len(document["cells"]) == sizes[0] * sizes[1]


def splits_of(document: Document) -> list[str]:
    """What there is to show: the split that chose, in words, and "test".

    Documents of older versions have the test split alone.
    """
    known = any(cell.get("validation") is not None for cell in document["cells"])
    return [*([SPLITS[document["selected_by"].split()[0]]] if known else []), "test"]


def on_split(cell: Mapping[str, Any], split: str) -> Mapping[str, Any]:
    """The "mean", "std" and "values" of a cell on a split of `splits_of`; {} if unknown."""
    return cell if split == "test" else cell.get("validation") or {}


def to_markdown(document: Document) -> str:
    """A table: a row for each cell, with a column for each split; and the differences below.

    Where cells differ in their number of parameters, or are several configs, it has a column for
    that. Predictors that learn nothing have a row each at the end. Of a grid a table for each
    split, one option down and one across. A number is `81.2 ± 0.4 (3)`, and says what diverged or
    is missing; those of the chosen cell are bold.
    """
    splits, cells = splits_of(document), document["cells"]
    best = best_cell(document) if len(cells) > 1 else None
    labels = short_names(document["options"])
    if is_grid(document):
        text = "\n".join(_grid(document, split, len(splits) > 1) for split in splits)
    else:
        sizes = [f"{cell['parameters']:,}" if "parameters" in cell else "" for cell in cells]
        sized = len(known := {*filter(None, sizes)}) > 1 or ("config" in labels and bool(known))
        head = [*labels.values(), *["parameters"] * sized]
        head += [*(metric_label(document, split) for split in splits), "seeds"]
        rows = []
        for cell, size in zip(cells, sizes, strict=True):
            numbers = [_bold(_mean(document, cell, split), cell is best) for split in splits]
            ends = ", ".join([str(cell["n"])] * bool(cell["n"]) + _ends(cell))
            options = [shown(cell["options"][key]) for key in labels]
            rows.append([*options, *[size] * sized, *numbers, ends])
        for name, value in _baselines(document) if labels else ():
            row = dict.fromkeys(head, "") | {
                metric_label(document, "test"): number(document, value)
            }
            rows.append([f"*{name}*", *list(row.values())[1:]])
        text = tables.to_markdown(head, rows)
    if (is_grid(document) or not labels) and (found := _baselines(document)):
        words = [f"{name} {number(document, value)}" for name, value in found]
        text += f"\nWithout learning, {metric_label(document, 'test')}: {', '.join(words)}.\n"
    return text + _differences(document, splits)


def _grid(document: Document, split: str, titled: bool) -> str:
    """The table of one split of a grid."""
    best = best_cell(document)
    (up, rows), (over, columns) = document["options"].items()
    texts = {}
    for cell in document["cells"]:
        mean, count = _mean(document, cell, split), f" ({cell['n']})" if cell["n"] > 1 else ""
        text = ", ".join([mean + count] * bool(mean) + _ends(cell))
        texts[cell["options"][up], cell["options"][over]] = _bold(text, cell is best)
    lines = [[shown(row), *(texts[row, column] for column in columns)] for row in rows]
    corner = " \\ ".join(short_names(document["options"]).values())
    title = f"{metric_label(document, split)}:\n\n" if titled else ""
    return title + tables.to_markdown([corner, *map(shown, columns)], lines)


def _baselines(document: Document) -> list[tuple[str, float]]:
    """The names and test values of the predictors that learn nothing; where they differ between
    cells each with the name of the first cell that has it."""
    found: dict[tuple[str, float], str] = {}
    for cell in document["cells"]:
        for name, value in cell.get("baselines", {}).items():
            found.setdefault((name, value), name_of(cell))
    names = [name for name, _ in found]
    return [
        (f"{name} ({cell})" if names.count(name) > 1 else name, value)
        for (name, value), cell in found.items()
    ]


def _differences(document: Document, splits: list[str]) -> str:
    """The table of the differences of pairs of cells, "" if there are none."""
    rows = []
    for pair in document.get("differences", ()):
        found = [pair["test"] if split == "test" else pair["validation"] for split in splits]
        texts = [
            f"{number(document, each['mean'], '+')} ± {spread(document, each['half_width'])}"
            if each is not None
            else ""
            for each in found
        ]
        rows.append([pair["one"], pair["other"], *texts, str(pair["test"]["n"])])
    if not rows:
        return ""
    head = ["setting", "minus", *(metric_label(document, split) for split in splits), "seeds"]
    return (
        "\nDifferences seed by seed: their mean ± half of its 95 % interval (Student t), not "
        f"corrected for their number:\n\n{tables.to_markdown(head, rows)}"
    )


def _bold(text: str, wanted: bool) -> str:
    return f"**{text}**" if wanted and text else text


def _mean(document: Document, cell: Mapping[str, Any], split: str) -> str:
    """`81.2 ± 0.4`; "" if no run has finished."""
    found = on_split(cell, split)
    if found.get("mean") is None:
        return ""
    behind = "" if found["std"] is None else f" ± {spread(document, found['std'])}"
    return number(document, found["mean"]) + behind


def _ends(cell: Mapping[str, Any]) -> list[str]:
    """What became of the runs of a cell that count in no mean."""
    counts = [(what, len(cell.get(what, ()))) for what in ENDS]
    of = cell["n"] + sum(n for _, n in counts)
    return [what if n == of else f"{n} of {of} {what}" for what, n in counts if n]


def metric_label(document: Document, split: str) -> str:
    """The metric on a split, with its unit."""
    metric = document["metric"]
    return f"{split} {metric.replace('_', ' ')}{' (%)' if metric in PERCENT else ''}"


def number(document: Document, value: float, sign: str = "", digits: int = 4) -> str:
    """A value of the metric, as a table shows it; sign "+" for a difference."""
    if document["metric"] in PERCENT:
        return f"{100 * value:{sign}.1f}"
    return f"{value:{sign}.{digits}g}"


def spread(document: Document, value: float) -> str:
    """What stands behind ±, with two digits."""
    return number(document, value, digits=2)


def caption(document: Document) -> str:
    """What the numbers of the table are, and what chose the bold ones; and the remarks."""
    cells, splits = document["cells"], splits_of(document)
    counts = sorted({cell["n"] for cell in cells if cell["n"]}) or [0]
    seeds = " to ".join(dict.fromkeys((str(counts[0]), str(counts[-1]))))
    text = f"{metric_label(document, ' and '.join(splits))}: mean of {seeds} seed"
    text += "" if counts == [1] else "s"
    if counts[-1] > 1:
        text += " ± standard deviation over them"
        text += " (their number in brackets)" if is_grid(document) else ""
    for what, verb in ENDS.items():
        if n := sum(len(cell.get(what, ())) for cell in cells):
            text += f"; {n} of {len(document['runs'])} runs {verb}"
    if len(splits) == 1 and counts != [0]:
        text += "; measured before sweeps kept validation values, so none of them is chosen"
    elif best_cell(document) is not None and len(cells) > 1:
        text += f"; bold: the best mean on the {splits[0]} split, which alone chooses"
        best, means = best_cell(document), [on_split(cell, splits[0]).get("mean") for cell in cells]
        if best is not None and (n := means.count(best["validation"]["mean"])) > 1:
            text += f", the first of {n} that are equal there"
    if document.get("selected_by"):
        text += f"; checkpoints: the best {document['selected_by']} of each run"
    return text + "." + "".join(f" Note: {remark}" for remark in document["remarks"])


def to_csv(document: Document) -> str:
    """A line for each cell: options; of each split mean, standard deviation, least and most; how
    many runs ended how; the number of parameters, and the baselines on test, as far as known."""
    options, metric, splits = document["options"], document["metric"], splits_of(document)
    cells = document["cells"]
    sized = any("parameters" in cell for cell in cells)
    more = [what for what in ("pruned", "unfinished") if any(cell.get(what) for cell in cells)]
    baselines = list(dict.fromkeys(name for cell in cells for name in cell.get("baselines", {})))
    rows = []
    for cell in document["cells"]:
        found: list[Any] = [cell["options"][key] for key in options]
        for split in splits:
            known = on_split(cell, split)
            values = list(known.get("values", {}).values()) or [None]
            values = [math.nan] if any(value != value for value in values) else values
            found += [known.get("mean"), known.get("std"), min(values), max(values)]
        found += [cell["n"], len(cell["diverged"]), len(cell["missing"])]
        found += [len(cell.get(what, ())) for what in more]
        found += [cell.get("parameters")] * sized
        rows.append([*found, *(cell.get("baselines", {}).get(name) for name in baselines)])
    what = [f"{split}_{metric}{end}" for split in splits for end in ("", "_std", "_min", "_max")]
    ends = ("n", "diverged", "missing", *more, *["parameters"] * sized)
    own = (f"{name.replace(' ', '_')}_{metric}" for name in baselines)
    return tables.to_csv((*options, *what, *ends, *own), rows)
