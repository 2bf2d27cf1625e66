"""Predictions for the series of a file, and the file that they go to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssm_jax import tables
from ssm_jax.data.preprocessing import ArrayOptions
from ssm_jax.data.series import Columns, Series, numbered_channels, read
from ssm_jax.files import replace_atomically
from ssm_jax.trained.predict import softmax

if TYPE_CHECKING:
    from ssm_jax.trained.model import Trained


@dataclass(frozen=True)
class Predicted:
    """What a model says of each series of a file."""

    head: str
    names: tuple[str, ...]  # of the classes, or of the last axis of `rows`
    splits: tuple[str, ...]  # of each series, as the file says; "": it does not
    rows: list[np.ndarray]  # logits (K,), or values (K,), (L, K) or (horizon, K)

    def write(self, path: Path) -> None:
        """Write a .npz, or a .csv with a line for each series, or for each of its steps."""
        if path.suffix.lower() == ".csv":
            head, *lines = self._lines()
            replace_atomically(path, tables.to_csv(head, lines))
        else:
            arrays = self._arrays()
            replace_atomically(path, lambda file: np.savez(file, **arrays))

    def _arrays(self) -> Mapping[str, Any]:
        """Arrays of equal lengths; what a shorter series lacks is NaN."""
        found: dict[str, Any] = {"split": np.array(self.splits)} if any(self.splits) else {}
        if self.head == "classification":
            logits = np.stack(self.rows)
            found |= {"logits": logits, "probabilities": softmax(logits)}
            return found | {
                "classes": np.array(self.names),
                "label": np.array(self.names)[logits.argmax(axis=-1)],
            }
        longest = max(self.rows, key=len)
        values = np.full((len(self.rows), *longest.shape), np.nan)
        for row, value in zip(values, self.rows, strict=True):
            row[: len(value)] = value
        if self.head == "per_step":
            found["lengths"] = np.array([len(row) for row in self.rows])
        return found | {"values": values, "names": np.array(self.names)}

    def _lines(self) -> Iterator[list[Any]]:
        """The header and the lines of a .csv."""
        classes, by_step = self.head == "classification", self.rows[0].ndim > 1
        first = ["series"] + ["split"] * any(self.splits) + ["step"] * by_step
        names = [f"p({name})" for name in self.names] if classes else list(self.names)
        yield first + ["label"] * classes + names
        for number, (split, row) in enumerate(zip(self.splits, self.rows, strict=True)):
            start = [number] + [split] * any(self.splits)
            if classes:
                shown = [f"{p:.9g}" for p in softmax(row)]
                yield [*start, self.names[int(row.argmax())], *shown]
            elif not by_step:
                yield [*start, *map(repr, row.tolist())]
            else:
                for step, values in enumerate(row.tolist()):
                    yield [*start, step, *map(repr, values)]


def predict_file(trained: "Trained", path: Path, batch_size: int = 32) -> Predicted:
    """Predict all series of a file or folder that `data.series.read` reads, in their order.

    Of a file that has splits of its own the series come in the order train, val, test, but
    NAME_TEST.ts is that part alone. ValueError: a series does not fit the model.
    """
    p = trained.preprocessing
    trained.require_series()
    if trained.built_from.get("paired"):
        raise ValueError("a file has no pairs of series; call the model's predict from Python.")
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; give series with --input=PATH.")
    found = read(path, _columns(trained))
    parts = dict(found.parts)
    named = {"TRAIN": "train", "TEST": "test"}.get(path.stem.rpartition("_")[2], "")
    if path.suffix in (".ts", ".arff") and named in parts:
        parts = {named: parts[named]}
    series, splits = list[np.ndarray](), list[str]()
    for split in sorted(parts, key=["", "train", "val", "test"].index):
        part = parts[split]
        _check_channels(part, trained, path)
        own = [split] * len(part)
        for name, numbers in (found.rows or {}).items():
            for number in numbers:
                own[number] = name
        series += [part.steps[part.of(number)] for number in range(len(part))]
        splits += own
    rows = list(trained.predict(series, batch_size=batch_size))
    if trained.classes:
        names = trained.classes
    else:
        names = p.targets if p else tuple(f"y{k}" for k in range(rows[0].shape[-1]))
    return Predicted(trained.head, names, tuple(splits), rows)


def _columns(trained: "Trained") -> Columns:
    """The roles of columns as in training, but that there need be no targets."""
    p = trained.preprocessing
    if p is None:
        return Columns(y="")
    columns = ArrayOptions(**trained.cfg.data.to_dict()["arrays"]).columns(p.head)
    # Channels of arrays have numbers in the place of names: of a .csv all columns are they
    named = p.channels != numbered_channels(len(p.channels))
    inputs = p.channels if named and not p.vocab_size else ()
    return replace(columns, inputs=inputs, target=(), split="", y="")


def _check_channels(part: Series, trained: "Trained", path: Path) -> None:
    p = trained.preprocessing
    if p is not None and not p.vocab_size and len(part.channels) != len(p.channels):
        hint = " One series in an array is (1, L, C)." if len(part.channels) == 1 else ""
        raise ValueError(
            f"{path} has {len(part.channels)} channels ({', '.join(part.channels[:5])}); the model "
            f"has {len(p.channels)} ({', '.join(p.channels[:5])}).{hint}"
        )
