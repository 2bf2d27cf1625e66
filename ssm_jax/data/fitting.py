"""What maps a user's series to what a model sees, found in one look at every value.

Statistics are of the training examples. A file may be larger than memory: it is read in blocks.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssm_jax.data.decorrelation import LONGEST, autocorrelation_matrix, packed, whitening
from ssm_jax.data.examples import SPLITS
from ssm_jax.data.preprocessing import ArrayOptions, Preprocessing
from ssm_jax.data.remarks import misread, repeated
from ssm_jax.data.series import Series, words_of
from ssm_jax.progress import stage

_BLOCK = 1 << 22  # numbers that are in memory at once
_MANY = 1 << 28  # numbers: to look at so many takes seconds, and is shown
_ROUNDING = 1e-14  # of the mean: the standard deviation of a constant channel may be that


def fit(
    head: str,
    parts: Mapping[str, Series],
    rows: Mapping[str, np.ndarray],
    options: ArrayOptions,
    padded_length: int,
    path: Path,
) -> tuple[Preprocessing, list[str]]:
    """Check all values and take the statistics; with remarks that a person should read."""
    train, remarks = parts["train"], []
    apart = list({id(p): p for p in parts.values()}.values())
    if len({p.channels for p in parts.values()}) > 1:
        raise ValueError(f"{path}: the splits have different channels.")
    vocab_size, mean, std = None, np.zeros(0), np.ones(0)
    if train.steps.ndim == 1:
        vocab_size = _vocabulary(apart, head, path)
    else:
        for part in apart:
            _check_finite(part, options.missing)
        stretches = _stretches(train, rows["train"], options, head)
        n, mean, std = _statistics(stretches, train.steps)
        total = sum(end - start for start, end in stretches)
        for name, there, spread in zip(train.channels, n, std, strict=True):
            if not there or not np.isfinite(spread):
                wrong = "is missing in all of training" if not there else "has numbers too large"
                raise ValueError(f"{path}: the channel {name} {wrong}; leave it out.")
            if there < 0.99 * total:
                share = f"{1 - there / total:.1%}"
                remarks.append(f"channel {name}: {share} of training is missing, and interpolated")
            if spread == 0:
                remarks.append(f"channel {name} is constant in training")
        remarks += misread(train)
    names: tuple[str, ...] = train.target_names
    classes: tuple[str, ...] = ()
    target_mean = target_std = np.zeros(0)
    if head == "forecasting":
        names = options.channels() or train.channels
        if lacking := [n for n in names if n not in train.channels]:
            raise ValueError(
                f"data.arrays.target={lacking[0]} is no channel; they are "
                f"{', '.join(train.channels)}."
            )
        at = [train.channels.index(n) for n in names]
        target_mean, target_std = mean[at], std[at]
    elif lacking := [split for split, part in parts.items() if part.targets is None]:
        where = "" if len(lacking) == len(parts) else f" for {' and '.join(lacking)}"
        raise ValueError(f"{path} has no targets{where}; {_WANTED[head]}")
    elif head == "classification":
        names, classes = (), _classes(parts, rows, path)
        known = {split: classes_of(parts[split], classes)[rows[split]] for split in SPLITS}
        if len(set(known["train"].tolist())) < 2:
            only = classes[known["train"][0]] if known["train"].size else "none"
            raise ValueError(f"{path} has the class {only} alone in training; two are needed.")
        for split in SPLITS[1:]:
            for k in sorted(set(known[split].tolist()) - set(known["train"].tolist())):
                remarks.append(f"class {classes[k]} is in {split} and not in training")
    else:
        target_mean, target_std = _target_statistics(head, parts, rows, options)
    if head == "forecasting" and options.standardize == "series":
        raise ValueError(
            "data.arrays.standardize=series needs whole series, and a forecast does not see its "
            "end; use training."
        )
    if options.standardize == "none":
        mean, std = np.zeros_like(mean), np.ones_like(std)
        target_mean, target_std = np.zeros_like(target_mean), np.ones_like(target_std)
    longest = options.context
    if head != "forecasting":
        remarks += repeated(parts, rows)
        longest = padded_length or max(
            int(parts[s].lengths[r].max(initial=1)) for s, r in rows.items()
        )
    found = Preprocessing(
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
        by_series=options.standardize == "series",
        horizon=options.horizon if head == "forecasting" else 0,
        relative=options.relative and head == "forecasting",
        padded_length=longest,
    )
    if options.decorrelate:
        found = _decorrelating(found, parts, rows, options.decorrelate)
    return found, remarks


def _decorrelating(
    found: Preprocessing, parts: Mapping[str, Series], rows: Mapping[str, np.ndarray], eps: float
) -> Preprocessing:
    """The same with the decorrelation of the training inputs; a ValueError if they have none."""
    asked, train = f"data.arrays.decorrelate={eps}", parts["train"]
    lengths = np.unique(np.concatenate([parts[s].lengths[r] for s, r in rows.items()]))
    if found.vocab_size is not None:
        raise ValueError(f"{asked} needs real inputs; these are tokens.")
    if lengths.size > 1:
        raise ValueError(
            f"{asked} needs series of one length; these have {lengths[0]} to {lengths[-1]} steps."
        )
    if (length := int(lengths[0])) > LONGEST:
        raise ValueError(f"{asked} takes at most {LONGEST:,} steps; these series have {length:,}.")
    series = (found.inputs(train.steps[train.of(int(row))]) for row in rows["train"])
    R_LL = autocorrelation_matrix(series, length)
    return replace(found, decorrelation=packed(whitening(R_LL, eps)))


_WANTED = {
    "classification": "classification needs a class of each series, a word or a whole number.",
    "regression": "regression needs numbers of each series, (n,) or (n, K).",
    "per_step": "per_step needs numbers of each step, (n, L) or (n, L, K), or a target column.",
}


def _vocabulary(parts: list[Series], head: str, path: Path) -> int:
    """The number of token ids; a ValueError for whole numbers that can be none."""
    hint = "save real numbers as floating point, or as (n, L, 1)."
    if head == "forecasting":
        raise ValueError(f"{path} has whole numbers (n, L): tokens have no forecast; {hint}")
    ends = [
        (int(part.steps[a:b].min()), int(part.steps[a:b].max()))
        for part in parts
        for start, end in _merged(part.starts, part.starts + part.lengths)
        for a in range(start, end, _BLOCK)
        for b in [min(a + _BLOCK, end)]
    ]
    least, most = min(low for low, _ in ends), max(high for _, high in ends)
    if least < 0 or most >= 1 << 20:
        raise ValueError(
            f"{path} has whole numbers (n, L) from {least} to {most}, which are no token ids; "
            f"{hint}"
        )
    return most + 1


def _in_order(label: str) -> tuple[float, str]:
    """Numbers by value, then words."""
    try:
        return float(label), label
    except ValueError:
        return np.inf, label


def _labels(part: Series) -> tuple[list[str], np.ndarray]:
    """The classes of a part as words, and the number of each series among them."""
    wanted, targets = _WANTED["classification"], part.targets
    assert targets is not None
    if part.per_step or targets.ndim > 1 or targets.dtype.kind not in "biufUS":
        shape = f"{targets.dtype} {targets.shape}{' of steps' * part.per_step}"
        one_hot = " Of rows with a single 1 give argmax(axis=1)." * (targets.ndim == 2)
        raise ValueError(f"the targets are {shape}; {wanted}{one_hot}")
    labels = np.asarray(targets)
    if labels.dtype.kind == "f":
        for i in np.flatnonzero(~np.isfinite(labels))[:1].tolist():
            raise ValueError(f"{part.where(i, 0)}: {labels[i]} is no class.")
        if (labels != np.rint(labels)).any() or np.abs(labels).max(initial=0) >= 2**53:
            raise ValueError(
                f"the targets are real numbers; {wanted} --config=arrays:regression learns numbers."
            )
        labels = labels.astype(np.int64)
    found, numbers = np.unique(labels, return_inverse=True)
    return words_of(found), numbers


def _classes(
    parts: Mapping[str, Series], rows: Mapping[str, np.ndarray], path: Path
) -> tuple[str, ...]:
    """The classes of all examples, in order."""
    found = set()
    for split, part in parts.items():
        words, numbers = _labels(part)
        found |= {words[k] for k in np.unique(numbers[rows[split]])}
    classes = tuple(sorted(found, key=_in_order))
    if len(classes) < 2:
        raise ValueError(f"{path} has the class {', '.join(classes)} alone; two are needed.")
    return classes


def classes_of(part: Series, classes: tuple[str, ...]) -> np.ndarray:
    """The number of the class of each series; 0 of one that no split uses."""
    words, numbers = _labels(part)
    place = {label: k for k, label in enumerate(classes)}
    return np.array([place.get(word, 0) for word in words], np.int64)[numbers]


def _target_statistics(
    head: str,
    parts: Mapping[str, Series],
    rows: Mapping[str, np.ndarray],
    options: ArrayOptions,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the targets of the training examples."""
    for part in {id(p): p for p in parts.values()}.values():
        assert part.targets is not None
        if part.targets.dtype.kind not in "biuf" or part.per_step != (head == "per_step"):
            what = f"{part.targets.dtype} {part.targets.shape}"
            what += " of steps" if part.per_step else " of series"
            raise ValueError(f"the targets are {what}; {_WANTED[head]}")
        y = np.reshape(part.targets, (len(part.targets), -1))
        for start in range(0, len(y), _BLOCK):
            block = np.asarray(y[start : start + _BLOCK], np.float64)
            # Missing ones do not count where there are others, at other steps
            for row, k in np.argwhere(np.isinf(block) if part.per_step else ~np.isfinite(block)):
                at = start + int(row)
                place = part.where(*_series_at(part, at)) if part.per_step else part.where(at, 0)
                raise ValueError(f"{place}, {part.target_names[k]}: {block[row, k]} is no target.")
    train = parts["train"]
    assert train.targets is not None
    if head == "regression":
        y = np.asarray(train.targets, np.float64).reshape(len(train), -1)[rows["train"]]
        n, mean, std = _statistics([(0, len(y))], y)
    else:
        n, mean, std = _statistics(_stretches(train, rows["train"], options, head), train.targets)
    for k in np.flatnonzero(n == 0)[:1]:
        raise ValueError(f"the target {train.target_names[k]} is missing in all of training.")
    return mean, std


