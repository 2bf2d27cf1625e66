"""The manifest of a checkpoint: a JSON document, sealed with a checksum, next to its arrays.

The document has what the run says (`Meta`), and shape, dtype and checksum of each leaf of the state
by its path, "params/blocks/0/ssm/A_im". Nothing here knows how either is stored.
"""

import copy
import dataclasses
import datetime
import math
import zlib
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np

from ssm_jax.stop import EXIT_STORAGE
from ssm_jax.training.workdir import are_stamps, document_checksum, is_count, sealed

Leaves = dict[str, dict[str, Any]]  # {"shape", "dtype", "crc32"} by path

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
    """The words of a run on a checkpoint; all JSON-able."""

    step: int  # optimizer steps done
    identity: dict[str, Any]  # the flat options that the run's numbers depend on
    data_fingerprint: str  # changes if and only if the data change
    evaluated: bool  # whether there was an evaluation at this step
    metrics: dict[str, float]  # its results
    best: dict[str, Any] | None  # see `Notes`
    extra: dict[str, Any]  # "window", "files" and of a population "members", see there


@dataclasses.dataclass(frozen=True)
class Notes:
    """What a run notes of a step when it saves it."""

    metrics: Mapping[str, float] | None = None  # of an evaluation at this step, if there was one
    best: dict[str, Any] | None = None  # {"step", "value"} of the best evaluation so far
    window: Mapping[str, float] = dataclasses.field(default_factory=dict)  # sums since a log's line
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # stamps of log and arrays
    # Of a population: the state of each member by name, and what it notes of itself
    members: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """A copy by the names of `Meta`, which stays when the run changes its own."""
        extra = {"window": dict(self.window), "files": dict(self.files)}
        return copy.deepcopy(
            {
                "evaluated": self.metrics is not None,
                "metrics": {name: float(value) for name, value in (self.metrics or {}).items()},
                "best": self.best,
                "extra": extra | ({"members": self.members} if self.members else {}),
            }
        )

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """The notes that have these `fields`."""
        metrics = fields["metrics"] if fields["evaluated"] else None
        return cls(metrics, fields["best"], **fields["extra"])


NO_NOTES = Notes()


