"""What is known of one run, read from its summary or its record.

Finding runs, finished or not.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ssm_jax.files import parse_json
from ssm_jax.lra.published import COLUMNS

REDUCED = ("smoke", "reduced")  # words of a run's name that say: not the full experiment
# Options that change no number, so that runs which differ in them are repetitions; the seed; the
# source of the data, which a flag may say as well and which is told apart by itself
_UNTOLD = ("seed", "data.source", "name", "notes", "figures", "log.", "checkpoint.")


Status = Literal["finished", "diverged", "unfinished"]


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
      path: where it was read, relative to the current folder; else the last two parts.
      name: of its config: `lra/listops:s4d_ft`.
      task: a key of COLUMNS; "" for a run of no LRA task.
      arm: what the name says behind the task, without the words of REDUCED.
      options: overrides of the command that change numbers, `model.alpha=10`, sorted.
      reduced: whether the name has a word of REDUCED.
      notes: what is reduced or else not as published.
      status: a run diverged if its loss was not finite; unfinished is all else without a result.
      seed: of the run.
      setup: names the options without the seed: repetitions have the same.
      accuracy: on the test split, 0..1; None without a result.
      loss: on the test split, in nats; None where not known.
      steps: in all; of the first loss that is not finite; or so far. None where not known.
      validation: best accuracy on the validation split so far, for an unfinished run.
      source, detail, sha256: provenance of the data, "" where not known.
      commit: with " + changes" if the code differed from it; "" where not known.
      device: what it ran on.
      config_digest, command: as written down.
      majority_rate: test accuracy of a constant guess, 0..1.
      parameters: how many.
      lost: what became of the best checkpoint, where another one was tested; else "".
    """

    path: str
    name: str
    task: str
    arm: str
    options: tuple[str, ...]
    reduced: bool
    notes: str
    status: Status
    seed: int
    setup: str
    accuracy: float | None
    loss: float | None
    steps: int | None
    validation: float | None
    source: str
    detail: str
    sha256: str
    commit: str
    device: str
    config_digest: str
    command: tuple[str, ...]
    majority_rate: float | None
    parameters: int | None
    lost: str = ""


def make_result(
    place: Path,
    file: Path,
    document: Mapping[str, Any],
    status: Status,
    *,
    accuracy: float | None = None,
    loss: float | None = None,
    steps: int | None = None,
    validation: float | None = None,
) -> Result:
    """The run at `place`, of which `file` holds `document`: a summary, or a record with a name."""
    name = get(file, document, "name", str)
    task, arm, reduced = _named(name, get(file, document, "task", str, default=""))
    command = tuple(str(word) for word in get(file, document, "command", list, default=[]))
    options = _overrides(command)
    told = hashlib.sha256(json.dumps([name, options]).encode()).hexdigest()[:12]
    data = get(file, document, "data", dict, default={})
    source, detail, sha256 = (
        get(file, data, key, str, default="") for key in ("source", "detail", "sha256")
    )
    return Result(
        path=shown(place),
        name=name,
        task=task,
        arm=arm,
        options=options,
        reduced=reduced,
        notes=get(file, document, "notes", str, default=""),
        status=status,
        seed=get(file, document, "seed", int),
        # Runs of older versions have no such digest: what the command says stands in for it.
        setup=get(file, document, "setup_digest", str, default=told),
        accuracy=accuracy,
        loss=loss,
        steps=steps,
        validation=validation,
        source=source,
        detail=detail,
        sha256=sha256,
        commit=_commit(get(file, document, "git", dict, default={})),
        device=_device(get(file, document, "devices", dict, default={})),
        config_digest=get(file, document, "config_digest", str, default=""),
        command=command,
        majority_rate=get(file, document, "majority_rate", float, default=None),
        parameters=get(file, document, "parameters", int, default=None),
        lost=_lost(file, document),
    )


def _lost(file: Path, document: Mapping[str, Any]) -> str:
    """What a footnote says of a run whose best checkpoint could not be tested; else ""."""
    lost = get(file, document, "best_lost", dict, default=None)
    if lost is None:
        return ""
    best = get(file, get(file, document, "best", dict), "step", int)
    return (
        f"the best checkpoint, of step {get(file, lost, 'step', int):,}, was lost; the next best, "
        f"of step {best:,}, is tested."
    )


_NEEDED: Any = object()


def get(
    file: Path, document: Mapping[str, Any], key: str, kind: type, default: Any = _NEEDED
) -> Any:
    """An entry of a document; without a default it must be there.

    Raises:
      ValueError: it is not, or it is of another kind.
    """
    value = document.get(key, default)
    if value is _NEEDED:
        raise ValueError(f"{shown(file)} is no summary or record of a run: it has no {key!r}")
    kinds = (int, float) if kind is float else (kind,)
    if value is not default and (not isinstance(value, kinds) or isinstance(value, bool)):
        if value is None and default is not _NEEDED:
            return default
        raise ValueError(f"{shown(file)}: {key!r} is {value!r:.60}, not of type {kind.__name__}")
    return value


def _named(name: str, task: str) -> tuple[str, str, bool]:
    """Task, arm and whether it is reduced, from a name such as `lra/listops:s4d_ft:smoke`."""
    head, *words = (word.strip() for word in re.split("[:,]", name))
    values = [word.rpartition("=")[2] for word in words]
    reduced = any(value in REDUCED for value in values)
    words = [w for w, value in zip(words, values, strict=True) if value and value not in REDUCED]
    column = _column(head.rpartition("/")[2])
    if not column:  # a name of its own, such as "quickstart"
        column, words = _column(task), [head, *words]
    return column, ",".join(words), reduced


def _column(text: str) -> str:
    key = re.sub(r"[\W_]", "", text.lower())
    return key if key in COLUMNS else ""


def _overrides(command: Iterable[str]) -> tuple[str, ...]:
    """The options of a command that change numbers, the last of a repeated one; without the seed.

    `--config.KEY=VALUE`, `--config.KEY VALUE` and `--noconfig.KEY` are all KEY=VALUE here.
    """
    found: dict[str, str] = {}
    key = ""
    for word in command:
        if key and not word.startswith("--"):
            found[key] = word
        key = ""
        if word.startswith("--noconfig."):
            found[word.removeprefix("--noconfig.")] = "false"
        elif word.startswith("--config."):
            key, equals, value = word.removeprefix("--config.").partition("=")
            found[key] = value if equals else "true"
            key = "" if equals else key
    return tuple(f"{k}={v}" for k, v in sorted(found.items()) if not k.startswith(_UNTOLD))


def shown(path: Path) -> str:
    """A path that can be published: it does not say where the current folder is."""
    path = Path(os.path.abspath(path))
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return ".../" + "/".join(path.parts[1:][-2:])


def _commit(git: Mapping[str, Any]) -> str:
    commit = git.get("commit")
    return f"{commit}{' + changes' if git.get('dirty') else ''}" if commit else ""


def _device(devices: Mapping[str, Any]) -> str:
    if devices.get("platform") == "cpu":
        model = f" ({devices['cpu']})" if devices.get("cpu") else ""
        return f"{devices.get('cpu_cores', '?')} CPU cores{model}"
    return f"{devices.get('count', '?')} x {devices['kind']}" if devices.get("kind") else ""


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
