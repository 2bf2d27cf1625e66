"""Running a function of arrays compiled, with NumPy on both sides."""

from __future__ import annotations

import functools

import jax
import numpy as np


@functools.cache
def _compiled(function, static):
    return jax.jit(function, static_argnames=static)


def run(function, *args, **static):
    """function(*args, **static) under jit, keywords being static; the results are NumPy arrays."""
    found = _compiled(function, tuple(static))(*args, **static)
    return jax.tree.map(np.asarray, found)
