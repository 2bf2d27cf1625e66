"""The page of all options, from their rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ssm_jax.config.check import STEPS
from ssm_jax.layers import LAYERS
from ssm_jax.models import SequenceClassifier
from ssm_jax.options.arguments import SHARED, parameters_of
from ssm_jax.options.rows import OPTIONS, SECTIONS, Option, Range
from ssm_jax.tables import Columns, cells, to_markdown
from ssm_jax.tasks import TASKS, find_task
from ssm_jax.tasks.arrays import OF_FORECASTS, OF_WHOLE_SERIES

Row = tuple[str, Option, str]  # key, row, who reads it

COLUMNS: Columns = {
    "option": lambda row: f"`{row[0]}`",
    "default": lambda row: f"`{row[1].default!r}`",
    "meaning": lambda row: row[1].help.replace("|", r"\|"),
    "read by": lambda row: _where(*row[1:]),
}


def _readers(key: str) -> str:
    """The layers that take an option of the model; the network alone; or the run."""
    parts = key.split(".")
    if parts[0] != "model":
        return "every run"
    if len(parts) == 3 and parts[1] in LAYERS:
        return parts[1]
    if key in ("model.layer", "model.beta.filter"):
        return "every layer"
    names = {f"model.{shared}": name for name, shared in SHARED.items()}
    name = names.get(key, parts[-1])
    layers = [layer for layer, made in LAYERS.items() if _takes(made, name)]
    if name in parameters_of(SequenceClassifier) or name == "d_model":
        return "the network"
    return "every layer" if len(layers) == len(LAYERS) else ", ".join(layers)


def _where(row: Option, readers: str) -> str:
    """Who reads an option, and with which values of others."""
    told = [
        f"`{key}` is {values.short if isinstance(values, Range) else ' or '.join(map(str, values))}"
        for key, values in row.when.items()
    ]
    return readers + (f", where {' and '.join(told)}" if told else "")


def _takes(layer: Any, name: str) -> bool:
    """Whether the constructor of a layer takes an argument, or its start from data reads it."""
    needed = {"spectrum_steps": "taps", **dict.fromkeys(STEPS, "set_step_sizes")}.get(name)
    return name in parameters_of(layer) or (needed is not None and hasattr(layer, needed))


def _refused(task: str, key: str) -> bool:
    """Whether a task has an option of a user's series only so that it can say no."""
    return key.startswith("data.arrays.") and key.rpartition(".")[2] in (
        OF_WHOLE_SERIES if task == "forecasting" else OF_FORECASTS
    )


def _rows() -> Iterator[Row]:
    for key, row in OPTIONS.items():
        yield key, row, _readers(key)
    own: dict[str, tuple[Option, list[str]]] = {}
    for name in TASKS:
        for key, row in find_task(name).options.items():
            if not _refused(name, key):
                own.setdefault(key, (row, []))[1].append(name)
    for key, (row, names) in own.items():
        yield key, row, "task " + ", ".join(names)


def options() -> str:
    """A table for each section of the options."""
    sections: dict[str, list[Row]] = {}
    for row in _rows():
        sections.setdefault(row[0].rpartition(".")[0], []).append(row)
    parts = []
    for section, rows in sorted(sections.items(), key=lambda item: (item[0].count("."), item[0])):
        about = f": {SECTIONS[section]}" if section in SECTIONS else ""
        heading = f"## `{section}`{about}" if section else "## The run"
        parts.append(f"{heading}\n\n{to_markdown(COLUMNS, cells(COLUMNS, rows))}")
    return "\n" + "\n".join(parts) + "\n"
