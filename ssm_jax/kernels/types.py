"""The type that kernels compute in, and the one that they return.

One rule for all: float64 where an argument has 64 bits, else float32; so 16-bit floats and integers
are computed in float32. What is made of an input has the input's float type.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.kernels.phase import Phase

Call = TypeVar("Call", bound=Callable)

COUNTS = ("lengths_B", "bins_F")  # integers that stay integers


def in_one_type(function: Call) -> Call:
    """A decorator: arrays of any types are computed in one, and returned as the rule above says.

    The input is an argument u, else the first one where that is real. Complex results have the
    complex type that was computed in.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        numbers = {
            name: x
            for name, x in given.arguments.items()
            if isinstance(x, Array | np.ndarray | Phase) and name not in COUNTS
        }
        types = {name: _type(x) for name, x in numbers.items()}
        wide = any(t in (jnp.float64, jnp.complex128) for t in types.values())
        real = jnp.dtype(jnp.float64 if wide else jnp.float32)
        given.arguments.update({name: _cast(x, real) for name, x in numbers.items()})
        # Reals times complex numbers are meant, whatever the user's setting is.
        with jax.numpy_dtype_promotion("standard"):
            result = function(*given.args, **given.kwargs)
        of_input = [t for name, t in types.items() if name.startswith("u_")] or [*types.values()]
        returned = of_input[0] if of_input else real
        if not jnp.issubdtype(returned, jnp.floating):
            return result
        return jax.tree.map(lambda y: y if jnp.iscomplexobj(y) else y.astype(returned), result)

    return call  # type: ignore[return-value]


def _type(x: Array | np.ndarray | Phase) -> np.dtype:
    """Its type as a JAX array: without x64 never one of 64 bits."""
    return jax.dtypes.canonicalize_dtype(x.rest.dtype if isinstance(x, Phase) else x.dtype)


def _cast(x: Any, real: np.dtype) -> Any:
    """As real or complex numbers of that type."""
    if isinstance(x, Phase):
        return Phase(x.ticks, jnp.asarray(x.rest, real))
    kind = jnp.complex128 if real == jnp.float64 else jnp.complex64
    return jnp.asarray(x, kind if jnp.iscomplexobj(x) else real)
