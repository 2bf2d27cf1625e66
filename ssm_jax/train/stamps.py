"""What a checkpoint and DONE say of the files beside them: the length and hash of each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Stamps = Mapping[str, Mapping[str, Any]]  # by name within the run's folder

LOGS = ("metrics.jsonl", "timing.jsonl")  # they grow after a checkpoint's stamp


def new_hash(content: bytes = b"") -> hashlib.blake2b:
    """The hash of a stamp, to be carried on as a file grows."""
    return hashlib.blake2b(content, digest_size=8)


def stamp_of(content: bytes) -> dict[str, Any]:
    """The stamp of a file's content: {"bytes", "hash"}."""
    return {"bytes": len(content), "hash": new_hash(content).hexdigest()}


def are_stamps(value: Any) -> bool:
    """Whether JSON has read stamps of files that a run writes."""
    return isinstance(value, dict) and all(
        isinstance(stamp, dict)
        and is_count(stamp.get("bytes"))
        and isinstance(stamp.get("hash"), str)
        and (name in (*LOGS, "summary.json") or _is_arrays(name))
        for name, stamp in value.items()
    )


def is_count(value: Any) -> bool:
    """Whether JSON has read a whole number of at least 0."""
    return type(value) is int and value >= 0


def _is_arrays(name: str) -> bool:
    folder, _, file = name.partition("/")
    return folder == "diagnostics" and file.removesuffix(".npz").isdecimal()


def faults(folder: Path, stamps: Stamps, *, finished: bool = False) -> dict[str, str]:
    """The files that are not as their stamps say: how they differ, by name.

    Args:
      folder: of the run.
      stamps: of a checkpoint, or of DONE.
      finished: whether the run has come to its end, so that its logs have not grown since.
    """
    found = {
        name: fault(folder / name, stamp, whole=finished or name not in LOGS)
        for name, stamp in stamps.items()
    }
    return {name: what for name, what in found.items() if what is not None}


def fault(path: Path, stamp: Mapping[str, Any], *, whole: bool) -> str | None:
    """How a file differs from its stamp, as the end of a sentence; None if it does not.

    Args:
      path: the file.
      stamp: of its first bytes.
      whole: whether nothing may follow them.
    """
    if not os.path.lexists(path):
        return "is missing" if stamp["bytes"] or whole else None
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if len(content) < stamp["bytes"] or (whole and len(content) > stamp["bytes"]):
        return f"has {len(content)} bytes, and {stamp['bytes']} were written"
    if stamp_of(content[: stamp["bytes"]])["hash"] != stamp["hash"]:
        return f"is not what was written: its first {stamp['bytes']} bytes have another hash"
    return None


def told(folder: Path, faults: Mapping[str, str]) -> str:
    """One line on the first of some faults, and how many more there are."""
    name, what = next(iter(faults.items()))
    more = f" (and {len(faults) - 1} more files)" if len(faults) > 1 else ""
    return f"{folder / name} {what}{more}"
