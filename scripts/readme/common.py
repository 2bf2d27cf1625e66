"""Reading results, and the shape of a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ssm_jax.tables import to_markdown

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


def load(pattern: str) -> dict[str, Any]:
    """The JSON documents that match, by path relative to the project, in order."""
    paths = sorted(RESULTS.glob(pattern))
    return {str(path.relative_to(ROOT)): json.loads(path.read_text()) for path in paths}


def table(head: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, or words that say that there is nothing in it."""
    return to_markdown(head, rows) if rows else "Not run.\n"


def commit_of(result: dict[str, Any]) -> str:
    """The commit, marked if the code differed from it."""
    commit = (result["git"]["commit"] or "none")[:9]
    return commit + (" + changes" if result["git"]["dirty"] else "")


def device_of(result: dict[str, Any]) -> str:
    """What it ran on."""
    devices = result["devices"]
    if devices["platform"] == "cpu":
        model = f" ({devices['cpu']})" if devices.get("cpu") else ""
        return f"{devices['cpu_cores']} CPU cores{model}"
    return f"{devices['count']} x {devices['kind']}"


def milliseconds(times: dict[str, float]) -> str:
    return f"{times['median']:,.0f} ({times['min']:,.0f})"


def where(result: dict[str, Any], path: str) -> str:
    """Device, commit and file of a table's rows, as a line under it."""
    return f"\n{device_of(result)}, commit {commit_of(result)}, [file]({path}).\n"