def _check_finite(part: Series, missing: str) -> None:
    """Refuse the first input that is infinite or, unless they are interpolated, missing."""
    if part.steps.dtype.kind != "f":
        return
    size = max(1, _BLOCK // part.steps.shape[1])
    stretches = _merged(part.starts, part.starts + part.lengths)
    with _shown("checking all values", stretches, part.steps) as advance:
        for group in _blocks(stretches, size):
            for a, b in group:
                block = part.steps[a:b]
                wrong = ~np.isfinite(block) if missing == "refuse" else np.isinf(block)
                for step, c in np.argwhere(wrong)[:1]:
                    number, at = _series_at(part, a + int(step))
                    value = block[step, c]
                    hint = "; data.arrays.missing=interpolate fills it" if np.isnan(value) else ""
                    place = f"{part.where(number, at)}, {part.channels[c]}"
                    raise ValueError(f"{place}: {value}{hint}.")
                advance(b - a)


def _shown(
    title: str, stretches: list[tuple[int, int]], values: np.ndarray
) -> AbstractContextManager[Callable[[int], None]]:
    """The progress of a look at many values, as `progress.stage`; of fewer nothing is shown."""
    total = sum(end - start for start, end in stretches)
    if total * values[:1].size < _MANY:
        return nullcontext(lambda steps: None)
    return stage(title, total, "steps")


def _series_at(part: Series, step: int) -> tuple[int, int]:
    """The series to which a step belongs, and its number there."""
    number = int(np.searchsorted(part.starts, step, side="right")) - 1
    return number, step - int(part.starts[number])


def _merged(starts: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """Stretches whose starts ascend, without overlap; neighbours are joined."""
    ends = np.maximum.accumulate(ends)
    new = starts[1:] > ends[:-1]
    firsts, lasts = starts[np.r_[True, new]], ends[np.r_[new, True]]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _stretches(
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
        return _merged(starts, starts + options.context + options.horizon)
    rows = np.sort(rows)
    return _merged(series.starts[rows], series.starts[rows] + series.lengths[rows])


def _statistics(
    stretches: list[tuple[int, int]], values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each column over some stretches: values that are not missing, their mean and standard
    deviation, which is 0 for a constant one."""
    width = 1 if values.ndim == 1 else values.shape[1]
    n, mean, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    with _shown("mean and standard deviation", stretches, values) as advance:
        for block in _blocks(stretches, max(1, _BLOCK // width)):
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
