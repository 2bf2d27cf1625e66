"""The states of a population's members: rows of its program, and one tree in its checkpoints."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ssm_jax.data.dataset import Arrays
from ssm_jax.training.checkpoint import CheckpointStore
from ssm_jax.training.checkpoint.manifest import Notes
from ssm_jax.training.population.members import Program
from ssm_jax.training.population.seats import Seat
from ssm_jax.training.run import OpenRun


class States:
    """The states of all members, between two steps.

    Members that were pruned have no row any more once half of the rows hold the others.
    """

    def __init__(self, seats: Sequence[Seat], program: Program, store: CheckpointStore):
        """Those of no member yet: `restored` and `sit` fill them."""
        self.seats, self.program, self.store = seats, program, store
        self.rows = seats  # those that the program has, by row
        self.now: Any = None  # what the program calls a state
        self._seated: Any = None  # the arguments of those in the rows
        self.best: Any = None  # the best state of each member so far, on the host

    def restored(self) -> tuple[int, list[Any]]:
        """The step of the newest checkpoint, else 0, and the state of each member that it has."""
        first, size = self.program.first, len(self.seats)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((size, *x.shape), x.dtype),
            jax.eval_shape(first.fresh_state),
        )
        found = self.store.restore_newest({"newest": shapes, "best": shapes})
        if found is None:
            return 0, [None] * size
        tree, meta = jax.tree.map(np.array, found[0]), found[1]
        self.best = tree["best"]
        states, said = _each(tree["newest"], size), meta.extra["members"]
        for seat, state in zip(self.seats, states, strict=True):
            seat.put(state, said[seat.name])
        in_rows = {said[seat.name].get("row", i): seat for i, seat in enumerate(self.seats)}
        self.rows = [in_rows[row] for row in sorted(in_rows.keys() - {None})]
        self.program = self.program.smaller(len(self.rows))
        return meta.step, states

    def sit(self, states: Sequence[Any]) -> None:
        """Give the program the states of its rows, out of those of all."""
        self.now = self.program.joined([states[self.seats.index(seat)] for seat in self.rows])
        self._seated = self.program.seated([seat.member for seat in self.rows])
        if self.best is None:
            self.best = self.host()

    @property
    def live(self) -> list[tuple[int, Seat, OpenRun]]:
        """The members that are trained further, with their rows."""
        return [
            (i, seat, seat.run)
            for i, seat in enumerate(self.rows)
            if seat.status == "live" and seat.run is not None
        ]

    def narrow(self) -> bool:
        """Go on in fewer rows, if they hold all that were not pruned; whether it is so."""
        left = [seat for seat in self.rows if not seat.why]
        program = self.program.smaller(len(left))
        if program is self.program or not self.live:
            return False
        host = self.host()
        self.program, self.rows, self.now = program, left, None
        self.sit(_each(host, len(self.seats)))
        return True

    def step(self, live: Sequence[int], batches: Sequence[Arrays]) -> Any:
        """Take some rows a step further; what `Program.metrics` reads."""
        self.now, found = self.program.step(self.now, live, self._seated, batches)
        return found

    def averaged(self) -> Any:
        """`now`, with the moving averages in the place of its own numbers."""
        return self.program.averaged(self.now)

    def row(self, number: int) -> Any:
        """The state in a row, where a single run has it."""
        return self.program.row(self.now, number)

    def host(self) -> Any:
        """A copy of the states of the members; of one that has no row any more, zeros."""
        at = [self.seats.index(seat) for seat in self.rows]

        def whole(rows: Any) -> np.ndarray:
            array = np.zeros((len(self.seats), *rows.shape[1:]), rows.dtype)
            array[at] = rows
            return array

        return jax.tree.map(whole, self.program.host(self.now, len(self.rows)))

    def kept(self, number: int, host: Any) -> dict[str, Any]:
        """The best and the last state of a member."""
        trees = {"best": self.best, "newest": host}
        return {name: jax.tree.map(lambda x: x[number], tree) for name, tree in trees.items()}

    def save(self, step: int, *, replace: bool = False, final: bool = False) -> None:
        """Save the states of all, and what each run says of its own."""
        host = self.host()
        for i, seat in enumerate(self.seats):
            if seat.run is None:
                continue
            if seat.status == "live" or seat.run.evaluated_at == step:
                seat.run.save(step, None)
                if seat.kept.best is seat.kept.newest:
                    for kept, row in zip(
                        jax.tree.leaves(self.best), jax.tree.leaves(host), strict=True
                    ):
                        kept[i] = row[i]
        row = {seat.name: number for number, seat in enumerate(self.rows)}
        said = {seat.name: {**seat.said(), "row": row.get(seat.name)} for seat in self.seats}
        # Who was pruned leaves once that is on the disk, and stays away after a kill.
        final |= any(seat.status == "pruned" for seat in self.seats)
        self.store.save(
            step,
            {"newest": host, "best": self.best},
            Notes(members=said),
            replace=replace,
            final=final,
        )


def _each(tree: Any, size: int) -> list[Any]:
    """The state of each member."""
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(size)]
