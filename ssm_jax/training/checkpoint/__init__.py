"""The checkpoints of one run: written in the background, found again after any death.

All is read from the disk, never from memory: a folder named by a plain number is a complete save.
`io` has the folder of one step, `manifest` what it says of itself.
"""

import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any, Protocol, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from ssm_jax.files import rename_aside
from ssm_jax.stop import Process
from ssm_jax.training import processes
from ssm_jax.training.checkpoint import io
from ssm_jax.training.checkpoint.manifest import (
    NO_NOTES,
    CheckpointError,
    Identity,
    Meta,
    Notes,
    SaveError,
    host_copies,
)

# Failed saves in a row that a run survives, as when a disk is full for a while.
FAILURES_ALLOWED = 2

_DROPPED = f"{io.TEMPORARY}-dropped"  # suffix of a step on its way out
_REPLACED = f"{io.TEMPORARY}-replaced"  # of a step whose replacement is being written

Arrays = dict[str, np.ndarray]  # by leaf path

_log = logging.getLogger(__name__)


class Checkpoints(Protocol):
    """Where a run keeps its states, as `CheckpointStore` does; see there."""

    def restore_newest(self, target: Any) -> tuple[Any, Meta] | None: ...

    def steps(self) -> list[int]: ...

    def save(
        self, step: int, state: Any, notes: Notes, *, replace: bool = False, final: bool = False
    ) -> None: ...


