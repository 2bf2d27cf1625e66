"""The results of a sweep: a document for JSON, read from the folders of its runs.

Of each metric it has the value on the validation split, which alone chooses, and on the test split.
"""

import itertools
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax import spread
from ssm_jax.sweep import FOR_GOOD, Run, by_cell, short_names, shown
from ssm_jax.tasks import find_task

SHARED = ("data", "examples", "steps", "parameters", "parent", "git", "versions", "devices")
PAIRS = 4  # so many settings are compared in pairs, more of them with the chosen one
Document = Mapping[str, Any]  # as `document_of` makes it


def document_of(
    runs: Sequence[Run],
    folder: Path,
    cfg: ConfigDict,
    command: Sequence[str],
    metric: str | None = None,
) -> dict[str, Any]:
    """The results of a sweep of `cfg`, whose folder has one for each run.

    `command` is what made them, `metric` one of the test split; None: the first of the task.

    Returns:
      "name", "task", "notes", "command"; "metric", its "better" (None: neither), "split" "test";
      "selected_by", what chose the checkpoint of each run ("val accuracy");
      "options": {option: its values, in order}; "seeds";
      "cells": of each its "options"; of the metric on the test split the "mean", the "std" (sample
        standard deviation; None for fewer than two) and the "values" by seed, over the "n" seeds
        that finished; the same three on the split of "selected_by" in "validation" (None where a
        run does not say); its "parameters", their number, and its "baselines", see `baselines_of`,
        as far as runs say; and the seeds that "diverged", are "missing", or were "pruned";
      "differences": see `differences`;
      "remarks": a line each on what the runs do not share, and on lost best checkpoints;
      what all runs share: SHARED, as the first has it;
      "runs": of each its name, cell, seed, status, all metrics, and config digest.

    Raises:
      ValueError: the metric is not among those of the runs; or as `Run.status`.
    """
    about = compared_by(cfg, metric)
    metric = about["metric"]
    found = {run.name: run.status(cfg, folder) for run in runs}
    finished = {name: summary for name, (end, summary) in found.items() if end == "finished"}
    for name, summary in finished.items():
        if metric not in summary["test"]:
            raise ValueError(
                f"{name} has no test metric {metric!r}; choose one of {', '.join(summary['test'])}."
            )
    chosen = {name: validation_of(summary, folder / name) for name, summary in finished.items()}
    shared, remarks = shared_of([*finished.values()], "the runs have", "the first run's is shown")
    for name, (status, summary) in found.items():
        if status == "failed":
            remarks.append(f"{name} failed: {' '.join(summary['error'].split())}")
    remarks += lost_best(finished)
    cells = []
    for same in by_cell(runs):
        ends = {run.seed: found[run.name][0] for run in same}
        pruned = [seed for seed, end in ends.items() if end == "pruned"]
        done = {str(run.seed): run.name for run in same if run.name in finished}
        if pruned and done:
            what = name_of({"options": same[0].cell}) or cfg.name
            remarks.append(
                f"{what}: a mean of the {len(done)} of {len(same)} seeds that validation did not "
                "end early, which flatters."
            )
        cells.append(
            cell_of(
                same[0].cell,
                {seed: finished[name]["test"][metric] for seed, name in done.items()},
                {seed: chosen[name].get(metric) for seed, name in done.items()},
                [finished[name] for name in done.values()],
                metric,
                diverged=[seed for seed, end in ends.items() if end == "diverged"],
                missing=[seed for seed, end in ends.items() if end not in FOR_GOOD],
                **({"pruned": pruned} if pruned else {}),
            )
        )
    document = {
        **{key: cfg[key] for key in ("name", "task", "notes")},
        "command": command,
        **about,
        "options": {key: list(dict.fromkeys(r.cell[key] for r in runs)) for key in runs[0].cell},
        "seeds": list(dict.fromkeys(run.seed for run in runs)),
        "cells": cells,
    }
    return document | {
        "differences": differences(document),
        "remarks": remarks,
        **shared,
        "runs": [
            {
                "name": run.name,
                "options": dict(run.cell),
                "seed": run.seed,
                "status": found[run.name][0],
                "test": finished[run.name]["test"] if run.name in finished else None,
                "validation": chosen.get(run.name),
                "config_digest": config_lib.digest(run.config(cfg)),
            }
            for run in runs
        ],
    }


