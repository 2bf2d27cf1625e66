"""Running a function of arrays compiled, with NumPy on both sides."""

from __future__ import annotations

import functools

import jax
import numpy as np
from flax import nnx


@functools.cache
def _compiled(function, static):
    return jax.jit(function, static_argnames=static)


def run(function, *args, **static):
    """function(*args, **static) under jit, keywords being static; the results are NumPy arrays."""
    found = _compiled(function, tuple(static))(*args, **static)
    return jax.tree.map(np.asarray, found)


def numbers(module, kind=nnx.Variable):
    """The variables of a module as nested dicts of float64 arrays."""
    state = nnx.to_pure_dict(nnx.state(module, kind))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state)
