"""How far a whole sweep is: what its runs' folders say, in a line, a table, and a page."""

import base64
import datetime
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax import tables
from ssm_jax.files import parse_json, replace_atomically
from ssm_jax.lock import holder_of
from ssm_jax.pages import Content, Element, element, grid, page_of
from ssm_jax.sweep import ENDS, FOR_GOOD, Run, runs_of, short_names, shown
from ssm_jax.sweep.pruning import Curve
from ssm_jax.training.logs import read_metrics

ORDER = ("running", "unfinished", "failed", "finished", "diverged", "pruned", "missing")
SAID = {"unfinished": "stopped", "missing": "waiting"}  # where the word of a status says too little
OVER = (*FOR_GOOD, "failed")


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    status: as `Run.status` has it, or "running"; where: who runs it, {"host", "pid", "since"}.
    step, best: of its last evaluation, and (step, value) of the best so far on validation.
    total: steps that it trains, 0 if not known; seconds: since it began, or that it took; None
    before. error: why it ended early or badly.
    """

    run: Run
    status: str
    where: Mapping[str, Any]
    step: int
    total: int
    best: tuple[int, float] | None
    seconds: float | None
    error: str

    @property
    def done(self) -> float:
        """The part of it that is done."""
        if self.status in OVER:
            return 1.0
        return min(self.step / self.total, 1.0) if self.total else 0.0


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: its runs, and how many more a search is to propose."""

    name: str
    metric: str  # "val accuracy", by which the best is chosen
    better: str
    runs: Sequence[Standing]
    to_come: int = 0

    def count(self, status: str) -> int:
        return sum(run.status == status for run in self.runs) + (
            self.to_come if status == "missing" else 0
        )

    @property
    def best(self) -> Standing | None:
        """The run with the best value so far, finished or not; of bad ends none."""
        found = [run for run in self.runs if run.best and run.status not in ("diverged", "failed")]
        choose = max if self.better == "max" else min
        return choose(found, key=lambda run: run.best[1]) if found else None  # type: ignore[index]

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end: the mean time of a whole run, for what is left, over those that run.

        None before anything is known; a run that ended early counts as long as it took.
        """
        took = [run.seconds for run in self.runs if run.status in OVER and run.seconds]
        took += [
            run.seconds / run.done
            for run in self.runs
            if run.status == "running" and run.seconds and run.done > 0
        ]
        left = sum(1 - run.done for run in self.runs) + self.to_come
        if not took or not left:
            return None if left else 0.0
        return statistics.fmean(took) * left / max(1, self.count("running"))


def runs_in(
    folder: Path, keys: Sequence[str], given: Iterable[str] = (), known: Collection[str] = ()
) -> Iterator[Run]:
    """The runs of a folder whose cells have these options, but those whose names are `known`.

    `given` as in `Run`. A folder is such a run if it is called what its record says, or the mark of
    one that ended before it had a record.
    """
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.name in known:
            continue
        for name in ("record.json", *ENDS):
            try:
                told = parse_json((path / name).read_text(encoding="utf-8"))
                options = {"seed": told["seed"], **told.get("config", told.get("options", {}))}
                cell = {key: options[key] for key in keys}
                (run,) = runs_of([cell], [options["seed"]], given)
            except (ValueError, KeyError, TypeError, AttributeError, OSError):
                continue  # it is not there, or damaged, or of another sweep
            if run.name == path.name:
                yield run
                break


def validation_curve(cfg: ConfigDict, run: Path) -> Curve:
    """The evaluations of a run so far, by the value that chooses its best checkpoint.

    None of a damaged log: the run itself is refused for it, and the others of its sweep go on.
    """
    split, (metric, _) = cfg.train.select_split, config_lib.ranking_of(cfg)
    try:
        rows = read_metrics(run / "metrics.jsonl", "train_eval" if split == "train" else split)
    except ValueError:
        return []
    return [(row["step"], float(row[metric])) for row in rows if metric in row]


def progress_of(
    runs: Iterable[Run],
    folder: Path,
    cfg: ConfigDict,
    to_come: int = 0,
    known: dict[str, Standing] | None = None,
) -> Progress:
    """How far the runs of a sweep of `cfg` are; `to_come` proposals of a search are not yet made.

    Nothing is taken and nothing written: it can be asked from anywhere that sees the folder. Who
    asks often keeps in `known` what has ended for good, which is not read again.
    """
    (metric, better), known = config_lib.ranking_of(cfg), {} if known is None else known
    found = [known.get(run.name) or _standing(run, folder, cfg, better) for run in runs]
    known.update((s.run.name, s) for s in found if s.status in FOR_GOOD)
    return Progress(cfg.name, f"{cfg.train.select_split} {metric}", better, found, to_come)


def _standing(run: Run, folder: Path, cfg: ConfigDict, better: str) -> Standing:
    path = folder / run.name
    if not path.exists():
        return Standing(run, "missing", {}, 0, 0, None, None, "")
    own = run.config(cfg)
    status: str
    status, document = run.status(cfg, folder)
    holder = holder_of(path / "LOCK") if status in ("unfinished", "failed") else None
    if holder is not None:
        status = "running"
    elif status == "missing" and (path / "log.txt").exists():
        status = "unfinished"  # it prepares its data, or was ended while it did
    if status == "missing":
        return Standing(run, status, {}, 0, own.train.steps, None, None, "")
    curve = validation_curve(own, path) if status != "finished" else ()
    value = (lambda point: point[1]) if better == "max" else (lambda point: -point[1])
    finite = [point for point in curve if point[1] == point[1]]
    best = max(finite, key=value) if finite else None
    step, total = curve[-1][0] if curve else 0, own.train.steps
    if status == "finished":
        best = document["best"]["step"], float(document["best"]["value"])
        step = total = document["steps"]
    seconds = _seconds(path, status)
    return Standing(
        run, status, holder or {}, step, total, best, seconds, document.get("error", "")
    )


def _seconds(path: Path, status: str) -> float | None:
    """How long a run took or has been running, with the times in which it was stopped."""
    try:
        record = parse_json((path / "record.json").read_text(encoding="utf-8"))
        start = datetime.datetime.fromisoformat(record["started"]).timestamp()
        names = ("DONE", "diverged.json", "pruned.json", "failed.json", "metrics.jsonl")
        ends = [file.stat().st_mtime for name in names if (file := path / name).exists()]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    now = datetime.datetime.now().timestamp()
    return max(0.0, (now if status == "running" or not ends else max(ends)) - start)


def line_of(progress: Progress) -> str:
    """12 runs: 3 finished, 2 running, 7 waiting; ETA 0:12:00; best alpha=3, val accuracy 0.81."""
    counts = [
        f"{n} {SAID.get(status, status)}" for status in ORDER if (n := progress.count(status))
    ]
    text = f"{len(progress.runs) + progress.to_come} runs: {', '.join(counts)}"
    if progress.eta_s:
        text += f"; ETA {_time(progress.eta_s)}"
    if (best := progress.best) is not None and best.best is not None:
        text += f"; best {best.run.name}, {progress.metric} {best.best[1]:.4g}"
    return text


def table_of(progress: Progress, *, ends: bool = True) -> Any:
    """What a terminal shows below that line: a row for each run, what goes on above; `ends`: also
    where each is, or why it ended."""
    ordered = _ordered(progress)
    head = _head(progress)[: None if ends else -1]
    rows = [[str(value) for value, _ in _row(progress, run)][: len(head)] for run in ordered]
    words = range(len(head) - ends)
    return tables.to_screen(head, rows, title=progress.name, words=words)


def ends_of(progress: Progress) -> list[str]:
    """The last column of that table, as a line for each run that has something there."""
    found = ((run.run.name, _row(progress, run)[-1][0]) for run in _ordered(progress))
    return [f"{name}: {end}" for name, end in found if end]


def _ordered(progress: Progress) -> list[Standing]:
    return sorted(progress.runs, key=lambda run: ORDER.index(run.status))


def write_page(path: Path, progress: Progress, figure: Path | None) -> None:
    """Write how far a sweep is as one page: the line, the table, which sorts by a click, and the
    figure of the sweep, if it has one."""
    head, best = _head(progress), progress.best
    rows = []
    for run in progress.runs:
        cells: list[Content] = []
        for value, key in _row(progress, run):
            bad = run.status in ("failed", "diverged") and value == run.status
            text: Content = element("strong", value) if run is best and value else value
            attributes = {"class_": "bad"} if bad else {}
            cells.append(element("span", text, data_sort=str(key), **attributes))
        rows.append(cells)
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    body: list[Element] = [
        element("p", element("strong", line_of(progress)), f". As of {now}."),
        element("p", "Bold: the best so far by validation. A click on a head sorts by it."),
        grid("sortable", head, {"": rows}),
    ]
    if figure is not None and (kind := {".png": "png", ".svg": "svg+xml"}.get(figure.suffix)):
        data = base64.b64encode(figure.read_bytes()).decode()
        image = element("img", src=f"data:image/{kind};base64,{data}", alt="validation and test")
        body += [element("h2", "Validation and test of what is finished"), image]
    replace_atomically(path, page_of(f"{progress.name}: progress", body))


def _head(progress: Progress) -> list[str]:
    options = short_names(progress.runs[0].run.cell).values() if progress.runs else ()
    return [*options, "seed", "status", "step", f"best {progress.metric}", "time", "where, or why"]


def _row(progress: Progress, standing: Standing) -> list[tuple[str, Any]]:
    """What is shown of a run, and by what it is sorted, by the heads."""
    run, where, best = standing.run, standing.where, standing.best
    since = str(where.get("since", ""))[:16].replace("T", " ")
    place = f"{where.get('host', '?')}, process {where.get('pid', '?')}, since {since}"
    step = f"{standing.step:,}" + (f" of {standing.total:,}" if standing.total else "")
    status = SAID.get(standing.status, standing.status)
    end = place if where else " ".join(standing.error.split())
    return [
        *((shown(value), value) for value in run.cell.values()),
        (str(run.seed), run.seed),
        (status, ORDER.index(standing.status)),
        (step, standing.done) if standing.status != "missing" else ("", ""),
        (f"{best[1]:.4g} (step {best[0]:,})" if best else "", best[1] if best else ""),
        (_time(standing.seconds), standing.seconds) if standing.seconds is not None else ("", ""),
        (end, end),
    ]


def _time(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
