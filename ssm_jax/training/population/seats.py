"""A member's place in a population: its folder, its open files, and what is kept of it."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax

from ssm_jax.progress import relayed
from ssm_jax.training.checkpoint import CheckpointStore
from ssm_jax.training.checkpoint.manifest import Meta, Notes
from ssm_jax.training.population.members import Member
from ssm_jax.training.run import OpenRun
from ssm_jax.training.workdir import Workdir

Curves = Mapping[str, Sequence[tuple[int, float]]]  # as in `pruning.Curve`, by name


@dataclasses.dataclass(frozen=True)
class Pruning:
    """How members end early.

    choose: (curves of all members on validation, names of those that can end) -> why some of these
      end at this evaluation.
    mark: is told name, step and why of each, once its checkpoints are in its folder; `marked`:
      whether it was.
    """

    choose: Callable[[Curves, Collection[str]], Mapping[str, str]]
    mark: Callable[[str, int, str], None]
    marked: Callable[[str], bool]


class KeptMember:
    """What a population keeps of one member, in the place of its checkpoints (`Checkpoints`)."""

    def __init__(self, member: Member):
        self._member = member
        self.newest: dict[str, Any] | None = None  # what `save` was told, all JSON-able
        self.best: dict[str, Any] | None = None  # ... at the best step so far
        self._found: Any = None  # the state that goes with them, on the host
        self._steps: list[int] = []

    def put(self, state: Any, newest: dict[str, Any], best: dict[str, Any] | None) -> None:
        """What was found in a checkpoint of the population."""
        self.newest, self.best, self._found = newest, best, state
        self._steps = sorted({kept["step"] for kept in (best, newest) if kept is not None})

    def restore_newest(self, target: Any) -> tuple[Any, Meta] | None:
        """What was found, once: a device keeps no second state of each member."""
        if self.newest is None or self._found is None:
            return None
        found, self._found = self._found, None
        identity = self._member.identity
        meta = Meta(
            identity=dict(identity.options),
            data_fingerprint=identity.data_fingerprint,
            **self.newest,
        )
        return jax.device_put(found, self._member.replicated), meta

    def steps(self) -> list[int]:
        """Those that were found: the record of a member says of no step that it is saved, so that a
        single run may begin anew in its folder."""
        return self._steps

    def save(
        self, step: int, state: Any, notes: Notes, *, replace: bool = False, final: bool = False
    ) -> None:
        del state, replace, final  # the population saves all members at once
        self.newest = {"step": step, **notes.fields()}
        if notes.best is not None and notes.best["step"] == step:
            self.best = self.newest


@dataclasses.dataclass(eq=False)
class Seat:
    """The place of a member: a row of the population's state, and a folder."""

    name: str
    member: Member
    workdir: Workdir
    argv: Sequence[str]
    kept: KeptMember
    # It is trained; "ended": it is to be tested; "pruned": it is to leave; "out": it is done with
    status: str = "live"
    why: str = ""  # it was pruned
    curve: list[tuple[int, float]] = dataclasses.field(default_factory=list)  # on validation
    run: OpenRun | None = None
    files: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)

    @contextlib.contextmanager
    def speaking(self) -> Iterator[None]:
        """Add what is said to log.txt in its folder."""
        with (
            relayed(self.name),
            (self.workdir.path / "log.txt").open("a", encoding="utf-8") as log,
            contextlib.redirect_stderr(log),
        ):
            yield

    def said(self) -> dict[str, Any]:
        """What the checkpoint of the population says of it, besides its states."""
        kept = {"newest": self.kept.newest, "best": self.kept.best}
        return {"status": self.status, **kept, "curve": self.curve, "why": self.why}

    def put(self, state: Any, said: Mapping[str, Any]) -> None:
        """Take in what was `said`, with its newest state; older ones had no curve."""
        self.status, self.why = said["status"], said.get("why", "")
        self.curve = [(step, value) for step, value in said.get("curve", ())]
        if said["newest"] is not None:
            self.kept.put(state, said["newest"], said["best"])

    def export(self, states: Mapping[str, Any]) -> None:
        """Write the checkpoints of the member into its folder: of its "best" state and "newest"."""
        told = {"best": self.kept.best, "newest": self.kept.newest}
        if told["best"] is told["newest"] or told["best"] == told["newest"]:
            del told["best"]
        with CheckpointStore(
            self.workdir.checkpoints,
            keep=self.member.cfg.checkpoint.keep,
            identity=self.member.identity,
            ranking=self.member.ranking,
        ) as store:
            for which, said in told.items():
                if said is not None:
                    notes = Notes.of(said)
                    store.save(said["step"], states[which], notes, replace=True, final=True)

    def leave(self) -> None:
        """Close its files; another process may take its folder."""
        self.files.close()
        self.status, self.run = "out", None
