"""metrics.jsonl: what a run writes down of its numbers by step."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ssm_jax.files import naming, parse_json, replace_atomically
from ssm_jax.training.workdir import new_hash

NON_FINITE = ("nan", "inf", "-inf")  # strings in JSON, which has no word for them but null


class MetricsLog:
    """Numbers by step, a file of JSON lines: {"step": 50, "kind": "train", "loss": 1.2}.

    A resumed run has the very file of a run that was never stopped, if two rules are kept. What
    depends on the clock belongs in a file of its own (timing.jsonl). And all lines up to step s are
    written before the checkpoint of step s: a restart at `start_step` s cuts the lines past it, or
    all after the `stamp` that the checkpoint has of the file, and a last line that was torn; 0
    leaves an empty file. Work of step s that is done once more after the restart (an evaluation)
    does not double its line.

    Floats have the digits that give the same float64 back; nan, inf and -inf are strings. One
    process writes: process 0. The folder must exist.
    """

    def __init__(self, path: Path, start_step: int, stamp: Mapping[str, Any] | None = None):
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        if stamp is not None:
            text = content[: stamp["bytes"]]
            rows = _rows(path, text)
        else:
            rows = _rows(path, content) if start_step > 0 else []
            rows = [(line, row) for line, row in rows if row["step"] <= start_step]
            text = b"".join(line for line, _ in rows)
        if text != content:
            replace_atomically(path, text)
        self._last = rows[-1][1]["step"] if rows else 0
        self._there = {line for line, row in rows if row["step"] == start_step}
        self._bytes, self._hash = len(text), new_hash(text)
        # Unbuffered: what could not be written must not come once more on closing.
        self._file = path.open("ab", buffering=0)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Append one line and hand it to the operating system: it outlives the process.

        `kind` says what was measured: "train", or the split of an evaluation. `step` is never less
        than in the last line; no value may be called "step" or "kind".
        """
        if step < self._last:
            raise ValueError(
                f"{self.path.name}: step {step} of {kind!r} comes after step {self._last}; steps "
                "never go back. Restart the run to cut the file to its checkpoint."
            )
        if taken := {"step", "kind"} & set(values):
            name = taken.pop()
            raise ValueError(f"{self.path.name}: {name!r} is no name for a value; rename it.")
        self._last = step
        row = {"step": int(step), "kind": kind} | {k: _plain(v) for k, v in values.items()}
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        if line in self._there:
            return
        try:
            # One write of a whole line: a kill tears the last line at most.
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._bytes)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._bytes += len(line)
        self._hash.update(line)

    def stamp(self) -> dict[str, Any]:
        """That of all lines written: what a checkpoint says of the log before it."""
        return {"bytes": self._bytes, "hash": self._hash.hexdigest()}

    def flush(self) -> None:
        """Wait until all lines are on the disk; OSError if it fails or the file was deleted."""
        with naming(self.path):
            os.fsync(self._file.fileno())
            if os.fstat(self._file.fileno()).st_nlink == 0:
                raise OSError(errno.ENOENT, "it was deleted while the run went on; bring it back")

    def close(self) -> None:
        """Wait until all lines are on the disk, and close; a second call does nothing."""
        if not self._file.closed:
            with contextlib.closing(self._file), naming(self.path):
                os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # An error on its way out is the one to show.
        with contextlib.suppress(*() if error is None else (OSError,)):
            self.close()


class NoLog(MetricsLog):
    """The log of a process that writes none."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None: ...

    def stamp(self) -> dict[str, Any]:
        return {}

    def flush(self) -> None: ...

    def close(self) -> None: ...


def sound_lines(path: Path, step: int) -> bytes:
    """The lines of a damaged log that can be its own: whole, in order, none twice, up to `step`."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return b""
    kept: dict[bytes, None] = {}
    last = 0
    for line in lines:
        row = _row(line)
        if row is not None and last <= row["step"] <= step:
            kept[line] = None
            last = row["step"]
    return b"".join(kept)


def read_metrics(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a metrics file, or of a kind of them: {"step": int, "kind": str, name: float}.

    A torn last line is passed over, another that is no JSON is a ValueError, and a missing file has
    no lines.
    """
    return [
        {k: float(v) if v in NON_FINITE and k != "kind" else v for k, v in row.items()}
        for _, row in _rows(path, path.read_bytes() if path.exists() else b"")
        if kind in (None, row["kind"])
    ]


def _rows(path: Path, content: bytes) -> list[tuple[bytes, dict[str, Any]]]:
    """Each whole line of a log's content, as it stands and as read."""
    lines = content.splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, start=1):
        if (row := _row(line)) is not None:
            rows.append((line, row))
        elif number < len(lines):
            raise ValueError(
                f"{path}: line {number} of {len(lines)} is no line of metrics; move the file away."
            )
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    """A whole line of metrics as read, or None."""
    try:
        row = parse_json(line)
        whole = line.endswith(b"\n") and type(row["step"]) is int and type(row["kind"]) is str
    except (ValueError, KeyError, TypeError):
        return None
    return row if whole else None


def _plain(value: float) -> int | float | str:
    """A number as JSON has it; NumPy and JAX scalars become Python's without loss."""
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else str(number)
