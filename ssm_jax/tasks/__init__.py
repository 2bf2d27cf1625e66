"""What is trained, by name: the Long Range Arena, and what shows a frequency bias."""

from ssm_jax.lra.catalog import CATALOG
from ssm_jax.stories.denoise.task import DENOISE
from ssm_jax.stories.waves.task import WAVE_REGRESSION
from ssm_jax.tasks.classification import classification_of
from ssm_jax.tasks.task import Batch, Sums, Task, mean_metrics, sample_batch

__all__ = ["TASKS", "Batch", "Sums", "Task", "mean_metrics", "sample_batch"]

TASKS: dict[str, Task] = {
    **{name: classification_of(name) for name in CATALOG},
    "denoise": DENOISE,
    "waves": WAVE_REGRESSION,
}
