"""Functions with derivative rules of their own, which hold in both modes, to any order.

`Ruled` is `jax.custom_jvp` for functions whose rule is not the derivative of their code, such as an
angle from an exact phase. In a `jax.lax.scan` custom_jvp loses the rule: of what the first
derivative keeps there JAX differentiates the code, and second derivatives are silently wrong. The
rule of a primitive stays. `linear_map` is a linear map with its transpose, for tangents in such
rules. The transpose that JAX finds takes twice the time for a kernel, as shared factors are
computed again, and for a scan it reads all states a second time; `jax.custom_vjp` knows no forward
mode, and `jax.custom_derivatives.linear_call` no derivatives by the residuals and no `jax.vmap`.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def _primitive(name: str, run: Callable, jvp: Callable, batch: Callable) -> Primitive:
    """A primitive with several results, which is compiled as what `run` computes."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(run)
    primitive.def_abstract_eval(
        lambda *leaves, **params: jax.make_jaxpr(partial(run, **params))(*leaves).out_avals
    )
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=True))
    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batch
    return primitive


def _on_leaves(function: Callable, *trees: Any) -> Callable:
    """`function` of trees as one of lists of their leaves, to a list of leaves.

    It is traced once for all that JAX asks of it: shapes, derivatives, the program.
    """

    @jax.jit
    def on_leaves(*lists: list) -> list:
        # Programs are lowered and transposed after the kernel, outside of its setting (arrays.py).
        with jax.numpy_dtype_promotion("standard"):
            return jax.tree.leaves(function(*map(jax.tree.unflatten, trees, lists)))

    return on_leaves


@cache
def _of_arrays(function: Callable, static: tuple, *trees: Any) -> Callable:
    """`function(*static, ..)` on leaves, the same one for every call: JAX keeps what it traced."""
    return _on_leaves(partial(function, *static), *trees)


class Ruled:
    """As `jax.custom_jvp`, of positional arguments; the first `static` ones are no arrays.

    The result is an array, or a tuple of several.
    """

    def __init__(self, function: Callable, static: int = 0) -> None:
        self.function = function
        self.static = static
        self.rule: Callable = None  # type: ignore[assignment]

    def defjvp(self, rule: Callable) -> Callable:
        """Set the rule: (static ones.., primals, tangents) -> (result, its tangent)."""
        self.rule = rule
        return rule

    def _of_tuple(self, *args: Any) -> Any:
        *static, arrays = args
        return self.function(*static, *arrays)

    def __call__(self, *args: Any) -> Any:
        static, arrays = args[: self.static], args[self.static :]
        leaves, tree = jax.tree.flatten(jax.tree.map(jnp.asarray, arrays))
        results = _ruled.bind(
            *leaves,
            function=_of_arrays(self._of_tuple, static, tree),
            rule=_of_arrays(self.rule, static, tree, tree),
        )
        return results[0] if len(results) == 1 else tuple(results)


def _if_inexact(values: list, leaves: list) -> list:
    """None instead of the value of a leaf of integers, which has no tangent."""
    pairs = zip(values, leaves, strict=True)
    return [v if jnp.issubdtype(x.dtype, jnp.inexact) else None for v, x in pairs]


def _jvp_ruled(primals, tangents, *, function, rule):
    known = _if_inexact([*map(ad.instantiate_zeros, tangents)], primals)
    leaves = rule(list(primals), known)
    return leaves[: len(leaves) // 2], leaves[len(leaves) // 2 :]


def _batch_ruled(leaves, axes, *, function, rule):
    axes = list(axes)
    both = axes, _if_inexact(axes, leaves)
    maps = {"function": jax.vmap(function, (axes,)), "rule": jax.vmap(rule, both)}
    results = _ruled.bind(*leaves, **{name: jax.jit(mapped) for name, mapped in maps.items()})
    return results, [0] * len(results)


_ruled = _primitive(
    "ruled", lambda *leaves, function, rule: function(list(leaves)), _jvp_ruled, _batch_ruled
)


def linear_map(forward: Callable, transpose: Callable, residuals: Any, arguments: Any) -> Any:
    """`forward(residuals, arguments)`, linear in the arguments, both trees of arrays.

    `transpose(residuals, cotangents of the result)` gives cotangents of the arguments. JAX
    differentiates both in the residuals.
    """
    kept, kept_tree = jax.tree.flatten(residuals)
    leaves, tree = jax.tree.flatten(arguments)
    result_tree = jax.tree.structure(jax.eval_shape(forward, residuals, arguments))
    results = _linear.bind(
        *kept,
        *leaves,
        forward=_on_leaves(forward, kept_tree, tree),
        transpose=_on_leaves(transpose, kept_tree, result_tree),
        n=len(kept),
    )
    return jax.tree.unflatten(result_tree, results)


def _run_linear(*leaves, forward, transpose, n):  # of n residuals, then arguments
    return forward(list(leaves[:n]), list(leaves[n:]))


def _jvp_linear(primals, tangents, *, forward, transpose, n):
    bind = partial(_linear.bind, forward=forward, transpose=transpose, n=n)
    terms = []
    if not all(isinstance(t, ad.Zero) for t in tangents[n:]):
        terms.append(bind(*primals[:n], *map(ad.instantiate_zeros, tangents[n:])))
    moving = [i for i in range(n) if not isinstance(tangents[i], ad.Zero)]
    if moving:

        def by_residuals(*moved):
            residuals = {**dict(enumerate(primals[:n])), **dict(zip(moving, moved, strict=True))}
            return forward(list(residuals.values()), list(primals[n:]))

        point, direction = ([leaves[i] for i in moving] for leaves in (primals, tangents))
        terms.append(jax.jvp(by_residuals, point, direction)[1])
    return bind(*primals), [sum(term[1:], term[0]) for term in zip(*terms, strict=True)]


def _transpose_linear(cotangents, *leaves, forward, transpose, n):
    known = map(ad.instantiate_zeros, cotangents)
    found = _linear.bind(*leaves[:n], *known, forward=transpose, transpose=forward, n=n)
    wanted = map(ad.is_undefined_primal, leaves[n:])
    return [None] * n + [x if w else None for x, w in zip(found, wanted, strict=True)]


def _batch_linear(leaves, axes, *, forward, transpose, n):
    """All arguments get the axis: the transpose returns one cotangent for each element of it."""
    size = next(x.shape[axis] for x, axis in zip(leaves, axes, strict=True) if axis is not None)
    batched = [
        batching.bdim_at_front(x, axis, size) if axis is not None or i >= n else x
        for i, (x, axis) in enumerate(zip(leaves, axes, strict=True))
    ]
    in_axes = ([None if axis is None else 0 for axis in axes[:n]], 0)
    maps = {"forward": jax.vmap(forward, in_axes), "transpose": jax.vmap(transpose, in_axes)}
    jitted = {name: jax.jit(mapped) for name, mapped in maps.items()}
    results = _linear.bind(*batched, **jitted, n=n)
    return results, [0] * len(results)


_linear = _primitive("linear_map", _run_linear, _jvp_linear, _batch_linear)
ad.primitive_transposes[_linear] = _transpose_linear
