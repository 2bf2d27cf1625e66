"""What a task is: a model on a data set, with sums over examples that are its loss and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
from flax import nnx
from jax import Array

from ssm_jax.data.dataset import Dataset
from ssm_jax.data.prepare import DataPaths

# What `Dataset.gather` returns; in evaluation also mask (B,), 1 = a real example
Batch = Mapping[str, Array]
# "loss", "count" and the metrics of a task, each summed over the real examples of a batch
Sums = dict[str, Array]


@dataclass(frozen=True)
class Task:
    """A model on a data set. All functions are pure; ConfigDicts arrive as plain dicts.

    Attributes:
      open_data: (options of `cfg.data`, place) -> the data set.
      build_model: (data set, options of `cfg.model`, rngs) -> the model.
      train_sums: (model, batch, dropout key) -> sums in training, of which the mean of "loss" is
        minimized.
      eval_sums: (model, batch) -> sums in evaluation; they may hold more than those.
      metrics: what can choose the best checkpoint, and whether more or less of it is better; the
        first stands beside the loss wherever a run is shown.
      predict: (model, batch) -> {"predicted": class, "loss": nats} of each example; None:
        the task has no classes.
      circular: the model convolves on a circle of L steps in closed form, without calling its
        layers. Other models pad to 2L steps, on which the filters of their layers then act.
    """

    open_data: Callable[[Mapping[str, Any], DataPaths], Dataset]
    build_model: Callable[[Any, Mapping[str, Any], nnx.Rngs], nnx.Module]
    train_sums: Callable[[nnx.Module, Batch, Array | None], Sums]
    eval_sums: Callable[[nnx.Module, Batch], Sums]
    metrics: Mapping[str, Literal["max", "min"]]
    predict: Callable[[nnx.Module, Batch], dict[str, Array]] | None = None
    circular: bool = False

    @property
    def headline(self) -> str:
        """The metric that stands beside the loss."""
        return next(iter(self.metrics))


def mean_metrics(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Sums over examples to means, without "count"."""
    return {name: total / sums["count"] for name, total in sums.items() if name != "count"}


def sample_batch(dataset: Dataset, batch_size: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a training batch."""
    shapes = dataset.shapes(batch_size, length)
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}
