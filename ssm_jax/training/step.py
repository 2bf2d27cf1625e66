"""The state of a run, and as pure functions: one update, one evaluation, the leaf that broke."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from ssm_jax.tasks import Batch, Sums, mean_metrics
from ssm_jax.training.optim import path_name


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """A run between two steps."""

    step: Array  # updates made, int32
    ok: Array  # no loss or gradient has been non-finite so far, bool
    params: Any  # trained numbers, nested dicts of arrays
    stats: Any  # running statistics and fixed knobs, likewise
    opt_state: Any


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Any, Any]:
    """(graphdef, params, stats): what is trained and what is not, as pure dicts of arrays."""
    params, stats = nnx.state(model, nnx.Param, nnx.Not(nnx.Param))
    return nnx.graphdef(model), nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def init_state(params: Any, stats: Any, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        ok=jnp.ones((), jnp.bool_),
        params=params,
        stats=stats,
        opt_state=tx.init(params),
    )


Metrics = dict[str, Array]
TrainSums = Callable[[Any, Batch, Array | None], Sums]
Gradient = Callable[[TrainState, Array, Batch], tuple[Any, Any]]


def make_gradient(graphdef: nnx.GraphDef, sums: TrainSums, *, accumulate: int = 1) -> Gradient:
    """(state, key, batch) -> ((loss, (metrics, new stats)), gradient); dropout by (key, step).

    Args:
      graphdef: of the model.
      sums: a task's `train_sums`, whose mean loss is differentiated.
      accumulate: M parts of a batch that are computed in turn, so that one part's activations are
        in memory at a time. Part m has the examples m, m + M, ..: on several devices every device
        then computes at every part. Batch statistics are of a part.
    """

    def of_part(params: Any, stats: Any, key: Array, batch: Batch):
        def objective(params):
            model = nnx.merge(graphdef, params, stats)
            metrics = mean_metrics(sums(model, batch, key))
            return metrics["loss"], (metrics, split(model)[2])

        return jax.value_and_grad(objective, has_aux=True)(params)

    def gradient(state: TrainState, key: Array, batch: Batch):
        dropout_key = jax.random.fold_in(key, state.step)
        if accumulate == 1:
            return of_part(state.params, state.stats, dropout_key, batch)

        def add_part(carry, part_and_key):
            stats, total = carry
            part, part_key = part_and_key
            (_, (metrics, stats)), grads = of_part(state.params, stats, part_key, part)
            return (stats, jax.tree.map(jnp.add, total, (metrics, grads))), None

        parts = {
            name: jnp.swapaxes(x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]), 0, 1)
            for name, x in batch.items()
        }
        keys = jax.random.split(dropout_key, accumulate)
        (_, (metrics, _)), grads = jax.eval_shape(
            of_part, state.params, state.stats, keys[0], {n: a[0] for n, a in parts.items()}
        )
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (metrics, grads))
        (stats, total), _ = jax.lax.scan(add_part, (state.stats, zeros), (parts, keys))
        metrics, grads = jax.tree.map(lambda x: x / accumulate, total)
        return (metrics["loss"], (metrics, stats)), grads

    return gradient


def make_train_step(
    gradient: Gradient, tx: optax.GradientTransformation
) -> Callable[[TrainState, Array, Batch], tuple[TrainState, Metrics]]:
    """(state, key, batch) -> (new state, metrics), with a gradient of `make_gradient`.

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
        moved = TrainState(state.step + 1, ok, params, stats, opt_state)
        stayed = TrainState(state.step, ok, state.params, state.stats, state.opt_state)
        new_state = jax.tree.map(lambda new, old: jnp.where(ok, new, old), moved, stayed)
        return new_state, {**metrics, "grad_norm": grad_norm, "ok": ok}

    return train_step


def make_eval_step(
    graphdef: nnx.GraphDef, function: Callable[[Any, Batch], Metrics]
) -> Callable[[Any, Any, Batch], Metrics]:
    """(params, stats, batch) -> what a task's `eval_sums` or `predict` makes of the batch."""

    def eval_step(params: Any, stats: Any, batch: Batch) -> Metrics:
        return function(nnx.merge(graphdef, params, stats), batch)

    return eval_step


def non_finite_leaves(gradient: Gradient, state: TrainState, key: Array, batch: Batch) -> list[str]:
    """Names of what is not finite in a step from `state`: loss, params/..., grad/...."""
    (loss, _), grads = jax.jit(gradient)(state, key, batch)
    found = [] if jnp.isfinite(loss) else ["loss"]
    for tree in ({"params": state.params}, {"grad": grads}):
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if not bool(jnp.all(jnp.isfinite(leaf))):
                found.append(path_name(path))
    return found
