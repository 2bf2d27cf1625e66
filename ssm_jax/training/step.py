"""The state of a run, one update, one evaluation, and programs that take numbers as arguments."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.extend import core

from ssm_jax.tasks import Batch, Sums, mean_metrics
from ssm_jax.training.checkpoint.manifest import flatten

Params = Any  # nested dicts of arrays
Metrics = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """A run between two steps."""

    step: Array  # updates made, int32
    ok: Array  # no loss or gradient has been non-finite so far, bool
    params: Params  # trained numbers
    stats: Params  # running statistics and fixed knobs
    opt_state: Any
    ema: Any = None  # moving averages of {"params", "stats"}, if there are any

    def averaged(self) -> "TrainState":
        """The state with the averages in the place of its own numbers, and the other way round."""
        own = {"params": self.params, "stats": self.stats}
        return replace(self, params=self.ema["params"], stats=self.ema["stats"], ema=own)


Gradient = Callable[[TrainState, Array, Batch], tuple[Any, Any]]


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Params, Params]:
    """(graphdef, params, stats): what is trained and what is not, as pure dicts of arrays."""
    params, stats = nnx.state(model, nnx.Param, nnx.Not(nnx.Param))
    return nnx.graphdef(model), nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def evaluated(graphdef: nnx.GraphDef, params: Params, stats: Params) -> Any:
    """The model with these numbers, in whose evaluation Flax's BatchNorm and Dropout take part."""
    model = nnx.merge(graphdef, params, stats)
    model.eval()
    return model


def init_state(
    params: Params, stats: Params, tx: optax.GradientTransformation, *, ema: bool = False
) -> TrainState:
    """The state before the first step, `ema`: with moving averages, which start from it."""
    step, ok = jnp.zeros((), jnp.int32), jnp.ones((), jnp.bool_)
    own = {"params": params, "stats": stats}
    average = jax.tree.map(jnp.copy, own) if ema else None
    return TrainState(step, ok, params, stats, tx.init(params), average)


