"""What a prepared data set holds, as numbers and as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.store import Store


def facts_of(folder: Path, *, known: bool = False) -> dict[str, Any]:
    """Provenance, sizes, lengths and class balance of a store, as JSON holds them.

    Args:
      folder: of the store.
      known: it was verified just now.

    Returns:
      "task", "source", "detail", "sha256", "bytes"; "token_ids", 0 for images; and for each of
      "splits": "examples", "steps" (mean, median, most, with the end of sequence), and "classes",
      how many examples each has.
    """
    store = Store(folder, known=known)
    manifest, examples, splits = store.manifest, store.examples, store.splits
    found = {}
    for name, numbers in splits.items():
        steps = examples.steps(numbers)
        classes = np.bincount(examples.targets[numbers], minlength=manifest["n_classes"])
        found[name] = {
            "examples": int(numbers.size),
            "steps": {
                "mean": round(float(steps.mean()), 1),
                "median": float(np.median(steps)),
                "most": int(steps.max()),
            },
            "classes": classes.tolist(),
        }
    return {
        **{key: manifest[key] for key in ("task", "source", "detail", "sha256")},
        "bytes": sum(entry["bytes"] for entry in manifest["files"].values()),
        "token_ids": len(manifest["vocabulary"]),
        "splits": found,
    }


def table_of(facts: dict[str, Any]) -> str:
    """The same in lines: where the data come from, then a row for each split."""
    about = f"{facts['bytes']:,} bytes; sha256 {facts['sha256']}"
    if facts["token_ids"]:
        about += f"; {facts['token_ids']} token ids"
    lines = [
        facts["detail"],
        about,
        "",
        "split     rows  steps: mean    median    most  share of each class in %",
    ]
    for name, split in facts["splits"].items():
        steps, n = split["steps"], split["examples"]
        lines.append(
            f"{name:5} {n:8,} {steps['mean']:12.1f} {steps['median']:9.0f} {steps['most']:7,}  "
            + " ".join(f"{100 * count / n:.1f}" for count in split["classes"])
        )
    return "\n".join(lines)
