"""The training of a population: every member ends as the folder of an ordinary run.

A member has the log, the diagnostics and the record of a single run in its own folder, written by
the code of a single run (`run.OpenRun`). The states of all are one tree, in the checkpoints of the
population's folder, beside the best state of each so far; a member that has come to its end gets
its checkpoints from there, and is tested from its own folder. One that is pruned gets them at once,
and leaves: its folder is that of a run which was stopped.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from ssm_jax.data.dataset import Arrays
from ssm_jax.progress import Progress, say
from ssm_jax.stop import StopRequest
from ssm_jax.training.checkpoint import CheckpointStore
from ssm_jax.training.checkpoint.manifest import Identity
from ssm_jax.training.loop import open_run
from ssm_jax.training.parent import Begin
from ssm_jax.training.population.members import Member, Program
from ssm_jax.training.population.seats import KeptMember, Pruning, Seat
from ssm_jax.training.population.states import States
from ssm_jax.training.run import Request, evaluated
from ssm_jax.training.workdir import Workdir


class Population:
    """Some members between two steps. Use it as a context, which closes the members' files."""

    def __init__(
        self,
        members: Mapping[str, Member],
        program: Program,
        folder: Path,
        place: Path,
        commands: Mapping[str, Sequence[str]],
        stop: StopRequest,
        *,
        begin: Begin | None = None,
        failed: Callable[[str, Exception], bool] = lambda name, error: False,
        pruning: Pruning | None = None,
    ):
        """New members, or those of a checkpoint in `folder`; `open` opens them.

        members: by name, in the order of the rows; their folders are `place`/NAME, and `commands`
        make them as single runs.
        failed: is told of an error that ends one member; where it says False the error is raised.
        """
        self.first, self.stop, self._failed, self._pruning = program.first, stop, failed, pruning
        self._program, self._begin, self._folder = program, begin, folder
        self.seats = [
            Seat(n, m, Workdir(place / n), commands[n], KeptMember(m)) for n, m in members.items()
        ]
        self._files = contextlib.ExitStack()
        self.step = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            opening.push(self._files)
            self._open()
            opening.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)

    def _open(self) -> None:
        options = {seat.name: dict(seat.member.identity.options) for seat in self.seats}
        identity = Identity({"members": options}, self.first.dataset.fingerprint)
        keep = self.first.cfg.checkpoint.keep
        store = CheckpointStore(self._folder, keep=keep, identity=identity)
        self.states = States(self.seats, self._program, self._files.enter_context(store))
        self.step, states = self.states.restored()
        for i, seat in enumerate(self.seats):
            if seat.status == "pruned" and self._pruning and self._pruning.marked(seat.name):
                seat.status = "out"
            self._files.push(seat.files)
            with self._ends_alone(seat):
                if seat.status != "out":
                    state = self._open_one(seat)
                    # On the host: a device has the rows alone, and not each state once more.
                    states[i] = jax.device_get(state) if states[i] is None else states[i]
        there = next((state for state in states if state is not None), None)
        if there is not None:
            self.states.sit([there if state is None else state for state in states])

    def _open_one(self, seat: Seat) -> Any:
        """Open the files of a member; the state that it begins with."""
        workdir = seat.files.enter_context(seat.workdir)
        with seat.speaking():
            opened = seat.files.enter_context(
                open_run(
                    seat.member,
                    workdir,
                    self.stop,
                    Request(argv=seat.argv, begin=self._begin),
                    checkpoints=seat.kept,
                )
            )
        if opened is None:  # it was tested before this process was ended
            seat.status = "out"
            return None
        seat.run, state, _ = opened
        return state

    @contextlib.contextmanager
    def _ends_alone(self, seat: Seat) -> Iterator[None]:
        """Let an error end this member and no other."""
        try:
            yield
        except Exception as error:
            seat.leave()
            if not self._failed(seat.name, error):
                raise

    def run(self) -> bool:
        """Train to the end, and test the members; False if stopped before, with all saved."""
        if not self.train():
            return False
        ended = [(i, seat) for i, seat in enumerate(self.seats) if seat.status == "ended"]
        host = self.states.host() if ended else None
        for i, seat in ended:
            if seat.run is not None:
                with self._ends_alone(seat), seat.speaking():
                    seat.export(self.states.kept(i, host))
                    if not seat.run.conclude():
                        return False
                seat.leave()
        return True

    def train(self) -> bool:
        """Train until every member has come to its end; False if stopped before."""
        first, total, start = self.first, self.first.total_steps, self.step
        live = self.states.live
        if start and any(run.evaluated_at != start and run.due(start) for _, _, run in live):
            # Stopped during this evaluation: the step is on the disk without its result.
            if not self._evaluate():
                return False
            self.states.save(self.step, replace=True)
        self._release()
        self.states.narrow()
        if start == 0 and first.cfg.log.diagnostics:
            for i, seat, run in self.states.live:
                with seat.speaking():
                    run.diagnose(self.states.row(i), 0)
        batches = self._batches()
        unread: tuple[int, list[int], Any] | None = None
        with Progress("train", total, start=start, metric=first.task.headline) as progress:
            while self.states.live:
                self.step += 1
                numbered = [next(each) for each in batches]
                rows = [i for i, _, _ in self.states.live]
                found = self.states.step(rows, numbered)
                if unread is not None:
                    self._read(*unread, progress)
                unread = (self.step, rows, found)
                stopping, due = self.stop.poll(self.step), self._due()
                if not (stopping or due or self.step % first.cfg.checkpoint.every == 0):
                    continue
                self._read(*unread, progress)
                unread = None
                if due and not stopping:
                    stopping = not self._evaluate()
                self.states.save(self.step, final=stopping)
                self._release()
                if self.states.narrow():
                    batches = self._batches()
                if stopping:
                    done = f"saved step {self.step:,}; the same command goes on"
                    say(f"{self.stop.requested}: {done}.")
                    return False
        return True

    def _batches(self) -> list[Iterator[Arrays]]:
        """Those from this step on: one iterator for all, or one for each row."""
        orders = self.states.rows if self.states.program.own_order else self.seats[:1]
        return [seat.member.train_batches(self.step) for seat in orders]

    def _due(self) -> bool:
        return any(run.due(self.step) for _, _, run in self.states.live)

    def _read(self, step: int, rows: list[int], found: Any, progress: Progress) -> None:
        """Take in the metrics of a step; a member whose loss is not finite ends."""
        values = self.states.program.metrics(found, rows)
        for i, seat, run in self.states.live:
            state = None if values[i]["ok"] else self.states.row(i)
            with self._ends_alone(seat):
                run.read(step, values[i], state, progress, shown=False)
        if rows := [i for i, _, _ in self.states.live]:
            names = ("loss", self.first.task.headline)
            means = (float(np.mean([values[i][name] for i in rows])) for name in names)
            progress.update(step, *means)

    def _evaluate(self) -> bool:
        """Evaluate all members, and end those that have come to their end; False if stopped."""
        first, live = self.first, self.states.live
        found: list[dict[str, float]] = [{} for _ in self.states.rows]
        split, averages = first.cfg.train.select_split, first.cfg.train.ema > 0
        for prefix, title, averaged in evaluated(split, averages):
            state = self.states.averaged() if averaged else self.states.now
            means = self.means(state, split, title)
            if means is None:
                return False
            for i, _, _ in live:
                found[i] |= {f"{prefix}{name}": value for name, value in means[i].items()}
        for i, seat, run in live:
            shown = self.states.row(i) if first.cfg.log.diagnostics else None
            with self._ends_alone(seat), seat.speaking():
                run.take(found[i], shown, self.step)
                seat.curve.append((self.step, found[i][seat.member.ranking[0]]))
        for _, seat, run in self.states.live:
            if run.ends(self.step):
                seat.status = "ended"
        if self._pruning:
            left = {seat.name: seat for _, seat, _ in self.states.live}
            chosen = self._pruning.choose({seat.name: seat.curve for seat in self.seats}, left)
            for name, why in chosen.items():
                left[name].status, left[name].why = "pruned", why
        return True

    def _release(self) -> None:
        """Give those that were pruned their checkpoints, and leave their folders."""
        leaving = [(i, seat) for i, seat in enumerate(self.seats) if seat.status == "pruned"]
        host = self.states.host() if leaving else None
        for i, seat in leaving:
            with self._ends_alone(seat):
                with seat.speaking():
                    seat.export(self.states.kept(i, host))
                    say(f"{seat.why}: training ends at step {self.step:,}.")
                if self._pruning:
                    self._pruning.mark(seat.name, self.step, seat.why)
                seat.leave()

    def means(self, state: Any, split: str, title: str) -> dict[int, dict[str, float]] | None:
        """The metrics over a split of each row that is live; None if asked to stop meanwhile."""
        first, rows = self.first, [i for i, _, _ in self.states.live]
        sums: dict[int, dict[str, Any]] = {i: {} for i in rows}
        total = -(-first.dataset.size(split) // first.eval_batch_size)
        with Progress(title, total, metric=first.task.headline) as progress:
            for number, batch in enumerate(first.eval_batches(split), start=1):
                found = self.states.program.sums(state, rows, batch)
                for i in rows:
                    for name, value in found[i].items():
                        sums[i][name] = sums[i].get(name, 0.0) + np.asarray(value, np.float64)
                progress.update(number)
                if self.stop.requested is not None:
                    return None
        return {
            i: {k: float(v) for k, v in first.task.summary(of, first.dataset).items()}
            for i, of in sums.items()
        }
