"""What is trained, by name: the Long Range Arena, and what shows a frequency bias."""

from __future__ import annotations

from ssm_jax import outside
from ssm_jax.options import OPTIONS, Option
from ssm_jax.tasks.task import Batch, Lazy, Sums, Task, classification, mean_metrics

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

    Args:
      name: a key of TASKS, an entry point of the group ssm_jax.tasks, or FILE.py:NAME of a Task.

    Raises:
      ValueError: there is none.
    """
    task = outside.find("task", name, TASKS)
    if not isinstance(task, Task):
        raise ValueError(f"task {name}: it is a {type(task).__name__}, not a Task.")
    if shared := sorted(task.options.keys() & OPTIONS.keys()):
        raise ValueError(f"task {name}: {shared[0]} is an option of all tasks; rename it.")
    return task
