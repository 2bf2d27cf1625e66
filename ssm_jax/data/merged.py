"""The split of the benchmark of LinOSS, Log-NCDE and others in JAX: theirs, to the example.

What the archive has for training and testing is merged; of equal series one stays; they are sorted,
shuffled by the seed, and parted. Published splits are of these facts: the order is that of
`np.unique` over float32 series, step by step; the shuffle is `jax.random.permutation` with the key
`split(split(PRNGKey(seed), 4)[0])[0]`, of JAX before 0.5; the parts end at int(0.7 n) and int(0.85
n). Source: data_dir/process_uea.py and datasets.py of Benjamin-Walker/log-neural-cdes, from which
tk-rusch/linoss has them.
"""

import math

import numpy as np

from ssm_jax.data.examples import SPLITS
from ssm_jax.data.series import Found, Series

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
