"""Reading results, and the tables of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssm_jax.report.results import device_of
from ssm_jax.tables import Columns, cells, to_markdown

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"

Result = dict[str, Any]

FROM: Columns = {"commit": "{commit}", "": "{file}"}  # the last columns of a row for each file


def load(pattern: str) -> list[Result]:
    """The JSON documents that match, in the order of their paths.

    Each with its "file" as a link, its "device", and its "commit", marked if the code differed.
    """
    found = []
    for path in sorted(RESULTS.glob(pattern)):
        result = json.loads(path.read_text())
        git = result.get("git", {})
        commit = (git.get("commit") or "none")[:9] + (" + changes" if git.get("dirty") else "")
        about = {"commit": commit, "device": device_of(result.get("devices", {}))}
        found.append({**result, **about, "file": f"[file]({path.relative_to(ROOT)})"})
    return found


def table(columns: Columns, items: Iterable[Result]) -> str:
    """A Markdown table with a row for each item, or words that say that there is none."""
    rows = cells(columns, items)
    return to_markdown(columns, rows) if rows else "Not run.\n"


def where(result: Result) -> str:
    """Device, commit and file of a table's rows, as a line under it."""
    return "\n{device}, commit {commit}, {file}.\n".format_map(result)


def per_file(pattern: str, columns: Columns, rows: str = "rows") -> str:
    """A table for each file that matches: its rows in the columns, and where they were measured."""
    tables = [table(columns, result[rows]) + where(result) for result in load(pattern)]
    return "\n".join(tables) or "Not run.\n"
