"""A prepared data set on disk: memory-mapped arrays and a manifest, whole or not there at all.

FOLDER/manifest.json  FOLDER/{tokens,offsets,targets,...}.npy  FOLDER/split.{train,val,test}.npy
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.examples import KINDS, Examples, Made, Splits, kind_of

FORMAT = 2  # of the folder; raise it when an older reader would misread it
_MANIFEST = "manifest.json"
_AGAIN = "delete {folder} and prepare it again."


def sha256_of(path: Path) -> str:
    """The sha256 of a file; 0.1 to 0.5 s for 100 MB."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the disk, not only the kernel, hold a file or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel releases when this process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BlockingIOError(
                f"process {file.read().strip() or '?'} is preparing the same data ({path}); "
                "wait for it, then run the same command again."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def write_store(folder: Path, temporary: Path, made: Made, header: Mapping[str, Any]) -> None:
    """Write a store so that `folder` appears at once and whole, even if the power fails.

    Args:
      folder: where the store is to be; nothing may be there.
      temporary: a folder on the same disk to write in; what is there is deleted.
      made: the data.
      header: further entries of the manifest, JSON values; the same data and header give the same
        bytes.
    """
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    files: dict[str, dict[str, Any]] = {}
    arrays = {f.name: getattr(made.examples, f.name) for f in dataclasses.fields(made.examples)}
    arrays |= {f"split.{name}": numbers for name, numbers in made.splits.items()}
    for name, array in arrays.items():
        path = temporary / f"{name}.npy"
        np.save(path, array, allow_pickle=False)
        _sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    digest = hashlib.sha256("".join(f["sha256"] for f in files.values()).encode()).hexdigest()
    manifest = {
        **header,
        "detail": made.detail,
        "facts": dict(made.facts),
        "format": FORMAT,
        "kind": kind_of(made.examples),
        "n_classes": made.n_classes,
        "vocabulary": list(made.vocabulary),
        "splits": {name: len(numbers) for name, numbers in made.splits.items()},
        "sha256": digest,
        "files": files,
    }
    path = temporary / _MANIFEST
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    _sync(path)
    _sync(temporary)
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(temporary, folder)
    _sync(folder.parent)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store.

    Raises:
      FileNotFoundError: if there is no store.
      ValueError: if the manifest is damaged or of another format.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {_AGAIN.format(folder=folder)}")
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {_AGAIN.format(folder=folder)}") from None
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {manifest.get('format')}, this version reads {FORMAT}; "
            f"{_AGAIN.format(folder=folder)}"
        )
    return manifest


def open_store(folder: Path) -> tuple[dict[str, Any], Examples, Splits]:
    """The manifest, the examples and the splits of a store; the sizes of all files are checked.

    Arrays are memory-mapped.

    Raises:
      FileNotFoundError: if there is no store.
      ValueError: if a file is missing, has another size than the manifest says, or does not fit.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else 0
        if size != entry["bytes"]:
            raise ValueError(
                f"{path} has {size:,} bytes, its manifest says {entry['bytes']:,}; "
                f"{_AGAIN.format(folder=folder)}"
            )

    def array(name: str) -> np.ndarray:
        # A plain view of the map: indexing a np.memmap costs 1 us more each time.
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))

    kind = KINDS[manifest["kind"]]
    try:
        examples = kind(*(array(f.name) for f in dataclasses.fields(kind)))
        splits = {name: array(f"split.{name}") for name in manifest["splits"]}
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder} is damaged ({error}); {_AGAIN.format(folder=folder)}") from None
    for name, numbers in splits.items():
        said = manifest["splits"][name]
        if numbers.shape != (said,) or not 0 <= numbers.min() <= numbers.max() < len(examples):
            raise ValueError(
                f"split {name!r} of {folder} has {numbers.size:,} rows, its manifest says "
                f"{said:,} of {len(examples):,}; {_AGAIN.format(folder=folder)}"
            )
    return manifest, examples, splits


def verify_store(folder: Path) -> None:
    """Check every byte of a store against its manifest.

    Raises:
      ValueError: if a file has changed.
    """
    for name, entry in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != entry["sha256"]:
            raise ValueError(
                f"{path} has changed since it was written (its sha256 is not the "
                f"manifest's); {_AGAIN.format(folder=folder)}"
            )


def stores_of(data_dir: Path, task: str) -> list[Path]:
    """The folders of a task's stores."""
    return sorted(p.parent for p in data_dir.glob(f"{task}/[!.]*/{_MANIFEST}"))


def unfinished(data_dir: Path, task: str) -> list[Path]:
    """What interrupted preparations of a task left."""
    return sorted(data_dir.glob(f"{task}/.*.work"))
