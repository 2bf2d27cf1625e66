"""Random numbers that stay what they are."""

from __future__ import annotations

import operator

import numpy as np


def uniform(seed: int, stream: int, n: int) -> np.ndarray:
    """n numbers in [0, 1) that are a function of the arguments, float64.

    Raw Philox words: what NumPy makes of them in its distributions may change, they may not.

    Raises:
      ValueError: for a seed that is no whole number from 0 to 2**64 - 1.
    """
    raw = np.random.Philox(key=philox_key(seed, stream)).random_raw(n)
    return (raw >> np.uint64(11)) * 2.0**-53


def philox_key(seed: int, stream: int) -> np.ndarray:
    """The key of a stream of random numbers, uint64 (2,): every seed is another one.

    Raises:
      ValueError: see `uniform`.
    """
    try:
        whole = operator.index(seed)
    except TypeError:
        whole = -1
    if not 0 <= whole < 2**64:
        raise ValueError(f"a seed must be a whole number from 0 to 2**64 - 1; got {seed!r}.")
    return np.array([whole, stream], np.uint64)
