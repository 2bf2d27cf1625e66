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


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, least and largest, in milliseconds."""
    values = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    return {name: round(1e3 * value, 2) for name, value in values.items()}


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
    """The growth of this process's resident set, or of the accelerator's memory in use, in MiB.

    with PeakMemory() as memory: ...; then memory.mib. On Linux the kernel's high-water mark is
    reset at the start. Elsewhere only growth beyond all that came before is seen.
    """

    mib: int

    def __enter__(self) -> PeakMemory:
        reset = Path("/proc/self/clear_refs")
        if reset.exists():
            reset.write_text("5")
        self._before = _resident_now() if reset.exists() else _resident_peak()
        self._on_device = _device_bytes("bytes_in_use")
        return self

    def __exit__(self, *_: object) -> None:
        peak = _device_bytes("peak_bytes_in_use")
        if peak is not None and self._on_device is not None:
            grown = peak - self._on_device
        else:
            grown = _resident_peak() - self._before
        self.mib = round(grown / 2**20)


def _device_bytes(name: str) -> int | None:
    return (jax.local_devices()[0].memory_stats() or {}).get(name)


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
