"""Running a function of arrays compiled, with NumPy on both sides."""

from __future__ import annotations

import functools
import re

import jax
import numpy as np
from flax import nnx

from ssm_jax.kernels.devices import compiling_for


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


def products_for_a_gpu(function, *args) -> list[str]:
    """The precisions of all products in a function's program for a GPU: "HIGHEST, HIGHEST"."""
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    with compiling_for("gpu"):
        text = jax.export.export(jitted, platforms=["cuda"])(*args).mlir_module()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    stated = [re.search(r"precision = \[(\w+, \w+)\]", line) for line in products]
    return [found[1] if found else "DEFAULT, DEFAULT" for found in stated]