class CheckpointStore:
    """The checkpoints of one run. One writer at a time: hold the run's `Workdir` lock.

    Makes the folder, and removes what dead saves have left in it. With several JAX processes all
    make the same calls and all read; process 0 alone writes, as each has the whole state. `keep` >=
    1 newest steps are kept, and the best one by `ranking` besides.
    """

    def __init__(
        self, directory: Path, *, keep: int, identity: Identity, ranking: io.Ranking | None = None
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep} would delete every checkpoint; use at least 1.")
        self.directory = directory.absolute()
        self.broken: list[tuple[int, str]] = []  # steps that `restore_newest` passed over, and why
        self._keep, self._identity, self._ranking = keep, identity, ranking
        self._metas: dict[int, Meta | None] = {}  # see `io.ranked_steps`
        self._pending: tuple[Meta, Any, Arrays] | None = None
        self._owed: tuple[Meta, Arrays] | None = None  # the best step, where its save failed
        self._failure: str | None = None  # of the last save
        self._failures_in_a_row = 0
        self.directory.mkdir(parents=True, exist_ok=True)
        io.get_ready()
        with io.plain(self.directory / "0"):
            pass  # only to refuse a name before anything is trained
        self._remove_temporary()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        # A failed save is in the log; the error on its way out is the one to show.
        with contextlib.suppress(CheckpointError):
            self.wait()

    def steps(self) -> list[int]:
        """The steps on the disk, ascending, sound or not."""
        return io.list_steps(self.directory)

    def ranked_steps(self) -> list[int]:
        """The steps of this run, see `io.ranked_steps`."""
        return io.ranked_steps(self.directory, self._ranking, self._identity, self._metas)

    def save(
        self,
        step: int,
        state: Any,
        notes: Notes = NO_NOTES,
        *,
        replace: bool = False,
        final: bool = False,
    ) -> None:
        """Save any tree of arrays in the background; its buffers may be donated on return.

        First waits for the previous save. A save that fails is logged, and the run continues until
        more than `FAILURES_ALLOWED` have failed in a row. If it was that of the best step so far
        (`notes.best`), its state stays in memory and each later save tries it again.

        With `replace` the step may exist, as when a run was stopped before it could evaluate it.
        `final`: wait, read the step back and check it; one that exists and is not to be replaced is
        only checked.
        """
        metric = self._ranking[0] if self._ranking else None
        if notes.metrics is not None and metric not in (None, *notes.metrics):
            raise ValueError(
                f"checkpoints are ranked by {metric!r}, but the evaluation at step {step} has only "
                f"{', '.join(notes.metrics) or 'no metrics'}."
            )
        if processes.first():
            self._save(step, state, notes, replace=replace, final=final)
        if final:
            processes.agreed(lambda: self._check(step))

    def _save(self, step: int, state: Any, notes: Notes, *, replace: bool, final: bool) -> None:
        """See `save`."""
        self.wait()
        if replace or step not in self.steps():
            options, fingerprint = self._identity.options, self._identity.data_fingerprint
            meta = Meta(step, dict(options), fingerprint, **notes.fields())
            self._start(meta, host_copies(state))
        elif not final:
            raise ValueError(f"step {step} is already saved in {self.directory}.")

    def _check(self, step: int) -> None:
        """Wait for a step, and read it back."""
        self.close()
        path = self.directory / str(step)
        saved, described = io.read_meta(path)
        self._identity.refuse_other(saved, self.directory)
        io.read_arrays(path, described)

    def _start(self, meta: Meta, arrays: Arrays) -> None:
        self._remove_temporary()
        if self._owed is not None and (meta.best or {}).get("step") != self._owed[0].step:
            self._owed = None  # a better one has come
        self._pay()
        self._failure = None
        try:
            response = self._write(meta, arrays)
        except SaveError:  # no later save could do better
            raise
        # A full disk may show here or in the background, as one of many types.
        except Exception as error:
            self._failed(meta, arrays, error)
        else:
            self._pending = (meta, response, arrays if _is_best(meta) else {})

    def _write(self, meta: Meta, arrays: Arrays) -> Any:
        """Start to write a step; what has its name makes way."""
        path = self.directory / str(meta.step)
        if path.is_dir():  # it comes back if its replacement dies
            path.rename(f"{path}{_REPLACED}")
        elif os.path.lexists(path):  # a file or a dangling link is no step
            self._set_aside(meta.step)
        return io.write(path, arrays, meta)

    def wait(self) -> bool:
        """Wait for the save in flight, and drop the steps no longer kept; whether it succeeded."""
        if self._pending is not None:
            meta, response, arrays = self._pending
            try:
                response.result()
                self._written(meta)
            except Exception as error:
                self._pending = None
                self._failed(meta, arrays, error)
            else:
                self._pending, self._failures_in_a_row = None, 0
                steps = self.steps()
                kept = {*steps[-self._keep :], *self.ranked_steps()[:1], meta.step}
                # Renamed first: a death must not leave half a step under its name.
                for step in set(steps) - kept:
                    path = self.directory / str(step)
                    path.rename(f"{path}{_DROPPED}")
                self._remove_temporary()
                self._pay()
        return self._failure is None

    def close(self) -> None:
        """Wait for the save in flight; raise CheckpointError if it failed."""
        if not self.wait():
            raise SaveError(self._failure)

    def _written(self, meta: Meta) -> None:
        """Note a step that was just written, if it was."""
        if meta.step not in self.steps():
            raise CheckpointError("no error was reported, but it is not on the disk")
        self._metas[meta.step] = meta
        self._remove_temporary()

    def _failed(self, meta: Meta, arrays: Arrays, error: Exception) -> None:
        self._failures_in_a_row += 1
        Process.stuck = True  # Orbax's threads may wait for ever for a folder that was not made
        if _is_best(meta):
            self._owed = (meta, arrays)
        self._failure = f"the checkpoint of step {meta.step} was not written: {io.reason(error)}"
        self._remove_temporary()  # or a full disk stays full
        if self._failures_in_a_row > FAILURES_ALLOWED:
            newest = max(self.steps(), default=None)
            raise SaveError(
                f"{self._failures_in_a_row} saves in a row failed, so the run stops; the newest "
                f"checkpoint is {'none' if newest is None else f'of step {newest}'}. "
                f"Last failure: {self._failure}"
            ) from error
        _log.error("%s; the run goes on, and the next save tries again.", self._failure)

    def _pay(self) -> None:
        """Try once more to write the best step, whose save failed."""
        if self._owed is None:
            return
        meta, arrays = self._owed
        try:
            self._write(meta, arrays).result()  # it may be there without its evaluation
            self._written(meta)
        except Exception as error:  # as in `_start`
            why = io.reason(error)
            _log.error("the best step, %d, was again not written: %s.", meta.step, why)
            self._remove_temporary()
        else:
            self._owed = None
            _log.warning("the checkpoint of step %d, the best so far, is written now.", meta.step)

    def _set_aside(self, step: int) -> None:
        """Rename a broken step to `<step>.corrupt`."""
        if processes.first():
            aside = self.directory / rename_aside(self.directory / str(step), "corrupt")
            _log.warning("the broken checkpoint of step %d is now %s.", step, aside)

    def _remove_temporary(self) -> None:
        """Remove what dead saves have left; a step that one was to replace comes back."""
        if not processes.first():
            return
        for path in self.directory.glob(f"*{io.TEMPORARY}*"):
            original = self.directory / path.name.removesuffix(_REPLACED)
            if original != path and not os.path.lexists(original):
                path.rename(original)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()

    def restore_newest(self, target: Any) -> tuple[Any, Meta] | None:
        """The newest state that is sound, bit for bit, or None if no step was ever saved.

        `target` is that of `io.read_state`. Broken steps are reported and, once an older one has
        proved sound, renamed to `<step>.corrupt`. If none is sound (CheckpointError), nothing is
        renamed: the fault may lie with the reader. Nor is it for a sound step that is of another
        run (ConfigMismatch) or program (StateMismatch).
        """
        self.wait()
        self.broken = []
        for step in reversed(processes.agreed(self.steps)):
            found, reason = None, "another process cannot read it"
            path = self.directory / str(step)
            try:
                meta, described = io.read_meta(path)
                self._identity.refuse_other(meta, self.directory)
                found = io.read_state(path, described, target), meta
            except CheckpointError as error:
                reason = str(error)
            sound = found is not None
            if jax.process_count() > 1:  # they must all restore the same step
                sound = bool(np.all(multihost_utils.process_allgather(np.asarray(sound))))
            if sound:
                for doubtful, _ in self.broken:
                    self._set_aside(doubtful)
                return found
            _log.warning("passing over the checkpoint of step %d: %s", step, reason)
            self.broken.append((step, reason))
        if not self.broken:
            return None
        reasons = "\n".join(f"  step {step}: {reason}" for step, reason in self.broken)
        raise CheckpointError(
            f"no checkpoint in {self.directory} can be restored:\n{reasons}\n"
            "To start afresh choose a new --workdir, or move this one away."
        )


def _is_best(meta: Meta) -> bool:
    """Whether a step has the best evaluation so far: only it is worth a second copy in memory."""
    return meta.best is not None and meta.best.get("step") == meta.step
