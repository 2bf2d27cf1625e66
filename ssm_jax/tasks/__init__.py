"""What is trained, by name: the Long Range Arena, and what shows a frequency bias."""

import functools
import importlib
from collections.abc import Iterator, Mapping

from ssm_jax.lra.catalog import CATALOG
from ssm_jax.tasks.classification import classification_of
from ssm_jax.tasks.task import Batch, Sums, Task, mean_metrics, sample_batch

__all__ = ["TASKS", "Batch", "Sums", "Task", "mean_metrics", "sample_batch"]

STORIES = {
    "denoise": "ssm_jax.stories.denoise.task:DENOISE",
    "waves": "ssm_jax.stories.waves.task:WAVE_REGRESSION",
}


@functools.cache
def _task(name: str) -> Task:
    if name in CATALOG:
        return classification_of(name)
    module, _, attribute = STORIES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


class _Tasks(Mapping[str, Task]):
    """Those of the stories are imported on use: a story imports this package."""

    def __getitem__(self, name: str) -> Task:
        return _task(name)

    def __iter__(self) -> Iterator[str]:
        return iter((*CATALOG, *STORIES))

    def __len__(self) -> int:
        return len(CATALOG) + len(STORIES)


TASKS: Mapping[str, Task] = _Tasks()
