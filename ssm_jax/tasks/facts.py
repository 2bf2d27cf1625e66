"""What the construction of a model reads of its data set, as JSON: enough to build it again."""

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from ssm_jax.data.preprocessing import Preprocessing

Facts = dict[str, Any]
ALWAYS = ("padded_length", "preprocessing")  # needed to use a model, if not to build it


class Watched:
    """A data set that notes what is read of it; to `isinstance` it is the data set."""

    def __init__(self, dataset: Any) -> None:
        self._dataset, self._read = dataset, dict[str, Any]()

    @property
    def __class__(self) -> Any:
        return type(self._dataset)

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError("the class of a data set cannot be changed")

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._dataset, name)
        self._read[name] = value
        return value

    def _whole(self) -> Any:
        """The data set itself, for what looks into it; no record can hold that."""
        self._read["whole"] = self._dataset
        return self._dataset

    def __len__(self) -> int:
        return len(self._whole())

    def __iter__(self) -> Any:
        return iter(self._whole())

    def __getitem__(self, key: Any) -> Any:
        return self._whole()[key]


def facts_of(watched: Any) -> Facts | None:
    """The attributes that were read, as JSON can hold them; None if one of them it cannot."""
    for name in ALWAYS:
        getattr(watched, name, None)
    try:
        return {name: kept(value) for name, value in sorted(watched._read.items())}
    except TypeError:  # such as a method: only the data set itself can answer
        return None


def stand_in(facts: Mapping[str, Any]) -> Any:
    """An object with the attributes that `facts_of` kept, for `Task.build_model`."""

    def restored(name: str, value: Any) -> Any:
        if name == "preprocessing":
            return Preprocessing.of_json(value)
        return tuple(restored("", v) for v in value) if isinstance(value, list) else value

    return SimpleNamespace(**{name: restored(name, value) for name, value in facts.items()})


def kept(value: Any) -> Any:
    """A value as JSON can hold it, with a Preprocessing as its fields; else a TypeError."""
    if isinstance(value, Preprocessing):
        return kept(dataclasses.asdict(value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return [kept(v) for v in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: kept(v) for key, v in value.items()}
    raise TypeError(f"{type(value).__name__} is no JSON")
