"""Tasks: a model on a data set, with sums over examples that are its loss and metrics.

What the construction of a model reads of its data set is kept as JSON, its `Facts`: enough to build
it again.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ssm_jax import outside
from ssm_jax.data.preprocessing import Preprocessing
from ssm_jax.options.arguments import parameters_of
from ssm_jax.options.rows import OPTIONS
from ssm_jax.options.rows import Option as Option

if TYPE_CHECKING:
    from flax import nnx
    from jax import Array

    from ssm_jax.data.dataset import Dataset
    from ssm_jax.data.prepare import DataPaths

# What `Dataset.gather` returns; in evaluation also mask (B,), 1 = a real example
Batch = Mapping[str, Any]
# "loss", "count" and the metrics of a task, each summed over the real examples of a batch
Sums = dict[str, Any]
ANY = "any target"  # of training sums: its mean is 0 where no example of a batch counts, and else 1


def mean_metrics(sums: Mapping[str, Any], dataset: Any = None) -> dict[str, Any]:
    """Sums over examples to means, without "count"."""
    return {name: total / sums["count"] for name, total in sums.items() if name != "count"}


@dataclass(frozen=True)
class Task:
    """A model on a data set. All functions are pure; ConfigDicts arrive as plain dicts."""

    # (options of `cfg.data`, paths) -> the data set
    open_data: Callable[[Mapping[str, Any], DataPaths], Dataset]
    # (data set, options of `cfg.model`, rngs) -> the model
    build_model: Callable[[Any, Mapping[str, Any], nnx.Rngs], nnx.Module]
    # (model, batch, dropout key) -> sums in training; the mean of "loss" is minimized
    train_sums: Callable[[nnx.Module, Batch, Array | None], Sums]
    # (model, batch) -> sums in evaluation; they may hold more than those
    eval_sums: Callable[[nnx.Module, Batch], Sums]
    # What can choose the best checkpoint, and whether more or less of it is better; the first is
    # shown with the loss wherever a run is shown.
    metrics: Mapping[str, Literal["max", "min"]]
    # (model, batch) -> {"predicted": class, "loss": nats} of each example; None: without classes
    predict: Callable[[nnx.Module, Batch], dict[str, Array]] | None = None
    # (model, batch) -> numbers of the shape of the batch's "targets"; None: the task has classes
    outputs: Callable[[nnx.Module, Batch], Array] | None = None
    # (data set, split, `outputs` of its examples in order) -> scores of each series by their names,
    # and "series", its own; `evaluate` adds them to a result
    scores: Callable[[Any, str, Any], list[dict[str, Any]]] | None = None
    # The model convolves on a circle of L steps in closed form, without calling its layers. Other
    # models pad to 2L steps, on which the filters of their layers then act.
    circular: bool = False
    # Rows of the options that this task alone reads, by dotted key, such as "data.series.noise"
    options: Mapping[str, Option] = field(default_factory=dict)
    sources: tuple[str, ...] = ()  # of data.source that `open_data` knows; (): it does not read it
    # What `build_model` gives the options of `cfg.model` to. Those that are no argument of it, nor
    # of the layer if "layer" is one, have no effect and are refused. None: all are read.
    network: Callable[..., Any] | None = None
    # (options of `cfg.data`) -> lines about those that do not go together
    faults: Callable[[Mapping[str, Any]], Iterable[str]] = lambda data: ()
    # (sums over a split, as float64, data set) -> metrics
    summary: Callable[[Mapping[str, Any], Any], dict[str, Any]] = mean_metrics

    def open(self, cfg: Any, paths: DataPaths) -> Dataset:
        """The data set of an experiment; data.seed=-1 is its seed."""
        options = cfg.data.to_dict()
        options["seed"] = cfg.seed if options["seed"] < 0 else options["seed"]
        return self.open_data(options, paths)

    @property
    def headline(self) -> str:
        """The metric that is shown with the loss."""
        return next(iter(self.metrics))


class Lazy:
    """A function or class of another module, "module:name", imported when it is first used.

    So a task can be asked for its options and metrics before JAX is imported.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    @functools.cached_property
    def target(self) -> Callable[..., Any]:
        return resolve_name(self.where)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.target(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.Signature([*parameters_of(self.target).values()])


def classification_task(
    open_data: Callable[[Mapping[str, Any], DataPaths], Dataset], **about: Any
) -> Task:
    """A task of labelled sequences, with the network of the Long Range Arena.

    The data set has `n_classes`, `vocab_size`, `d_input` and `paired`; `about` are attributes of
    Task.
    """
    module = "ssm_jax.tasks.heads"
    return Task(
        open_data=open_data,
        build_model=Lazy(f"{module}:build_classifier"),
        train_sums=Lazy(f"{module}:train_sums"),
        eval_sums=Lazy(f"{module}:eval_sums"),
        predict=Lazy(f"{module}:predict"),
        metrics={"accuracy": "max", "loss": "min"},
        network=Lazy("ssm_jax.models:SequenceClassifier"),
        **about,
    )


# Where a task is, "module:name"; imported when it is asked for, and then without JAX.
TASKS: dict[str, str | Task] = {
    "listops": "ssm_jax.lra.catalog:LISTOPS",
    "text": "ssm_jax.lra.catalog:TEXT",
    "retrieval": "ssm_jax.lra.catalog:RETRIEVAL",
    "image": "ssm_jax.lra.catalog:IMAGE",
    "pathfinder": "ssm_jax.lra.catalog:PATHFINDER",
    "pathx": "ssm_jax.lra.catalog:PATHX",
    "denoise": "ssm_jax.stories.denoise:DENOISE",
    "waves": "ssm_jax.stories.waves:WAVE_REGRESSION",
    "video": "ssm_jax.stories.video:VIDEO",
    "runoff": "ssm_jax.stories.runoff:RUNOFF",
    "classification": "ssm_jax.tasks.arrays:CLASSIFICATION",
    "regression": "ssm_jax.tasks.arrays:REGRESSION",
    "per_step": "ssm_jax.tasks.arrays:PER_STEP",
    "forecasting": "ssm_jax.tasks.arrays:FORECASTING",
    "copying": "ssm_jax.tasks.copying:COPYING",
    "delay": "ssm_jax.tasks.delay:DELAY",
}


def find_task(name: str) -> Task:
    """The task of a name: a key of TASKS, an entry point of ssm_jax.tasks, or FILE.py:NAME."""
    task = outside.find("task", name, TASKS)
    if not isinstance(task, Task):
        raise ValueError(f"task {name}: it is a {type(task).__name__}, not a Task.")
    if shared := sorted(task.options.keys() & OPTIONS.keys()):
        raise ValueError(f"task {name}: {shared[0]} is an option of all tasks; rename it.")
    for key, row in task.options.items():
        default = row.default
        if type(default) not in (bool, int, float, str, tuple) or default != default:
            kinds = "a truth, a number, a text or a tuple"
            raise ValueError(f"task {name}: {key} needs {kinds} as default, got {default!r}.")
    for metric, mode in task.metrics.items():
        if mode not in ("max", "min"):  # which all but max would be
            raise ValueError(f"task {name}: {metric} is best at max or min, not at {mode!r}.")
    return task


def check_sums(name: str, task: Task, sums: Mapping[str, Any]) -> None:
    """Refuse what `eval_sums` of a task gives if its means lack a metric, or are no numbers."""
    for key in ("loss", "count", *task.metrics) if task.summary is mean_metrics else ():
        shape = getattr(sums.get(key), "shape", None)
        if shape != ():
            got = "no such sum" if shape is None else f"an array {shape}"
            raise ValueError(f"task {name}: eval_sums must give {key!r}, one number, got {got}.")


Facts = dict[str, Any]
ALWAYS = ("padded_length", "preprocessing")  # needed to use a model, if not to build it


class Watched:
    """A data set that notes what is read of it; to `isinstance` it is the data set."""

    def __init__(self, dataset: Any) -> None:
        self._dataset, self._read = dataset, dict[str, Any]()

    @property
    def __class__(self) -> Any:
        return type(self._dataset)

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError("the class of a data set cannot be changed")

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._dataset, name)
        self._read[name] = value
        return value

    def _whole(self) -> Any:
        """The data set itself, for what looks into it; no record can hold that."""
        self._read["whole"] = self._dataset
        return self._dataset

    def __len__(self) -> int:
        return len(self._whole())

    def __iter__(self) -> Any:
        return iter(self._whole())

    def __getitem__(self, key: Any) -> Any:
        return self._whole()[key]


def facts_of(watched: Any) -> Facts | None:
    """The attributes that were read, as JSON can hold them; None if one of them it cannot."""
    for name in ALWAYS:
        getattr(watched, name, None)
    try:
        return {name: kept(value) for name, value in sorted(watched._read.items())}
    except TypeError:  # such as a method: only the data set itself can answer
        return None


def stand_in(facts: Mapping[str, Any]) -> Any:
    """An object with the attributes that `facts_of` kept, for `Task.build_model`."""

    def restored(name: str, value: Any) -> Any:
        if name == "preprocessing":
            return Preprocessing.of_json(value)
        return tuple(restored("", v) for v in value) if isinstance(value, list) else value

    return SimpleNamespace(**{name: restored(name, value) for name, value in facts.items()})


def kept(value: Any) -> Any:
    """A value as JSON can hold it, with a Preprocessing as its fields; else a TypeError."""
    if isinstance(value, Preprocessing):
        return kept(dataclasses.asdict(value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return [kept(v) for v in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: kept(v) for key, v in value.items()}
    raise TypeError(f"{type(value).__name__} is no JSON")
