"""A prepared data set on disk: memory-mapped arrays and a manifest, whole or not there at all.

    FOLDER/manifest.json  FOLDER/{tokens,offsets,targets,...}.npy  FOLDER/split.{train,val,test}.npy

Every byte is compared with the manifest's sha256 when a store is opened. For one of 64 MiB or more
a note in the user's cache may say that these very files were compared, by their device, inode, size
and both times. What is then not noticed: a change that leaves all five as they are, as a disk that
rots, a write past the file system, or a clock that was set back make it. `ssm-jax prepare verify`
reads no note.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ssm_jax import files as disk
from ssm_jax.data.examples import KINDS, Content
from ssm_jax.data.manifest import (
    MANIFEST,
    SEAL,
    DamagedError,
    content_of,
    manifest_of,
    read_manifest,
    seal,
)
from ssm_jax.data.release import sha256_of
from ssm_jax.lock import Held, Lock
from ssm_jax.progress import say

_NAME = re.compile(r"[a-z_]+-[0-9a-f]{8}")  # of a store, see prepare.py
_NOTED = 1 << 26  # bytes; smaller stores are compared each time, in 0.05 s
_RACY = 2.0  # seconds; within so many a file can change twice with the same times
_CHECKS = 1  # raise it whenever a store that was compared is to be compared again


class MappedFile:
    """A file of a store, or what a link leads to, open: whatever is put at its path later."""

    def __init__(self, folder: Path, name: str, entry: Mapping[str, Any]) -> None:
        self.path = path = folder / name
        self._folder, self._entry = folder, entry
        if not path.is_file():  # opening a named pipe would wait for its writer
            what = "is no regular file" if path.exists() else "is missing"
            if path.is_symlink() and not path.exists():
                what = f"is a link to {disk.printable(os.readlink(path))}, which is not there"
            what = "is a folder" if path.is_dir() else what
            raise DamagedError(folder, f"{path} has 0 bytes to read: it {what}")
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self.seen = self.identity()
        if (size := self.seen[2]) != (said := entry["bytes"]):
            raise DamagedError(folder, f"{path} has {size:,} bytes, its manifest says {said:,}")

    def identity(self) -> tuple[int, ...]:
        """Device, inode, bytes, and the times in ns of the last change of content and of either:
        this one, ctime, is the kernel's, and programs that set the other back cannot set it."""
        at = os.fstat(self._file.fileno())
        return at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns

    def sha256(self) -> str:
        """The sha256 of all its bytes; some 0.6 s for each GB."""
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()

    def compare(self) -> None:
        """Refuse bytes that are not those that were written."""
        if self.sha256() != self._entry["sha256"] or self.identity() != self.seen:
            fault = "has changed since it was written (its sha256 is not the manifest's)"
            raise DamagedError(self._folder, f"{self.path} {fault}")

    def check_unchanged(self) -> None:
        """Compare again if the file is not as it was seen last, in some 3 us."""
        if (now := self.identity()) != self.seen:  # or only deleted, or another owner's
            self.seen = now
            self.compare()

    def array(self) -> np.ndarray:
        """A plain view of the map: indexing a np.memmap costs 1 us more each time."""
        self._file.seek(0)
        name = self.path.name
        try:
            if np.lib.format.read_magic(self._file) != (1, 0):  # others have headers of any size
                raise ValueError("another version of the format")
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(self._file)
        except Exception as error:  # what a header of chance bytes raises is documented nowhere
            raise ValueError(f"the header of {name} cannot be read: {error}") from None
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        start, size = self._file.tell(), self.seen[2]
        if min(shape, default=0) < 0 or start + math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"{name} says {dtype} {shape}, which are not {size:,} bytes")
        if by_columns:
            raise ValueError(f"{name} is stored by columns, not by rows")
        with disk.naming(self.path):  # some network file systems map nothing
            return np.asarray(np.memmap(self._file, dtype, "r", start, shape))


_LOOK_S = 0.5  # between two looks whether a lock is free


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel releases when this process ends, however it ends.

    Another holder is waited for: the jobs of a sweep all begin with the data.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, waits = Lock(path), False
    while True:
        try:
            lock.acquire()
            break
        except Held as held:
            if not waits:
                say(f"process {held.pid} is preparing the same data ({path}); waiting for it.")
            waits = True
        time.sleep(_LOOK_S)
    try:
        yield
    finally:
        lock.release()


