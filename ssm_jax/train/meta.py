"""What a checkpoint says of itself: the document beside its arrays, sealed with a checksum."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssm_jax.stop import EXIT_STORAGE
from ssm_jax.train.stamps import is_count

_FORMAT = 1  # of the document; raise it when a field changes its meaning


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or is not what was written."""


class SaveError(CheckpointError):
    """A checkpoint could not be written: the storage failed or is full."""

    exit_code = EXIT_STORAGE


class ConfigMismatch(ValueError):  # noqa: N818 - it reads as what happened
    """The checkpoint belongs to a run with other options or other data."""


class StateMismatch(ValueError):  # noqa: N818
    """The checkpoint is sound, but the program's state has other leaves, shapes or dtypes."""


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a checkpoint says besides its arrays; all JSON-able.

    Attributes:
      step: optimizer steps done.
      identity: the flat options that the run's numbers depend on.
      data_fingerprint: changes if and only if the data change.
      evaluated: whether the state was evaluated at this step.
      metrics: results of that evaluation, empty if there was none.
      best: the loop's own note of the best evaluation so far, {"step": ..., "value": ...}, or None.
      extra: whatever else the loop needs to go on.
    """

    step: int
    identity: dict[str, Any]
    data_fingerprint: str
    evaluated: bool
    metrics: dict[str, float]
    best: dict[str, Any] | None
    extra: dict[str, Any]


def seal(
    meta: Meta, described: Mapping[str, Mapping[str, Any]], versions: Mapping[str, str]
) -> dict[str, Any]:
    """The JSON document of a checkpoint.

    Args:
      meta: what the run says.
      described: shape, dtype and checksum of every leaf by path.
      versions: of the libraries that write.
    """
    content = {
        "format": _FORMAT,
        "meta": dataclasses.asdict(meta),
        "leaves": dict(described),
        "versions": dict(versions),
        "saved_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    content = json.loads(json.dumps(content))  # as it will read back: tuples are lists
    return {**content, "crc32": checksum(content)}


def unseal(document: Any) -> tuple[Meta, dict[str, dict[str, Any]]]:
    """The meta and the described leaves of a document.

    Raises:
      CheckpointError: the document is not as it was sealed.
      StateMismatch: it is, but by a version of this program that wrote another format.
    """
    if not isinstance(document, dict) or "crc32" not in document:
        raise CheckpointError("its meta document is incomplete")
    content = {key: value for key, value in document.items() if key != "crc32"}
    if checksum(content) != document["crc32"]:
        raise CheckpointError("the checksum of its meta document differs")
    if content.get("format") != _FORMAT:
        raise StateMismatch(
            f"the checkpoint has format {content.get('format')}, this program reads {_FORMAT}; "
            "use the version of ssm_jax that wrote it."
        )
    if fault := _fault(content):
        raise CheckpointError(f"its meta document is sound but has {fault}")
    return Meta(**content["meta"]), content["leaves"]


_KINDS: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "identity": dict,
    "data_fingerprint": str,
    "evaluated": bool,
    "metrics": dict,
    "best": (dict, type(None)),
    "extra": dict,
}


def _fault(content: Mapping[str, Any]) -> str | None:
    """What in a document no `seal` of this format makes, though its checksum is right; or None."""
    meta, leaves = content.get("meta"), content.get("leaves")
    if not isinstance(meta, dict) or meta.keys() != _KINDS.keys():
        return "other fields than a checkpoint's"
    for name, kinds in _KINDS.items():
        if not isinstance(meta[name], kinds) or (name == "step" and not is_count(meta[name])):
            return f"{name}={meta[name]!r:.60}"
    best = meta["best"]
    if best is not None and not (
        is_count(best.get("step")) and is_number(best.get("value")) and math.isfinite(best["value"])
    ):
        return f"best={best!r:.60}"
    if not all(map(is_number, meta["metrics"].values())):
        return f"metrics={meta['metrics']!r:.60}"
    if not isinstance(leaves, dict):
        return "no table of leaves"
    for path, leaf in leaves.items():
        if not _is_leaf(leaf):
            return f"the leaf {path}: {leaf!r:.60}"
    return None


def _is_leaf(leaf: Any) -> bool:
    if not isinstance(leaf, dict) or leaf.keys() != {"shape", "dtype", "crc32"}:
        return False
    try:
        known = isinstance(leaf["dtype"], str) and np.dtype(leaf["dtype"]).name == leaf["dtype"]
    except TypeError:
        known = False
    if not known:
        return False
    shape = leaf["shape"]
    return isinstance(shape, list) and all(map(is_count, shape)) and is_count(leaf["crc32"])


def is_number(value: Any) -> bool:
    """Whether JSON has read a number; true and false are none."""
    return type(value) in (int, float)


def checksum(content: Mapping[str, Any]) -> int:
    """CRC-32 of a JSON document, whatever the order of its entries."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def other_run(meta: Meta, identity: Mapping[str, Any], data_fingerprint: str) -> list[str]:
    """How the run of a checkpoint differs from one with these options and data, one line each."""
    lines = []
    for key in sorted(meta.identity.keys() | identity.keys()):
        theirs, ours = (known.get(key, "not an option") for known in (meta.identity, identity))
        if theirs != ours:
            lines.append(f"{key}: checkpoint {theirs}, this run {ours}")
    if meta.data_fingerprint != data_fingerprint:
        lines.append(f"data: checkpoint {meta.data_fingerprint}, this run {data_fingerprint}")
    return lines


def refuse_other_run(
    meta: Meta, identity: Mapping[str, Any], data_fingerprint: str, where: object
) -> None:
    """Raise unless a checkpoint belongs to a run with these options and data.

    Raises:
      ConfigMismatch: one line per differing option, and what to do.
    """
    if lines := other_run(meta, identity, data_fingerprint):
        same_data = meta.data_fingerprint == data_fingerprint
        other = "drop the override" if same_data else "bring the same options and data back"
        listed = "\n  ".join(lines)
        raise ConfigMismatch(
            f"{where} was trained with other options:\n  {listed}\n"
            f"Choose a new --workdir, or {other}."
        )
