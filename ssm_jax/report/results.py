"""Results of runs: finding them, and what is known of each from its summary, or its record."""

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ssm_jax.files import parse_json
from ssm_jax.lra.published import COLUMNS
from ssm_jax.tasks import TASKS, find_task

REDUCED = ("smoke", "reduced")  # words of a run's name that say: not the full experiment
# Options that change no number, so that runs which differ in them are repetitions; the seed; the
# source of the data, which a flag may say as well and which is kept apart by itself
_NO_SETUP = ("seed", "data.source", "name", "notes", "figures", "log.", "checkpoint.")
_NEEDED: Any = object()


@dataclass(frozen=True)
class Result:
    """One run. Texts are "" and numbers None where they are not known."""

    path: str  # where it was read, relative to the current folder; else the last two parts
    name: str  # of its config: `lra/listops:s4d_ft`
    task: str  # a key of COLUMNS; "" for a run of no LRA task, whose task is `other`
    other: str
    variant: str  # what the name says behind the task, without the words of REDUCED
    options: tuple[str, ...]  # of the command, that change numbers, `model.alpha=10`, sorted
    reduced: bool  # the name has a word of REDUCED
    notes: str  # what is not as published
    # A run diverged if its loss was not finite; unfinished is all else without a result.
    status: Literal["finished", "diverged", "unfinished"]
    seed: int
    setup: str  # names the options without the seed: repetitions have the same
    source: str  # provenance of the data, as the next two
    detail: str
    sha256: str
    data: str  # names the data; one name for all seeds where each has its own (data.seed=-1)
    commit: str  # with " + changes" if the code differed from it
    device: str
    config_digest: str
    command: tuple[str, ...]
    majority_rate: float | None  # test accuracy of a constant guess, 0..1
    parameters: int | None
    lost: str  # what became of the best checkpoint, where another one was tested
    metric: str = ""  # what chose the checkpoint of a run of no LRA task
    value: float | None = None  # of that, on the test split
    # Of such a run what it is shown by, "accuracy" or "loss": on the split that chose, and on test
    scores: Mapping[str, tuple[float | None, float]] = field(default_factory=dict)
    accuracy: float | None = None  # on the test split, 0..1
    loss: float | None = None  # on the test split, nats
    steps: int | None = None  # in all; of the first loss that is not finite; or so far
    # Accuracy of the chosen checkpoint, or the best so far of an unfinished run
    validation: float | None = None


class Collection(NamedTuple):
    """The runs by path, and one line for each file that cannot be read."""

    results: list[Result]
    faults: list[str]


def collect(paths: Iterable[Path]) -> Collection:
    """Read runs: of folders, of folders above them or above copies of summaries, and of copies."""
    named: dict[Path, bool] = {}  # whether the user named it, rather than a folder above
    for path in paths:
        if path.is_dir():
            below = list(_search(path.resolve(), set()))
            if not below:
                raise ValueError(
                    f"{path} holds no run, nor does a folder below it; give a folder with "
                    "record.json or summary.json in it, or copies of summary.json."
                )
            named |= {found: named.get(found, found == path.resolve()) for found in below}
        elif path.exists():
            whole = path.name == "summary.json" and _is_run(path.resolve().parent)
            named[path.resolve().parent if whole else path.resolve()] = True
        else:
            raise FileNotFoundError(
                f"{path} does not exist; give folders of runs or copies of summary.json."
            )
    found = Collection([], [])
    for path in sorted(named):
        try:
            if path.is_dir():
                found.results.append(_of_folder(path, found.faults))
            else:
                document = _read(path)
                if named[path] or {"test", "config_digest"} <= document.entries.keys():
                    found.results.append(_of_summary(path, document))
        except (OSError, ValueError) as error:
            found.faults.append(f"{' '.join(str(error).split())}; left out.")
    return found


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("record.json", "summary.json"))


