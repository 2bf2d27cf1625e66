"""Code of the user: layers and tasks by the name of an entry point, or as FILE.py:NAME.

A file is executed with its folder on sys.path, once for each content. What it imports from that
folder belongs to it alone and leaves sys.modules with it, so that two files in two folders may each
have a helper.py of their own. A run records the hashes of all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import linecache
import os
import re
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import Any


class Unknown(ValueError):  # noqa: N818 - it reads as what happened
    """There is no layer or task of a name."""


@dataclass(eq=False)
class File:
    """An executed file: its module, the modules of its folder that it imported, and all hashes."""

    path: Path
    module: types.ModuleType
    sha256: dict[Path, str | None]
    siblings: dict[str, types.ModuleType] = field(default_factory=dict)


class Located(str):
    """FILE.py:NAME as somebody wrote it, where that file is, and the file once it is executed."""

    path: Path
    file: File | None

    def __new__(cls, text: str, path: Path) -> Located:
        made = super().__new__(cls, text)
        made.path, made.file = path, None
        return made

    def __reduce__(self) -> tuple[Any, ...]:  # a module cannot be pickled
        return Located, (str(self), self.path)


_files: dict[Path, File] = {}  # the last content of each
_running: list[File] = []
_folders: list[Path] = []  # against which relative paths are resolved, the last one first


def located(text: str) -> str:
    """FILE.py:NAME with the path of its file; any other name as it is.

    Relative paths are those from the config file being executed, else from the current folder.
    """
    if isinstance(text, Located) or ".py:" not in text:
        return text
    name, _, attribute = text.rpartition(":")
    path = Path(os.path.expanduser(name))
    tried = [folder / path for folder in (*reversed(_folders), Path.cwd())]
    found = next(filter(Path.is_file, tried), tried[-1])
    if path.is_absolute():
        text = f"{path.name}:{attribute}"  # no record names a folder of the machine
    return Located(text, found.resolve())


@contextlib.contextmanager
def beside(path: Path) -> Iterator[None]:
    """Resolve relative paths against the folder of a file first."""
    _folders.append(path.resolve().parent)
    try:
        yield
    finally:
        _folders.pop()


@contextlib.contextmanager
def running(path: Path, asked: str) -> Iterator[File]:
    """A file, executed if its content is new; in the body its siblings can be imported, too.

    Whatever the file or the body raises is a ValueError in one line, which begins with `asked`.
    """
    path = path.resolve()
    file = _known(path) or File(path, types.ModuleType(path.name), {path: _sha256(path)})
    file.module.__file__ = str(path)
    with _importable(file), beside(path):
        try:
            if _files.get(path) is not file:
                exec(compile(path.read_bytes(), path, "exec"), file.module.__dict__)
            yield file
        except Exception as error:  # whatever the user's file raises is the user's to read
            if isinstance(error, ValueError) and ours(error):
                raise ValueError(f"{asked}: {one_line(error)}") from error
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == str(path)]
            line = error.lineno if isinstance(error, SyntaxError) else (lines or [0])[-1]
            what = f"{type(error).__name__}: {one_line(error)}"
            raise ValueError(f"{asked} fails in line {line}: {what.rstrip('.')}.") from error
    _files[path] = file


def _known(path: Path) -> File | None:
    """What was executed of a file, if nothing of it has changed since."""
    file = next((file for file in _running if file.path == path), _files.get(path))
    if file is None or file in _running:
        return file
    return file if all(_sha256(p) == sha256 for p, sha256 in file.sha256.items()) else None


@contextlib.contextmanager
def _importable(file: File) -> Iterator[None]:
    """Have the folder of a file on sys.path, and its modules in sys.modules, but not longer."""
    folder = file.path.parent
    own = {path.stem for path in folder.glob("*.py")}
    own |= {path.parent.name for path in folder.glob("*/__init__.py")}
    own -= {*sys.stdlib_module_names, "ssm_jax"}

    def take() -> dict[str, types.ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] in own]
        return {name: sys.modules.pop(name) for name in names}

    aside, bytecode = take(), sys.dont_write_bytecode
    # A dataclass in the file looks itself up there while it is made.
    sys.modules |= {**file.siblings, file.module.__name__: file.module}
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    _running.append(file)
    try:
        yield
    finally:
        _running.pop()
        sys.dont_write_bytecode = bytecode
        sys.path.remove(str(folder))
        sys.modules.pop(file.module.__name__, None)
        file.siblings |= take()
        for module in file.siblings.values():
            if module.__file__:
                path = Path(module.__file__)
                file.sha256.setdefault(path, _sha256(path))
        sys.modules |= aside


def _sha256(path: Path) -> str | None:
    """Of a file; None if it is missing."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def find(kind: str, text: str, known: Mapping[str, Any]) -> Any:
    """What a name stands for: a key of `known`, FILE.py:NAME, or an entry point.

    `kind` is "layer" or "task", as in the group of entry points, ssm_jax.layers; `known` has
    objects, or "module:name". A ValueError in one line says that there is no such name or file, or
    that the file fails.
    """
    if text in known:
        return resolve_name(known[text]) if isinstance(known[text], str) else known[text]
    text = located(text)
    if isinstance(text, Located):
        module, name = _executed(kind, text).module, text.rpartition(":")[2]
        if not hasattr(module, name):
            raise ValueError(f"{kind} {text}: the file defines no {name}.")
        return getattr(module, name)
    points = {point.name: point for point in entry_points(group=f"ssm_jax.{kind}s")}
    if text in points:
        return points[text].load()
    names = ", ".join([*known, *points])
    raise Unknown(f"unknown {kind} {text!r}; choose one of {names}, or give FILE.py:NAME.")