def write_store(folder: Path, temporary: Path, content: Content, header: Mapping[str, Any]) -> None:
    """Write a store so that `folder` appears at once and whole, even if the power fails.

    It is written in a temporary folder on the same disk; what is there is deleted. `header` are
    further entries of the manifest. The same content and header give the same bytes.
    """
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        files: dict[str, dict[str, Any]] = {}
        for name, array in _arrays_of(content).items():
            path = temporary / name
            with open(path, "wb") as file:
                # Not to the file itself: of a full disk NumPy raises an error without a number.
                np.save(SimpleNamespace(write=file.write), array, allow_pickle=False)
            disk.sync(path)
            files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        manifest = manifest_of(content, header, files)
        path = temporary / MANIFEST
        path.write_text(json.dumps({**manifest, SEAL: seal(manifest)}, indent=2) + "\n")
        disk.sync(path)
        disk.sync(temporary)
        folder.parent.mkdir(parents=True, exist_ok=True)
        disk.move_into_place(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk has no room for half a store
        raise


def _arrays_of(content: Content) -> dict[str, np.ndarray]:
    """The arrays of a store, in the order of its files."""
    examples = content.examples
    arrays = {f"{f.name}.npy": getattr(examples, f.name) for f in dataclasses.fields(examples)}
    return arrays | {f"split.{name}.npy": numbers for name, numbers in content.splits.items()}


def hashes_of(content: Content) -> dict[str, dict[str, str]]:
    """The "sha256" of each file that a store with this content would have."""
    files = {}
    for name, array in _arrays_of(content).items():
        digest = hashlib.sha256()
        np.save(SimpleNamespace(write=digest.update), array, allow_pickle=False)
        files[name] = {"sha256": digest.hexdigest()}
    return files


class Store:
    """A store that is open, its arrays memory-mapped and every byte checked.

    Links are followed, and what they lead to is checked. Errors as `read_manifest`, and a
    DamagedError for a file that is missing, is not what the manifest says, or does not fit. With
    `noted` a note may say that large files were compared with their sha256 before.
    """

    def __init__(self, folder: Path, *, noted: bool = True) -> None:
        self.manifest = manifest = read_manifest(folder)
        self._files = [MappedFile(folder, *listed) for listed in manifest["files"].items()]
        self._compare(noted)
        kind = KINDS[manifest["kind"]]
        try:
            arrays = {file.path.name: file.array() for file in self._files}
            of_kind = (arrays[f"{field.name}.npy"] for field in dataclasses.fields(kind))
            splits = {name: arrays[f"split.{name}.npy"] for name in manifest["splits"]}
            for name, numbers in splits.items():
                said = manifest["splits"][name]
                if numbers.shape != (said,) or numbers.dtype != np.int64:
                    rows = f"{numbers.size:,} rows, its manifest says {said:,}"
                    raise ValueError(f"split {name!r} has {rows}")
            self.content = content_of(kind(*of_kind), splits, manifest)
            self.content.check()
        except ValueError as error:
            raise DamagedError(folder, f"{folder} is damaged ({error})") from None

    def facts(self) -> dict[str, Any]:
        """Provenance, sizes, steps with end of sequence, and examples of each class, for JSON."""
        manifest, examples, splits = self.manifest, self.content.examples, {}
        for name, numbers in self.content.splits.items():
            steps = examples.steps(numbers)
            mean, median = round(float(steps.mean()), 1), float(np.median(steps))
            classes = np.bincount(examples.targets[numbers], minlength=manifest["n_classes"])
            splits[name] = {
                "examples": int(numbers.size),
                "steps": {"mean": mean, "median": median, "most": int(steps.max())},
                "classes": classes.tolist(),
            }
        return {
            **{key: manifest[key] for key in ("task", "source", "detail", "sha256")},
            "bytes": sum(entry["bytes"] for entry in manifest["files"].values()),
            "token_ids": len(manifest["vocabulary"]),
            "splits": splits,
        }

    def check_unchanged(self) -> None:
        """Refuse files that are not what they were when they were opened, in some 20 us.

        The maps stay on the files that were opened, so one that is put in their place changes
        nothing. One that is written to where it lies changes the data at once: this finds it. One
        that is cut short ends the process when what is gone is read (SIGBUS).
        """
        for file in self._files:
            file.check_unchanged()

    def _compare(self, noted: bool) -> None:
        """Compare all files, unless a note says that these very files were compared."""
        listed, cache, note = self.manifest["files"], disk.user_cache(), None
        seen = {f.path.name: (*f.seen, listed[f.path.name]["sha256"]) for f in self._files}
        text = json.dumps([_CHECKS, seen]).encode()
        if noted and cache is not None and sum(file.seen[2] for file in self._files) >= _NOTED:
            note = cache / "compared" / hashlib.sha256(text).hexdigest()[:32]
            with contextlib.suppress(OSError), open(note, "rb") as file:
                if file.read(len(text) + 1) == text:
                    return
        for mapped in self._files:
            mapped.compare()
        latest = max(file.seen[4] for file in self._files) / 1e9
        if note is not None and time.time() - latest >= _RACY:
            with contextlib.suppress(OSError):  # a cache that cannot be written is no error
                note.parent.mkdir(parents=True, exist_ok=True)
                disk.replace_atomically(note, text)


def verify_store(folder: Path) -> Store:
    """Check every byte of a store, and that no file is there that does not belong; see `Store`."""
    store = Store(folder, noted=False)
    for path in sorted(folder.iterdir()):
        if path.name not in (*store.manifest["files"], MANIFEST):
            raise DamagedError(folder, f"{path} is not in the list of {folder / MANIFEST}")
    return store


def stores_of(data_dir: Path, task: str) -> list[Path]:
    """The folders of a task's stores, those among them that have lost their manifest."""
    found = {p.parent for p in data_dir.glob(f"{task}/[!.]*/{MANIFEST}")}
    return sorted(found | {p for p in data_dir.glob(f"{task}/*") if _NAME.fullmatch(p.name)})


def unfinished(data_dir: Path, task: str) -> list[Path]:
    """The folders that interrupted preparations of a task left."""
    return sorted(data_dir.glob(f"{task}/.*.work"))