def compared_by(cfg: ConfigDict, metric: str | None = None) -> dict[str, Any]:
    """The "metric", "better", "split" and "selected_by" of a document, see `document_of`."""
    task = find_task(cfg.task)
    metric = metric or task.headline
    return {
        "metric": metric,
        "better": task.metrics.get(metric),
        "split": "test",
        "selected_by": " ".join((cfg.train.select_split, config_lib.ranking_of(cfg)[0])),
    }


def check_joined(documents: Mapping[str, Document]) -> None:
    """Refuse, with a ValueError, configs that do not show one metric, or choose by another."""
    names = list(documents)
    first = documents[names[0]]
    for name, document in documents.items():
        for key in ("metric", "better", "selected_by"):
            if document[key] != first[key]:
                own = key == "selected_by"
                flag = "--config.train.select_metric and select_split" if own else "--metric"
                raise ValueError(
                    f"{names[0]} and {name} make no table: their {key} are {first[key]} and "
                    f"{document[key]}; give {flag}, or choose configs of one task."
                )


def joined(documents: Mapping[str, Document], command: Sequence[str]) -> dict[str, Any]:
    """One document of those of several configs, by what they are called; its option is "config".

    Raises ValueError if they do not show one metric, or do not choose on one split.
    """
    check_joined(documents)
    names, several = list(documents), list(documents.values())
    first = several[0]
    keys = [key for key in SHARED if key != "parameters"]  # in which variants may differ
    known = [{key: d[key] for key in keys if key in d} for d in several]
    shared, remarks = shared_of(known, "the configs have", "the first one's is shown")
    for name, document in documents.items():
        remarks += [f"{name}: {remark}" for remark in document["remarks"]]
    notes = dict.fromkeys(document["notes"] for document in several if document["notes"])
    cells = [
        {**cell, "options": {"config": name}}
        for name, document in documents.items()
        for cell in document["cells"]
    ]
    made = {
        "name": ", ".join(names),
        "task": first["task"],
        "notes": " ".join(notes),
        "command": command,
        **{key: first[key] for key in ("metric", "better", "split", "selected_by")},
        "options": {"config": names},
        "seeds": list(dict.fromkeys(seed for document in several for seed in document["seeds"])),
        "cells": cells,
    }
    runs = [
        {**run, "name": f"{name}: {run['name']}", "options": {"config": name}}
        for name, document in documents.items()
        for run in document["runs"]
    ]
    return {**made, "differences": differences(made), "remarks": remarks, **shared, "runs": runs}


def best_cell(document: Document) -> Mapping[str, Any] | None:
    """The cell with the best mean of the metric on validation; the test split chooses nothing.

    None where the metric has no best, or the document has no validation values that are finite.
    """
    found = [cell for cell in best_first(document) if _is_known(cell)]
    return found[0] if found and document["better"] is not None else None


def best_first(document: Document) -> list[Mapping[str, Any]]:
    """The cells by their mean on validation; those without a finite one at the end, as they were.

    A metric of a run may be NaN: KGE where its forecasts are constant.
    """
    sign = -1 if document["better"] == "max" else 1

    def place(cell: Mapping[str, Any]) -> tuple[bool, float]:
        known = _is_known(cell)
        return not known, sign * cell["validation"]["mean"] if known else 0.0

    return sorted(document["cells"], key=place)


def _is_known(cell: Mapping[str, Any]) -> bool:
    return cell.get("validation") is not None and math.isfinite(cell["validation"]["mean"])


def name_of(cell: Mapping[str, Any]) -> str:
    """A cell in words: alpha=3, beta=0.5; of several configs the name of one."""
    labels = short_names(cell["options"])
    words = [(labels[key], shown(value)) for key, value in cell["options"].items()]
    return ", ".join(text if label == "config" else f"{label}={text}" for label, text in words)


def differences(document: Document) -> list[dict[str, Any]]:
    """The differences of two cells, seed by seed, in the metric: one minus the other.

    Of up to PAIRS cells all pairs, of more each of the others minus the chosen one, in the order of
    the table; those that do not share two seeds are left out.

    Returns of each the names "one" and "other", and on "validation" and "test" {"mean",
    "half_width" of its 95 % interval (Student t), "n"}, see `spread.paired`.
    """
    cells, best = document["cells"], best_cell(document)
    pairs: Iterator[tuple[Any, Any]] = itertools.combinations(cells, 2)
    if len(cells) > PAIRS:
        pairs = ((cell, best) for cell in cells if best is not None and cell is not best)
    rows = []
    for one, other in pairs:
        test, validation = spread.paired(one["values"], other["values"]), None
        if one["validation"] is not None and other["validation"] is not None:
            validation = spread.paired(one["validation"]["values"], other["validation"]["values"])
        if test is not None:
            names = {"one": name_of(one), "other": name_of(other)}
            rows.append({**names, "validation": validation, "test": test})
    return rows