def _executed(kind: str, text: Located) -> File:
    """The file of a name; once it is executed, what is edited while a run goes is not read."""
    text.file = text.file or _known(text.path)
    if text.file is None:
        if not text.path.is_file():
            raise ValueError(f"{kind} {text}: there is no file {text.rpartition(':')[0]}.")
        with running(text.path, f"{kind} {text}") as file:
            text.file = file
    return text.file


def describe(kind: str, text: str, folder: Path) -> dict[str, Any]:
    """Where a layer or task is from, for the record of a run in a folder.

    {"path": of the file from the folder, "sha256", "siblings": hashes by path from the file's
    folder}; of an entry point {"package": name and version}. The path is its last part alone, where
    the way there would name a user or the root.
    """
    if not isinstance(text, Located):
        (point,) = entry_points(group=f"ssm_jax.{kind}s", name=text)
        return {"package": f"{point.dist.name} {point.dist.version}" if point.dist else point.value}
    file, folder = _executed(kind, text), folder.resolve()
    home, hashes = file.path.parent, dict(file.sha256)
    sha256 = hashes.pop(file.path)
    siblings = {path.relative_to(home).as_posix(): sha for path, sha in hashes.items()}
    way = Path(os.path.relpath(file.path, folder))
    meeting = Path(os.path.commonpath([file.path, folder]))
    if meeting == Path(meeting.anchor) or Path.home().name in way.parts:
        way = Path(file.path.name)
    return {"path": way.as_posix(), "sha256": sha256, "siblings": siblings}


def recall(kind: str, text: str, said: Mapping[str, Any], folder: Path) -> str:
    """The layer or task of a run, found again by what `describe` said of it.

    A ValueError in one line says that it is missing, or has changed since.
    """
    if "package" in said:
        if text not in entry_points(group=f"ssm_jax.{kind}s").names:
            raise ValueError(
                f"the {kind} {text} of the run in {folder} is from the package {said['package']}, "
                "which is not installed; install it."
            )
        return text
    path = Path(os.path.normpath(folder / said["path"]))
    found = Located(text, path.resolve()) if path.is_file() else located(text)
    assert isinstance(found, Located)
    if not found.path.is_file():
        raise ValueError(
            f"the {kind} {text} of the run in {folder} is from {path}, which is missing; bring the "
            f"file back (its SHA-256 begins with {said['sha256'][:12]}), or give the command where "
            f"{text.rpartition(':')[0]} is."
        )
    check_unchanged(kind, found, said, folder)
    return found


def check_unchanged(kind: str, text: str, said: Mapping[str, Any], folder: Path) -> None:
    """Raise a ValueError if a file of a layer or task is not the one that a run began with."""
    if not isinstance(text, Located):
        return
    wanted = {text.path: said["sha256"]}
    wanted |= {text.path.parent / name: sha256 for name, sha256 in said["siblings"].items()}
    for path, then in wanted.items():
        now = text.file.sha256.get(path) if text.file else _sha256(path)
        if now != then:
            is_now = "is missing" if now is None else f"has the SHA-256 {now[:12]}..."
            raise ValueError(
                f"{path} of the {kind} {text} {is_now}, and the run in {folder} began with "
                f"{then[:12]}...; bring that file back, or train anew in another --workdir."
            )


def one_line(error: BaseException) -> str:
    """What an error says, without its line breaks."""
    return " ".join(str(error).split())


def ours(error: BaseException) -> bool:
    """Whether a raise statement of this package or of the script made the error: a check.

    What Python, NumPy or JAX raise, also from within a line of ours, is a bug.
    """
    frame, number = [*traceback.walk_tb(error.__traceback__)][-1]
    line = linecache.getline(frame.f_code.co_filename, number, frame.f_globals)
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    return package in ("ssm_jax", "__main__") and re.search(r"\braise\b", line) is not None
