"""The manifest of a prepared data set: what its arrays are, and where they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssm_jax.data.examples import KINDS
from ssm_jax.files import parse_json, printable

FORMAT = 2  # of the folder; raise it when an older reader would misread it
MANIFEST = "manifest.json"
SEAL = "entries_sha256"  # of all other entries; manifests of older versions have none
_WITHOUT_SEAL = {"task", "source", "parameters", "detail", "facts", "format", "kind", "n_classes",
                 "vocabulary", "splits", "sha256", "files"}  # fmt: skip
_LARGEST = 1 << 24  # bytes; those of all tasks have less than 1 MB


class DamagedError(ValueError):
    """A store that is not what was written; the line ends with what to do."""

    def __init__(self, folder: Path, fault: str) -> None:
        super().__init__(printable(f"{fault}; delete {folder} and prepare it again."))


def sha256_of_all(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One hash of the hashes of files, in their order."""
    return hashlib.sha256("".join(f["sha256"] for f in files.values()).encode()).hexdigest()


def is_sealed(manifest: Mapping[str, Any]) -> bool:
    """Whether the entries are those that were written, as far as that can be told."""
    if SEAL in manifest:
        return manifest[SEAL] == seal(manifest)
    return manifest.keys() <= _WITHOUT_SEAL


def seal(manifest: Mapping[str, Any]) -> str:
    """The sha256 of all entries but SEAL."""
    entries = {key: value for key, value in manifest.items() if key != SEAL}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store, whose entries have the right types.

    Raises:
      FileNotFoundError: if there is no store.
      DamagedError: if the manifest is damaged or of another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; delete {folder} and prepare it again.")
    with open(path, "rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise DamagedError(folder, f"{path} has more than {_LARGEST:,} bytes")
    try:
        manifest = parse_json(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(folder, f"{path} is damaged ({error})") from None
    if not isinstance(manifest, dict):
        raise DamagedError(folder, f"{path} is damaged (it holds no entries)")
    if manifest.get("format") != FORMAT:
        raise DamagedError(
            folder, f"{path} has format {manifest.get('format')!s:.20}, this version reads {FORMAT}"
        )
    for name, right in _RIGHT.items():
        if name not in manifest or not right(manifest[name]):
            shown = f"{manifest.get(name)!r}"[:60]
            raise DamagedError(folder, f"{path} is damaged (its {name!r} is {shown})")
    files = [f.name for f in dataclasses.fields(KINDS[manifest["kind"]])]
    files += [f"split.{name}" for name in manifest["splits"]]
    if sorted(manifest["files"]) != sorted(f"{name}.npy" for name in files):
        raise DamagedError(
            folder,
            f"{path} is damaged (it lists {', '.join(sorted(manifest['files']))}; examples of the "
            f"kind {manifest['kind']!r} have {', '.join(f'{name}.npy' for name in files)})",
        )
    return manifest


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_mapping(value: object, right: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(right, value.values()))


_RIGHT: Mapping[str, Callable[[Any], bool]] = {
    "detail": _is_text,
    "kind": lambda value: _is_text(value) and value in KINDS,
    "n_classes": lambda value: _is_number(value) and 1 <= value <= 256,
    "vocabulary": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "splits": lambda value: _is_mapping(value, _is_number),
    "sha256": _is_text,
    "files": lambda value: _is_mapping(
        value,
        lambda f: isinstance(f, dict) and _is_number(f.get("bytes")) and _is_text(f.get("sha256")),
    ),
}
