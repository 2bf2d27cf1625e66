"""Lines, warnings and progress for the person who watches a command, on stderr."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar, Self, TextIO

from ssm_jax.files import printable
from ssm_jax.stop import Process

WINDOW_S = 30.0  # rates and ETA are of the last half minute: they follow a change of speed
_LINE_EVERY = 5.0  # seconds between the lines of a stage
_RUN_EVERY = 10.0  # ... and between those of a run


def say(text: str) -> None:
    """Print one line to stderr; of several processes of a run the first alone does."""
    if Process.index == 0:
        print(text, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Say something that a person may want to mend, though the work continues."""
    say(f"warning: {printable(message)}")


class Progress:
    """The progress of training or of an evaluation, from process 0 only.

    On a terminal it is a bar (several at once stand below each other); elsewhere a plain line about
    every ten seconds and one at the end:

        train 1200/3000  loss 0.8312  accuracy 0.4120  35.2 steps/s  ETA 0:00:51

    The clock of steps/s starts with the first `update`, so it leaves out the compilation. `metric`
    names what stands next to the loss; `unit` what is counted, where it is no steps of a run.
    """

    # Where progress is shown besides, and after which words; see `relayed`.
    relay: ClassVar[tuple[TextIO, str] | None] = None
    # One display for all bars of a process: rich before 14.1 refuses a second.
    _bars: ClassVar[Any] = None

    def __init__(
        self, task: str, total: int, *, start: int = 0, metric: str = "accuracy", unit: str = ""
    ):
        self.task, self.total, self.step, self.unit = task, total, start, unit
        self._every_s = _LINE_EVERY if unit else _RUN_EVERY
        self._metric = metric
        self._shown: dict[str, float | None] = {"loss": None, metric: None}
        self._times: deque[tuple[float, int]] = deque(maxlen=4096)
        self._said = time.monotonic()
        self._bar: Any = None
        self._speaks = True
        if not unit:
            import jax  # here, so that data are prepared without it

            self._speaks = jax.process_index() == 0

    def __enter__(self) -> Self:
        if self._speaks and sys.stderr.isatty():
            # Imported here: 0.1 s that a run without a terminal need not pay.
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bars

            console = Console(stderr=True)
            if console.is_dumb_terminal:
                return self
            if Progress._bars is None:
                left = TextColumn("{task.description}", markup=False)  # paths have "["
                right = TextColumn("{task.fields[text]}", markup=False)
                # Two redraws a second: rich's ten take some percent of a core from the training.
                bars = Bars(left, BarColumn(), right, console=console, refresh_per_second=2)
                Progress._bars = bars
                bars.start()
            kept = {"total": self.total, "completed": self.step, "text": self._text()}
            self._bar = Progress._bars.add_task(self.task, **kept)
        return self

    def update(self, step: int, loss: float | None = None, value: float | None = None) -> None:
        """Say that `step` is done, with its loss and metric; one left out keeps the last."""
        now, self.step = time.monotonic(), step
        for name, number in (("loss", loss), (self._metric, value)):
            if number is not None:
                self._shown[name] = number
        self._times.append((now, step))
        while len(self._times) > 2 and now - self._times[0][0] > WINDOW_S:
            self._times.popleft()
        if self._bar is not None:
            Progress._bars.update(self._bar, completed=step, text=self._text())
        elif self._speaks and now - self._said >= self._every_s:
            self._said = now
            say(f"{self.task} {self._text()}")
            if Progress.relay is not None:
                stream, label = Progress.relay
                print(f"{label}: {self.task} {self._text()}", file=stream, flush=True)

    def __exit__(self, *error: object) -> None:
        if (bars := Progress._bars) is not None and self._bar is not None:
            bars.refresh()
            bars.remove_task(self._bar)
            if not bars.task_ids:
                bars.stop()
                Progress._bars = None
        if self._speaks and not self.unit:
            say(f"{self.task} {self._text()}")

    def steps_per_second(self) -> float | None:
        """The rate over the last half minute; None before the second `update`."""
        if len(self._times) < 2:
            return None
        (first, start), (last, step) = self._times[0], self._times[-1]
        return (step - start) / (last - first) if last > first else None

    def _text(self) -> str:
        parts = [f"{self.step}/{self.total}"]
        if self.unit:
            parts = [f"{self.step:,} of {self.total:,} {self.unit}"]
            if self._bar is None:
                return parts[0]
        parts += [f"{name} {v:.4f}" for name, v in self._shown.items() if v is not None]
        if rate := self.steps_per_second():
            number = f"{rate:.1f}" if rate >= 10 else f"{rate:.2g}"
            parts.append(f"{number} {self.unit or 'steps'}/s")
            if self.step < self.total:
                parts.append(f"ETA {timedelta(seconds=round((self.total - self.step) / rate))}")
        return "  ".join(parts)


@contextmanager
def relayed(label: str) -> Iterator[None]:
    """Show the progress of what follows on this stderr too, though stderr is redirected then."""
    Progress.relay = (sys.stderr, label)
    try:
        yield
    finally:
        Progress.relay = None


@contextmanager
def stage(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show how far a stage is; at its end, one line with the seconds it took.

    `title` is `generating ListOps`, `total` its size in `unit`. Yields a function to call with how
    many more units are done; what exceeds the total is not shown.
    """
    start, title = time.monotonic(), printable(title)
    with Progress(f"{title}:", total, unit=unit) as bar:
        done, shown = 0, float("-inf")

        def advance(n: int) -> None:
            nonlocal done, shown
            done = min(done + n, total)
            # Not at each of 200,000 small files: an update costs more than to read one.
            if (now := time.monotonic()) - shown >= min(0.1, _LINE_EVERY):
                shown = now
                bar.update(done)

        yield advance
    say(f"{title}: {total:,} {unit} in {time.monotonic() - start:.1f} s")
