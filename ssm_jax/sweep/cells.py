"""The results of a sweep as text: Markdown and CSV.

The runs of a sweep: which there are, and what each is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from ssm_jax import tables
from ssm_jax.config.check import seed_fault

Document = Mapping[str, Any]  # as ssm_jax.sweep.results.document_of makes it
# Sections that say nothing in the name of an option
SECTIONS = ("model.", "data.", "train.", "optim.groups.", "optim.", "schedule.")
PERCENT = ("accuracy",)  # metrics from 0 to 1 that are read in per cent


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Options as people call them: model.alpha is alpha, and model.beta.init is beta.

    Where two would be one, the keys stay as they are.
    """
    short = {}
    for key in keys:
        start = next((s for s in SECTIONS if key.startswith(s)), "")
        short[key] = key.removeprefix(start).removesuffix(".init")
    return short if len(set(short.values())) == len(short) else {key: key for key in short}


def shown(value: Any) -> str:
    """A value in a name or at an axis: 3.0 is 3."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def is_grid(document: Document) -> bool:
    """Whether the cells are every value of one option with every value of another."""
    sizes = [len(values) for values in document["options"].values()]
    return len(sizes) == 2 and len(document["cells"]) == sizes[0] * sizes[1]


def to_markdown(document: Document) -> str:
    """A table: of a grid one option down and one across, else a row for each cell."""
    options, labels = document["options"], short_names(document["options"])
    best = best_cell(document)
    texts = [
        f"**{text}**" if cell is best else text
        for cell in document["cells"]
        for text in (cell_text(document, cell),)
    ]
    if is_grid(document):
        (down, rows), (across, columns) = options.items()
        head = [f"{labels[down]} \\ {labels[across]}", *map(shown, columns)]
        found = {
            (cell["options"][down], cell["options"][across]): text
            for cell, text in zip(document["cells"], texts, strict=True)
        }
        lines = [[shown(row), *(found[row, column] for column in columns)] for row in rows]
    else:
        head = [*labels.values(), metric_label(document)]
        lines = [
            [*(shown(cell["options"][key]) for key in options), text]
            for cell, text in zip(document["cells"], texts, strict=True)
        ]
    return tables.to_markdown(head, lines)


def caption(document: Document) -> str:
    """What the numbers of the table are, in a line; and the remarks."""
    cells = document["cells"]
    counts = sorted({cell["n"] for cell in cells if cell["n"]}) or [0]
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text = (
        f"{metric_label(document)} on the {document['split']} split: mean of {seeds} "
        f"{'seed' if counts == [1] else 'seeds'}"
    )
    if counts[-1] > 1:
        text += " ± standard deviation over them (their number in brackets)"
    for what in ("diverged", "missing"):
        number = sum(len(cell[what]) for cell in cells)
        if number:
            text += f"; {number} of {len(document['runs'])} runs {_ARE[what]}"
    if document["better"]:
        text += "; the best cell is bold"
    return text + "." + "".join(f" Note: {remark}" for remark in document["remarks"])


_ARE = {"diverged": "diverged and count in no mean", "missing": "are missing"}


def metric_label(document: Document) -> str:
    """The metric with its unit."""
    metric = document["metric"]
    return f"{metric.replace('_', ' ')}{' (%)' if metric in PERCENT else ''}"


def cell_text(document: Document, cell: Mapping[str, Any]) -> str:
    """A cell in words: `81.2 ± 0.4 (3)`, with what diverged or is missing."""
    parts = []
    if cell["mean"] is not None:
        text = number(document, cell["mean"])
        if cell["std"] is not None:
            text += f" ± {number(document, cell['std'])} ({cell['n']})"
        parts.append(text)
    for what in ("diverged", "missing"):
        if cell[what]:
            of = len(document["seeds"])
            parts.append(what if len(cell[what]) == of else f"{len(cell[what])} of {of} {what}")
    return ", ".join(parts)


def number(document: Document, value: float) -> str:
    """A value of the metric, as a table shows it."""
    return f"{100 * value:.1f}" if document["metric"] in PERCENT else f"{value:.4g}"


def best_cell(document: Document) -> Mapping[str, Any] | None:
    """The cell with the best mean; None if the metric is neither to be large nor small."""
    found = [cell for cell in document["cells"] if cell["mean"] is not None]
    if not found or document["better"] is None:
        return None
    choose = max if document["better"] == "max" else min
    return choose(found, key=lambda cell: cell["mean"])


def to_csv(document: Document) -> str:
    """A line for each cell: options, mean, standard deviation, and how many runs ended how."""
    metric = document["metric"]
    head = (*document["options"], metric, f"{metric}_std", "n", "diverged", "missing")
    rows = (
        (
            *(cell["options"][key] for key in document["options"]),
            *(cell[key] for key in ("mean", "std", "n")),
            *(len(cell[key]) for key in ("diverged", "missing")),
        )
        for cell in document["cells"]
    )
    return tables.to_csv(head, rows)


@dataclass(frozen=True)
class Run:
    """One cell with one seed.

    Attributes:
      cell: the swept options by dotted key.
      seed: of the run.
      name: its folder in that of the sweep: `alpha=3,beta=0.5,seed=0`.
    """

    cell: Mapping[str, Any]
    seed: int
    name: str

    def config(self, cfg: ConfigDict) -> ConfigDict:
        """The experiment of this run, from that of the sweep."""
        cfg = cfg.copy_and_resolve_references()
        cfg.update_from_flattened_dict({**self.cell, "seed": self.seed})
        return cfg

    def command(self, spec: str, overrides: Mapping[str, Any], folder: str) -> list[str]:
        """The command that makes this run by itself.

        Args:
          spec: FILE.py[:ARG] of the experiment.
          overrides: of the sweep's command, by dotted key.
          folder: of the run.
        """
        options = {**overrides, **self.cell, "seed": self.seed}
        words = [f"--config.{key}={value}" for key, value in options.items()]
        return ["scripts/train.py", f"--config={spec}", *words, f"--workdir={folder}"]


def runs_of(cells: Sequence[Mapping[str, Any]], seeds: Iterable[int]) -> list[Run]:
    """Every cell with every seed, all cells of the first seed first.

    Raises:
      ValueError: for two cells that would have one name, or a seed that JAX would cut.
    """
    seeds = list(seeds)
    for seed in seeds:
        if (fault := seed_fault("seed", seed)) is not None:
            raise ValueError(f"the last of {len(seeds)} seeds: {fault}")
    labels = short_names(cells[0])
    names: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        name = ",".join(f"{labels[key]}={shown(value)}" for key, value in cell.items())
        name = name.replace("/", "_")
        if name in names:
            raise ValueError(f"the cells {names[name]} and {cell} would both be called {name}.")
        names[name] = cell
    return [
        Run(cell, seed, f"{name},seed={seed}") for seed in seeds for name, cell in names.items()
    ]
