"""The checkpoints of one run: written in the background, found again after any death.

`io` has the folder of one step, `manifest` what it says of itself, `retention` which steps stay.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from ssm_jax.stop import leave_threads
from ssm_jax.training.checkpoint import io
from ssm_jax.training.checkpoint.manifest import (
    CheckpointError,
    ConfigMismatch,
    Identity,
    Meta,
    SaveError,
    StateMismatch,
    flatten,
)
from ssm_jax.training.checkpoint.retention import Retention

__all__ = [
    "CheckpointError", "CheckpointStore", "ConfigMismatch", "Identity", "Meta", "SaveError",
    "StateMismatch",
]  # fmt: skip

# Failed saves in a row that a run survives, as when a disk is full for a while.
FAILURES_ALLOWED = 2

Arrays = dict[str, np.ndarray]  # by leaf path

_log = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of one run. One writer at a time: hold the run's `Workdir` lock.

    With several JAX processes all make the same calls; process 0 alone renames and deletes.

    Args:
      directory: the folder; it is made, and what dead saves have left in it goes.
      keep: newest steps kept, >= 1; the best one is kept besides.
      best_metric: the metric that names the best step; None: no step is best.
      best_mode: whether a larger or a smaller value is better.
      identity: of the run.
      accept: raises CheckpointError for a meta from which the caller cannot resume.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int,
        best_metric: str | None,
        best_mode: Literal["max", "min"],
        identity: Identity,
        accept: Callable[[Meta], None] = lambda meta: None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep} would delete every checkpoint; use at least 1.")
        self.directory = Path(directory).absolute()
        self.broken: list[tuple[int, str]] = []  # steps that `restore_newest` passed over, and why
        self._best_metric, self._identity, self._accept = best_metric, identity, accept
        self._kept = Retention(
            self.directory,
            keep=keep,
            metric=best_metric,
            mode=best_mode,
            ours=lambda meta: not identity.differences(meta),
        )
        self._pending: tuple[Meta, Any, Arrays] | None = None
        self._owed: tuple[Meta, Arrays] | None = None  # the best step, where its save failed
        self._failure: str | None = None  # of the last save
        self._failures_in_a_row = 0
        io.check_name(self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._kept.remove_temporary()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        # A failed save is in the log; the error on its way out is the one to show.
        with contextlib.suppress(CheckpointError):
            self.wait()

    def save(
        self,
        step: int,
        state: Any,
        *,
        metrics: Mapping[str, float] | None = None,
        best: dict[str, Any] | None = None,
        extra: dict[str, Any] | None = None,
        replace: bool = False,
        final: bool = False,
    ) -> None:
        """Save in the background; the state's buffers may be donated as soon as this returns.

        First waits for the previous save. A save that fails is logged, and the run continues until
        more than `FAILURES_ALLOWED` have failed in a row. If it was that of the best step so far
        (`best`), its state stays in memory and each later save tries it again.

        Args:
          step, best, extra: see `Meta`.
          state: any tree of arrays.
          metrics: of an evaluation at this step; None if there was none.
          replace: the step may exist, as when a run was stopped before it could evaluate it; its
            folder is then replaced, and comes back if this save dies.
          final: wait, read the step back from the disk and check it. A final step that is there
            already, and not to be replaced, is only checked.
        """
        if metrics is not None and self._best_metric not in (None, *metrics):
            raise ValueError(
                f"checkpoints are ranked by {self._best_metric!r}, but the evaluation at step "
                f"{step} has only {', '.join(metrics) or 'no metrics'}."
            )
        self.wait()
        if replace or step not in self.steps():
            meta = Meta(
                step=step,
                identity=dict(self._identity.options),
                data_fingerprint=self._identity.data_fingerprint,
                evaluated=metrics is not None,
                metrics={name: float(value) for name, value in (metrics or {}).items()},
                # A copy: a failed save may be written later, when the loop has changed its own.
                best=copy.deepcopy(best),
                extra=copy.deepcopy(extra or {}),
            )
            self._start(meta, state)
        elif not final:
            raise ValueError(f"step {step} is already saved in {self.directory}.")
        if final:
            self.close()
            if jax.process_index() == 0:
                path = self.directory / str(step)
                saved, described = io.read_meta(path)
                self._identity.refuse_other(saved, self.directory)
                io.read_arrays(path, described)

    def _start(self, meta: Meta, state: Any) -> None:
        arrays = {path: io.host_copy(path, leaf) for path, leaf in flatten(state).items()}
        self._kept.remove_temporary()
        if self._owed is not None and (meta.best or {}).get("step") != self._owed[0].step:
            self._owed = None  # a better one has come
        self._pay()
        self._failure = None
        self._kept.make_way(meta.step)
        try:
            response = io.write(self.directory / str(meta.step), arrays, meta)
        except SaveError:  # no later save could do better
            raise
        # A full disk may show here or in the background, as one of many types.
        except Exception as error:
            self._failed(meta, arrays, error)
        else:
            # Only the best is worth a second copy of the state in memory.
            self._pending = (meta, response, arrays if _is_best(meta) else {})

    def _pay(self) -> None:
        """Try once more to write the best step, whose save failed."""
        # Of several processes some may have failed and others not: they would wait for each other.
        if self._owed is None or jax.process_count() > 1:
            return
        meta, arrays = self._owed
        self._kept.make_way(meta.step)  # it may be there without its evaluation
        try:
            io.write(self.directory / str(meta.step), arrays, meta).result()
            self._written(meta)
        except Exception as error:  # as in `_start`
            _log.error("the best step, %d, was again not written: %s.", meta.step, _reason(error))
            self._kept.remove_temporary()
        else:
            self._owed = None
            _log.warning("the checkpoint of step %d, the best so far, is written now.", meta.step)

    def _written(self, meta: Meta) -> None:
        """Note a step that was just written, if it was."""
        if jax.process_index() == 0 and meta.step not in self.steps():
            raise CheckpointError("no error was reported, but it is not on the disk")
        self._kept.add(meta)

    def wait(self) -> bool:
        """Wait for the save in flight, then drop the steps no longer kept; whether it succeeded."""
        if self._pending is not None:
            meta, response, arrays = self._pending
            try:
                response.result()
                self._written(meta)
            except Exception as error:
                self._pending = None
                self._failed(meta, arrays, error)
            else:
                self._pending = None
                self._failures_in_a_row = 0
                self._kept.drop_old(meta.step)
                self._pay()
        return self._failure is None

    def close(self) -> None:
        """Wait for the save in flight; raise CheckpointError if it failed."""
        if not self.wait():
            raise SaveError(self._failure)

    def _failed(self, meta: Meta, arrays: Arrays, error: Exception) -> None:
        self._failures_in_a_row += 1
        leave_threads()  # those of Orbax may wait for ever for a folder that could not be made
        if _is_best(meta):
            self._owed = (meta, arrays)
        self._failure = f"the checkpoint of step {meta.step} was not written: {_reason(error)}"
        self._kept.remove_temporary()  # or a full disk stays full
        if self._failures_in_a_row > FAILURES_ALLOWED:
            newest = max(self.steps(), default=None)
            raise SaveError(
                f"{self._failures_in_a_row} saves in a row failed, so the run stops; the newest "
                f"checkpoint is {'none' if newest is None else f'of step {newest}'}. "
                f"Last failure: {self._failure}"
            ) from error
        _log.error("%s; the run goes on, and the next save tries again.", self._failure)

    def steps(self) -> list[int]:
        """The steps on the disk, ascending, sound or not."""
        return self._kept.steps()

    def ranked_steps(self) -> list[int]:
        """The steps on the disk that were evaluated with a finite metric, the best first."""
        return self._kept.ranked()

    def restore(self, step: int, target: Any) -> tuple[Any, Meta]:
        """The state saved at a step, bit for bit; see `io.restore` for the target and the errors.

        ConfigMismatch: the step belongs to a run with other options or data.
        """

        def accept(meta: Meta) -> None:
            self._identity.refuse_other(meta, self.directory)
            self._accept(meta)

        return io.restore(self.directory / str(step), target, accept)

    def restore_newest(self, target: Any) -> tuple[Any, Meta] | None:
        """The newest state that is sound, or None if no step was ever saved.

        Broken steps are reported and, once an older one has proved sound, renamed to
        `<step>.corrupt`. If none is sound nothing is renamed: the fault may lie with the reader.

        Raises:
          CheckpointError: there are steps, and all are broken.
          ConfigMismatch, StateMismatch: see `restore`; nothing is renamed.
        """
        self.wait()
        self.broken = []
        for step in reversed(self.steps()):
            found = None
            reason = "another process cannot read it"
            try:
                found = self.restore(step, target)
            except CheckpointError as error:
                reason = str(error)
            if _everywhere(found is not None):
                for doubtful, _ in self.broken:
                    self._kept.set_aside(doubtful)
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
    return meta.best is not None and meta.best.get("step") == meta.step


def _reason(error: Exception) -> str:
    return io.reason(error) or type(error).__name__


def _everywhere(ok: bool) -> bool:
    """Whether all processes say so; they must restore the same step."""
    if jax.process_count() == 1:
        return ok
    return bool(np.all(multihost_utils.process_allgather(np.asarray(ok))))
