"""Functions that are differentiated by a rule of their own, whatever they compute, and for ever.

An angle without its whole turns is computed from an exact phase, which has no derivative; the rule
takes that of the rounded angle. `jax.custom_jvp` loses such a rule in a `jax.lax.scan`: of what the
first derivative keeps there, JAX differentiates the code, and second derivatives are wrong without
a word. The rule of a primitive stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


class Ruled:
    """As `jax.custom_jvp`, of positional arguments; the first `static` ones are no arrays."""

    def __init__(self, function: Callable, static: int = 0) -> None:
        self.function = function
        self.static = static
        self.rule: Callable | None = None

    def defjvp(self, rule: Callable) -> Callable:
        """Set the rule: (static ones.., primals, tangents) -> (result, its tangent)."""
        self.rule = rule
        return rule

    def __call__(self, *args: Any) -> Any:
        static, arrays = args[: self.static], args[self.static :]
        leaves, tree = jax.tree.flatten(jax.tree.map(jnp.asarray, arrays))
        trees: list = []  # of the result, whichever of the two below has run

        def function(*leaves: Array) -> list[Array]:
            # A program is lowered after the kernel, and so outside of its setting (types.py).
            with jax.numpy_dtype_promotion("standard"):
                result = self.function(*static, *jax.tree.unflatten(tree, leaves))
            trees.append(jax.tree.structure(result))
            return jax.tree.leaves(result)

        def rule(primals: list[Array], tangents: list[Array]) -> tuple[list, list]:
            assert self.rule is not None
            primals, tangents = (jax.tree.unflatten(tree, x) for x in (primals, tangents))
            with jax.numpy_dtype_promotion("standard"):
                result, tangent = self.rule(*static, primals, tangents)
            trees.append(jax.tree.structure(result))
            return jax.tree.leaves(result), jax.tree.leaves(tangent)

        results = _ruled.bind(*leaves, function=function, rule=rule)
        return jax.tree.unflatten(trees[-1], results)


_ruled = Primitive("ruled")
_ruled.multiple_results = True


@_ruled.def_impl
def _run(*leaves, function, rule):
    del rule
    return function(*leaves)


@_ruled.def_abstract_eval
def _abstract(*leaves, function, rule):
    del rule
    return jax.make_jaxpr(function)(*leaves).out_avals


def _jvp(primals, tangents, *, function, rule):
    del function
    known = [
        ad.instantiate_zeros(t) if jnp.issubdtype(p.dtype, jnp.inexact) else None
        for p, t in zip(primals, tangents, strict=True)
    ]
    return rule(list(primals), known)


def _batch(leaves, axes, *, function, rule):
    moving = [jnp.issubdtype(x.dtype, jnp.inexact) for x in leaves]
    of_tangents = [axis if moves else None for axis, moves in zip(axes, moving, strict=True)]
    results = _ruled.bind(
        *leaves,
        function=jax.vmap(function, tuple(axes)),
        rule=jax.vmap(rule, (list(axes), of_tangents)),
    )
    return results, [0] * len(results)


ad.primitive_jvps[_ruled] = _jvp
batching.primitive_batchers[_ruled] = _batch
mlir.register_lowering(_ruled, mlir.lower_fun(_run, multiple_results=True))
