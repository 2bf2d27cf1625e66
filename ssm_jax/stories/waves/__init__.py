"""Waves: which of four frequencies a model learns first."""

from ssm_jax.options import Option
from ssm_jax.tasks.task import Lazy, Task

_HERE = "ssm_jax.stories.waves"
WAVES = Task(
    open_data=Lazy(f"{_HERE}.task:open_waves"),
    build_model=Lazy(f"{_HERE}.task:build_regressor"),
    train_sums=Lazy(f"{_HERE}.task:train_sums"),
    eval_sums=Lazy(f"{_HERE}.task:regression_sums"),
    metrics={"error": "min", "loss": "min"},
    options={
        "model.waves.legacy_unsymmetric": Option(
            False, "the filter that the official program has", source="OC-19"
        )
    },
    sources=("generated",),
    circular=True,
    network=Lazy(f"{_HERE}.model:WaveRegressor"),
)
