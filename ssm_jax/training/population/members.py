"""The members of a population: experiments that share their programs, and what a program does."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssm_jax.data.dataset import Arrays, Dataset
from ssm_jax.training import step as step_lib
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.step import TrainState

Tree = Any  # of arrays

RATES = ("lr", "weight_decay")  # of a group of parameters


class Member(Experiment):
    """An experiment of a population: it shares its programs with the other members.

    `others` have the same options but for numbers; those programs are its own whose models are of
    its structure, too: S5 without a filter has the arrays of one with a filter.
    """

    def __init__(
        self,
        cfg: ConfigDict,
        dataset: Dataset,
        others: Iterable["Member"] = (),
        *,
        mesh: Mesh | None = None,
    ):
        super().__init__(cfg, dataset, mesh=mesh)
        self._gradient = super().gradient()
        if (first := next(filter(self.alike, others), None)) is not None:
            self._compiled, self._gradient = first._compiled, first._gradient

    def gradient(self) -> step_lib.Gradient:
        return self._gradient

    def alike(self, other: "Member") -> bool:
        """Whether the two can be members of one population, as far as their models tell."""
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (self._params, other._params))
        return self.graphdef == other.graphdef and shapes[0] == shapes[1]


class Program(ABC):
    """The common step of members, for any of their values.

    `members` are all that it will be used for, `size` of them at a time, in `rows`. What it calls a
    state is that of the members that are trained now.
    """

    at_once: int  # as asked: a device that has fewer rows computes those
    planned: int = 0  # bytes of a device, where somebody has asked

    def __init__(self, members: Sequence[Member], size: int):
        self.first, self.size, self.rows = members[0], size, size
        self._members = members
        self.own_order = len({member.order.seed for member in members}) > 1
        # What all agree in stays a constant of the program, as it is in a single run's.
        self._differ = {
            (group.name, name)
            for member in members
            for group, first in zip(member.groups, self.first.groups, strict=True)
            for name in RATES
            if getattr(group, name) != getattr(first, name)
        }

    def rates(self, member: Member) -> dict[str, dict[str, np.float32]]:
        """The learning rates and weight decays of a member by group, as far as members differ."""
        return {
            group.name: {
                name: np.float32(getattr(group, name))
                for name in RATES
                if (group.name, name) in self._differ
            }
            for group in member.groups
        }

    def update(self, state: TrainState, key: Any, rates: Any, batch: Any) -> Any:
        """The training step of one member at some rates."""
        first = self.first
        groups = [dataclasses.replace(group, **rates[group.name]) for group in first.groups]
        step = step_lib.make_train_step(
            first.gradient(),
            first.optimizer(groups)[0],
            frozen=first.frozen,
            ema=first.cfg.train.ema,
        )
        return step(state, key, batch)

    @abstractmethod
    def planned_bytes(self) -> int:
        """Bytes that the step on the longest sequences takes of a device, as XLA plans."""

    @abstractmethod
    def smaller(self, size: int) -> "Program":
        """The program for what is left of the members: half of the rows, or a quarter and so on, if
        they hold `size` of them; itself, if they do not, or nothing is spared."""

    @abstractmethod
    def seated(self, members: Sequence[Member]) -> Any:
        """The arguments of these members, for `step`."""

    @abstractmethod
    def joined(self, states: Sequence[TrainState]) -> Any:
        """The state of these members."""

    @abstractmethod
    def row(self, state: Any, number: int) -> Any:
        """The state of one member, where a single run has it."""

    @abstractmethod
    def averaged(self, state: Any) -> Any:
        """The state with the moving averages in the place of its own numbers."""

    @abstractmethod
    def host(self, state: Any, size: int) -> Any:
        """A copy of the first `size` rows, leaves (size, ...) of NumPy."""

    @abstractmethod
    def step(
        self, state: Any, live: Sequence[int], seats: Any, batches: Sequence[Arrays]
    ) -> tuple[Any, Any]:
        """(the state in which the `live` rows are a step further, what `metrics` reads).

        The memory of the state is used again. `batches`: one for all, or one of each row.
        """

    @abstractmethod
    def metrics(self, found: Any, live: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The metrics of a step by row; waits for it."""

    @abstractmethod
    def sums(self, state: Any, live: Sequence[int], batch: Arrays) -> dict[int, dict[str, Any]]:
        """The sums of an evaluation over one batch, by row."""
