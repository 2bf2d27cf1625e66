"""Random numbers that stay what they are."""

from __future__ import annotations

import numpy as np


def uniform(seed: int, stream: int, n: int) -> np.ndarray:
    """n numbers in [0, 1) that are a function of the arguments, float64.

    Raw Philox words: what NumPy makes of them in its distributions may change, they may not.
    """
    raw = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(n)
    return (raw >> np.uint64(11)) * 2.0**-53
