"""A prepared data set on disk: memory-mapped arrays per split and a manifest, whole or not there.

FOLDER/manifest.json  FOLDER/<split>.{tokens,offsets,targets}.npy
"""

from __future__ import annotations

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

from ssm_jax.data.ragged import Ragged

FORMAT = 1  # of the folder; raise it when an older reader would misread it
_PARTS = ("tokens", "offsets", "targets")
_MANIFEST = "manifest.json"
_AGAIN = "delete {folder} and prepare it again."


def _sha256(path: Path) -> str:
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


def write_store(
    folder: Path, temporary: Path, splits: Mapping[str, Ragged], header: Mapping[str, Any]
) -> None:
    """Write a store so that `folder` appears at once and whole, even if the power fails.

    Args:
      folder: where the store is to be; nothing may be there.
      temporary: a folder on the same disk to write in; what is there is deleted.
      splits: the data.
      header: further entries of the manifest, JSON values; the same data and header give the same
        bytes.
    """
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    files: dict[str, dict[str, Any]] = {}
    for split, rows in splits.items():
        for part in _PARTS:
            path = temporary / f"{split}.{part}.npy"
            np.save(path, getattr(rows, part), allow_pickle=False)
            _sync(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    digest = hashlib.sha256("".join(f["sha256"] for f in files.values()).encode()).hexdigest()
    manifest = {
        **header,
        "format": FORMAT,
        "splits": {split: len(rows) for split, rows in splits.items()},
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


def open_store(folder: Path) -> tuple[dict[str, Any], dict[str, Ragged]]:
    """The manifest and the splits of a store, memory-mapped; the sizes of all files are checked.

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
    splits = {}
    for split, rows in manifest["splits"].items():
        paths = [folder / f"{split}.{part}.npy" for part in _PARTS]
        try:
            # Plain views of the maps: indexing a np.memmap costs 1 us more each time.
            arrays = [np.asarray(np.load(p, mmap_mode="r", allow_pickle=False)) for p in paths]
            splits[split] = Ragged(*arrays)
        except ValueError as error:
            raise ValueError(
                f"split {split!r} of {folder} is damaged ({error}); {_AGAIN.format(folder=folder)}"
            ) from None
        if len(splits[split]) != rows:
            raise ValueError(
                f"split {split!r} of {folder} has {len(splits[split]):,} rows, its manifest says "
                f"{rows:,}; {_AGAIN.format(folder=folder)}"
            )
    return manifest, splits


def verify_store(folder: Path) -> None:
    """Check every byte of a store against its manifest.

    Raises:
      ValueError: if a file has changed.
    """
    for name, entry in read_manifest(folder)["files"].items():
        if _sha256(folder / name) != entry["sha256"]:
            raise ValueError(
                f"{folder / name} has changed since it was written (its sha256 is not the "
                f"manifest's); {_AGAIN.format(folder=folder)}"
            )
