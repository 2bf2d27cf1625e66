"""The steps of a run as folders: which there are, which is best, and which have to go.

All is read from the disk, never from memory: a folder named by a plain number is a complete save,
see `step_folder`. With several JAX processes process 0 alone renames and deletes.
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

from ssm_jax.train.checkpoint import io as step_folder
from ssm_jax.train.checkpoint.manifest import CheckpointError, Meta, StateMismatch

_DROPPED = f"{step_folder.TEMPORARY}-dropped"  # suffix of a step on its way out
_REPLACED = f"{step_folder.TEMPORARY}-replaced"  # of a step whose replacement is being written

_log = logging.getLogger(__name__)


class Shelf:
    """The complete steps in a folder.

    Args:
      directory: the folder, absolute.
      keep: newest steps kept, >= 1; the best one is kept besides.
      metric: the metric that names the best step; None: no step is best.
      mode: whether a larger or a smaller value is better.
      ours: whether a checkpoint is of this run; another's is never the best.
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
        self._directory = directory
        self._keep = keep
        self._metric = metric
        self._mode = mode
        self._ours = ours
        self._metas: dict[int, Meta | None] = {}  # by step; None: unreadable

    def steps(self) -> list[int]:
        """The steps on the disk, ascending, sound or not."""
        return step_folder.list_steps(self._directory)

    def add(self, meta: Meta) -> None:
        """Note what is said of a step that has just been written."""
        self._metas[meta.step] = meta

    def best_step(self) -> int | None:
        """The step on the disk with the best finite metric, the earliest of equals, or None."""
        return next(iter(self.ranked()), None)

    def ranked(self) -> list[int]:
        """The steps on the disk that were evaluated with a finite metric, the best first."""
        ranks = []
        for step in self.steps():
            if step not in self._metas:
                try:
                    self._metas[step] = step_folder.read_meta(self._directory / str(step))[0]
                except (CheckpointError, StateMismatch):
                    self._metas[step] = None
            meta = self._metas[step]
            if meta is None or self._metric is None or not (meta.evaluated and self._ours(meta)):
                continue
            value = meta.metrics.get(self._metric, math.nan)
            if math.isfinite(value):
                ranks.append((-value if self._mode == "max" else value, step))
        return [step for _, step in sorted(ranks)]

    def drop_old(self, written: int) -> None:
        """Delete all but the newest `keep` steps, the best, and the one just written."""
        steps = self.steps()
        for step in set(steps) - {*steps[-self._keep :], self.best_step(), written}:
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
            for path in self._directory.glob(f"*{step_folder.TEMPORARY}*"):
                original = self._directory / path.name.removesuffix(_REPLACED)
                if original != path and not os.path.lexists(original):
                    path.rename(original)
                else:
                    _remove(path)


def rename_aside(path: Path, word: str) -> Path:
    """Rename a file or folder to NAME.word, or NAME.word-1 and so on; its new path."""
    aside, n = path.with_name(f"{path.name}.{word}"), 1
    while os.path.lexists(aside):
        aside, n = path.with_name(f"{path.name}.{word}-{n}"), n + 1
    return path.rename(aside)


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
