"""One update, one evaluation batch, and the search for the leaf that broke, as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from ssm_jax.tasks import Batch, apply_model, classification_sums, mean_metrics
from ssm_jax.train.optim import path_name
from ssm_jax.train.state import TrainState, split

Metrics = dict[str, Array]


def make_gradient(graphdef: nnx.GraphDef) -> Callable[[TrainState, Array, Batch], tuple[Any, Any]]:
    """(state, key, batch) -> ((loss, (metrics, new stats)), gradient); dropout by (key, step)."""

    def gradient(state: TrainState, key: Array, batch: Batch):
        def objective(params):
            model = nnx.merge(graphdef, params, state.stats)
            dropout_key = jax.random.fold_in(key, state.step)
            logits_BK = apply_model(model, batch, train=True, key=dropout_key)
            metrics = mean_metrics(classification_sums(logits_BK, batch))
            return metrics["loss"], (metrics, split(model)[2])

        return jax.value_and_grad(objective, has_aux=True)(state.params)

    return gradient


def make_train_step(
    graphdef: nnx.GraphDef, tx: optax.GradientTransformation
) -> Callable[[TrainState, Array, Batch], tuple[TrainState, Metrics]]:
    """(state, key, batch) -> (new state, metrics).

    Metrics: loss, accuracy and grad_norm before the update, and ok. When a loss or gradient is not
      finite, `ok` falls
    and the state stays what it was before that step, for good: the metrics are read one step late,
      and the steps
    dispatched meanwhile must not touch it.
    """
    gradient = make_gradient(graphdef)

    def train_step(state: TrainState, key: Array, batch: Batch) -> tuple[TrainState, Metrics]:
        (loss, (metrics, stats)), grads = gradient(state, key, batch)
        grad_norm = optax.tree.norm(grads)
        ok = state.ok & jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        moved = TrainState(state.step + 1, ok, params, stats, opt_state)
        stayed = TrainState(state.step, ok, state.params, state.stats, state.opt_state)
        new_state = jax.tree.map(lambda new, old: jnp.where(ok, new, old), moved, stayed)
        return new_state, {**metrics, "grad_norm": grad_norm, "ok": ok}

    return train_step


def make_eval_step(graphdef: nnx.GraphDef) -> Callable[[Any, Any, Batch], Metrics]:
    """(params, stats, batch) -> sums over the batch's real examples."""

    def eval_step(params: Any, stats: Any, batch: Batch) -> Metrics:
        model = nnx.merge(graphdef, params, stats)
        return classification_sums(apply_model(model, batch, train=False, key=None), batch)

    return eval_step


def non_finite_leaves(
    graphdef: nnx.GraphDef, state: TrainState, key: Array, batch: Batch
) -> list[str]:
    """Names of what is not finite in a step from `state`: loss, params/..., grad/...."""
    (loss, _), grads = jax.jit(make_gradient(graphdef))(state, key, batch)
    found = [] if jnp.isfinite(loss) else ["loss"]
    for prefix, tree in (("params", state.params), ("grad", grads)):
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if not bool(jnp.all(jnp.isfinite(leaf))):
                found.append(f"{prefix}/{path_name(path)}")
    return found
