"""From a config to the pieces of a run: data, model, optimizer, mesh and compiled steps."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config.check import check
from ssm_jax.data.dataset import Arrays, Dataset
from ssm_jax.data.loader import Order, bucket_lengths, eval_batches, train_batches
from ssm_jax.data.prepare import DataPaths
from ssm_jax.kernels.devices import DATA_AXIS
from ssm_jax.progress import Progress, say
from ssm_jax.tasks import Task, find_task, mean_metrics
from ssm_jax.training import step as step_lib
from ssm_jax.training.checkpoint.manifest import Identity
from ssm_jax.training.step import TrainState


def batch_mesh() -> Mesh:
    """All local devices along one axis, over which batches are split."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


@dataclass(frozen=True)
class Experiment:
    """All that `loop.train_and_evaluate` needs, made by `build`; a run changes nothing of it."""

    cfg: ConfigDict  # checked
    dataset: Dataset  # opened, memory-mapped
    graphdef: nnx.GraphDef  # the model without its numbers
    tx: optax.GradientTransformation
    rows: tuple[step_lib.GroupRow, ...]  # the parameter groups
    schedule: step_lib.Schedule  # of their learning rates
    mesh: Mesh  # the devices
    padded_lengths: tuple[int, ...]  # of batches, the longest last
    order: Order  # of the training batches
    total_steps: int
    eval_every: int  # in steps
    eval_batch_size: int  # a multiple of the number of devices
    key: jax.Array  # of the dropout

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch_sharding(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(DATA_AXIS))

    @property
    def task(self) -> Task:
        return find_task(self.cfg.task)

    @property
    def filter_period(self) -> int:
        """Samples of the circle on which the filters of the layers act."""
        return self.dataset.padded_length * (1 if self.task.circular else 2)

    @functools.cached_property
    def fresh_state(self) -> Callable[[], TrainState]:
        """() -> the state before the first step, from the config's seed, on all devices.

        Compiled once: the figures of a run also show the state that it began with.
        """
        build_model, options = self.task.build_model, self.cfg.model.to_dict()

        def init() -> TrainState:
            key = jax.random.fold_in(jax.random.key(self.cfg.seed), 0)
            model = build_model(self.dataset, options, nnx.Rngs(params=key))
            return step_lib.init_state(*step_lib.split(model)[1:], self.tx)

        return jax.jit(init, out_shardings=self.replicated)

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and placement of the state."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.replicated),
            jax.eval_shape(self.fresh_state),
        )

    def model(self, state: TrainState) -> Any:
        """The model with the numbers of a state."""
        return nnx.merge(self.graphdef, state.params, state.stats)

    def abstract_batch(
        self, length: int | None = None, *, evaluation: bool = False
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and placement of a batch of sequences of a length; None: the longest."""
        size = self.eval_batch_size if evaluation else self.cfg.batch_size
        shapes = self.dataset.shapes(size, length or self.dataset.padded_length)
        if evaluation:
            shapes = {**shapes, "mask": ((size,), np.float32)}
        return {
            name: jax.ShapeDtypeStruct(*described, sharding=self.batch_sharding)
            for name, described in shapes.items()
        }

    def place_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """A batch on the devices, split over them."""
        return jax.device_put(dict(batch), self.batch_sharding)

    def gradient(self) -> step_lib.Gradient:
        """See `make_gradient`."""
        sums, parts = self.task.train_sums, self.cfg.train.accumulate
        return step_lib.make_gradient(self.graphdef, sums, accumulate=parts)

    def compile_train_step(self, length: int | None = None) -> jax.stages.Compiled:
        """The train step for batches of a length, None: the longest; reuses the state's memory."""
        step = step_lib.make_train_step(self.gradient(), self.tx)
        key = jax.ShapeDtypeStruct(self.key.shape, self.key.dtype, sharding=self.replicated)
        batch = self.abstract_batch(length)
        return self.compile(step, self.abstract_state(), key, batch, donate_argnums=0)

    def compile_eval_step(self, length: int | None = None) -> jax.stages.Compiled:
        """The evaluation of one batch of a length; None: the longest."""
        step = step_lib.make_eval_step(self.graphdef, self.task.eval_sums)
        state, batch = self.abstract_state(), self.abstract_batch(length, evaluation=True)
        return self.compile(step, state.params, state.stats, batch)

    def compile(self, function: Callable[..., Any], *shapes: Any, **options: Any) -> Any:
        """A function compiled for arguments of these shapes; `options` are those of jax.jit."""
        step = jax.jit(function, out_shardings=self.replicated, **options)
        with jax.set_mesh(self.mesh):
            return step.lower(*shapes).compile()

    def train_batches(self, start: int) -> Iterator[Arrays]:
        """The endless training batches from number `start` on."""
        return train_batches(self.dataset, "train", self.order, start)

    def eval_batches(self, split: str) -> Iterator[Arrays]:
        """Every example of a split once."""
        return eval_batches(self.dataset, split, self.eval_batch_size, self.padded_lengths)

    def train_step(self, batch: Mapping[str, jax.Array]) -> jax.stages.Compiled:
        """The train step for a batch; each length of batches is compiled once."""
        return self._compiled_for(batch, "the training step", self.compile_train_step)

    def eval_step(self, batch: Mapping[str, jax.Array]) -> jax.stages.Compiled:
        """The evaluation of a batch, likewise."""
        return self._compiled_for(batch, "the evaluation", self.compile_eval_step)

    def _compiled_for(
        self, batch: Mapping[str, jax.Array], what: str, compile_step: Callable[[int], Any]
    ) -> jax.stages.Compiled:
        length = self.dataset.steps_of(batch)
        if (what, length) not in self._compiled:
            step, _ = timed_compile(lambda: compile_step(length), f"{what} for L = {length:,}")
            self._compiled[what, length] = step
        return self._compiled[what, length]

    @functools.cached_property
    def _compiled(self) -> dict[tuple[str, int], jax.stages.Compiled]:
        return {}

    def means(
        self, state: TrainState, split: str, stopped: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """The metrics of a state over a whole split; None if `stopped`, asked after every batch."""
        total = -(-self.dataset.size(split) // self.eval_batch_size)
        sums: dict[str, float] = {}
        means: dict[str, float] = {}
        with Progress(split, total, metric=self.task.headline) as progress:
            for number, numbered in enumerate(self.eval_batches(split), start=1):
                batch = self.place_batch(numbered)
                found = self.eval_step(batch)(state.params, state.stats, batch)
                sums = {name: sums.get(name, 0.0) + float(value) for name, value in found.items()}
                means = mean_metrics(sums)
                progress.update(number, means["loss"], means[self.task.headline])
                if stopped():
                    return None
        return means

    @functools.cached_property
    def identity(self) -> Identity:
        """The identity that a checkpoint of this experiment has."""
        options = json.loads(json.dumps(config_lib.identity(self.cfg)))  # tuples are lists there
        return Identity(options, self.dataset.fingerprint)

    def describe(self) -> list[str]:
        """The lines that a person should read before it starts."""
        cfg, data, epochs = self.cfg, self.dataset, self.total_steps / self.order.steps_per_epoch
        sizes = " / ".join(f"{data.size(split):,}" for split in ("train", "val", "test"))
        return [
            f"{cfg.name} (config {config_lib.digest(cfg)})"
            + (f": {cfg.notes}" if cfg.notes else ""),
            f"data: {data.provenance.detail}; {sizes} examples, L = "
            + ", ".join(map(str, self.padded_lengths)),
            f"training: {self.total_steps:,} steps of {cfg.batch_size} sequences "
            f"({epochs:.1f} epochs), "
            f"evaluated every {self.eval_every:,} steps; the best {cfg.train.select_split} "
            f"{cfg.train.select_metric} chooses the checkpoint",
            f"devices: {self.mesh.size} x {self.mesh.devices.flat[0].device_kind}",
        ]


def build(cfg: ConfigDict, *, data_dir: Path, files: Path | None = None) -> Experiment:
    """Check a config, open (or prepare) its data, and assemble the experiment.

    `data_dir` is where prepared data are, or are put; `files` are official files of the user, an
    archive or a folder. ValueError for options that cannot work, or not together, and
    FileNotFoundError for data that are missing and cannot be made.
    """
    check(cfg)
    dataset = find_task(cfg.task).open_data(cfg.data.to_dict(), DataPaths(data_dir, files))
    return assemble(cfg, dataset)


def assemble(cfg: ConfigDict, dataset: Dataset) -> Experiment:
    """Model and optimizer for a checked config and its opened data; nothing is computed.

    ValueError for a batch that does not split over the devices, or parameters without a group.
    """
    mesh = batch_mesh()
    if cfg.batch_size % mesh.size:
        raise ValueError(
            f"batch_size={cfg.batch_size} does not split over {mesh.size} devices; "
            f"use a multiple of {mesh.size}, such as {-(-cfg.batch_size // mesh.size) * mesh.size}."
        )
    part = cfg.batch_size // cfg.train.accumulate
    if part % mesh.size:
        raise ValueError(
            f"a part of {part} sequences (train.accumulate={cfg.train.accumulate}) does not split "
            f"over {mesh.size} devices; use parts of a multiple of {mesh.size}."
        )
    padded_lengths = bucket_lengths(dataset.padded_length, cfg.data.buckets)
    order = Order(dataset.lengths("train"), cfg.batch_size, cfg.seed, padded_lengths)
    total_steps = cfg.train.steps or max(1, round(cfg.train.epochs * order.steps_per_epoch))
    build_model, options = find_task(cfg.task).build_model, cfg.model.to_dict()
    graphdef, params, _ = step_lib.split(
        nnx.eval_shape(lambda: build_model(dataset, options, nnx.Rngs(params=jax.random.key(0))))
    )
    warmup, last = cfg.schedule.warmup_steps, cfg.schedule.total_steps or total_steps
    schedule = step_lib.cosine_with_warmup(warmup, last, clamp=cfg.schedule.clamp)
    groups = step_lib.groups_from(cfg.optim.groups.to_dict())
    adam = {name: cfg.optim[name] for name in ("b1", "b2", "eps", "clip_norm")}
    tx, rows = step_lib.make_optimizer(params, groups, schedule, **adam)
    eval_batch_size = cfg.train.eval_batch_size or cfg.batch_size
    key = jax.random.fold_in(jax.random.key(cfg.seed), 1)
    return Experiment(
        cfg=cfg,
        dataset=dataset,
        graphdef=graphdef,
        tx=tx,
        rows=tuple(rows),
        schedule=schedule,
        mesh=mesh,
        padded_lengths=padded_lengths,
        order=order,
        total_steps=total_steps,
        eval_every=cfg.train.eval_every or order.steps_per_epoch,
        eval_batch_size=-(-eval_batch_size // mesh.size) * mesh.size,
        key=jax.device_put(key, NamedSharding(mesh, PartitionSpec())),
    )


def timed_compile(compile_step: Callable[[], Any], what: str = "") -> tuple[Any, float]:
    """A compiled step and the seconds that took, also in a line if it says what was compiled."""
    start = time.perf_counter()
    step = compile_step()
    seconds = time.perf_counter() - start
    if what:
        say(f"compiled {what} in {seconds:.1f} s.")
    return step, seconds
