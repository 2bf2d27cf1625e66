"""Retention: list a run's saved steps, rank them by their metric, delete the rest.

All is read from the disk, never from memory: a folder named by a plain number is a complete save.
With several JAX processes process 0 alone renames and deletes.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax

from ssm_jax.files import rename_aside
from ssm_jax.training.checkpoint import io
from ssm_jax.training.checkpoint.manifest import CheckpointError, Meta, StateMismatch

_DROPPED = f"{io.TEMPORARY}-dropped"  # suffix of a step on its way out
_REPLACED = f"{io.TEMPORARY}-replaced"  # of a step whose replacement is being written

_log = logging.getLogger(__name__)


class Retention:
    """The complete steps in a folder; the arguments are those of `CheckpointStore`.

    `ours` says whether a checkpoint is of this run; another's is never the best.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int,
        metric: str | None,
        mode: Literal["max", "min"],
        ours: Callable[[Meta], bool] = lambda meta: True,
    ) -> None:
        self._directory, self._keep, self._ours = directory, keep, ours
        self._metric, self._sign = metric, -1 if mode == "max" else 1
        self._metas: dict[int, Meta | None] = {}  # by step; None: unreadable

    def steps(self) -> list[int]:
        """The steps on the disk, ascending, sound or not."""
        return io.list_steps(self._directory)

    def add(self, meta: Meta) -> None:
        """Note a step that has just been written, and remove what older saves have left."""
        self._metas[meta.step] = meta
        self.remove_temporary()

    def ranked(self) -> list[int]:
        """The steps on the disk that were evaluated with a finite metric, the best first."""
        ranks = []
        for step in self.steps():
            if step not in self._metas:
                try:
                    self._metas[step] = io.read_meta(self._directory / str(step))[0]
                except (CheckpointError, StateMismatch):
                    self._metas[step] = None
            meta = self._metas[step]
            if meta is None or self._metric is None or not (meta.evaluated and self._ours(meta)):
                continue
            value = meta.metrics.get(self._metric, math.nan)
            if math.isfinite(value):
                ranks.append((self._sign * value, step))
        return [step for _, step in sorted(ranks)]

    def drop_old(self, written: int) -> None:
        """Delete all but the newest `keep` steps, the best, and the one just written."""
        steps = self.steps()
        for step in set(steps) - {*steps[-self._keep :], *self.ranked()[:1], written}:
            if jax.process_index() == 0:
                # Renamed first: a death in the middle must not leave half a step under its name.
                doomed = self._directory / f"{step}{_DROPPED}"
                (self._directory / str(step)).rename(doomed)
                _remove(doomed)  # what is left goes before the next save

    def make_way(self, step: int) -> None:
        """Put what has the name of a step aside.

        A step comes back if its replacement dies; a file or a dangling link is no step.
        """
        path = self._directory / str(step)
        if path.is_dir() and jax.process_index() == 0:
            path.rename(self._directory / f"{step}{_REPLACED}")
        elif os.path.lexists(path):
            self.set_aside(step)

    def set_aside(self, step: int) -> None:
        """Rename a broken step to `<step>.corrupt`."""
        if jax.process_index() == 0:
            aside = rename_aside(self._directory / str(step), "corrupt")
            _log.warning("the broken checkpoint of step %d is now %s.", step, aside)

    def remove_temporary(self) -> None:
        """Remove what dead saves have left; a step that one was to replace comes back."""
        if jax.process_index() == 0:
            for path in self._directory.glob(f"*{io.TEMPORARY}*"):
                original = self._directory / path.name.removesuffix(_REPLACED)
                if original != path and not os.path.lexists(original):
                    path.rename(original)
                else:
                    _remove(path)


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
