"""Checks and statistics of the values of series, block by block, as a file may exceed memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from ssm_jax.data.preprocessing import ArrayOptions
from ssm_jax.data.series import Series
from ssm_jax.progress import stage

BLOCK = 1 << 22  # numbers that are in memory at once
_MANY = 1 << 28  # numbers: to look at so many takes seconds, and is shown
FLOAT32 = float(np.finfo(np.float32).max)
SQUARES = FLOAT32**0.5, 1e150  # of numbers that are squared, in float32 and summed in float64
_LARGE = 1e15  # a smaller one overflows float32 beside a standard deviation below 1e-23 alone
_ROUNDING = 1e-14  # of the mean: the standard deviation of a constant channel may be that


def check_finite(part: Series, missing: str) -> np.ndarray:
    """Refuse the first input that is infinite or, unless they are interpolated, missing; of each
    channel the largest absolute value, 0 where none may be too large for float32."""
    largest = np.zeros(part.steps.shape[1])
    if part.steps.dtype.kind != "f":
        return largest
    size = max(1, BLOCK // part.steps.shape[1])
    stretches = joined(part.starts, part.starts + part.lengths)
    with _shown("checking all values", stretches, part.steps) as advance:
        for group in _blocks(stretches, size):
            for a, b in group:
                block = part.steps[a:b]
                wrong = ~np.isfinite(block) if missing == "refuse" else np.isinf(block)
                for step, c in np.argwhere(wrong)[:1]:
                    number, at = series_at(part, a + int(step))
                    value = block[step, c]
                    hint = "; data.arrays.missing=interpolate fills it" if np.isnan(value) else ""
                    place = f"{part.where(number, at)}, {part.channels[c]}"
                    raise ValueError(f"{place}: {value}{hint}.")
                if missing != "refuse":
                    block = np.nan_to_num(block)
                if max(float(block.max()), -float(block.min())) > _LARGE:  # more than float16 has
                    largest = np.maximum(largest, np.abs(block).max(axis=0))
                advance(b - a)
    return largest


def check_scaled(
    names: Sequence[str],
    largest: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    path: Path,
    most: float = FLOAT32,
) -> None:
    """Refuse what has a value beyond `most`, once it is standardized."""
    scaled = (largest + np.abs(mean)) / np.where(std > 0, std, 1.0)
    for c in np.flatnonzero(scaled > most)[:1]:
        what = "which" if most == FLOAT32 else "the square of which"
        raise ValueError(
            f"{path}: {names[c]} has {largest[c]:g} outside of training, {what} is infinite in "
            f"float{32 if most <= FLOAT32 else 64} beside its standard deviation {std[c]:g}; mend "
            "the file."
        )


def statistics(
    stretches: list[tuple[int, int]], values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each column over some stretches: values that are not missing, their mean and standard
    deviation, which is 0 for a constant one."""
    width = 1 if values.ndim == 1 else values.shape[1]
    n, mean, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    with _shown("mean and standard deviation", stretches, values) as advance:
        for block in _blocks(stretches, max(1, BLOCK // width)):
            x = np.concatenate(
                [np.asarray(values[a:b], np.float64).reshape(-1, width) for a, b in block]
            )
            there = ~np.isnan(x)
            m = there.sum(0)
            total, some = np.maximum(n + m, 1), np.maximum(m, 1)
            mean_x = np.where(there, x, 0.0).sum(0) / some
            apart = np.where(m > 0, mean_x - mean, 0.0)
            with np.errstate(over="ignore"):
                squares += (np.where(there, x - mean_x, 0.0) ** 2).sum(0)
                squares += np.where(n > 0, apart, 0.0) ** 2 * n * m / total
            mean += apart * m / total
            n += m
            advance(len(x))
    std = np.sqrt(squares / np.maximum(n, 1))  # infinite where squares overflow
    return n, mean, np.where(std > _ROUNDING * np.abs(mean), std, 0.0)


def stretches_of(
    series: Series, rows: np.ndarray, options: ArrayOptions, head: str
) -> list[tuple[int, int]]:
    """Steps that belong to training examples, (start, end), ascending and without overlap."""
    if not len(rows):
        raise ValueError(
            f"of {len(series)} series none is left for training: lower data.arrays.val and test, "
            "or say which column tells series apart by data.arrays.id."
        )
    if head == "forecasting":
        starts = np.sort(series.starts[rows[:, 0]] + rows[:, 1])
        return joined(starts, starts + options.context + options.horizon)
    rows = np.sort(rows)
    return joined(series.starts[rows], series.starts[rows] + series.lengths[rows])


def joined(starts: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """Stretches whose starts ascend, without overlap; neighbours are joined."""
    ends = np.maximum.accumulate(ends)
    new = starts[1:] > ends[:-1]
    firsts, lasts = starts[np.r_[True, new]], ends[np.r_[new, True]]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def series_at(part: Series, step: int) -> tuple[int, int]:
    """The series to which a step belongs, and its number there."""
    number = int(np.searchsorted(part.starts, step, side="right")) - 1
    return number, step - int(part.starts[number])


def _blocks(stretches: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    """Stretches in groups of about `size` steps; long ones are cut."""
    group: list[tuple[int, int]] = []
    held = 0
    for start, end in stretches:
        for a in range(start, end, size):
            b = min(a + size, end)
            group.append((a, b))
            held += b - a
            if held >= size:
                yield group
                group, held = [], 0
    if group:
        yield group


def _shown(
    title: str, stretches: list[tuple[int, int]], values: np.ndarray
) -> AbstractContextManager[Callable[[int], None]]:
    """The progress of a look at many values, as `progress.stage`; of fewer nothing is shown."""
    total = sum(end - start for start, end in stretches)
    if total * values[:1].size < _MANY:
        return nullcontext(lambda steps: None)
    return stage(title, total, "steps")