def moving_average(average: Params, new: Params, decay: float) -> Params:
    """decay * average + (1 - decay) * new; what is constant keeps its bits, integers are `new`.

    As a step towards `new`: in float32 the sum of the two factors is not 1, and averages drift.
    """

    def leaf(old: Array, x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return jnp.where(x == old, old, old + (1 - decay) * (x - old))

    return jax.tree.map(leaf, average, new)


def at_paths(paths: Collection[str], function: Callable[..., Any], *trees: Params) -> Params:
    """The first tree, with what a function makes of the leaves at some paths of all the trees."""
    leaves = [
        function(*each) if path in paths else each[0]
        for path, *each in zip(flatten(trees[0]), *map(jax.tree.leaves, trees), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(trees[0]), leaves)


def make_gradient(
    graphdef: nnx.GraphDef,
    sums: Callable[..., Sums],
    *,
    accumulate: int = 1,
    frozen: Collection[str] = (),
) -> Gradient:
    """(state, key, batch) -> ((loss, (metrics, new stats)), gradient); dropout by (key, step).

    The loss is the mean of `sums`, a task's `train_sums`. `accumulate` parts of a batch are
    computed in turn, so that one part's activations are in memory at a time; each weighs as much as
    it has examples that count. Part m of M has the examples m, m + M, ..: on several devices every
    device then computes at every part. Batch statistics are of a part. The gradient of the
    parameters of the paths `frozen` is 0; that of a complex one x + iy is df/dx + i df/dy.
    """

    def of_part(params: Params, stats: Params, key: Array, batch: Batch):
        def objective(params):
            held = at_paths(frozen, jax.lax.stop_gradient, params)
            model = nnx.merge(graphdef, held, stats)
            found = sums(model, batch, key)
            metrics = mean_metrics(found)
            return metrics["loss"], (metrics, split(model)[2], found["count"])

        found, grads = jax.value_and_grad(objective, has_aux=True)(params)
        # JAX's by x + iy is df/dx - i df/dy; a step along its conjugate descends in both.
        return found, jax.tree.map(jnp.conj, grads)

    def gradient(state: TrainState, key: Array, batch: Batch):
        dropout_key = jax.random.fold_in(key, state.step)
        if accumulate == 1:
            (loss, (metrics, stats, _)), grads = of_part(
                state.params, state.stats, dropout_key, batch
            )
            return (loss, (metrics, stats)), grads
        size = next(iter(batch.values())).shape[0] // accumulate

        def add_part(carry, part_and_key):
            stats, total = carry
            part, part_key = part_and_key
            (_, (metrics, stats, count)), grads = of_part(state.params, stats, part_key, part)
            share = jnp.asarray(count, jnp.float32) / size
            weighed = jax.tree.map(lambda x: x * share.astype(x.dtype), (metrics, grads))
            return (stats, jax.tree.map(jnp.add, total, (*weighed, share))), None

        parts = {
            name: jnp.swapaxes(x.reshape(size, accumulate, *x.shape[1:]), 0, 1)
            for name, x in batch.items()
        }
        keys = jax.random.split(dropout_key, accumulate)
        (_, (metrics, *_)), grads = jax.eval_shape(
            of_part, state.params, state.stats, keys[0], {n: a[0] for n, a in parts.items()}
        )
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (metrics, grads))
        carry = state.stats, (*zeros, jnp.zeros((), jnp.float32))
        (stats, (*total, shares)), _ = jax.lax.scan(add_part, carry, (parts, keys))
        # 1, to the bit, where all count
        more = jnp.where(shares == accumulate, 1.0, accumulate / shares)
        metrics, grads = jax.tree.map(lambda x: x / accumulate * more.astype(x.dtype), total)
        return (metrics["loss"], (metrics, stats)), grads

    return gradient


def make_train_step(
    gradient: Gradient,
    tx: optax.GradientTransformation,
    *,
    frozen: Collection[str] = (),
    ema: float = 0.0,
) -> Callable[[TrainState, Array, Batch], tuple[TrainState, Metrics]]:
    """(state, key, batch) -> (new state, metrics), with a gradient of `make_gradient`.

    `ema` is the decay of the moving averages, if the state has any.

    Metrics: the means of the sums and grad_norm before the update, and ok. When a loss or gradient
    is not finite, `ok` falls and the state stays what it was before that step, for good: the
    metrics are read one step late, and the steps dispatched meanwhile must not touch it.
    """

    def train_step(state: TrainState, key: Array, batch: Batch) -> tuple[TrainState, Metrics]:
        (loss, (metrics, stats)), grads = gradient(state, key, batch)
        grad_norm = optax.tree.norm(grads)
        ok = state.ok & jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        with jax.numpy_dtype_promotion("standard"):  # Optax has powers of floats by counts
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # Not p + 0, which is 0 for -0 and for what is too small to be a normal number.
        params = at_paths(frozen, lambda new, old: old, params, state.params)
        own = {"params": params, "stats": stats}
        average = moving_average(state.ema, own, ema) if ema else None
        moved = TrainState(state.step + 1, ok, params, stats, opt_state, average)
        stayed = replace(state, ok=ok)
        new_state = jax.tree.map(lambda new, old: jnp.where(ok, new, old), moved, stayed)
        return new_state, {**metrics, "grad_norm": grad_norm, "ok": ok}

    return train_step


def make_eval_step(
    graphdef: nnx.GraphDef, function: Callable[[Any, Batch], Metrics]
) -> Callable[[Params, Params, Batch], Metrics]:
    """(params, stats, batch) -> what a task's `eval_sums` or `predict` makes of the batch."""

    def eval_step(params: Params, stats: Params, batch: Batch) -> Metrics:
        return function(evaluated(graphdef, params, stats), batch)

    return eval_step


def non_finite_leaves(gradient: Gradient, state: TrainState, key: Array, batch: Batch) -> list[str]:
    """Names of what is not finite in a step from `state`: loss, params/..., grad/...."""
    (loss, _), grads = jax.jit(gradient)(state, key, batch)
    leaves = flatten({"params": state.params}) | flatten({"grad": grads})
    broken = [path for path, leaf in leaves.items() if not jnp.all(jnp.isfinite(leaf))]
    return broken if jnp.isfinite(loss) else ["loss", *broken]


def constants_as_arguments(
    function: Callable[[], Any],
) -> tuple[str, Callable[..., Any], list[np.ndarray]]:
    """A function's program as text, the program with its constants as arguments, and these.

    Two functions that differ in numbers alone have one program.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)()
    jaxpr, values, new = closed.jaxpr, list(closed.consts), []

    def argument(atom: Any) -> Any:
        if not isinstance(atom, core.Literal):
            return atom
        new.append(core.Var(atom.aval))
        values.append(np.asarray(atom.val, getattr(atom.aval, "dtype", None)))
        return new[-1]

    eqns = [eqn.replace(invars=[*map(argument, eqn.invars)]) for eqn in jaxpr.eqns]
    jaxpr = jaxpr.replace(
        constvars=[],
        invars=[*jaxpr.constvars, *new],
        eqns=eqns,
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )

    def program(*values: Array) -> Any:
        found = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, []))(*values)
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return str(jaxpr), program, values
