"""Folders of runs as training leaves them, made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OFFICIAL = {"source": "official", "detail": "official LRA release", "sha256": "ab12cd34" * 8}
GENERATED = {"source": "generated", "detail": "generated, seed 0", "sha256": "00ff" * 16}


def summary(
    name: str, seed: int, accuracy: float, *, setup: str = "5e70", **entries: Any
) -> dict[str, Any]:
    """A summary.json; `entries` replace or add some of it."""
    document = {
        "name": name,
        "task": name.partition(":")[0].rpartition("/")[2],
        "notes": "",
        "test": {"accuracy": accuracy, "loss": 1.25},
        "steps": 1200,
        "parameters": 403_210,
        "majority_rate": 0.1665,
        "seed": seed,
        "data": OFFICIAL,
        "git": {"commit": "f8f8be073649a06e", "dirty": False},
        "devices": {"platform": "gpu", "kind": "H100", "count": 1},
        "command": ["scripts/train.py", f"--config=configs/{name}", f"--config.seed={seed}"],
        "config_digest": f"{seed:012x}",
        "setup_digest": f"{name.partition(':')[0]}-{setup}",
    }
    return document | entries


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def finished(folder: Path, name: str, seed: int, accuracy: float, **entries: Any) -> Path:
    """A finished run: its record and its summary."""
    document = summary(name, seed, accuracy, **entries)
    _record(folder, document)
    write(folder / "summary.json", document)
    return folder


def diverged(folder: Path, name: str, seed: int, step: int, **entries: Any) -> Path:
    """A run that met a loss that is not finite."""
    _record(folder, summary(name, seed, 0.0, **entries))
    write(folder / "crash" / "report.json", {"step": step, "loss": "nan"})
    return folder


def unfinished(folder: Path, name: str, seed: int, rows: list[dict[str, Any]]) -> Path:
    """A run that was stopped, with a torn last line in its log."""
    _record(folder, summary(name, seed, 0.0))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines + '{"step": 99999, "ki')
    return folder


def _record(folder: Path, document: dict[str, Any]) -> None:
    """What of a summary is in a record, where it is in a record."""
    told = {key: document[key] for key in ("name", "task", "notes")}
    shared = ("seed", "data", "git", "devices", "command", "config_digest", "setup_digest")
    record = {"config": told, **{key: document[key] for key in shared if key in document}}
    write(folder / "record.json", record)
