"""Runs side by side, wherever their folders are: repetitions of a setting share a row and a colour.

The results are a document as a sweep has it, whose one option is "config".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.files import parse_json
from ssm_jax.progress import warn
from ssm_jax.sweep import DIVERGED, short_names, shown
from ssm_jax.sweep.results import Document, cell_of, differences, validation_of
from ssm_jax.tasks import find_task
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.record import config_of, read_record, setup_digest, without_folders

SHOWN = 3  # options in a label that tells settings of one name apart


@dataclass(frozen=True, eq=False)
class ReadRun:
    """What the folder of a run tells, finished or not.

    rows: its log; summary: its result, None without one; diverged: its loss was not finite.
    """

    path: Path
    cfg: ConfigDict
    record: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any] | None
    diverged: bool


Settings = Mapping[str, Sequence[ReadRun]]  # by label; the runs by seed


def settings_of(paths: Iterable[Path]) -> Settings:
    """Read runs, of folders and of those in a folder, and sort them by what repeats what.

    A seed of a setting is read once; a second run of it is left out with a warning. Raises
    ValueError or FileNotFoundError for a folder that holds no run, or a damaged one.
    """
    found: dict[str, dict[int, ReadRun]] = {}
    for path in dict.fromkeys(run for folder in paths for run in _below(folder)):
        run = _read(path)
        seeds = found.setdefault(setup_digest(run.cfg), {})
        if (first := seeds.setdefault(run.cfg.seed, run)) is not run:
            warn(f"{path} repeats {first.path}, with the same options and seed; it is left out.")
    groups = [[seeds[seed] for seed in sorted(seeds)] for seeds in found.values()]
    return dict(zip(_labels([group[0] for group in groups]), groups, strict=True))


def compare(settings: Settings, command: Sequence[str], metric: str | None = None) -> Document:
    """The results of runs by setting; `metric` is one of the test split, by default what chose the
    checkpoints. Raises ValueError where that is not one number for all, or a run does not have it.
    """
    first = next(iter(settings.values()))[0]
    for runs in settings.values():
        train = runs[0].cfg.train
        asked, own = metric or first.cfg.train.select_metric, metric or train.select_metric
        split = first.cfg.train.select_split
        if own != asked or train.select_split != split:
            raise ValueError(
                f"{first.path} chose its checkpoint by {split} {asked}, {runs[0].path} by "
                f"{train.select_split} {own}; give --metric, and runs that chose on one split."
            )
    metric = metric or first.cfg.train.select_metric
    others = [run for (run, *_) in settings.values() if _has_classes(run) != _has_classes(first)]
    if metric == "loss" and others:
        raise ValueError(
            f"the loss of {first.path} ({first.cfg.task}) and of {others[0].path} "
            f"({others[0].cfg.task}) are not one number: a cross-entropy and an error; give runs "
            "of one task."
        )
    cells, every, remarks = [], [], []
    for label, runs in settings.items():
        done = {run.cfg.seed: run.summary for run in runs if run.summary is not None}
        known = {run.cfg.seed: validation_of(run.summary, run.path) for run in runs if run.summary}
        for run in runs:
            if run.summary is not None and metric not in run.summary["test"]:
                there = ", ".join(run.summary["test"])
                raise ValueError(f"{run.path} has no test metric {metric!r}, it has {there}.")
            if run.summary is not None and "best_lost" in run.summary:
                remarks.append(f"{run.path}: its best checkpoint was lost; the next is tested.")
            every.append(
                {
                    "name": run.path.name,
                    "options": {"config": label},
                    "seed": run.cfg.seed,
                    "status": _status(run),
                    "test": run.summary["test"] if run.summary is not None else None,
                    "validation": known.get(run.cfg.seed),
                    "config_digest": config_lib.digest(run.cfg),
                }
            )
        ends = {run.cfg.seed: _status(run) for run in runs}
        cells.append(
            cell_of(
                {"config": label},
                {str(seed): summary["test"][metric] for seed, summary in done.items()},
                {str(seed): known[seed].get(metric) for seed in done},
                list(done.values()),
                metric,
                diverged=[seed for seed, end in ends.items() if end == "diverged"],
                missing=[],
                unfinished=[seed for seed, end in ends.items() if end == "unfinished"],
            )
        )
    data = {run.record["data"]["fingerprint"] for runs in settings.values() for run in runs}
    if len(data) > 1:
        remarks.append(f"the runs have {len(data)} different data sets.")
    chose = dict.fromkeys(config_lib.ranking_of(runs[0].cfg)[0] for runs in settings.values())
    notes = {run.cfg.notes: None for runs in settings.values() for run in runs if run.cfg.notes}
    about = {
        "name": ", ".join(settings),
        "task": first.cfg.task,
        "notes": " ".join(notes),
        "command": command,
        "metric": metric,
        "better": find_task(first.cfg.task).metrics.get(metric),
        "split": "test",
        "selected_by": f"{first.cfg.train.select_split} {' or '.join(chose)}",
        "options": {"config": list(settings)},
        "seeds": sorted({run["seed"] for run in every}),
        "cells": cells,
    }
    more = {"differences": differences(about), "remarks": remarks, "runs": every}
    made: Document = without_folders({**about, **more})
    return made


def curves_of(
    settings: Settings, metric: str | None = None
) -> tuple[dict[str, Any], str, str, dict[str, list[tuple[float, float]]]]:
    """The arguments of `plots.compare.compare_figure`; `metric` as in `compare`."""
    train = next(iter(settings.values()))[0].cfg.train
    shown = metric or train.select_metric
    chosen: dict[str, list[tuple[float, float]]] = {}
    for label, runs in settings.items():
        found = [(run, run.summary) for run in runs if run.summary is not None]
        values = [(s["best"]["step"], validation_of(s, run.path).get(shown)) for run, s in found]
        chosen[label] = [(step, value) for step, value in values if value is not None]
    logs = {label: [_as_chosen(run) for run in runs] for label, runs in settings.items()}
    return logs, shown, train.select_split, chosen


def _as_chosen(run: ReadRun) -> list[dict[str, Any]]:
    """The log of a run; in its evaluations the averages that choose have the plain names."""
    facts = ("step", "kind")
    return [
        {key: row[key] for key in facts}
        | config_lib.as_result(run.cfg, {name: v for name, v in row.items() if name not in facts})
        if row["kind"] not in ("train", "diagnostics")
        else dict(row)
        for row in run.rows
    ]


def _below(path: Path) -> list[Path]:
    """The run that a folder is, else those in it, one or two folders deep."""
    if (path / "record.json").exists() or not path.is_dir():
        return [path]
    for pattern in ("*/record.json", "*/*/record.json"):
        if found := sorted(file.parent for file in path.glob(pattern)):
            return found
    return [path]  # whose lack of a record is said where it is read


def _read(path: Path) -> ReadRun:
    record = read_record(path / "record.json")
    summary, done = path / "summary.json", (path / "DONE").exists()
    try:
        result = parse_json(summary.read_text(encoding="utf-8")) if done else None
        if result is not None and not {"test", "selected_by", "best"} <= result.keys():
            raise ValueError
    except (ValueError, OSError, AttributeError):
        raise ValueError(
            f"{summary} is missing or damaged; give the command of the run once more, which tests "
            "it again."
        ) from None
    bad = (path / DIVERGED).exists() or (path / "crash" / "report.json").exists()
    cfg = config_of(record, path / "record.json")
    rows = read_metrics(path / "metrics.jsonl")
    return ReadRun(path, cfg, record, rows, result, bad and result is None)


def _has_classes(run: ReadRun) -> bool:
    return "accuracy" in find_task(run.cfg.task).metrics


def _status(run: ReadRun) -> str:
    return "finished" if run.summary is not None else "diverged" if run.diverged else "unfinished"


def _labels(firsts: Sequence[ReadRun]) -> list[str]:
    """A label for each setting, by its first run: the name, and what tells namesakes apart."""
    labels = []
    for run in firsts:
        namesakes = [other for other in firsts if other.cfg.name == run.cfg.name]
        options = [config_lib.identity(other.cfg) for other in namesakes]
        own = config_lib.flatten(run.cfg)
        found = {key for each in options for key in each} - {"seed"}
        keys = sorted(found, key=lambda key: (key != "model.layer", key))  # it decides others
        differ = [key for key in keys if len({str(each.get(key)) for each in options}) > 1]
        short = short_names(differ)
        words = [f"{short[key]}={shown(own.get(key))}" for key in differ[:SHOWN]]
        labels.append(run.cfg.name + (f" ({', '.join(words)})" if words else ""))
    for label in {label for label in labels if labels.count(label) > 1}:
        for i, run in enumerate(firsts):
            if labels[i] == label:
                labels[i] = f"{label} [{run.path}]"
    return labels
