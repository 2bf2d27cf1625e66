"""The step of a population: one program for the members, whatever their values.

Members differ in numbers that a program can take as arguments: learning rates, weight decay, the
keys of dropout, and what acts at initialization alone. How they share a device is `at_once`:

    1        `InTurn`: one after the other by the program of a single run, in which rates that
             differ are arguments; without those its numbers have the bits of the single run. One
             that has ended costs nothing
    more     `AtOnce`: so many by `jax.vmap`, few large kernels in the place of many small ones
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssm_jax.kernels.devices import on_cpu
from ssm_jax.training import numerics, plan
from ssm_jax.training import step as step_lib
from ssm_jax.training.population.members import Member, Program
from ssm_jax.training.step import TrainState

MEMBER_AXIS = "members"  # the mesh axis over which a population is split


def usual_at_once(size: int) -> int:
    """How many members a device computes at a time: all of `size`, on a CPU one.

    A CPU has no launches to save, the arrays of one member fit its caches, and its numbers then
    have the bits of a single run.
    """
    return 1 if on_cpu() else size


class InTurn(Program):
    """Members one after the other, by the program of a single run. A state is a list of theirs."""

    at_once = 1

    def planned_bytes(self) -> int:
        state = plan.size_of(self.first.abstract_state())
        return plan.planned_bytes(self._step_for(None)) + (self.rows - 1) * state

    def smaller(self, size: int) -> Program:
        return self

    def _step_for(self, length: int | None) -> Any:
        first, length = self.first, length or self.first.dataset.padded_length

        def compile_() -> Any:
            shapes = first.abstract_state(), first.key, self.rates(first)
            batch = first.abstract_batch(length)
            return first.compile(self.update, *shapes, batch, donate_argnums=0)

        return first.compiled_once(f"the step of all members for L = {length:,}", compile_)

    def seated(self, members: Sequence[Member]) -> Any:
        return [(member.key, self.rates(member)) for member in members]

    def joined(self, states: Sequence[TrainState]) -> Any:
        return [jax.device_put(state, self.first.replicated) for state in states]

    def row(self, state: Any, number: int) -> Any:
        return state[number]

    def averaged(self, state: Any) -> Any:
        return [each.averaged() for each in state]

    def host(self, state: Any, size: int) -> Any:
        return jax.tree.map(lambda *rows: np.stack(rows), *jax.device_get(state[:size]))

    def step(self, state, live, seats, batches):
        placed = [self.first.place_batch(batch) for batch in batches]
        new, metrics = list(state), {}
        for i in live:
            batch = placed[i if self.own_order else 0]
            program = self._step_for(self.first.dataset.steps_of(batch))
            new[i], metrics[i] = program(state[i], *seats[i], batch)
        return new, metrics

    def metrics(self, found, live):
        return {i: jax.device_get(found[i]) for i in live}

    def sums(self, state, live, batch):
        placed = self.first.place_batch(batch)
        evaluate = self.first.step_for(placed, training=False)
        return {i: evaluate(state[i].params, state[i].stats, placed) for i in live}


class AtOnce(Program):
    """Members together. A state is one whose leaves are (rows, ...), split over the devices.

    `rows` are filled up to a multiple of the devices: each of these has as many.
    """

    def __init__(self, members: Sequence[Member], size: int, at_once: int):
        super().__init__(members, size)
        devices = list(self.first.mesh.devices.flat)
        self.rows = -(-size // len(devices)) * len(devices)
        if self.own_order and len(self.first.padded_lengths) > 1:
            raise ValueError(
                "members with orders of their own (--own_order) have batches of different lengths "
                "at one step (data.buckets); leave one of the two, or give --vmap=1."
            )
        axis = (MEMBER_AXIS,)
        self.mesh = jax.make_mesh((len(devices),), axis, (AxisType.Auto,), devices=devices)
        self.at_once = at_once
        self._by_row = NamedSharding(self.mesh, PartitionSpec(MEMBER_AXIS))
        self._everywhere = NamedSharding(self.mesh, PartitionSpec())
        self._compiled: dict[tuple[str, int], Any] = {}

    def planned_bytes(self) -> int:
        return plan.planned_bytes(self.compiled(training=True))

    def smaller(self, size: int) -> Program:
        each = self.rows // self.mesh.size
        half = -(-each // 2) * self.mesh.size
        if half < size or each == 1:
            return self
        # By halves, so that the number left says how many rows there are, after a restart too.
        return AtOnce(self._members, half, self.at_once).smaller(size)

    def compiled(self, *, training: bool) -> Any:
        """The step, or the evaluation, on the longest sequences."""
        length = self.first.dataset.padded_length
        return self._step_for(length) if training else self._evaluation_for(length)

    def seated(self, members: Sequence[Member]) -> Any:
        return self._stacked([(member.key, self.rates(member)) for member in members])

    def joined(self, states: Sequence[TrainState]) -> Any:
        return self._stacked(states)

    def _stacked(self, trees: Sequence[Any]) -> Any:
        """Rows of these trees, and the first again until there are enough."""

        def stacked(*leaves: Any) -> Any:
            host = all(isinstance(leaf, (np.ndarray, np.generic)) for leaf in leaves)
            return np.stack(leaves) if host else jnp.stack(leaves)

        rows = [*trees, *[trees[0]] * (self.rows - len(trees))]
        return jax.device_put(jax.tree.map(stacked, *rows), self._by_row)

    def row(self, state: Any, number: int) -> Any:
        return jax.device_put(jax.tree.map(lambda x: x[number], state), self.first.replicated)

    def averaged(self, state: Any) -> Any:
        return state.averaged()

    def host(self, state: Any, size: int) -> Any:
        return jax.tree.map(lambda x: np.array(x)[:size], state)

    def step(self, state, live, seats, batches):
        if self.own_order:
            batch = {name: self._stacked([b[name] for b in batches]) for name in batches[0]}
        else:
            batch = jax.device_put(dict(batches[0]), self._everywhere)
        active = np.zeros(self.rows, np.bool_)
        active[list(live)] = True
        program = self._step_for(self.first.dataset.steps_of(batches[0]))
        return program(state, active, *seats, batch)

    def metrics(self, found, live):
        values = jax.device_get(found)
        return {i: {name: value[i] for name, value in values.items()} for i in live}

    def sums(self, state, live, batch):
        evaluate = self._evaluation_for(self.first.dataset.steps_of(batch))
        placed = jax.device_put(dict(batch), self._everywhere)
        return self.metrics(evaluate(state.params, state.stats, placed), live)

    def _step_for(self, length: int) -> Any:
        """(state, active, keys, rates, batch) -> (state, metrics); what is not active stays."""
        first = self.first

        def step(state: TrainState, active: Any, key: Any, rates: Any, batch: Any) -> Any:
            new, metrics = self.update(state, key, rates, batch)
            return jax.tree.map(functools.partial(jnp.where, active), new, state), metrics

        number = jax.ShapeDtypeStruct((), np.float32)
        rates = jax.tree.map(lambda _: number, self.rates(first))
        key, active = jax.eval_shape(jax.random.key, 0), jax.ShapeDtypeStruct((), np.bool_)
        rows = (first.abstract_state(), active, key, rates)
        batch = first.abstract_batch(length)
        compile_ = functools.partial(self._compile, step, rows, batch, split=self.own_order)
        return self._once("step", length, lambda: compile_(donate_argnums=0))

    def _evaluation_for(self, length: int) -> Any:
        """(params, stats, batch) -> the sums of each row over one batch that all share."""
        first, state = self.first, self.first.abstract_state()
        evaluate = step_lib.make_eval_step(first.graphdef, first.task.eval_sums)
        batch, rows = first.abstract_batch(length, training=False), (state.params, state.stats)
        return self._once("evaluation", length, lambda: self._compile(evaluate, rows, batch))

    def _once(self, what: str, length: int, compile_: Callable[[], Any]) -> Any:
        if (what, length) not in self._compiled:
            title = f"the {what} of {self.rows} members for L = {length:,}"
            self._compiled[what, length], _ = plan.timed_compile(compile_, title)
        return self._compiled[what, length]

    def _compile(
        self,
        function: Callable[..., Any],
        of_member: tuple[Any, ...],
        batch: Mapping[str, Any],
        *,
        split: bool = False,
        **options: Any,
    ) -> Any:
        """A function of one member compiled for rows, and a batch that is `split` as they are."""
        by_row, same = PartitionSpec(MEMBER_AXIS), PartitionSpec()
        in_axes = (*[0] * len(of_member), 0 if split else None)

        def of_rows(*arguments: Any) -> Any:
            if self.at_once * self.mesh.size >= self.rows:
                return jax.vmap(function, in_axes)(*arguments)
            *rows, batch = arguments
            if split:
                return jax.lax.map(lambda row: function(*row), arguments, batch_size=self.at_once)
            return jax.lax.map(
                lambda row: function(*row, batch), tuple(rows), batch_size=self.at_once
            )

        def shapes(tree: Any, rows: bool) -> Any:
            sharding = self._by_row if rows else self._everywhere
            size = (self.rows,) if rows else ()
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((*size, *x.shape), x.dtype, sharding=sharding), tree
            )

        whole: Callable[..., Any] = of_rows
        if self.mesh.size > 1:  # nothing is summed over members: none need tell that it varies
            whole = jax.shard_map(
                of_rows,
                mesh=self.mesh,
                in_specs=(*[by_row] * len(of_member), by_row if split else same),
                out_specs=by_row,
                check_vma=False,
            )
        with jax.set_mesh(self.mesh):
            program = jax.jit(whole, out_shardings=self._by_row, **options)
            lowered = program.lower(*shapes(of_member, True), shapes(dict(batch), split))
            platform = numerics.platform_of(self.mesh)
            return lowered.compile(numerics.compiler_options(self.first.cfg, platform) or None)


def program_of(members: Sequence[Member], size: int, at_once: int = 0) -> Program:
    """The program for so many of some members at a time; `at_once` 0: `usual_at_once`."""
    at_once = at_once or usual_at_once(size)
    return InTurn(members, size) if at_once == 1 else AtOnce(members, size, at_once)
