"""Functions that are differentiated by a rule of their own, whatever they compute, and for ever.

An angle without its whole turns is computed from an exact phase, which has no derivative; the rule
takes that of the rounded angle. `jax.custom_jvp` loses such a rule in a `jax.lax.scan`: of what the
first derivative keeps there, JAX differentiates the code, and second derivatives are wrong without
a word. The rule of a primitive stays.

Linear maps that bring their transpose, differentiable in both modes and to any order.

Rules of `jax.custom_jvp` state a derivative as a linear map, and JAX transposes it for the reverse
mode. What JAX finds is right, but for a kernel it takes twice the time of the transpose by hand, as
shared factors are computed again, and for a scan it reads all states a second time. A rule of
`jax.custom_vjp` keeps the transpose by hand, but knows no forward mode. `linear_map` keeps both:
`jax.custom_derivatives.linear_call` with derivatives by the residuals and with `jax.vmap`.
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


Arrays = list[Array]


def linear_map(
    forward: Callable[[Any, Any], Any],
    transpose: Callable[[Any, Any], Any],
    residuals: Any,
    arguments: Any,
) -> Any:
    """`forward(residuals, arguments)`, transposed by `transpose`.

    Args:
      forward: linear in the arguments; differentiable by JAX in the residuals, as is `transpose`.
      transpose: (residuals, cotangents of the result) -> cotangents of the arguments.
      residuals, arguments: trees of arrays.
    """
    residual_leaves, residual_tree = jax.tree.flatten(residuals)
    leaves, tree = jax.tree.flatten(arguments)
    result_tree = jax.tree.structure(jax.eval_shape(forward, residuals, arguments))

    def on_leaves(function, tree):
        def flat(residual_leaves: Arrays, leaves: Arrays) -> Arrays:
            residuals = jax.tree.unflatten(residual_tree, residual_leaves)
            # A transpose runs after the kernel, and so outside of its setting (types.py).
            with jax.numpy_dtype_promotion("standard"):
                return jax.tree.leaves(function(residuals, jax.tree.unflatten(tree, leaves)))

        return flat

    results = _linear_map.bind(
        *residual_leaves,
        *leaves,
        forward=on_leaves(forward, tree),
        transpose=on_leaves(transpose, result_tree),
        n=len(residual_leaves),
    )
    return jax.tree.unflatten(result_tree, results)


_linear_map = Primitive("linear_map")  # of n residuals, then arguments
_linear_map.multiple_results = True


@_linear_map.def_impl
def _run_linear_map(*leaves, forward, transpose, n):
    del transpose
    return forward(list(leaves[:n]), list(leaves[n:]))


@_linear_map.def_abstract_eval
def _abstract_linear_map(*leaves, **params):
    return jax.make_jaxpr(lambda *leaves: _run_linear_map(*leaves, **params))(*leaves).out_avals


def _jvp_linear_map(primals, tangents, *, forward, transpose, n):
    params = {"forward": forward, "transpose": transpose, "n": n}
    results = _linear_map.bind(*primals, **params)
    arguments, argument_tangents = list(primals[n:]), tangents[n:]
    moving = [i for i in range(n) if not isinstance(tangents[i], ad.Zero)]
    terms = []
    if not all(isinstance(t, ad.Zero) for t in argument_tangents):
        known = map(ad.instantiate_zeros, argument_tangents)
        terms.append(_linear_map.bind(*primals[:n], *known, **params))
    if moving:

        def by_residuals(*moved):
            residuals = list(primals[:n])
            for i, leaf in zip(moving, moved, strict=True):
                residuals[i] = leaf
            return forward(residuals, arguments)

        point, direction = ([leaves[i] for i in moving] for leaves in (primals, tangents))
        terms.append(jax.jvp(by_residuals, point, direction)[1])
    return results, [sum(term[1:], term[0]) for term in zip(*terms, strict=True)]


def _transpose(cotangents, *leaves, forward, transpose, n):
    arguments = leaves[n:]
    found = _linear_map.bind(
        *leaves[:n],
        *map(ad.instantiate_zeros, cotangents),
        forward=transpose,
        transpose=forward,
        n=n,
    )
    wanted = map(ad.is_undefined_primal, arguments)
    return [None] * n + [x if w else None for x, w in zip(found, wanted, strict=True)]


def _batch_linear_map(leaves, axes, *, forward, transpose, n):
    """All arguments get the axis: the transpose returns one cotangent for each element of it."""
    size = next(x.shape[axis] for x, axis in zip(leaves, axes, strict=True) if axis is not None)
    batched = [
        batching.bdim_at_front(x, axis, size) if axis is not None or i >= n else x
        for i, (x, axis) in enumerate(zip(leaves, axes, strict=True))
    ]
    in_axes = ([None if axis is None else 0 for axis in axes[:n]], 0)
    results = _linear_map.bind(
        *batched, forward=jax.vmap(forward, in_axes), transpose=jax.vmap(transpose, in_axes), n=n
    )
    return results, [0] * len(results)


ad.primitive_jvps[_linear_map] = _jvp_linear_map
ad.primitive_transposes[_linear_map] = _transpose
batching.primitive_batchers[_linear_map] = _batch_linear_map
mlir.register_lowering(_linear_map, mlir.lower_fun(_run_linear_map, multiple_results=True))
