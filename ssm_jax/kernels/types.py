"""The type that kernels and layers compute in, and the one that they return.

One rule for all: float64 where an argument has 64 bits, else float32; so 16-bit floats, integers
and booleans are computed in float32. What is made of an input has the input's float type; of
integers and booleans that which was computed in.
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
        real = computed_in(*types.values())
        given.arguments.update({name: _cast(x, real) for name, x in numbers.items()})
        # Reals times complex numbers are meant, whatever the user's setting is.
        with jax.numpy_dtype_promotion("standard"):
            result = function(*given.args, **given.kwargs)
        of_input = [t for name, t in types.items() if name.startswith("u_")] or [*types.values()]
        returned = returned_in(of_input[0] if of_input else real, real)
        return jax.tree.map(
            lambda y: y.astype(returned) if jnp.issubdtype(y.dtype, jnp.floating) else y, result
        )

    return call  # type: ignore[return-value]


def computed_in(*types: Any) -> np.dtype:
    """The float type to compute with numbers of these types in."""
    is_wide = any(t in (jnp.float64, jnp.complex128) for t in types)
    return jnp.dtype(jnp.float64 if is_wide else jnp.float32)


def returned_in(given: Any, computed: Any) -> np.dtype:
    """The float type of what is made of an input of a type."""
    return jnp.dtype(given if jnp.issubdtype(given, jnp.floating) else computed)


def complex_of(real: Any) -> np.dtype:
    """complex64 of float32, complex128 of float64."""
    return jnp.dtype(jnp.complex128 if real == jnp.float64 else jnp.complex64)


def _type(x: Array | np.ndarray | Phase) -> np.dtype:
    """Its type as a JAX array: without x64 never one of 64 bits."""
    return jax.dtypes.canonicalize_dtype(x.rest.dtype if isinstance(x, Phase) else x.dtype)


def _cast(x: Any, real: np.dtype) -> Any:
    """As real or complex numbers of that type."""
    if isinstance(x, Phase):
        return Phase(x.ticks, jnp.asarray(x.rest, real))
    return jnp.asarray(x, complex_of(real) if jnp.iscomplexobj(x) else real)
