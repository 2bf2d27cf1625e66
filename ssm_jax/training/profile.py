"""Where the time of a run goes: parts of the whole, some steps one by one, and a trace of these.

The parts are what the training process does or waits for, so they add up to the time that it took.
A device computes while the process reads the next batch: what is left to wait for is `device`. For
the steps that are traced the process waits at once, so their times by part are whole.
"""

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import jax
from rich.console import Console

from ssm_jax.progress import say, warn
from ssm_jax.tables import to_screen
from ssm_jax.training.record import write_result

WARM_UP = 3  # steps before those that are traced: the first ones compile and fill caches
SHOWN, LISTED = 8, 30  # operations of the trace on the screen, and in profile.json
PARTS = {
    "input": "waiting for the next batch, and placing it",
    "compilation": "of the training step",
    "dispatch": "handing a step to the device; a CPU may compute it meanwhile",
    "device": "waiting for the device",
    "evaluation": "with its compilation",
    "diagnostics": "of the layers",
    "checkpoint": "copying the state, and waiting for the disk",
    "figures": "",
    "rest": "",
}


class Profile:
    """Measures a run; with `steps` also traces that many into a folder, and says what it found."""

    def __init__(self, folder: Path, steps: int = 0):
        self._folder, self._wanted = folder, steps
        self._part, self._since = "rest", time.perf_counter()
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._seen = 0  # steps of this process
        self._open = False  # whether a trace is being taken
        self._traced: list[int] = []
        self._of_step = dict.fromkeys(PARTS, 0.0)  # seconds by part over the traced steps

    def _now(self) -> dict[str, float]:
        """Seconds by part until now."""
        now = time.perf_counter()
        self._seconds[self._part] += now - self._since
        self._since = now
        return dict(self._seconds)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside for a part, and not for the one around it."""
        self._now()
        self._part, outer = name, self._part
        try:
            yield
        finally:
            self._now()
            self._part = outer

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """A training step, which is traced if it is its turn."""
        self._seen += 1
        turn = WARM_UP < self._seen <= WARM_UP + self._wanted
        if not turn:
            yield
            return
        if not self._traced:
            shutil.rmtree(self._folder, ignore_errors=True)
            try:
                jax.profiler.start_trace(self._folder)
            except (RuntimeError, OSError, ValueError) as error:
                warn(f"no trace can be taken: {' '.join(str(error).split())}")
                self._wanted = 0
                yield
                return
            self._open = True
        before = self._now()
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield
        for name, seconds in self._now().items():
            self._of_step[name] += seconds - before[name]
        self._traced.append(step)
        if len(self._traced) == self._wanted:
            self._stop()

    def dispatched(self, result: Any) -> None:
        """Wait for what a traced step has handed to the device; else nothing."""
        if self._open:
            with self.part("device"):
                jax.block_until_ready(result)

    def _stop(self) -> None:
        """End the trace, if one is open."""
        if self._open:
            self._open = False
            jax.profiler.stop_trace()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def close(self, argv: Sequence[str] = ()) -> None:
        """End a trace; print the tables and write profile.json, if steps were asked for."""
        if not self._wanted:
            return
        self._stop()
        if not self._traced:
            warn(
                f"--profile={self._wanted}: the run took {self._seen} steps, and the first "
                f"{WARM_UP} are not traced; nothing was."
            )
            return
        found = self._found()
        self._folder.mkdir(parents=True, exist_ok=True)
        write_result(self._folder / "profile.json", found, argv)
        for table in _tables(found):
            Console(stderr=True).print(table)
        say(f"profile: {self._folder / 'profile.json'}, and a trace for TensorBoard or Perfetto.")

    def _found(self) -> dict[str, Any]:
        parts = self._now()
        count, whole = len(self._traced), sum(self._of_step.values())
        return {
            "steps": {"first": self._traced[0], "last": self._traced[-1], "traced": count},
            "seconds_per_step": {
                name: self._of_step.get(name, 0.0) / count
                for name in ("input", "dispatch", "device")
            },
            "steps_per_second": count / whole,
            "run": {"seconds": sum(parts.values()), "steps": self._seen, "parts": parts},
            "operations": operations(self._folder),
        }


def operations(folder: Path) -> list[dict[str, Any]]:
    """The longest operations of a trace, by name: seconds over all threads or streams, and share.

    What only contains others, such as a loop, is left out.
    """
    totals: dict[str, float] = {}
    for file in sorted(folder.rglob("*.xplane.pb"))[-1:]:
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                # A device has a plane of its own; on a CPU they are on the threads of its client.
                on_device = plane.name.startswith("/device:")
                on_device &= line.name == "XLA Ops" or "Stream" in line.name
                for event in line.events if on_device or line.name.startswith("tf_XLA") else ():
                    name = re.sub(r"(\.\d+|\.clone)+$", "", event.name)
                    if event.duration_ns and not re.search(r"::|: |^(while|call|cond)", name):
                        totals[name] = totals.get(name, 0.0) + event.duration_ns / 1e9
    ranked = sorted(totals.items(), key=lambda item: -item[1])[:LISTED]
    whole = sum(totals.values())
    return [{"name": name, "seconds": s, "share": s / whole} for name, s in ranked]


def _tables(found: dict[str, Any]) -> Iterator[Any]:
    run, steps = found["run"], found["steps"]
    parts = [
        (name, f"{seconds:.2f} s", f"{seconds / run['seconds']:.1%}", PARTS[name])
        for name, seconds in run["parts"].items()
        if seconds > 5e-3
    ]
    title = f"Where {run['seconds']:.1f} s of {run['steps']:,} steps went"
    yield to_screen(("part", "time", "share", "what"), parts, title=title, words={0, 3})
    each = [(n, f"{1e3 * seconds:.3f} ms") for n, seconds in found["seconds_per_step"].items()]
    each.append(("steps per second", f"{found['steps_per_second']:.1f}"))
    title = f"A step alone (mean of {steps['first']:,} .. {steps['last']:,})"
    yield to_screen(("part", "time"), each, title=title, words={0})
    count = steps["traced"]
    longest = [
        (row["name"], f"{1e3 * row['seconds'] / count:.3f} ms", f"{row['share']:.1%}")
        for row in found["operations"][:SHOWN]
    ]
    if longest:
        yield to_screen(("operation", "per step", "share"), longest, title="Operations", words={0})
