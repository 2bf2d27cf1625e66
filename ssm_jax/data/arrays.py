"""Data sets of your own series: classes, numbers, numbers at each step, or a future to forecast."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.dataset import Arrays, Dataset, Provenance
from ssm_jax.data.examples import SPLITS, spread
from ssm_jax.data.fitting import classes_of, fit
from ssm_jax.data.preprocessing import ArrayOptions, Preprocessing
from ssm_jax.data.read_once import read_once, stamp_of
from ssm_jax.data.series import Series, channel_called, files_of, sha256_of_files
from ssm_jax.data.splits import splits_of, windows_of, without_windows
from ssm_jax.files import json_digest, parse_json, write_json


class ArrayDataset(Dataset):
    """Series with a class, with numbers, with numbers at each step, or with a future.

    `gather` returns

      "inputs": float32 (B, L, C), standardized, or int32 tokens (B, L); padding is 0;
      "lengths": int32 (B,), where series are padded;
      "targets": int32 (B,) classes; float32 (B, K); (B, L, K) at each step, where padding and what
        is missing are NaN; or (B, horizon, K) in forecasting, likewise. Standardized.

    `rows` are numbers of series, or in forecasting (n, 2): series, and first step of the window.
    """

    paired = False

    def __init__(
        self,
        name: str,
        parts: Mapping[str, Series],
        rows: Mapping[str, np.ndarray],
        options: ArrayOptions,
        preprocessing: Preprocessing,
        provenance: Provenance,
        stamps: Mapping[Path, tuple[int, ...]],
        remarks: Sequence[str] = (),
    ) -> None:
        super().__init__(name, preprocessing.padded_length, provenance)
        self._parts, self.rows, self.options = parts, rows, options
        self.preprocessing, self._remarks = preprocessing, remarks
        self.splits = tuple(rows)
        self._stamps = stamps  # of its files, from before they were read
        self._classes = {
            split: classes_of(part, preprocessing.classes)
            for split, part in parts.items()
            if preprocessing.head == "classification"
        }
        p = preprocessing
        self.n_classes = len(p.classes) or len(p.targets) * max(p.horizon, 1)
        self.vocab_size = p.vocab_size
        self.d_input = None if p.vocab_size else len(p.channels) + p.elapsed
        lengths = [self.lengths(split) for split in self.splits]
        self._padded = any((n < self.padded_length).any() for n in lengths)
        self._facts: dict[str, dict[str, float]] = {}
        for split, steps in zip(self.splits, lengths, strict=True):
            if not steps.size:
                raise ValueError(
                    f"the split {split!r} of {name} has no examples: there are "
                    f"{sum(map(len, lengths))} in all; change data.arrays.val and test, or the "
                    "files."
                )
            if steps.max() > self.padded_length:
                raise ValueError(
                    f"data.padded_length={self.padded_length} cannot hold the longest series, "
                    f"{steps.max()} steps ({split} example {steps.argmax()}); use 0 or at least "
                    f"{steps.max()}."
                )

    @property
    def class_names(self) -> Sequence[Any]:
        """What the classes are called."""
        return self.preprocessing.classes

    def series_of(self, split: str) -> np.ndarray | None:
        """The number of the series of each example, (n,); None: it has one target of its own."""
        if self.preprocessing.head == "regression":
            return None
        rows = self.rows[split]
        return rows[:, 0] if rows.ndim == 2 else rows

    def lengths(self, split: str) -> np.ndarray:
        """Steps of the examples of a split."""
        if self.preprocessing.horizon:
            return np.full(self.size(split), self.padded_length, np.int64)
        return self._parts[split].lengths[self.rows[split]]

    def check_unchanged(self) -> None:
        for path, before in self._stamps.items():
            if stamp_of(path) != before:
                raise ValueError(f"{path} was written to since it was opened; start again.")

    def gather(self, split: str, indices: np.ndarray, length: int | None = None) -> Arrays:
        rows, p = self.rows[split][self.check(split, indices)], self.preprocessing
        L, part = length or self.padded_length, self._parts[split]
        inputs = (
            np.zeros((len(rows), L), np.int32)
            if p.vocab_size
            else np.zeros((len(rows), L, len(p.channels) + p.elapsed), np.float32)
        )
        found: list[np.ndarray] = []
        for b, row in enumerate(rows):
            steps = self._steps(part, row)
            n = steps.stop - steps.start
            inputs[b, :n] = p.inputs(part.steps[steps])
            if p.head == "forecasting":
                found.append(part.steps[steps.stop : steps.stop + p.horizon, self._forecast])
            elif p.head == "per_step":
                assert part.targets is not None
                y = np.full((L, len(p.targets)), np.nan)
                y[:n] = part.targets[steps].reshape(n, -1)
                found.append(y)
        batch: Arrays = {"inputs": inputs}
        if self._padded:
            batch["lengths"] = part.lengths[rows].astype(np.int32)
        if p.head == "classification":
            batch["targets"] = self._classes[split][rows].astype(np.int32)
        elif p.head == "regression":
            assert part.targets is not None
            batch["targets"] = p.scaled(np.reshape(part.targets[rows], (len(rows), len(p.targets))))
        else:
            width = (L if p.head == "per_step" else p.horizon, len(p.targets))
            batch["targets"] = p.scaled(np.array(found).reshape(len(rows), *width))
            if p.relative:
                batch["last"] = inputs[:, -1:, self._forecast]
        return batch

    def _steps(self, part: Series, row: Any) -> slice:
        """The steps of an example: a series, or the context of a window."""
        if not self.preprocessing.horizon:
            return part.of(int(row))
        start = int(part.starts[row[0]] + row[1])
        return slice(start, start + self.padded_length)

    @property
    def _forecast(self) -> list[int]:
        """The channels to forecast."""
        return [self.preprocessing.channels.index(c) for c in self.preprocessing.targets]

    def facts(self, split: str) -> dict[str, float]:
        """The scores of predictors that learn nothing, to compare a result with.

        "majority_rate": the accuracy of the most frequent class; "mean_mse" and "mean_mae": errors
        of the mean of training; "last_value_.." and "seasonal_naive_.." of forecasts that repeat
        the last value, or the last season. Errors are of standardized targets.
        """
        if split not in self._facts:
            self._facts[split] = dict(self._baselines(split))
        return self._facts[split]

    def _baselines(self, split: str) -> Iterator[tuple[str, float]]:
        p = self.preprocessing
        if p.head == "classification":
            classes = self._classes[split][self.rows[split]]
            yield "majority_rate", float(np.bincount(classes).max() / classes.size)
            return
        names = ["mean"] * (self.options.standardize != "none")  # which is then 0
        if p.horizon:
            names += ["last_value"]
            names += ["seasonal_naive"] * (0 < self.options.season <= self.padded_length)
        if not names:
            return
        sums = {name: np.zeros((3, len(p.targets))) for name in names}
        for numbers in np.array_split(np.arange(self.size(split)), -(-self.size(split) // 512)):
            batch = self.gather(split, numbers)
            y = batch["targets"].astype(np.float64)
            for name in names:
                error = y - self._naive(name, batch["inputs"], y.shape)
                error = error.reshape(-1, len(p.targets))
                there, error = ~np.isnan(error), np.nan_to_num(error)
                sums[name] += [x.sum(axis=0) for x in (there, error**2, np.abs(error))]
        for name, (n, squared, absolute) in sums.items():
            if (n > 0).any():  # means over the targets, as the metrics of a split
                yield f"{name}_mse", float((squared[n > 0] / n[n > 0]).mean())
                yield f"{name}_mae", float((absolute[n > 0] / n[n > 0]).mean())

    def _naive(self, name: str, inputs_BLC: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """What a predictor without parameters says, standardized as the targets."""
        if name == "mean":
            return np.zeros(shape)
        period = 1 if name == "last_value" else self.options.season
        ahead_T = np.arange(self.preprocessing.horizon) % period - period
        return inputs_BLC[:, ahead_T][..., self._forecast]

    def describe(self) -> list[str]:
        """Lines about channels, targets and classes, to be read before training."""
        p = self.preprocessing
        lines = [
            f"{channel_called(name)}: mean {mean:.4g}, standard deviation {std:.4g} in training"
            for name, mean, std in zip(p.channels, p.mean, p.std, strict=False)
        ]
        lines += [
            f"target {name}: mean {mean:.4g}, standard deviation {std:.4g} in training"
            for name, mean, std in zip(p.targets, p.target_mean, p.target_std, strict=True)
            if not p.horizon
        ]
        if self.options.standardize == "none" and not p.vocab_size:
            lines = ["inputs and targets as they are: data.arrays.standardize=none"]
        if p.vocab_size:
            lines.append(f"tokens: whole numbers (n, L), {p.vocab_size} ids from 0 on")
        if p.decorrelation:
            lines.append(
                f"inputs are decorrelated, eps = {self.options.decorrelate:g} of their power"
            )
        if len(lines) > 12:
            lines = [*lines[:10], f"... and {len(lines) - 10} more"]
        for split in self.splits if p.head == "classification" else ():
            counts = np.bincount(self._classes[split][self.rows[split]], minlength=self.n_classes)
            shown = ", ".join(f"{c} {n}" for c, n in zip(p.classes, counts, strict=True))
            if len(counts) > 20:
                shown = f"{len(counts)} of {counts.min()} to {counts.max()} examples"
            lines.append(f"classes in {split}: {shown}")
        return lines + [f"WARNING: {remark}." for remark in self._remarks[:10]]


def open_arrays(
    head: str,
    data: Mapping[str, Any],
    path: Path | None,
    kept: Path | None = None,
    *,
    keep: bool = True,
) -> ArrayDataset:
    """The data set of a user's file or folder, by the options of `cfg.data`.

    What one pass over all values finds is kept as JSON in the folder `kept`, and so are the values
    of text, see `read_once`; so the next start is quick. Both are found again when a file or an
    option changes. Without `keep` they are read there, and not written. ValueError for files that
    do not fit the head, and for values that are not finite, by file, row and column.
    """
    if path is None:
        raise FileNotFoundError("give your file or folder with --from=PATH.")
    options = ArrayOptions(**data["arrays"])
    name = path.absolute().stem
    stamps = {file: stamp_of(file) for file in files_of(path)[1]}
    found = read_once(path, options.columns(head), kept, keep=keep)
    stamps = {file: stamps[file] for file in found.files}
    kind, idle = found.files[0].suffix.lower(), dict[str, str]()
    if kind not in (".npz", ".npy"):
        idle = dict.fromkeys(("x", "y"), "an array of an .npz")
    if kind != ".csv":
        columns = ["inputs", "id", "time", "split_column"] + ["target"] * (head == "classification")
        idle |= dict.fromkeys(columns, "columns of a .csv")
    for option, what in idle.items():
        if (value := getattr(options, option)) != getattr(ArrayOptions(), option):
            raise ValueError(
                f"data.arrays.{option}={value!r} names {what}, and {path.name} is {kind}; leave it "
                "out."
            )
    parts, rows = splits_of(head, found, options, data["seed"], path)
    short = list[str]()
    if head == "forecasting":
        whole, rows = rows, {s: windows_of(parts[s], rows[s], options, s) for s in rows}
        short = [*without_windows(whole, rows, options)]
    for split in SPLITS:
        rows[split] = spread(rows[split], data[f"n_{split}"], split)
    # Those at their default are left out, so that options to come change no run of today
    used = {
        f.name: value
        for f in dataclasses.fields(options)
        if (value := getattr(options, f.name)) != f.default and f.name != "season"
    }
    used |= {"head": head}
    if options.decorrelate and options.elapsed:
        used |= {"decorrelated": "channels"}  # once with the share that is over as one of them
    seed = {"seed": data["seed"]}
    looked = {"form": 3, "used": used | seed, "counts": [len(rows[s]) for s in SPLITS]}
    looked |= {"padded_length": data["padded_length"]}
    looked |= {"files": [(os.fsdecode(p.absolute()), *stamp) for p, stamp in stamps.items()]}
    memo = None if kept is None else kept / f"{name}-{json_digest(looked)[:16]}.json"
    known = _known(memo)
    if known is None:
        preprocessing, remarks = fit(head, parts, rows, options, data["padded_length"], path)
        files = sha256_of_files(found.files)
        unseeded, sha256 = (
            hashlib.sha256((files + json.dumps(each, sort_keys=True)).encode()).hexdigest()
            for each in (used, used | seed)
        )
        if options.split == "merged":  # runs of several seeds are repetitions on one data set
            sha256 = unseeded
        known = preprocessing, (sha256, unseeded), remarks
        if memo is not None and keep:
            as_json = dataclasses.asdict(preprocessing)
            # A folder that cannot be written to costs the next start a pass
            with suppress(OSError):
                memo.parent.mkdir(parents=True, exist_ok=True)
                write_json(memo, {"preprocessing": as_json, "hashes": known[1], "remarks": remarks})
    preprocessing, hashes, remarks = known
    names = ", ".join(p.name for p in found.files[:3])
    more = f" and {len(found.files) - 3} more" if len(found.files) > 3 else ""
    series = sum(len(part) for part in {id(p): p for p in parts.values()}.values())
    detail = f"{names}{more}: {series:,} series of {len(preprocessing.channels)} channels"
    provenance = Provenance(data["source"], detail, *hashes)
    remarks = [*found.remarks, *short, *remarks]
    return ArrayDataset(name, parts, rows, options, preprocessing, provenance, stamps, remarks)


def _known(memo: Path | None) -> tuple[Preprocessing, Sequence[str], list[str]] | None:
    """What a pass over all values found; None: it is not kept, or not as it was written."""
    if memo is None:
        return None
    try:
        found = parse_json(memo.read_bytes())
        sha256, unseeded = found["hashes"]
        return Preprocessing.of_json(found["preprocessing"]), (sha256, unseeded), found["remarks"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
