"""What maps a user's series to what a model sees, found in one look at every value.

Statistics are of the training examples. A file may be larger than memory: it is read in blocks.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssm_jax.data.examples import SPLITS
from ssm_jax.data.preprocessing import (
    LONGEST,
    ArrayOptions,
    Preprocessing,
    autocorrelation_matrix,
    packed,
    whitening,
)
from ssm_jax.data.series import NO_VALUE, Lines, Series, channel_called, numbers_of, words_of
from ssm_jax.data.splits import repeated
from ssm_jax.data.statistics import (
    BLOCK,
    FLOAT32,
    SQUARES,
    check_finite,
    check_scaled,
    joined,
    series_at,
    statistics,
    stretches_of,
)


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
    vocab_size, mean, std, largest = None, np.zeros(0), np.ones(0), np.zeros(0)
    if train.steps.ndim == 1:
        vocab_size = _vocabulary(apart, head, path)
        if options.elapsed:
            raise ValueError("data.arrays.elapsed is of real inputs; these are tokens.")
    else:
        largest = np.max([check_finite(part, options.missing) for part in apart], axis=0)
        stretches = stretches_of(train, rows["train"], options, head)
        n, mean, std = statistics(stretches, train.steps)
        total = sum(end - start for start, end in stretches)
        for name, there, spread in zip(train.channels, n, std, strict=True):
            if not there or not np.isfinite(spread):
                wrong = "is missing in all of training" if not there else "has numbers too large"
                raise ValueError(f"{path}: {channel_called(name)} {wrong}; leave it out.")
            if there < 0.99 * total:
                lacks = f"{1 - there / total:.1%} of training is missing, and interpolated"
                remarks.append(f"{channel_called(name)}: {lacks}")
            if spread == 0:
                remarks.append(f"{channel_called(name)} is constant in training")
        remarks += _misread(train)
    names: tuple[str, ...] = train.target_names
    classes: tuple[str, ...] = ()
    target_mean = target_std = wide = np.zeros(0)
    if head == "forecasting":
        names = options.channels() or train.channels
        if lacking := [n for n in names if n not in train.channels]:
            raise ValueError(
                f"data.arrays.target={lacking[0]} is no channel; they are "
                f"{', '.join(train.channels)}."
            )
        at = [train.channels.index(n) for n in names]
        target_mean, target_std, wide = mean[at], std[at], largest[at]
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
        target_mean, target_std, wide = _target_statistics(head, parts, rows, options)
        remarks += [
            f"target {names[k]} is constant in training: nothing is to be learned of it"
            for k in np.flatnonzero(target_std == 0)
        ]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"data.arrays.target={options.target} has {twice[0]} twice, which would count twice in "
            "every mean over targets; leave one out."
        )
    if head == "forecasting" and options.standardize == "series":
        raise ValueError(
            "data.arrays.standardize=series needs whole series, and a forecast does not see its "
            "end; use training."
        )
    if options.standardize == "none":
        mean, std = np.zeros_like(mean), np.ones_like(std)
        target_mean, target_std = np.zeros_like(target_mean), np.ones_like(target_std)
    if not vocab_size:
        each = SQUARES[1] if options.standardize == "series" else FLOAT32
        check_scaled([*map(channel_called, train.channels)], largest, mean, std, path, each)
    check_scaled(
        [f"target {name}" for name in names], wide, target_mean, target_std, path, SQUARES[0]
    )
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
        elapsed=options.elapsed,
        horizon=options.horizon if head == "forecasting" else 0,
        relative=options.relative and head == "forecasting",
        padded_length=longest,
    )
    if options.decorrelate:
        found = _decorrelating(found, parts, rows, options.decorrelate)
    return found, remarks


def _misread(train: Series) -> list[str]:
    """Remarks on what may be another thing than an input: times, or an array that is turned."""
    remarks, C = [], len(train.channels)
    if C > train.lengths.max() > 1:
        remarks.append(
            f"series have at most {train.lengths.max():,} steps and {C:,} channels; the steps come "
            "first in arrays, (n, L, C)"
        )
    longest = np.asarray(train.steps[train.of(int(train.lengths.argmax()))][:1000], np.float64)
    rises = np.diff(longest, axis=0)
    if isinstance(train.where, Lines) and train.where.files[0].suffix == ".csv" and len(rises) > 2:
        even = (rises[0] > 0) & (np.abs(rises - rises[0]) <= 1e-6 * rises[0]).all(axis=0)
        remarks += [
            f"{channel_called(train.channels[c])} rises evenly, as times do, and is an input; "
            f"--config.data.arrays.time={train.channels[c]} leaves it out"
            for c in np.flatnonzero(even)
        ]
    return remarks


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
    plain = replace(found, elapsed=False)  # which is added to what is decorrelated
    series = (plain.inputs(train.steps[train.of(int(row))]) for row in rows["train"])
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
        for start, end in joined(part.starts, part.starts + part.lengths)
        for a in range(start, end, BLOCK)
        for b in [min(a + BLOCK, end)]
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
    words = words_of(found)
    for k in [k for k, word in enumerate(words) if word.strip().lower() in NO_VALUE][:1]:
        i = int(np.argmax(numbers == k))
        raise ValueError(
            f"{part.where(i, 0)}: the class {words[k]!r} is missing; leave the series out, or name "
            "its class."
        )
    return words, numbers


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
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and standard deviation of the targets of the training examples; the largest of all."""
    largest = np.zeros(1)
    for part in {id(p): p for p in parts.values()}.values():
        assert part.targets is not None
        if part.targets.dtype.kind in "SU" and part.targets.ndim == 1:
            for i, word in enumerate(words_of(part.targets)):
                numbers_of([word], part.target_names, part.where(i, 0))
        if part.targets.dtype.kind not in "biuf" or part.per_step != (head == "per_step"):
            what = f"{part.targets.dtype} {part.targets.shape}"
            what += " of steps" if part.per_step else " of series"
            raise ValueError(f"the targets are {what}; {_WANTED[head]}")
        y, stretches = np.reshape(part.targets, (len(part.targets), -1)), [(0, len(part.targets))]
        if part.per_step:  # without what fills up short series
            stretches = joined(part.starts, part.starts + part.lengths)
        for start, end in (
            (a, min(a + BLOCK, e)) for s, e in stretches for a in range(s, e, BLOCK)
        ):
            block = np.asarray(y[start:end], np.float64)
            # Missing ones do not count where there are others, at other steps
            for row, k in np.argwhere(np.isinf(block) if part.per_step else ~np.isfinite(block)):
                at = start + int(row)
                place = part.where(*series_at(part, at)) if part.per_step else part.where(at, 0)
                raise ValueError(f"{place}, {part.target_names[k]}: {block[row, k]} is no target.")
            largest = np.fmax(largest, np.fmax.reduce(np.abs(block)))
    train = parts["train"]
    assert train.targets is not None
    if head == "regression":
        y = np.asarray(train.targets, np.float64).reshape(len(train), -1)[rows["train"]]
        n, mean, std = statistics([(0, len(y))], y)
    else:
        n, mean, std = statistics(stretches_of(train, rows["train"], options, head), train.targets)
    for k in np.flatnonzero(n == 0)[:1]:
        raise ValueError(f"the target {train.target_names[k]} is missing in all of training.")
    return mean, std, largest
