"""Which series, and which windows of them, are for training, validation and testing.

A split is never mixed with another: a series belongs to one, and in a split by time each window,
with the steps it forecasts, lies within one stretch of its series.

`merged` is the split of the benchmark of LinOSS, Log-NCDE and others in JAX, theirs to the example.
What the archive has for training and testing is merged; of equal series one stays; they are sorted,
shuffled by the seed, and parted. Published splits are of these facts: the order is that of
`np.unique` over float32 series, step by step; the shuffle is `jax.random.permutation` with the key
`split(split(PRNGKey(seed), 4)[0])[0]`, of JAX before 0.5; the parts end at int(0.7 n) and int(0.85
n). Source: data_dir/process_uea.py and datasets.py of Benjamin-Walker/log-neural-cdes, from which
tk-rusch/linoss has them.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ssm_jax.data.draws import philox
from ssm_jax.data.examples import SPLITS
from ssm_jax.data.preprocessing import ArrayOptions
from ssm_jax.data.series import Found, Series

_COMPARED = 1_000_000  # series, and of each 4,096 steps, that are compared across splits


def splits_of(
    head: str, found: Found, options: ArrayOptions, seed: int, path: Path
) -> tuple[dict[str, Series], dict[str, np.ndarray]]:
    """Series of each split, and the numbers of those in it; in forecasting by time (n, 3): series,
    first step, end."""
    mode, given = options.split, "" not in found.parts or found.rows is not None
    if mode == "merged":
        whole = merged(found)
        return dict.fromkeys(SPLITS, whole), merged_split(whole, seed, options.val, options.test)
    if mode == "auto":
        mode = "files" if given else "time" if head == "forecasting" else "random"
    if mode == "files" and not given:
        raise ValueError(f"{path} says nothing of splits; use data.arrays.split=random or time.")
    if mode in ("random", "time") and given:
        raise ValueError(
            f"{path} says which examples are for testing; data.arrays.split={mode} would mix them: "
            "leave it at auto, or say merged if they are to be mixed."
        )
    whole = next(iter(found.parts.values()))
    if given:
        rows = dict(found.rows) if found.rows else {s: _all(p) for s, p in found.parts.items()}
        parts = {s: found.parts.get(s, whole) for s in SPLITS}
        if "train" not in rows or not rows["train"].size or not rows.get("test", _NONE).size:
            known = ", ".join(split for split in SPLITS if rows.get(split, _NONE).size)
            raise ValueError(
                f"{path} says which examples are {known} and none else; it must have some for "
                "train and some for test, or say nothing of splits: then it is split by "
                "data.arrays.split."
            )
        if not rows.get("val", _NONE).size:
            parts["val"] = parts["train"]
            if head == "forecasting" and rows["train"].size == 1:  # which both need: by time
                kept, val = _stretches(parts["train"], rows["train"], [0, 1 - options.val, 1])
            else:
                kept, val = _drawn(parts["train"], rows["train"], options.val, seed, head)
            rows |= {"train": kept, "val": val}
        return parts, {s: rows[s] for s in SPLITS}
    parts = dict.fromkeys(SPLITS, whole)
    if mode == "random":
        train, test = _drawn(whole, _all(whole), options.test, seed, head)
        train, val = _drawn(whole, train, options.val / (1 - options.test), seed, head)
        return parts, {"train": train, "val": val, "test": test}
    ends = [0, 1 - options.val - options.test, 1 - options.test, 1]
    if head == "forecasting":
        return parts, dict(zip(SPLITS, _stretches(whole, _all(whole), ends), strict=True))
    cuts = np.floor(len(whole) * np.array(ends[1:3]) + 1e-9).astype(int)
    return parts, dict(zip(SPLITS, np.split(_all(whole), cuts), strict=True))


_NONE = np.zeros(0, np.int64)


def _all(series: Series) -> np.ndarray:
    return np.arange(len(series), dtype=np.int64)


def _stretches(series: Series, rows: np.ndarray, ends: list[float]) -> list[np.ndarray]:
    """Some series cut at shares of their steps: from each to the next (n, 3), as of `splits_of`."""
    cuts = np.floor(np.outer(series.lengths[rows], ends) + 1e-9).astype(np.int64)
    return [np.stack([rows, cuts[:, k], cuts[:, k + 1]], 1) for k in range(len(ends) - 1)]


def _drawn(
    series: Series, rows: np.ndarray, share: float, seed: int, head: str
) -> tuple[np.ndarray, np.ndarray]:
    """(the others, a random share of some series), ascending; of each class the same share."""
    labels = np.zeros(rows.size, np.int64)
    if head == "classification" and series.targets is not None and series.targets.ndim == 1:
        labels = np.unique(np.asarray(series.targets)[rows], return_inverse=True)[1]
    ranks = np.argsort(philox(seed, rows.size, 3).random_raw(rows.size), kind="stable")
    by_class = ranks[np.argsort(labels[ranks], kind="stable")]
    counts = np.bincount(labels)
    place = np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)  # in its class
    wanted = np.rint(share * counts).astype(int)
    # Of many small classes none may reach a half: the nearest to one give an example each
    lacking = max(1, round(share * rows.size)) - wanted.sum()
    if lacking > 0:
        short = np.argsort(wanted - share * counts, kind="stable")
        wanted[[k for k in short if wanted[k] < counts[k]][:lacking]] += 1
    mask = np.zeros(rows.size, bool)
    mask[by_class] = place < np.repeat(wanted, counts)
    return rows[~mask], rows[mask]


def windows_of(series: Series, rows: np.ndarray, options: ArrayOptions, split: str) -> np.ndarray:
    """(n, 2): the series and the first step of each window, its horizon included, in its stretch;
    `rows` are numbers of series, or stretches (n, 3)."""
    if rows.ndim == 1:
        rows = np.stack([rows, np.zeros_like(rows), series.lengths[rows]], axis=1)
    if not len(rows):
        raise ValueError(
            f"of {len(series)} series none is left for {split}: use data.arrays.split=time, which "
            "cuts each of them, or other shares data.arrays.val and test."
        )
    needed = options.context + options.horizon
    found = [
        np.stack([np.full(starts.size, number), starts], axis=1)
        for number, first, end in rows.tolist()
        for starts in [np.arange(first, end - needed + 1, options.stride)]
    ]
    windows = np.concatenate(found)
    if not windows.size:
        longest = max(end - first for _, first, end in rows.tolist())
        raise ValueError(
            f"no window of {needed} steps (context and horizon) fits {split}, whose "
            f"longest stretch has {longest}: lower data.arrays.context or horizon, or change the "
            "shares val and test; an array of one series is (1, L, C), not (L, C)."
        )
    return windows.astype(np.int64)


def without_windows(
    series: Mapping[str, np.ndarray], windows: Mapping[str, np.ndarray], options: ArrayOptions
) -> Iterator[str]:
    """Remarks on series of a split, or stretches of them, that are in none of its windows."""
    for split in SPLITS:
        n, seen = len(series[split]), np.unique(windows[split][:, 0]).size
        if seen < n:
            yield (
                f"{n - seen:,} of {n:,} series have no part in {split}, where they are shorter "
                f"than a window of {options.context + options.horizon:,} steps (context, horizon)"
            )


def repeated(parts: Mapping[str, Series], rows: Mapping[str, np.ndarray]) -> list[str]:
    """A remark on series that are in two splits, by length and first 4,096 steps."""
    if sum(r.size for r in rows.values()) > _COMPARED:
        return []
    seen: dict[bytes, tuple[str, int]] = {}
    found: list[tuple[str, int, str, int]] = []
    for split in SPLITS:
        part = parts[split]
        for i in rows[split].tolist():
            of = part.of(i)
            digest = hashlib.blake2b(f"{of.stop - of.start} ".encode(), digest_size=16)
            digest.update(np.ascontiguousarray(part.steps[of][:4096]).data)
            before, j = seen.setdefault(digest.digest(), (split, i))
            if before != split:
                found.append((before, j, split, i))
    if not found:
        return []
    before, j, split, i = found[0]
    return [
        f"{len(found):,} series are in two splits, such as {parts[split].where(i, 0)} in {split}, "
        f"which is {parts[before].where(j, 0)} in {before}: scores on them say nothing about "
        "other series"
    ]


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def merged(found: Found) -> Series:
    """The series of all parts, those of training first, in float32 as in the benchmark."""
    parts = [found.parts[split] for split in ("", *SPLITS) if split in found.parts]
    if len({p.channels for p in parts}) > 1 or parts[0].steps.ndim == 1:
        raise ValueError(
            "data.arrays.split=merged takes real series that have the same channels in all parts."
        )
    steps = np.concatenate([np.asarray(part.steps, np.float32) for part in parts])
    before = np.cumsum([0] + [len(part.steps) for part in parts])
    starts = np.concatenate([p.starts + n for p, n in zip(parts, before, strict=False)])
    numbers = np.cumsum([0] + [len(part) for part in parts])
    targets = None
    if all(part.targets is not None for part in parts):
        targets = np.concatenate([np.asarray(part.targets) for part in parts])

    def where(number: int, step: int) -> str:
        part = int(np.searchsorted(numbers, number, side="right")) - 1
        return parts[part].where(number - int(numbers[part]), step)

    lengths = np.concatenate([part.lengths for part in parts])
    first = parts[0]
    about = first.per_step, first.channels, first.target_names
    return Series(steps, starts, lengths, targets, *about, where=where)


def distinct(series: Series) -> np.ndarray:
    """The numbers of the series, of equal ones the first alone, in the order of `np.unique`.

    It compares series of one length step by step, channel by channel; here shorter ones, which it
    does not take, come before those that they begin. Bytes are compared, as in `np.unique` a type
    with a field for each of 100,000 numbers would be.
    """
    found: dict[bytes, int] = {}
    for number in range(len(series)):
        x = series.steps[series.of(number)] + np.float32(0)  # -0.0 is 0.0
        bits = x.view(np.uint32)
        ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
        found.setdefault(ascending.astype(">u4").tobytes(), number)
    return np.array([found[key] for key in sorted(found)], np.int64)


def merged_split(series: Series, seed: int, val: float, test: float) -> dict[str, np.ndarray]:
    """The numbers of the distinct series of each split."""
    kept = distinct(series)
    shuffled = kept[published_order(len(kept), seed)]
    ends = [int(len(kept) * round(share, 9)) for share in (1 - val - test, 1 - test)]
    return dict(zip(SPLITS, np.split(shuffled, ends), strict=True))


def published_order(n: int, seed: int) -> np.ndarray:
    """The permutation of n examples that a seed of the benchmark gives."""
    key = np.array([0, seed], np.uint32)
    key = _split(_split(key, 4)[0], 2)[0]
    order = np.arange(n)
    # As often as 32 bits leave ties likely: once for up to 1,625 examples
    for _ in range(math.ceil(3 * math.log(max(n, 1)) / math.log(2**32 - 1))):
        key, own = _split(key, 2)
        order = order[np.argsort(threefry(own, np.arange(n)), kind="stable")]
    return order


def _split(key: np.ndarray, n: int) -> np.ndarray:
    """`jax.random.split` of the raw keys of JAX before 0.5, (n, 2)."""
    return threefry(key, np.arange(2 * n)).reshape(n, 2)


def threefry(key: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Random words for some counts: Threefry-2x32 with 20 rounds (Salmon et al., SC 2011).

    The first half of the counts are the first words of the blocks, as in JAX without
    `jax_threefry_partitionable`; an odd one is filled up with 0.
    """
    words = np.append(counts, [0] * (counts.size % 2)).astype(np.uint32)
    a, b = np.split(words, 2)
    keys = (*key, key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    a, b = a + keys[0], b + keys[1]
    for i in range(5):
        for bits in _ROTATIONS[i % 2]:
            a = a + b
            b = (b << np.uint32(bits)) | (b >> np.uint32(32 - bits))
            b = b ^ a
        a = a + keys[(i + 1) % 3]
        b = b + keys[(i + 2) % 3] + np.uint32(i + 1)
    return np.concatenate([a, b])[: counts.size]
