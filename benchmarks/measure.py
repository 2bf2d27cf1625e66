"""Time and peak memory of functions, on machines where other work comes and goes."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax

Times = dict[str, list[float]]  # seconds of each round, by name


def in_fresh_process(
    function: Callable[..., Any], *arguments: Any, first: Callable[[], Any] | None = None
) -> Any:
    """`function(*arguments)` in a process of its own, whose memory nothing else has touched.

    first: called before, in that process.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=first) as pool:
        return pool.submit(function, *arguments).result()


def rounds(functions: Mapping[str, Callable[[], Any]], n: int, warmup: int = 2) -> Times:
    """Seconds of n calls of each function, in turn, so that all see the same machine."""
    seconds: Times = {name: [] for name in functions}
    for i in range(warmup + n):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            if i >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: list[float], unit: float = 1e3) -> dict[str, float]:
    """Median, least and largest, by default in milliseconds."""
    values = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    return {name: round(unit * value, 2) for name, value in values.items()}


def of_children() -> float:
    """Seconds of the processor that finished children of this process have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def processor_seconds(function: Callable[[], Any], n: int) -> list[float]:
    """Processor time of all threads of this process in each of n calls, after one that is not
    counted. On m cores that never wait it is m times the time of the call."""
    seconds = []
    for i in range(1 + n):
        start = time.process_time()
        jax.block_until_ready(function())
        if i:
            seconds.append(time.process_time() - start)
    return seconds


def ratio(times: Times, name: str, to: str) -> float:
    """Median over the rounds of the time of `name` over that of `to` in the same round."""
    pairs = zip(times[name], times[to], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 2)


class PeakMemory:
    """The memory that one call of a compiled program takes beyond its arguments, in MiB.

    with PeakMemory(program) as memory: call it once; then memory.mib, and memory.by says how it is
    known. "resident set", on CPUs: the growth of this process. On Linux the kernel's high-water
    mark is reset at the start; elsewhere only growth beyond all that came before is seen. "XLA's
    plan", on accelerators: temporaries and results. Their allocator counts peaks since the process
    began, and what tuning and initialization took would pass for the call's.
    """

    mib: int

    def __init__(self, program: Any = None):
        self._program = program
        self.by = "resident set" if jax.default_backend() == "cpu" else "XLA's plan"

    def __enter__(self) -> PeakMemory:
        reset = Path("/proc/self/clear_refs")
        if reset.exists():
            reset.write_text("5")
        self._before = _resident_now() if reset.exists() else _resident_peak()
        return self

    def __exit__(self, *_: object) -> None:
        on_cpu = self.by == "resident set"
        grown = _resident_peak() - self._before if on_cpu else _planned_growth(self._program)
        self.mib = round(grown / 2**20)


def _planned_growth(program: Any) -> int:
    memory = program.memory_analysis()
    kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(kept + memory.temp_size_in_bytes)


def _status(key: str) -> int | None:
    """A line of /proc/self/status, in bytes."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def _resident_now() -> int:
    found = _status("VmRSS")
    return _resident_peak() if found is None else found


def _resident_peak() -> int:
    found = _status("VmHWM")
    if found is not None:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
