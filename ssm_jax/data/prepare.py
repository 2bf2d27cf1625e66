"""From a recipe to a prepared data set: rows -> TFDS data set, read back and compared -> arrays.

    DATA_DIR/TASK/NAME              the store that training reads; there whole or not at all
    DATA_DIR/TASK/.NAME.work        what an unfinished preparation goes on from
    DATA_DIR/tfds/TASK-NAME/...     the same data as a TensorFlow Datasets data set
    DATA_DIR/raw                    downloaded files

NAME is the source and eight digits that name the parameters and the files read.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.examples import Made, check_values
from ssm_jax.data.manifest import FORMAT, MANIFEST, DamagedError, is_sealed, read_manifest
from ssm_jax.data.store import locked, stores_of, write_store
from ssm_jax.data.workers import cpu_count
from ssm_jax.files import printable
from ssm_jax.progress import stage

SOURCES = ("official", "generated", "sample", "fashion_mnist", "stand_in")


def default_data_dir() -> Path:
    """Where data are kept unless a command says otherwise: $SSM_JAX_DATA_DIR, or ./data."""
    return Path(os.environ.get("SSM_JAX_DATA_DIR") or "data")


@dataclass(frozen=True)
class Place:
    """Where data are, and who makes them.

    Attributes:
      data_dir: see the head of this file.
      files: official files of the user, an archive or a folder; None: see each recipe.
      workers: processes; the data do not depend on it.
    """

    data_dir: Path
    files: Path | None = None
    workers: int = dataclasses.field(default_factory=cpu_count)

    @property
    def raw(self) -> Path:
        """The folder of downloaded files."""
        return self.data_dir / "raw"


def command(task: str, source: str, place: Place, options: Any) -> str:
    """The command that prepares a data set.

    Args:
      options: the task's dataclass; what differs from its defaults is named.
    """
    words = ["python", "scripts/prepare_data.py", "prepare", task, f"--source={source}"]
    words.append(f"--data_dir={place.data_dir}")
    if place.files is not None:
        words.append(f"--from={place.files}")
    usual = type(options)()
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != getattr(usual, field.name):
            shown = str(value).lower() if isinstance(value, bool) else value
            words.append(f"--{field.name}={shown}")
    return shlex.join(words)


def files_missing(task: str, what: str) -> FileNotFoundError:
    """For a recipe that cannot be made without files of the user."""
    return FileNotFoundError(
        f"the official {task} data cannot be downloaded; give them with --from=PATH ({what})."
    )


@dataclass(frozen=True)
class Recipe:
    """How the data set of a task is made, or found again.

    Attributes:
      task: a key of ssm_jax.lra.catalog.CATALOG.
      source: one of SOURCES.
      parameters: all that the examples depend on besides the files read; JSON values.
      stamp: tells the files read from others; None: not known, any that were read before will do.
      make: the examples; it gets the path of a folder to work in, which it makes if it needs one
        and which a later try finds again. Without a stamp it only says which files are missing.
      at_once: a training run may make them without being asked.
      command: makes them.
      check: refuses a single example (features by name, target) that cannot be; may be None.
      download: the stamp of what `make` downloads where no stamp is known; None: it cannot.
    """

    task: str
    source: str
    parameters: Mapping[str, Any]
    stamp: str | None
    make: Callable[[Path], Made]
    at_once: bool
    command: str
    check: Callable[[Mapping[str, np.ndarray], int], None] | None = None
    download: str | None = None

    def folder(self, data_dir: Path) -> Path:
        """Where the store is, or would be.

        Where the recipe does not say which files were read, it is the one of these parameters. Of
        several that hold the same arrays (of an archive, and of the folder unpacked from it) it is
        the first by name.

        Raises:
          ValueError: if different files were read before, and the recipe does not say which.
        """
        if self.stamp is not None:
            return self._named(data_dir, self.stamp)
        found = {
            folder: manifest["sha256"]
            for folder in sorted(data_dir.glob(f"{self.task}/{self.source}-*"))
            if (manifest := _sound(folder)) and self._is_of(manifest)
        }
        if len(set(found.values())) > 1:
            raise ValueError(
                f"{data_dir / self.task} holds different {self.source} data "
                f"({', '.join(f.name for f in found)}); give the files of one, or delete others."
            )
        if not found and self.download is not None:
            return self._named(data_dir, self.download)
        return next(iter(found), data_dir / self.task / f"{self.source}-*")

    def _named(self, data_dir: Path, stamp: str) -> Path:
        return data_dir / self.task / _name(self.source, self.parameters, stamp)

    def _is_of(self, manifest: Mapping[str, Any]) -> bool:
        """Whether a store with this manifest was made by such a recipe."""
        parameters = json.loads(json.dumps(dict(self.parameters)))
        made = (manifest.get("task"), manifest.get("source"), manifest.get("parameters"))
        return made == (self.task, self.source, parameters)

    @property
    def asked(self) -> str:
        """The command that makes the store, with a place for files that are missing in it."""
        files = " --from=PATH" if self.stamp is None and self.download is None else ""
        return self.command + files

    def check_store(self, folder: Path) -> None:
        """See that the store in a folder was made by this recipe, not another one copied there.

        Raises:
          DamagedError: if it was not.
        """
        manifest = read_manifest(folder)
        if not self._is_of(manifest):
            made = f"{manifest.get('source')} {manifest.get('task')} {manifest.get('parameters')}"
            raise DamagedError(
                folder,
                f"{folder} holds {printable(made)[:200]}, not {self.source} {self.task} "
                f"{dict(self.parameters)}",
            )


def _name(source: str, parameters: Mapping[str, Any], stamp: str) -> str:
    identity = {**parameters, "files": stamp, "format": FORMAT}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return f"{source}-{digest}"


def check_name(folder: Path) -> None:
    """See that the name of a store's folder is that of what its manifest says was made.

    Raises:
      DamagedError: if it is not: the store, or its manifest, was copied from another folder.
    """
    manifest = read_manifest(folder)
    source, stamp = manifest.get("source"), manifest.get("stamp")
    if stamp is None and source != "official":  # an older version, which read no other files
        stamp = ""
    made = (folder.parent.name, folder.name)
    if stamp is not None and made != (
        manifest.get("task"),
        _name(str(source), manifest.get("parameters") or {}, stamp),
    ):
        raise DamagedError(folder, f"{folder / MANIFEST} is that of another folder")


def _sound(folder: Path) -> dict[str, Any] | None:
    """The manifest of a store, or None for one of an older format or a damaged one."""
    try:
        manifest = read_manifest(folder)
    except (ValueError, OSError):
        return None
    return manifest if is_sealed(manifest) else None


def find(recipe: Recipe, data_dir: Path) -> Path:
    """The folder of the prepared data set; made first if it is of those that are made at once.

    Raises:
      FileNotFoundError: if it is not there; its line gives the command that makes it.
      BlockingIOError: if another process is preparing the same data.
    """
    folder = recipe.folder(data_dir)
    _refuse_other(data_dir, folder)
    if folder.is_dir():
        return folder
    if not recipe.at_once:
        damaged = [f.name for f in stores_of(data_dir, recipe.task) if _sound(f) is None]
        beside = f" (and {', '.join(damaged)} cannot be read)" if damaged else ""
        raise FileNotFoundError(
            f"no {recipe.source} {recipe.task} data at {folder}{beside}; run: {recipe.asked}"
        )
    return prepare(recipe, data_dir)


def prepare(recipe: Recipe, data_dir: Path) -> Path:
    """Make the data set unless it is there; an interrupted preparation goes on.

    Returns:
      The folder of the store.

    Raises:
      OSError: among others where the disk is full; what is finished by then is kept.
    """
    folder = recipe.folder(data_dir)
    _refuse_other(data_dir, folder)
    work = folder.with_name(f".{folder.name}.work")
    if folder.is_dir() and (not work.exists() or not os.access(folder.parent, os.W_OK)):
        return folder  # also from a disk that can only be read
    if not _is_utf8(data_dir.absolute()):
        raise ValueError(
            f"TensorFlow Datasets cannot write to {data_dir}, whose name is no UTF-8; prepare the "
            "data in a folder with another name, and rename that if need be."
        )
    try:
        return _prepare(recipe, data_dir, folder, work)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"not prepared ({os.strerror(error.errno)}); make room, then run the same command "
            "again: it goes on from there.",
            str(folder),
        ) from None


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_other(data_dir: Path, folder: Path) -> None:
    """See that nothing but a folder, or a link to one, is where folders are to be."""
    for path in (data_dir, data_dir / "tfds", folder.parent, folder):
        if path.is_dir():
            continue
        if path.is_symlink() and not path.exists():
            raise FileNotFoundError(
                f"{path} is a link to {printable(os.readlink(path))}, which is not there; bring "
                "back what it leads to, or delete the link."
            )
        if path.exists():
            raise NotADirectoryError(f"{path} is not a folder; move it away.")


def _prepare(recipe: Recipe, data_dir: Path, folder: Path, work: Path) -> Path:
    if recipe.stamp is None and recipe.download is None and not folder.is_dir():
        recipe.make(work)  # raises: there is nothing to make them of, and no name for a lock
    with locked(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            made = recipe.make(work)
            check_values(made.examples, made.splits, len(made.vocabulary), made.n_classes)
            _through_tfds(recipe, made, data_dir / "tfds" / f"{recipe.task}-{folder.name}")
            header = {
                "task": recipe.task,
                "source": recipe.source,
                "parameters": dict(recipe.parameters),
                "stamp": recipe.download if recipe.stamp is None else recipe.stamp,
            }
            write_store(folder, work / "store", made, header)
        # The one before us may have been killed between its store and its last line; a worker that
        # outlived a killed preparation may still be writing a shard we did not need.
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _through_tfds(recipe: Recipe, made: Made, data_dir: Path) -> None:
    """Write the TFDS data set and compare what it gives back, example by example."""
    # Imported late: 0.4 s, and training must not need it.
    from ssm_jax.data import builder as tfds

    total = sum(numbers.size for numbers in made.splits.values())
    data_set = tfds.LongSequences(made, data_dir)
    with stage("writing the TFDS data set", total, "examples") as advance:
        tfds.build(data_set, advance)
    with stage("reading it back and comparing", total, "examples") as advance:
        for split, numbers in made.splits.items():
            count = 0
            for number, row in zip(numbers.tolist(), tfds.read(data_set, split), strict=False):
                where = f"{data_set.data_dir} {split} example {count}"
                target = int(row.pop("target"))
                if target != made.examples.targets[number] or any(
                    not np.array_equal(row[name], array)
                    for name, array in made.examples.features(number).items()
                ):
                    raise ValueError(f"{where} is not what was written; prepare the data again.")
                if recipe.check is not None:
                    try:
                        recipe.check(row, target)
                    except ValueError as error:
                        raise ValueError(f"{where}: {error}") from None
                count += 1
                if count % 1_000 == 0:
                    advance(1_000)
            if count != numbers.size:
                raise ValueError(f"{data_set.data_dir} {split} has {count:,} of {numbers.size:,}.")
