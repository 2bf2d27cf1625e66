"""The manifest of a prepared data set: what its files are, under a seal of its own entries."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssm_jax.data.examples import KINDS, Content, Examples, Splits
from ssm_jax.files import json_digest, parse_json, printable

FORMAT = 2  # of the folder; raise it when an older reader would misread it
MANIFEST = "manifest.json"
SEAL = "entries_sha256"  # of all other entries; manifests of older versions have none
_WITHOUT_SEAL = {"task", "source", "parameters", "detail", "facts", "format", "kind", "n_classes",
                 "vocabulary", "splits", "sha256", "files"}  # fmt: skip
_LARGEST = 1 << 24  # bytes of a manifest; those of all tasks have less than 1 MB


class DamagedError(ValueError):
    """A store that is not what was written; the line ends with what to do."""

    def __init__(self, folder: Path, fault: str) -> None:
        super().__init__(printable(f"{fault}; delete {folder} and prepare it again."))


def sha256_of_all(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One hash of the hashes of files, in their order."""
    return hashlib.sha256("".join(f["sha256"] for f in files.values()).encode()).hexdigest()


def seal(manifest: Mapping[str, Any]) -> str:
    """The sha256 of all entries but SEAL."""
    return json_digest({key: value for key, value in manifest.items() if key != SEAL})


def manifest_of(
    content: Content, header: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The manifest of a store before it is sealed: what its recipe says in `header`, what it holds,
    and its files, of which at least the "sha256" is known."""
    return {
        **header,
        "detail": content.detail,
        "facts": dict(content.facts),
        "format": FORMAT,
        "kind": content.examples.kind,
        "n_classes": content.n_classes,
        "vocabulary": list(content.vocabulary),
        "splits": {name: len(numbers) for name, numbers in content.splits.items()},
        "sha256": sha256_of_all(files),
        "files": files,
    }


def content_of(examples: Examples, splits: Splits, manifest: Mapping[str, Any]) -> Content:
    """The content that a manifest describes."""
    vocabulary, n_classes = tuple(manifest["vocabulary"]), manifest["n_classes"]
    return Content(examples, splits, manifest["detail"], manifest["facts"], vocabulary, n_classes)


def _is_number(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_file(entry: object) -> bool:
    about = entry if isinstance(entry, dict) else {}
    return _is_number(about.get("bytes")) and isinstance(about.get("sha256"), str)


_RIGHT: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("task", "source", "detail", "sha256"), lambda value: isinstance(value, str)),
    "facts": lambda value: isinstance(value, dict),
    "kind": lambda value: isinstance(value, str) and value in KINDS,
    "n_classes": lambda value: _is_number(value) and 1 <= value <= 256,
    "vocabulary": lambda value: isinstance(value, list) and all(isinstance(t, str) for t in value),
    "splits": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    "files": lambda value: isinstance(value, dict) and all(map(_is_file, value.values())),
}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store; a FileNotFoundError if there is none, a DamagedError if it is of
    another format, or its entries are not of the right types or not those that were written."""
    path = folder / MANIFEST

    def damaged(fault: str) -> DamagedError:
        return DamagedError(folder, f"{path} {fault}")

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; delete {folder} and prepare it again.")
    with open(path, "rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise damaged(f"has more than {_LARGEST:,} bytes")
    try:
        manifest = parse_json(data)
    except ValueError as error:
        raise damaged(f"is damaged ({error})") from None
    if not isinstance(manifest, dict):
        raise damaged("is damaged (it holds no entries)")
    if (found := manifest.get("format")) != FORMAT:
        raise damaged(f"has format {found!s:.20}, this version reads {FORMAT}")
    for name, right in _RIGHT.items():
        if name not in manifest or not right(manifest[name]):
            raise damaged(f"is damaged (its {name!r} is {f'{manifest.get(name)!r}'[:60]})")
    kind, listed = manifest["kind"], manifest["files"]
    files = [f"{field.name}.npy" for field in dataclasses.fields(KINDS[kind])]
    files += [f"split.{name}.npy" for name in manifest["splits"]]
    if sorted(listed) != sorted(files):
        raise damaged(
            f"is damaged (it lists {', '.join(sorted(listed))}; examples of the kind {kind!r} have "
            f"{', '.join(files)})"
        )
    as_sealed = SEAL in manifest and manifest[SEAL] == seal(manifest)
    of_older_version = manifest.keys() <= _WITHOUT_SEAL
    if not (as_sealed or of_older_version) or manifest["sha256"] != sha256_of_all(listed):
        raise damaged("has changed since it was written")
    return {**manifest, "detail": printable(manifest["detail"])}  # once an archive's name, say