def _search(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Folders of runs, and JSON files outside of them, at or below a folder; links are followed."""
    if _is_run(folder):
        yield folder
        return
    seen.add(folder)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.resolve() not in seen:
            yield from _search(path.resolve(), seen)
        elif path.suffix == ".json" and not path.name.startswith(".") and not path.is_dir():
            yield path.resolve()


class _Document(NamedTuple):
    """A JSON file, or a part of it, whose entries are checked when they are read."""

    file: Path
    entries: Mapping[str, Any]

    def get(self, key: str, kind: type, default: Any = _NEEDED) -> Any:
        """An entry of a kind, such as "best.step"; without a default it must be there."""
        part, _, rest = key.partition(".")
        if rest:
            inner = self.get(part, dict, _NEEDED if default is _NEEDED else {})
            return _Document(self.file, inner).get(rest, kind, default)
        value = self.entries.get(key)
        if value is None and default is not _NEEDED:
            return default
        where = shown(self.file)
        if key not in self.entries:
            raise ValueError(f"{where} is no summary or record of a run: it has no {key!r}")
        kinds = (int, float) if kind is float else kind
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"{where}: {key!r} is {value!r:.60}, not of type {kind.__name__}")
        return value


def _read(path: Path) -> _Document:
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{shown(path)} is no whole JSON file ({error})") from error
    except OSError as error:
        raise ValueError(f"{shown(path)} cannot be read ({error.strerror})") from error
    if not isinstance(document, dict):
        raise ValueError(f"{shown(path)} is no summary of a run")
    return _Document(path, document)


def _of_folder(folder: Path, faults: list[str]) -> Result:
    """The run of a folder; a fault that does not keep the run from being read is noted."""
    summary, crash = folder / "summary.json", folder / "crash"
    if summary.is_file():
        if crash.is_dir():
            faults.append(f"{shown(folder)} diverged before it finished; it counts as finished.")
        return _of_summary(folder, _read(summary))
    record = _read(folder / "record.json")
    config = record.get("config", dict)
    labels = {key: config[key] for key in ("name", "task", "notes") if key in config}
    record = _Document(record.file, {**record.entries, **labels})
    if not crash.is_dir():
        steps, validation = _progress(folder / "metrics.jsonl")
        return _result(folder, record, "unfinished", steps=steps, validation=validation)
    step = None
    try:  # that it diverged is known without the report
        step = _read(crash / "report.json").get("step", int)
    except ValueError as error:
        faults.append(f"{' '.join(str(error).split())}; the step at which it diverged is unknown.")
    return _result(folder, record, "diverged", steps=step)


def _progress(metrics: Path) -> tuple[int, float | None]:
    """The last step in a log, and the best accuracy of its evaluations; a torn end is no fault."""
    lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
    last, accuracies = 0, []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
            step, accuracy = int(row["step"]), row.get("accuracy")
            evaluated = row["kind"] != "train" and isinstance(accuracy, (int, float))
        except (ValueError, KeyError, TypeError, AttributeError):
            if number < len(lines):
                raise ValueError(f"{shown(metrics)}: line {number} is damaged") from None
            break
        last = max(last, step)
        if evaluated and math.isfinite(accuracy):  # nan is written as a string
            accuracies.append(accuracy)
    return last, max(accuracies, default=None)


def _of_summary(path: Path, document: _Document) -> Result:
    test = document.get("test", dict)  # what has none is no summary, whatever else it lacks
    split, chose = (document.get("selected_by", str, None) or "val accuracy").split()
    chose = chose.removeprefix("ema_")  # a result has the averages under the plain names
    known = document.get(split, dict, {})
    found = {"loss": document.get("test.loss", float, None)}
    found["steps"] = document.get("steps", int, None)
    if _named(document)[0]:
        found["accuracy"] = accuracy = document.get("test.accuracy", float)
        if not 0 <= accuracy <= 1:
            where = shown(document.file)
            raise ValueError(f"{where}: a test accuracy of {accuracy} is not between 0 and 1")
        found["validation"] = known.get("accuracy")
    else:
        found["metric"], found["value"] = chose, document.get(f"test.{chose}", float)
        best = document.get("best.value", float, None)  # summaries of older versions have it alone
        task = document.get("task", str, "")
        first = find_task(task).headline if task in TASKS else ""
        wanted = (first or next(iter(test)), chose, "loss")
        shown_by = [name for name in dict.fromkeys(wanted) if name in test]
        found["scores"] = {
            name: (known.get(name, best if name == chose else None), test[name])
            for name in shown_by
        }
    return _result(path, document, "finished", **found)


def _result(path: Path, document: _Document, status: Any, **found: Any) -> Result:
    """The run at `path`, of which there is a summary, or a record with a name."""
    name, command = document.get("name", str), tuple(map(str, document.get("command", list, [])))
    task, variant, reduced = _named(document)
    options, git = _overrides(command), document.get("git", dict, {})
    commit = git.get("commit") or ""
    # Runs of older versions have no such digest: what the command says stands in for it.
    setup = hashlib.sha256(json.dumps([name, options]).encode()).hexdigest()[:12]
    lost = ""
    if document.get("best_lost", dict, None) is not None:
        gone, next_best = (document.get(f"{part}.step", int) for part in ("best_lost", "best"))
        lost = (
            f"the best checkpoint, of step {gone:,}, was lost; the next best, of step "
            f"{next_best:,}, is tested."
        )
    return Result(
        path=shown(path),
        name=name,
        task=task,
        other="" if task else document.get("task", str, ""),
        variant=variant,
        options=options,
        reduced=reduced,
        notes=document.get("notes", str, ""),
        status=status,
        seed=document.get("seed", int),
        setup=document.get("setup_digest", str, setup),
        source=document.get("data.source", str, ""),
        detail=document.get("data.detail", str, ""),
        sha256=(sha256 := document.get("data.sha256", str, "")),
        data=document.get("data.unseeded", str, "") or sha256,
        commit=commit + " + changes" if commit and git.get("dirty") else commit,
        device=device_of(document.get("devices", dict, {})),
        config_digest=document.get("config_digest", str, ""),
        command=command,
        majority_rate=document.get("majority_rate", float, None),
        parameters=document.get("parameters", int, None),
        lost=lost,
        **found,
    )


def _named(document: _Document) -> tuple[str, str, bool]:
    """Task, variant and whether it is reduced, from a name such as `lra/listops:s4d_ft:smoke`."""

    def column(text: str) -> str:
        key = re.sub(r"[\W_]", "", text.lower())
        return key if key in COLUMNS else ""

    head, *words = (word.strip() for word in re.split("[:,]", document.get("name", str)))
    values = {word: word.rpartition("=")[2] for word in words}
    reduced = any(value in REDUCED for value in values.values())
    words = [word for word in words if values[word] and values[word] not in REDUCED]
    task = column(head.rpartition("/")[2])
    if not task:  # a name of its own, such as "quickstart"
        task, words = column(document.get("task", str, "")), [head, *words]
    return task, ",".join(words), reduced


def _overrides(command: Iterable[str]) -> tuple[str, ...]:
    """The options of a command that change numbers, the last of a repeated one; without the seed.

    `--config.KEY=VALUE`, `--config.KEY VALUE` and `--noconfig.KEY` are all KEY=VALUE here.
    """
    found: dict[str, str] = {}
    for word, following in itertools.pairwise((*command, "--")):
        option = re.fullmatch(r"--(no)?config\.([^=]*)(?:=(.*))?", word, re.DOTALL)
        if option is not None:
            no, key, value = option.groups()
            alone = "true" if following.startswith("--") else following
            found[key] = "false" if no else alone if value is None else value
    return tuple(f"{k}={v}" for k, v in sorted(found.items()) if not k.startswith(_NO_SETUP))


def shown(path: Path) -> str:
    """A path that can be published: it does not say where the current folder is."""
    path = Path(os.path.abspath(path))
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return ".../" + "/".join(path.parts[1:][-2:])


def device_of(devices: Mapping[str, Any]) -> str:
    """What a run ran on, from the "devices" of its record."""
    if devices.get("platform") == "cpu":
        model = f" ({devices['cpu']})" if devices.get("cpu") else ""
        cores = devices.get("cpu_cores", "?")
        return f"{cores} CPU core{'' if cores == 1 else 's'}{model}"
    return f"{devices.get('count', '?')} x {devices['kind']}" if devices.get("kind") else ""