@dataclasses.dataclass(frozen=True)
class Identity:
    """The options, as JSON reads them back, and the data of the run a checkpoint must belong to.

    `usual` has the defaults of newer options, which `options` leave out where they are at it.
    """

    options: Mapping[str, Any]
    data_fingerprint: str
    usual: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def differences(self, meta: Meta, whose: str = "asked for") -> list[str]:
        """A line for each difference of the run of a checkpoint from this one, `whose` it is."""
        pairs = {
            key: [options.get(key, other) for options in (meta.identity, self.options)]
            for key in sorted(meta.identity.keys() | self.options.keys())
            for other in [self.usual.get(key, "nothing of that name")]
        }
        pairs["data"] = [meta.data_fingerprint, self.data_fingerprint]
        return [f"{k}: checkpoint {a}, {whose} {b}" for k, (a, b) in pairs.items() if a != b]

    def refuse_other(self, meta: Meta, where: object) -> None:
        """Raise ConfigMismatch, with a line per difference, for a checkpoint of another run."""
        if lines := self.differences(meta):
            same_data = meta.data_fingerprint == self.data_fingerprint
            other = "give" if same_data else "bring back the same data and"
            listed = "\n  ".join(lines)
            raise ConfigMismatch(
                f"{where} was trained with other options than are asked for:\n  {listed}\n"
                f"Choose a new --workdir for what is asked for, or {other} the options of the "
                "checkpoint to go on with it."
            )


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path; ValueError if two have one, as {0: a, "0": b} would."""
    table: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if path in table:
            raise ValueError(f"two leaves of the state are both called {path!r}; rename one.")
        table[path] = leaf
    return table


def host_copies(state: Any) -> dict[str, np.ndarray]:
    """A copy of each leaf by path in this process's memory, bit for bit.

    A copy, not a view: a NumPy view of a CPU array keeps its buffer alive, so that the next train
    step cannot reuse the donated buffer and allocates a second state (seen with jax 0.10).
    """
    copies = {}
    for path, x in flatten(state).items():
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            raise ValueError(
                f"cannot save {path}: it is sharded over several hosts ({x.sharding}); "
                "replicate the state over hosts, and shard over the devices of one host only."
            )
        copies[path] = np.array(x, order="C")
    return copies


def describe(arrays: Mapping[str, np.ndarray]) -> Leaves:
    """Shape, dtype and checksum of each leaf.

    CRC-32 over path, dtype, shape and bytes (about 2 GB/s): it shows any burst of up to 32 bits.
    """
    leaves = {}
    for path, array in arrays.items():
        header = zlib.crc32(f"{path} {array.dtype.name} {array.shape}".encode())
        values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        crc32 = zlib.crc32(values.data, header)
        leaves[path] = {"shape": list(array.shape), "dtype": array.dtype.name, "crc32": crc32}
    return leaves


def faults(arrays: Mapping[str, np.ndarray], described: Leaves) -> list[str]:
    """The leaves that are not what was promised, one line each."""
    found = []
    for path, leaf in describe(arrays).items():
        read, saved = _kind(leaf), _kind(described[path])
        if read != saved:
            found.append(f"{path}: read {read}, saved {saved}")
        elif leaf["crc32"] != described[path]["crc32"]:
            found.append(f"{path}: checksum differs")
    return found


def differences(described: Leaves, target: Mapping[str, Any]) -> list[str]:
    """A line for each leaf of a checkpoint that is not the one a program expects."""
    stored = {path: _kind(leaf) for path, leaf in described.items()}
    expected = {path: f"{leaf.dtype.name}{tuple(leaf.shape)}" for path, leaf in target.items()}
    return [
        f"{path}: checkpoint has {stored.get(path, 'nothing')}, this program expects "
        f"{expected.get(path, 'nothing')}"
        for path in stored | expected
        if stored.get(path) != expected.get(path)
    ]


def _kind(leaf: Mapping[str, Any]) -> str:
    return f"{leaf['dtype']}{tuple(leaf['shape'])}"


def seal(meta: Meta, described: Leaves, versions: Mapping[str, str]) -> dict[str, Any]:
    """The JSON document of a checkpoint; `versions` are of the libraries that write."""
    return sealed(
        {
            "format": _FORMAT,
            "meta": dataclasses.asdict(meta),
            "leaves": described,
            "versions": versions,
            "saved_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
    )


def unseal(document: Any) -> tuple[Meta, Leaves]:
    """The meta and the leaves of a document; StateMismatch if another version sealed it."""
    if not isinstance(document, dict) or "crc32" not in document:
        raise CheckpointError("its meta document is incomplete")
    if document_checksum(document) != document["crc32"]:
        raise CheckpointError("the checksum of its meta document differs")
    if document.get("format") != _FORMAT:
        raise StateMismatch(
            f"the checkpoint has format {document.get('format')}, this program reads {_FORMAT}; "
            "use the version of ssm_jax that wrote it."
        )
    if fault := _fault(document.get("meta"), document.get("leaves")):
        raise CheckpointError(f"its meta document is sound but has {fault}")
    return Meta(**document["meta"]), document["leaves"]


def _fault(meta: Any, leaves: Any) -> str | None:
    """A part of a document that no `seal` of this format makes, though its checksum is right."""
    if not isinstance(meta, dict) or meta.keys() != {f.name for f in dataclasses.fields(Meta)}:
        return "other fields than a checkpoint's"
    if not isinstance(leaves, dict):
        return "no table of leaves"
    best, extra = meta["best"], meta["extra"] if isinstance(meta["extra"], dict) else {}
    window, files = extra.get("window"), extra.get("files", {})
    sound = {
        "step": is_count(meta["step"]),
        "identity": isinstance(meta["identity"], dict),
        "data_fingerprint": isinstance(meta["data_fingerprint"], str),
        "evaluated": isinstance(meta["evaluated"], bool),
        "metrics": _has_numbers(meta["metrics"]),
        "best": best is None
        or (
            _has_numbers(best)
            and is_count(best.get("step"))
            and math.isfinite(best.get("value", math.nan))
        ),
        "extra": isinstance(meta["extra"], dict),
        "window": _has_numbers(window) and (not window or window.get("steps", 0) >= 1),
        "files": are_stamps(files),
    }
    shown = {**meta, "window": window, "files": files}
    wrong = [f"{name}={shown[name]!r:.60}" for name, good in sound.items() if not good]
    wrong += [f"the leaf {p}: {leaf!r:.60}" for p, leaf in leaves.items() if not _is_leaf(leaf)]
    return wrong[0] if wrong else None


def _has_numbers(value: Any) -> bool:
    """Whether JSON has read an object of numbers; true and false are none."""
    return isinstance(value, dict) and all(type(v) in (int, float) for v in value.values())


def _is_leaf(leaf: Any) -> bool:
    try:
        return bool(
            leaf.keys() == {"shape", "dtype", "crc32"}
            and isinstance(leaf["dtype"], str)
            and np.dtype(leaf["dtype"]).name == leaf["dtype"]
            and isinstance(leaf["shape"], list)
            and all(map(is_count, (*leaf["shape"], leaf["crc32"])))
        )
    except (AttributeError, TypeError):
        return False
