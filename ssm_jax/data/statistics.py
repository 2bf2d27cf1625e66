"""Means and standard deviations of the training examples, after a look at every value.

A file may be larger than memory: it is read in blocks.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ssm_jax.data.preprocessing import ArrayOptions, Preprocessing
from ssm_jax.data.series import Series

_BLOCK = 1 << 22  # numbers that are in memory at once


def fit(
    head: str,
    parts: Mapping[str, Series],
    rows: Mapping[str, np.ndarray],
    options: ArrayOptions,
    padded_length: int,
    path: Path,
) -> Preprocessing:
    """Check all values, and take the statistics of the training examples."""
    train, targets = parts["train"], parts["train"].targets
    tokens = train.steps.ndim == 1
    vocab_size, mean, std = None, np.zeros(0), np.ones(0)
    if tokens:
        if head == "forecasting":
            raise ValueError(f"{path} holds whole numbers (n, L): tokens have no forecast.")
        least = min(int(p.steps.min()) for p in parts.values())
        vocab_size = 1 + max(int(p.steps.max()) for p in parts.values())
        if least < 0 or vocab_size > 1 << 20:
            raise ValueError(f"{path} has token ids from {least} to {vocab_size - 1}.")
    else:
        if len({p.channels for p in parts.values()}) > 1:
            raise ValueError(f"{path}: the splits have different channels.")
        for part in {id(p): p for p in parts.values()}.values():
            _check_finite(part, options.missing)
        mean, std = _statistics(_stretches(train, rows["train"], options, head), train.steps)
    names: tuple[str, ...] = train.target_names
    classes: tuple[str, ...] = ()
    target_mean = target_std = np.zeros(0)
    if head == "forecasting":
        names = options.columns().target or train.channels
        if lacking := [n for n in names if n not in train.channels]:
            raise ValueError(
                f"data.arrays.target={lacking[0]} is no channel; they are "
                f"{', '.join(train.channels)}."
            )
        at = [train.channels.index(n) for n in names]
        target_mean, target_std = mean[at], std[at]
    elif targets is None:
        raise ValueError(f"{path} has no targets; {_WANTED[head]}")
    elif head == "classification":
        if train.per_step or targets.ndim > 1:
            raise ValueError(f"the targets have the shape {targets.shape}; {_WANTED[head]}")
        found = [_labels(p, rows[s]) for s, p in parts.items()]
        classes = tuple(sorted({c for labels in found for c in labels}, key=_in_order))
        if len(classes) < 2:
            raise ValueError(f"{path} has the class {classes[0]} alone; two are needed.")
        names = ()
    else:
        if targets.dtype.kind not in "biuf" or train.per_step != (head == "per_step"):
            what = "of each step" if train.per_step else "of each series"
            raise ValueError(f"the targets are {targets.dtype} {what}; {_WANTED[head]}")
        if head == "regression":
            for part in {id(p): p for p in parts.values()}.values():
                y = np.asarray(part.targets, np.float64).reshape(len(part), -1)
                for i, k in np.argwhere(~np.isfinite(y))[:1]:
                    raise ValueError(
                        f"{part.where(int(i), 0)}, {names[k]}: {y[i, k]} is no target."
                    )
            y = np.asarray(targets, np.float64).reshape(len(train), -1)[rows["train"]]
            target_mean, target_std = y.mean(0), y.std(0)
        else:
            stretches = _stretches(train, rows["train"], options, head)
            target_mean, target_std = _statistics(stretches, targets)
    if not options.standardize:
        mean, std = np.zeros_like(mean), np.ones_like(std)
        target_mean, target_std = np.zeros_like(target_mean), np.ones_like(target_std)
    longest = (
        max(int(parts[s].lengths[r].max()) for s, r in rows.items() if r.ndim == 1 and r.size)
        if (head != "forecasting")
        else options.context
    )
    return Preprocessing(
        head=head,
        channels=train.channels,
        mean=tuple(mean.tolist()),
        std=tuple(np.where(std > 0, std, 1.0).tolist()),
        targets=tuple(names),
        target_mean=tuple(target_mean.tolist()),
        target_std=tuple(np.where(target_std > 0, target_std, 1.0).tolist()),
        classes=classes,
        vocab_size=vocab_size,
        missing=options.missing,
        horizon=options.horizon if head == "forecasting" else 0,
        relative=options.relative and head == "forecasting",
        padded_length=options.context if head == "forecasting" else padded_length or longest,
    )


_WANTED = {
    "classification": "classification needs a class of each series, a word or a whole number.",
    "regression": "regression needs numbers of each series, (n,) or (n, K).",
    "per_step": "per_step needs numbers of each step, (n, L) or (n, L, K), or a target column.",
}


def _in_order(label: str) -> tuple[float, str]:
    """Numbers by value, then words."""
    try:
        return float(label), label
    except ValueError:
        return np.inf, label


def _labels(part: Series, rows: np.ndarray | None = None) -> list[str]:
    """The classes of series as words; a ValueError for a real number."""
    assert part.targets is not None
    labels = np.asarray(part.targets if rows is None else part.targets[rows])
    if labels.dtype.kind == "f":
        if not (labels == np.rint(labels)).all():
            raise ValueError(f"the targets are real numbers; {_WANTED['classification']}")
        labels = labels.astype(np.int64)
    return [str(label) for label in labels.tolist()]


def classes_of(part: Series, classes: tuple[str, ...]) -> np.ndarray:
    """The number of the class of each series; 0 of one that no split uses."""
    numbers = {label: k for k, label in enumerate(classes)}
    return np.array([numbers.get(label, 0) for label in _labels(part)], np.int64)


def _check_finite(part: Series, missing: str) -> None:
    """Refuse the first input that is infinite or, unless they are interpolated, missing."""
    if part.steps.dtype.kind != "f":
        return
    per_block = max(1, _BLOCK // part.steps.shape[1])
    for start in range(0, len(part.steps), per_block):
        block = part.steps[start : start + per_block]
        wrong = ~np.isfinite(block) if missing == "refuse" else np.isinf(block)
        for step, c in np.argwhere(wrong):
            number, at = _series_at(part, start + int(step))
            if at >= part.lengths[number]:
                continue  # padding of the files
            value = block[step, c]
            hint = "; data.arrays.missing=interpolate fills it" if np.isnan(value) else ""
            raise ValueError(f"{part.where(number, at)}, {part.channels[c]}: {value}{hint}.")


def _series_at(part: Series, step: int) -> tuple[int, int]:
    """The series to which a step belongs, and its number there."""
    number = int(np.searchsorted(part.starts, step, side="right")) - 1
    return number, step - int(part.starts[number])


def _stretches(
    series: Series, rows: np.ndarray, options: ArrayOptions, head: str
) -> list[tuple[int, int]]:
    """Steps that belong to training examples, (start, end), ascending and without overlap."""
    if head != "forecasting":
        starts = series.starts[rows]
        return sorted(zip(starts.tolist(), (starts + series.lengths[rows]).tolist(), strict=True))
    firsts = series.starts[rows[:, 0]] + rows[:, 1]
    needed = options.context + options.horizon
    found: list[tuple[int, int]] = []
    for first in np.sort(firsts).tolist():
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], first + needed)
        else:
            found.append((first, first + needed))
    return found


def _statistics(
    stretches: list[tuple[int, int]], values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column over some stretches, without what is missing."""
    width = 1 if values.ndim == 1 else values.shape[1]
    n, mean, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    for block in _blocks(stretches, max(1, _BLOCK // width)):
        x = np.concatenate(
            [np.asarray(values[a:b], np.float64).reshape(-1, width) for a, b in block]
        )
        there = ~np.isnan(x)
        m = there.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_x = np.where(m > 0, np.where(there, x, 0.0).sum(0) / m, 0.0)
            squares += np.where(there, x - mean_x, 0.0).__pow__(2).sum(0)
            apart, total = mean_x - mean, n + m
            squares += np.where(total > 0, apart**2 * n * m / total, 0.0)
            mean += np.where(total > 0, apart * m / total, 0.0)
        n = total
    return mean, np.sqrt(squares / np.maximum(n, 1))


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
