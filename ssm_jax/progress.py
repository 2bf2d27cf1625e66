"""Progress of a stage on standard error: a bar on a terminal, elsewhere a line every 5 seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ssm_jax.files import printable

_LINE_EVERY = 5.0  # seconds between lines where there is no terminal


@contextmanager
def stage(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show how far a stage is; at its end, one line with the seconds it took.

    Args:
      title: what is being done, `generating ListOps`.
      total: its size in `unit`.
      unit: what is counted, `expressions`.

    Yields:
      A function to call with how many more units are done; what exceeds the total is not shown.
    """
    start, title = time.perf_counter(), printable(title)
    if sys.stderr.isatty():
        # Imported here: 0.1 s that a run without a terminal need not pay.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),  # a path may hold square brackets
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total)
            done = 0

            def show(n: int) -> None:
                nonlocal done
                done = min(done + n, total)
                bar.update(task, completed=done)

            yield show
    else:
        done, last = 0, start

        def say(n: int) -> None:
            nonlocal done, last
            done = min(done + n, total)
            now = time.perf_counter()
            if now - last >= _LINE_EVERY:
                last = now
                print(f"{title}: {done:,} of {total:,} {unit}", file=sys.stderr, flush=True)

        yield say
    seconds = time.perf_counter() - start
    print(f"{title}: {total:,} {unit} in {seconds:.1f} s", file=sys.stderr, flush=True)
