"""What a person sees of a run: progress and the table of parameters.

What a run would be, without training: shapes, parameters, memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import jax
from rich.console import Console
from rich.table import Table

from ssm_jax.train.experiment import Experiment, timed_compile
from ssm_jax.train.optim import GroupRow, path_name


def parameter_table(rows: Iterable[GroupRow]) -> Table:
    """The parameter groups and their sum, for `rich.print` or `Console().print`."""
    table = Table(title="Parameters", title_justify="left")
    table.add_column("group")
    for name in ("tensors", "parameters", "learning rate", "weight decay"):
        table.add_column(name, justify="right")
    table.add_column("schedule")
    tensors = parameters = 0
    for row in rows:
        group, count = row.group, len(row.paths)
        tensors, parameters = tensors + count, parameters + row.size
        numbers = (f"{count}", f"{row.size:,}", f"{group.lr:g}", f"{group.weight_decay:g}")
        table.add_row(group.name, *numbers, group.schedule)
    table.add_section()
    table.add_row("all", f"{tensors}", f"{parameters:,}", "", "", "")
    return table


MIB = 2**20


def plan(experiment: Experiment) -> tuple[list[Table], list[str]]:
    """Tables of shapes and parameter groups, and lines on the memory of the compiled step."""
    state = experiment.abstract_state()
    shapes = Table(title="Shapes", title_justify="left")
    for column in ("array", "shape", "dtype"):
        shapes.add_column(column)
    for name, array in experiment.abstract_batch().items():
        shapes.add_row(f"batch/{name}", str(array.shape), array.dtype.name)
    leaves = [
        (path_name(path), leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(state.params)[0]
    ]
    repeated = len({name.split("/")[1] for name, _ in leaves if name.startswith("blocks/")}) - 1
    for name, leaf in leaves:
        if not name.startswith("blocks/") or name.startswith("blocks/0/"):
            shapes.add_row(name, str(leaf.shape), leaf.dtype.name)
    if repeated > 0:
        shapes.add_row(f"blocks/1..{repeated}", "as blocks/0", "")

    def size(tree) -> int:
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    step, seconds = timed_compile(experiment.compile_train_step)
    lines = [
        f"state: {size(state) / MIB:,.1f} MiB, of which parameters "
        f"{size(state.params) / MIB:,.1f} MiB",
        f"training step: compiled in {seconds:.1f} s for {experiment.mesh.size} device(s)",
    ]
    if (memory := step.memory_analysis()) is not None:  # some backends do not tell
        lines.append(
            f"memory per device as XLA plans it: arguments "
            f"{memory.argument_size_in_bytes / MIB:,.1f} MiB, temporaries "
            f"{memory.temp_size_in_bytes / MIB:,.1f} MiB"
        )
    return [shapes, parameter_table(experiment.rows)], lines


def print_plan(experiment: Experiment) -> None:
    """Print it to stdout."""
    tables, lines = plan(experiment)
    console = Console(soft_wrap=True)
    for line in experiment.describe():
        console.print(line, highlight=False, markup=False)
    for table in tables:
        console.print(table)
    for line in lines:
        console.print(line, highlight=False, markup=False)
