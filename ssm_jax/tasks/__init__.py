"""What is trained, by name: the Long Range Arena, and what shows a frequency bias."""

from __future__ import annotations

from ssm_jax.options import Option
from ssm_jax.tasks.task import (
    Batch,
    Lazy,
    Sums,
    Task,
    classification,
    imported,
    mean_metrics,
)

__all__ = [
    "TASKS", "Batch", "Lazy", "Option", "Sums", "Task", "classification", "find_task",
    "mean_metrics",
]  # fmt: skip

# Where a task is, "module:name"; imported when it is asked for, and then without JAX.
TASKS: dict[str, str | Task] = {
    "listops": "ssm_jax.lra.catalog:LISTOPS",
    "text": "ssm_jax.lra.catalog:TEXT",
    "retrieval": "ssm_jax.lra.catalog:RETRIEVAL",
    "image": "ssm_jax.lra.catalog:IMAGE",
    "pathfinder": "ssm_jax.lra.catalog:PATHFINDER",
    "pathx": "ssm_jax.lra.catalog:PATHX",
    "denoise": "ssm_jax.stories.denoise:DENOISE",
    "waves": "ssm_jax.stories.waves:WAVE_REGRESSION",
}


def find_task(name: str) -> Task:
    """The task of a name.

    Raises:
      ValueError: there is none.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}.")
    found = TASKS[name]
    return found if isinstance(found, Task) else imported(found)