def baselines_of(metric: str, summary: Mapping[str, Any]) -> dict[str, float]:
    """What predictors that learn nothing have of a metric on the test split, by their names.

    "majority class", "mean", "last value" and "seasonal naive", as far as the summary of a run has
    them.
    """
    if metric == "accuracy":
        known = {"majority class": summary.get("majority_rate")}
    else:
        of, root = ("mse", 0.5) if metric == "rmse" else (metric, 1.0)
        naive = ("mean", "last_value", "seasonal_naive")
        found = {name: summary.get(f"{name}_{of}") for name in naive}
        known = {k.replace("_", " "): v**root for k, v in found.items() if v is not None}
    return {name: value for name, value in known.items() if value is not None}


def cell_of(
    options: Mapping[str, Any],
    test: Mapping[str, float],
    validation: Mapping[str, float | None],
    summaries: Sequence[Mapping[str, Any]],
    metric: str,
    **ends: list[int],
) -> dict[str, Any]:
    """A cell of a document, from the metric of its finished runs on both splits, by seed.

    `summaries` are those of the finished runs, `ends` the seeds of the others, by what became of
    them.
    """
    known = {seed: value for seed, value in validation.items() if value is not None}
    whole = bool(known) and len(known) == len(test)
    values = {**_over(test), "n": len(test), "validation": _over(known) if whole else None}
    about: dict[str, Any] = {}
    baselines: dict[str, list[float]] = {}
    for summary in summaries:
        if "parameters" in summary:  # of one setting, so they do not differ
            about["parameters"] = summary["parameters"]
        for name, value in baselines_of(metric, summary).items():
            baselines.setdefault(name, []).append(value)
    if baselines:  # which differ where each seed has data of its own: data.seed=-1
        about["baselines"] = {
            name: each[0] if len(set(each)) == 1 else statistics.fmean(each)
            for name, each in baselines.items()
        }
    return {"options": dict(options), **values, **about, **ends}


def _over(values: Mapping[str, float]) -> dict[str, Any]:
    """The mean and standard deviation of values by seed, as far as there are enough."""
    numbers = list(values.values())
    return {
        "mean": statistics.fmean(numbers) if numbers else None,
        "std": spread.deviation(numbers) if len(numbers) > 1 else None,
        "values": dict(values),
    }


def validation_of(summary: Mapping[str, Any], run: Path) -> dict[str, float]:
    """The metrics of the chosen checkpoint on the split that chose it."""
    split, metric = summary["selected_by"].split()
    if split in summary:
        return dict(summary[split])
    # Summaries of older versions have what chose the checkpoint, the log has the others
    from ssm_jax.training.logs import read_metrics

    step, kind = summary["best"]["step"], "train_eval" if split == "train" else split
    rows = [row for row in read_metrics(run / "metrics.jsonl", kind) if row["step"] == step]
    found = {name: value for name, value in (rows or [{}])[-1].items() if isinstance(value, float)}
    return found | {metric: summary["best"]["value"]}


def lost_best(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line on each run, by name, whose best checkpoint was lost."""
    return [
        f"{name}: the best checkpoint, of step {summary['best_lost']['step']:,}, was lost; the "
        f"next best, of step {summary['best']['step']:,}, is tested."
        for name, summary in summaries.items()
        if "best_lost" in summary
    ]


def shared_of(
    facts: Sequence[Mapping[str, Any]], who: str, end: str, keys: Sequence[str] = SHARED
) -> tuple[dict[str, Any], list[str]]:
    """What all have, as the first has it; and a line on each in which they differ."""
    shared, remarks = {}, []
    for key in keys:
        values = [known[key] for known in facts if key in known]
        different = len({json.dumps(value, sort_keys=True) for value in values})
        if different:
            shared[key] = values[0]
        if different > 1:
            remarks.append(f"{who} {different} different {key}; {end}.")
    return shared, remarks
