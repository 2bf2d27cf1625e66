"""The experiments of a population, which share their programs, and their first states."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssm_jax.data.dataset import Dataset
from ssm_jax.training import step as step_lib
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.step import TrainState

Tree = Any  # of arrays
Starts = dict[str, Callable[..., Any]]  # programs that make first states, by their text


class Member(Experiment):
    """An experiment of a population: it shares its programs with the other members."""

    def __init__(
        self,
        cfg: ConfigDict,
        dataset: Dataset,
        first: "Member | None" = None,
        *,
        mesh: Mesh | None = None,
    ):
        super().__init__(cfg, dataset, mesh=mesh)
        self._starts: Starts = {}
        self._gradient = super().gradient()
        if first is not None:
            self._starts, self._compiled = first._starts, first._compiled
            self._gradient = first._gradient

    def gradient(self) -> step_lib.Gradient:
        return self._gradient

    @functools.cached_property
    def fresh_state(self) -> Callable[[], TrainState]:
        """() -> that of the single run, bit for bit, by one program for all members."""

        jaxpr, values, shapes = constants_as_arguments(self._first_state)
        start = self._starts.setdefault(
            str(jaxpr), jax.jit(core.jaxpr_as_fun(jaxpr), out_shardings=self.replicated)
        )
        tree = jax.tree.structure(shapes)
        return lambda: jax.tree.unflatten(tree, start(*values))

    def alike(self, other: "Member") -> bool:
        """Whether the two can be members of one population, as far as their models tell."""
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (self._params, other._params))
        return self.graphdef == other.graphdef and shapes[0] == shapes[1]


def constants_as_arguments(
    function: Callable[[], Tree],
) -> tuple[core.ClosedJaxpr, list[np.ndarray], Tree]:
    """A function's program with its constants as arguments, these constants, and what it returns.

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
    return core.ClosedJaxpr(jaxpr, []), values, shapes
