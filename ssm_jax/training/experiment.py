"""From a config to the pieces of a run: data, model, optimizer, mesh and compiled steps."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ssm_jax.config.ending import LESS_MEMORY
from ssm_jax.data.dataset import Arrays, Dataset
from ssm_jax.data.loader import ALL, Order, bucket_lengths, eval_batches, train_batches
from ssm_jax.data.prepare import DataPaths
from ssm_jax.kernels.devices import DATA_AXIS
from ssm_jax.layers import LAYERS
from ssm_jax.progress import Progress, warn
from ssm_jax.tasks import TASKS, Watched, check_sums, facts_of, find_task
from ssm_jax.training import data_init, numerics, optim, plan, processes
from ssm_jax.training import step as step_lib
from ssm_jax.training.checkpoint.manifest import Identity, flatten
from ssm_jax.training.record import identity_of
from ssm_jax.training.step import TrainState


def _refuse_variables(params: Any, stats: Any) -> None:
    """Raise for what a network keeps and no step can train, or no checkpoint holds."""
    for path, leaf in flatten(params).items():
        if not jax.dtypes.issubdtype(leaf.dtype, np.inexact):
            how = f"is an nnx.Param of {leaf.dtype}, which has no gradient; make it an nnx.Variable"
            raise ValueError(f"{path} of the network {how}.")
    for path, leaf in flatten(stats).items():
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            how = "is a random key, as nnx.Dropout and nnx.Rngs keep, which no checkpoint holds"
            raise ValueError(f"{path} of the network {how}; draw with the key that the call gets.")


def batch_mesh() -> Mesh:
    """All devices, of all processes, along one axis, over which batches are split."""
    devices = jax.devices()
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


class Experiment:
    """All that `loop.train_and_evaluate` needs, from a checked config and its data; never changed.

    `built_from` has what the model reads of the data, as `tasks.facts_of` has it. `mesh` has
    the devices, one axis for the batch; None: all of all processes. Its devices may be those of a
    topology: steps compile for them, and none runs. ValueError for a batch that does not split over
    the devices, or parameters without a group.
    """

    parts: tuple[str, ...] = ()  # of the state that a checkpoint restores: all
    population: Mapping[str, Any] = {}  # in which it is trained, for the record; {}: by itself

    def __init__(self, cfg: ConfigDict, dataset: Dataset, *, mesh: Mesh | None = None):
        self.cfg, self.dataset, self.task = cfg, dataset, find_task(cfg.task)
        self.mesh = batch_mesh() if mesh is None else mesh
        devices = self.mesh.size
        plan.check_split(cfg.batch_size, cfg.train.accumulate, devices)
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.batch_sharding = NamedSharding(self.mesh, PartitionSpec(DATA_AXIS))
        # Of batches, the longest last
        self.padded_lengths = bucket_lengths(dataset.padded_length, cfg.data.buckets)
        lengths = dataset.lengths("train")
        drawn_by = cfg.seed if cfg.data.order_seed < 0 else cfg.data.order_seed
        self.order = Order(lengths, cfg.batch_size, drawn_by, self.padded_lengths)
        epoch = self.order.steps_per_epoch
        self.total_steps: int = cfg.train.steps or max(1, round(cfg.train.epochs * epoch))
        self.eval_every: int = cfg.train.eval_every or epoch  # in steps
        eval_batch_size = cfg.train.eval_batch_size or cfg.batch_size
        self.eval_batch_size: int = -(-eval_batch_size // devices) * devices
        self.ranking = config_lib.ranking_of(cfg)  # what names the best checkpoint
        # Samples of the circle on which the filters of the layers act
        self.filter_period = dataset.padded_length * (1 if self.task.circular else 2)
        watched: Any = Watched(dataset)
        shapes = nnx.eval_shape(lambda: self._build_model(jax.random.key(0), watched))
        self.built_from = facts_of(watched)
        self.graphdef, params, stats = step_lib.split(shapes)
        _refuse_variables(params, stats)
        self.paths = {path: leaf.size for path, leaf in flatten(params).items()}  # of parameters
        statistics = nnx.to_pure_dict(nnx.state(shapes, nnx.BatchStat))
        self.statistics = frozenset(flatten(statistics))  # paths of what is measured of batches
        self.schedule, self.schedule_says = optim.schedule_of(
            cfg.schedule.shape,
            warmup=cfg.schedule.warmup_steps,
            last=cfg.schedule.total_steps or self.total_steps,
            clamp=cfg.schedule.clamp,
        )
        self.groups, self._params = optim.groups_from(cfg.optim.groups.to_dict()), params
        self.tx, self.rows = self.optimizer(self.groups)
        self.frozen = {path for row in self.rows if row.group.freeze for path in row.paths}
        self._compiled: dict[str, Any] = {}

    def optimizer(
        self, groups: Sequence[optim.Group]
    ) -> tuple[optax.GradientTransformation, list[optim.GroupRow]]:
        """The optimizer with these groups of parameters, and its table; rates may be traced."""
        options = self.cfg.optim
        adam = {name: options[name] for name in ("b1", "b2", "eps", "clip_norm")}
        return optim.make_optimizer(
            self._params, groups, self.schedule, freeze=options.freeze, **adam
        )

    def _build_model(self, key: jax.Array, dataset: Dataset | None = None) -> nnx.Module:
        options = self.cfg.model.to_dict()
        dataset = self.dataset if dataset is None else dataset
        return self.task.build_model(dataset, options, nnx.Rngs(params=key))

    @functools.cached_property
    def key(self) -> jax.Array:
        """That of dropout, on the devices."""
        key = jax.random.fold_in(jax.random.key(self.cfg.seed), 1)
        return jax.random.wrap_key_data(self.replicate(jax.random.key_data(key)))

    @functools.cached_property
    def fresh_state(self) -> Callable[[], TrainState]:
        """() -> the state before the first step, but for what `data_init` sets by the data.

        Compiled once for a run and its figures, and for runs that differ in seeds and values.
        """
        text, program, values = step_lib.constants_as_arguments(self._first_state)
        program = jax.jit(program, out_shardings=self.replicated)
        return functools.partial(self._compiled.setdefault(text, program), *values)

    def _first_state(self) -> TrainState:
        model = self._build_model(jax.random.fold_in(jax.random.key(self.cfg.seed), 0))
        data_init.set_fixed(model, self.cfg.model.to_dict())
        _, params, stats = step_lib.split(model)
        return step_lib.init_state(params, stats, self.tx, ema=self.cfg.train.ema > 0)

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and placement of the state."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.replicated),
            jax.eval_shape(self.fresh_state),
        )

    def model(self, state: TrainState) -> Any:
        """The model with the numbers of a state."""
        return step_lib.evaluated(self.graphdef, state.params, state.stats)

    def abstract_batch(self, length: int | None = None, *, training: bool = True) -> dict[str, Any]:
        """Shapes, dtypes and placement of a batch of sequences of a length; None: the longest."""
        size = self.cfg.batch_size if training else self.eval_batch_size
        shapes = self.dataset.shapes(size, length or self.dataset.padded_length)
        if not training:
            shapes = {**shapes, "mask": ((size,), np.float32)}
        return {
            name: jax.ShapeDtypeStruct(*described, sharding=self.batch_sharding)
            for name, described in shapes.items()
        }

    def own_rows(self, size: int) -> np.ndarray | slice:
        """Those of a batch that this process reads, as its devices get them: with one, all."""
        if jax.process_count() == 1:
            return ALL
        parts = self.batch_sharding.addressable_devices_indices_map((size,)).values()
        return np.unique(np.concatenate([np.arange(size)[part] for part in parts]))

    def part(self, indices_B: np.ndarray) -> np.ndarray:
        """The examples of a batch that this process reads."""
        return indices_B[self.own_rows(indices_B.size)]

    def place_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """A batch on the devices, split over them; each process gives its `own_rows`."""
        if jax.process_count() == 1:
            return jax.device_put(dict(batch), self.batch_sharding)
        return {
            name: jax.make_array_from_process_local_data(self.batch_sharding, rows)
            for name, rows in batch.items()
        }

    def replicate(self, tree: Any) -> Any:
        """A tree of arrays, of which each process has all, on every device."""

        def place(leaf: Any) -> jax.Array:
            array = np.asarray(leaf)
            return jax.make_array_from_callback(array.shape, self.replicated, array.__getitem__)

        return jax.tree.map(place, tree)

    def whole(self, array: jax.Array) -> np.ndarray:
        """All of an array that is split over the devices, on every process."""
        if jax.process_count() > 1:
            array = jax.jit(lambda x: x, out_shardings=self.replicated)(array)
        return np.asarray(array)

    def gradient(self) -> step_lib.Gradient:
        """See `make_gradient`."""
        sums, parts = self.task.train_sums, self.cfg.train.accumulate
        return step_lib.make_gradient(self.graphdef, sums, accumulate=parts, frozen=self.frozen)

    def step(
        self, length: int | None = None, *, training: bool = True
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The train step or evaluation, not compiled, and the shapes of its arguments.

        For batches of sequences of a length; None: the longest.
        """
        state, batch = self.abstract_state(), self.abstract_batch(length, training=training)
        if training:
            step = step_lib.make_train_step(
                self.gradient(), self.tx, frozen=self.frozen, ema=self.cfg.train.ema
            )
            shape = jax.eval_shape(jax.random.key, 0)
            key = jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=self.replicated)
            return step, (state, key, batch)
        evaluate = step_lib.make_eval_step(self.graphdef, self.task.eval_sums)
        return evaluate, (state.params, state.stats, batch)

    def compile_step(self, length: int | None = None, *, training: bool = True) -> Any:
        """`step` compiled; the train step reuses the memory of its state."""
        step, shapes = self.step(length, training=training)
        return self.compile(step, *shapes, **({"donate_argnums": 0} if training else {}))

    def compile(self, function: Callable[..., Any], *shapes: Any, **options: Any) -> Any:
        """A function compiled for arguments of these shapes; `options` are those of jax.jit."""
        with jax.set_mesh(self.mesh):
            program = jax.jit(function, out_shardings=self.replicated, **options)
            flags = numerics.compiler_options(self.cfg, numerics.platform_of(self.mesh))
            return program.lower(*shapes).compile(flags or None)

    def step_for(self, batch: Mapping[str, jax.Array], *, training: bool) -> Any:
        """The train step or the evaluation for a batch; each length is compiled once."""
        length = self.dataset.steps_of(batch)
        what = "the training step" if training else "the evaluation"
        step = functools.partial(self.compile_step, length, training=training)
        name = f"{what} for L = {length:,}"
        new = name not in self._compiled
        program = self.compiled_once(name, step, what)
        if new:  # gloo waits half a minute for a process that still compiles, and then fails
            processes.meet()
        return program

    def compiled_once(self, name: str, compile_step: Callable[[], Any], planned: str = "") -> Any:
        """The program of that name, compiled when it is first asked for.

        `planned` names it in the warning that it needs more memory than a device has; "": none.
        """
        if name not in self._compiled:
            program, _ = plan.timed_compile(compile_step, name)
            if planned and (line := plan.too_large(plan.planned_bytes(program), planned)):
                warn(f"{line}; {LESS_MEMORY}.")
            self._compiled[name] = program
        return self._compiled[name]

    def train_batches(self, start: int) -> Iterator[Arrays]:
        """The endless training batches from number `start` on."""
        rows = self.own_rows(self.cfg.batch_size)
        return train_batches(self.dataset, "train", self.order, start, rows)

    def eval_batches(self, split: str) -> Iterator[Arrays]:
        """Every example of a split once."""
        size, rows = self.eval_batch_size, self.own_rows(self.eval_batch_size)
        return eval_batches(self.dataset, split, size, self.padded_lengths, rows)

    def means(
        self,
        state: TrainState,
        split: str,
        stopped: Callable[[], bool] = lambda: False,
        title: str = "",
    ) -> dict[str, float] | None:
        """The metrics of a state over a whole split; None if `stopped`, asked after every batch.

        Its progress is shown as `title`, by default the name of the split.
        """
        total = -(-self.dataset.size(split) // self.eval_batch_size)
        sums, means = dict[str, Any](), dict[str, float]()
        with Progress(title or split, total, metric=self.task.headline) as progress:
            for number, numbered in enumerate(self.eval_batches(split), start=1):
                batch = self.place_batch(numbered)
                found = self.step_for(batch, training=False)(state.params, state.stats, batch)
                sums = {k: sums.get(k, 0.0) + np.asarray(v, np.float64) for k, v in found.items()}
                means = {k: float(v) for k, v in self.task.summary(sums, self.dataset).items()}
                progress.update(number, means["loss"], means[self.task.headline])
                if stopped():
                    return None
        return processes.agreed(lambda: means)

    def reported(self) -> set[str]:
        """The names of the metrics of a result; nothing is computed."""
        step, shapes = self.step(training=False)
        with jax.set_mesh(self.mesh):
            sums = jax.eval_shape(step, *shapes)
        with np.errstate(all="ignore"):
            ones = {name: np.ones(shape.shape) for name, shape in sums.items()}
            found = self.task.summary(ones, self.dataset)
        found |= {f"ema_{name}": 0.0 for name in found if self.cfg.train.ema}
        return {*config_lib.as_result(self.cfg, found)}

    def chosen(self, state: TrainState) -> TrainState:
        """The state whose parameters are the result of the run: itself, or its averages."""
        return state.averaged() if self.cfg.train.select_ema else state

    @functools.cached_property
    def identity(self) -> Identity:
        """That of its checkpoints."""
        return identity_of(self.cfg, self.dataset.fingerprint)


def build(
    cfg: ConfigDict,
    *,
    data_dir: Path,
    files: Path | None = None,
    look_only: bool = False,
    to_read: bool = False,
    mesh: Mesh | None = None,
) -> Experiment:
    """Check a config, open (or prepare) its data in `data_dir`, and make the experiment.

    `files` are official files of the user, an archive or a folder. `look_only` prepares nothing:
    an experiment whose data are not there can be described and compiled, not run. `mesh` see
    Experiment. ValueError for options that cannot work, or not together; FileNotFoundError for data
    that are missing and cannot be made. A run that is only `to_read` may have options set for
    nothing, see `check`, and no step of it is traced: the steps of others with a task or layer from
    outside are, as a folder in which something is written is bound to the mistakes in their files.
    """
    check(cfg, recorded=to_read)
    paths = DataPaths(data_dir, files, look_only=look_only)
    task = find_task(cfg.task)
    experiment = Experiment(cfg, processes.in_turn(lambda: task.open(cfg, paths)), mesh=mesh)
    if not to_read and (cfg.task not in TASKS or cfg.model.layer not in LAYERS):
        for training in (False, True):
            step, shapes = experiment.step(training=training)
            with jax.set_mesh(experiment.mesh):
                found = jax.eval_shape(step, *shapes)
            if not training:
                check_sums(cfg.task, task, found)
    return experiment
