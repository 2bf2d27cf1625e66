"""All that a run changes from step to step, and nothing else: what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """A run between two steps.

    Attributes:
      step: updates made, int32.
      ok: no loss or gradient has been non-finite so far, bool.
      params: trained numbers, nested dicts of arrays.
      stats: running statistics and fixed knobs, likewise.
      opt_state: of the optimizer.
    """

    step: Array
    ok: Array
    params: Any
    stats: Any
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
