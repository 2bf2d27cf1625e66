"""What a person sees of a run: progress and the table of parameters.

What a run would be, without training: shapes, parameters, memory.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import ClassVar, Self

import jax
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ssm_jax.train.experiment import Experiment, timed_compile
from ssm_jax.train.optim import GroupRow, path_name

WINDOW_S = 30.0  # steps/s and ETA are of the last half minute: they follow a change of speed


def say(text: str) -> None:
    """A line for the person who watches, on stderr."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """The progress of training or of an evaluation, on stderr, from process 0 only.

    On a terminal it is a bar (several at once stand below each other); elsewhere a plain line about
    every `every_s` seconds and one at the end:

        train 1200/3000  loss 0.8312  accuracy 0.4120  35.2 steps/s  ETA 0:00:51

    The clock of steps/s starts with the first `update`, so it leaves out the compilation.
    """

    # One display for all bars of a process: rich before 14.1 refuses a second.
    _bars: ClassVar[Bars | None] = None

    def __init__(
        self,
        task: str,
        total: int,
        *,
        start: int = 0,
        every_s: float = 10.0,
        metric: str = "accuracy",
    ):
        """Args:
        task: what is done ("train", "val").
        total, start: its last step, and its step now.
        every_s: seconds between lines.
        metric: name of what stands beside the loss.
        """
        self.task, self.total, self.every_s, self.metric = task, total, every_s, metric
        self._step = start
        self._loss: float | None = None
        self._value: float | None = None
        self._times: deque[tuple[float, int]] = deque()
        self._told = time.monotonic()
        self._bar: TaskID | None = None
        self._shown = jax.process_index() == 0

    def __enter__(self) -> Self:
        console = Console(stderr=True)
        if self._shown and sys.stderr.isatty() and not console.is_dumb_terminal:
            if Progress._bars is None:
                columns = (
                    TextColumn("{task.description}"),
                    BarColumn(),
                    TextColumn("{task.fields[text]}"),
                )
                # Two redraws a second: rich's ten take some percent of a core from the training.
                Progress._bars = Bars(*columns, console=console, refresh_per_second=2)
                Progress._bars.start()
            self._bar = Progress._bars.add_task(
                self.task, total=self.total, completed=self._step, text=self._text()
            )
        return self

    def update(self, step: int, loss: float | None = None, value: float | None = None) -> None:
        """Say that `step` is done, with its loss and metric; one left out keeps the last."""
        self._step = step
        self._loss = self._loss if loss is None else loss
        self._value = self._value if value is None else value
        now = time.monotonic()
        self._times.append((now, step))
        while len(self._times) > 2 and now - self._times[0][0] > WINDOW_S:
            self._times.popleft()
        if self._bar is not None and Progress._bars is not None:
            Progress._bars.update(self._bar, completed=step, text=self._text())
        elif self._shown and now - self._told >= self.every_s:
            self._print(now)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        bars = Progress._bars
        if self._bar is not None and bars is not None:
            bars.remove_task(self._bar)
            if not bars.task_ids:
                bars.stop()
                Progress._bars = None
        if self._shown:
            self._print(time.monotonic())

    def steps_per_second(self) -> float | None:
        """Of the last half minute; None before the second `update`."""
        if len(self._times) < 2:
            return None
        (first, start), (last, step) = self._times[0], self._times[-1]
        return (step - start) / (last - first) if last > first else None

    def _print(self, now: float) -> None:
        self._told = now
        print(f"{self.task} {self._text()}", file=sys.stderr, flush=True)

    def _text(self) -> str:
        parts = [f"{self._step}/{self.total}"]
        if self._loss is not None:
            parts.append(f"loss {self._loss:.4f}")
        if self._value is not None:
            parts.append(f"{self.metric} {self._value:.4f}")
        rate = self.steps_per_second()
        if rate:
            parts.append(f"{rate:.1f} steps/s" if rate >= 10 else f"{rate:.2g} steps/s")
            if self._step < self.total:
                left = timedelta(seconds=round((self.total - self._step) / rate))
                parts.append(f"ETA {left}")
        return "  ".join(parts)


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
