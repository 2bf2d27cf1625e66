"""Finding runs, finished or not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ssm_jax.analysis.report.result import Result, get, make_result, shown
from ssm_jax.places import parse_json


class Found(NamedTuple):
    """What `collect` found: the runs by path, and one line for each file that cannot be read."""

    results: list[Result]
    faults: list[str]


def collect(paths: Iterable[Path]) -> Found:
    """Read runs.

    Args:
      paths: each a run's folder, a folder somewhere above runs or copies of their summaries, or a
        copy of a summary.json.

    Raises:
      FileNotFoundError: a path that does not exist.
      ValueError: a folder without any run.
    """
    places: dict[Path, bool] = {}  # whether the user named it, rather than a folder above
    for path in paths:
        if path.is_dir():
            below = list(_search(path.resolve(), set()))
            if not below:
                raise ValueError(
                    f"{path} holds no run, nor does a folder below it; give a folder with "
                    "record.json or summary.json in it, or copies of summary.json."
                )
            places |= {place: places.get(place, place == path.resolve()) for place in below}
        elif path.exists():
            whole = path.name == "summary.json" and _is_run(path.resolve().parent)
            places[path.resolve().parent if whole else path.resolve()] = True
        else:
            raise FileNotFoundError(
                f"{path} does not exist; give folders of runs or copies of summary.json."
            )
    results: list[Result] = []
    faults: list[str] = []
    for place in sorted(places):
        try:
            if place.is_dir():
                results.append(_of_folder(place, faults))
            else:
                document = _read(place)
                if places[place] or {"test", "config_digest"} <= document.keys():
                    results.append(_of_summary(place, place, document))
        except (OSError, ValueError) as error:
            faults.append(f"{' '.join(str(error).split())}; left out.")
    return Found(results, faults)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("record.json", "summary.json"))


def _search(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Folders of runs, and JSON files outside of them, at or below a folder; links are followed."""
    if folder in seen:
        return
    seen.add(folder)
    if _is_run(folder):
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _search(path.resolve(), seen)
        elif path.suffix == ".json" and not path.name.startswith("."):
            yield path.resolve()


def _read(path: Path) -> dict[str, Any]:
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown(path)} is no whole JSON file ({error})") from error
    except OSError as error:
        raise ValueError(f"{shown(path)} cannot be read ({error.strerror})") from error
    if not isinstance(document, dict):
        raise ValueError(f"{shown(path)} is no summary of a run")
    return document


def _of_folder(folder: Path, faults: list[str]) -> Result:
    """The run of a folder; a fault that does not keep the run from being read is noted."""
    summary, record, crash = (folder / n for n in ("summary.json", "record.json", "crash"))
    if summary.is_file():
        if crash.is_dir():
            faults.append(f"{shown(folder)} diverged before it finished; it counts as finished.")
        return _of_summary(folder, summary, _read(summary))
    document = _read(record)
    config = get(record, document, "config", dict)
    told = {key: config[key] for key in ("name", "task", "notes") if key in config}
    document = {**document, **told}
    if not crash.is_dir():
        steps, validation = _progress(folder / "metrics.jsonl")
        return make_result(
            folder, record, document, "unfinished", steps=steps, validation=validation
        )
    step: int | None = None
    try:  # that it diverged is known without the report
        step = get(crash / "report.json", _read(crash / "report.json"), "step", int)
    except ValueError as error:
        faults.append(f"{' '.join(str(error).split())}; the step at which it diverged is unknown.")
    return make_result(folder, record, document, "diverged", steps=step)


def _of_summary(place: Path, file: Path, document: Mapping[str, Any]) -> Result:
    test = get(file, document, "test", dict)
    accuracy = get(file, test, "accuracy", float)
    if not 0 <= accuracy <= 1:
        raise ValueError(f"{shown(file)}: a test accuracy of {accuracy} is not between 0 and 1")
    steps = get(file, document, "steps", int, default=None)
    loss = get(file, test, "loss", float, default=None)
    return make_result(place, file, document, "finished", accuracy=accuracy, loss=loss, steps=steps)


def _progress(metrics: Path) -> tuple[int, float | None]:
    """The last step in a log, and the best accuracy of its evaluations; a torn end is no fault."""
    lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
    step, best = 0, None
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
            step = max(step, int(row["step"]))
            accuracy = row.get("accuracy") if row["kind"] != "train" else None
        except (ValueError, KeyError, TypeError, AttributeError):
            if number < len(lines):
                raise ValueError(f"{shown(metrics)}: line {number} is damaged") from None
            continue
        # nan is written as a string
        if isinstance(accuracy, (int, float)) and math.isfinite(accuracy):
            best = accuracy if best is None else max(best, accuracy)
    return step, best
