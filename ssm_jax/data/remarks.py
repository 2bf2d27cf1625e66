"""Remarks on a user's series: what trains without an error, and perhaps nobody meant."""

import hashlib
from collections.abc import Mapping

import numpy as np

from ssm_jax.data.examples import SPLITS
from ssm_jax.data.series import Lines, Series, channel_called

_COMPARED = 1_000_000  # series, and of each 4,096 steps, that are compared across splits


def misread(train: Series) -> list[str]:
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
