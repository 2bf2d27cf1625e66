"""From a recipe to a prepared data set.

    DATA_DIR/TASK/NAME              the store that training reads; there whole or not at all
    DATA_DIR/TASK/.NAME.work        what an unfinished preparation resumes from
    DATA_DIR/tfds/ssm_jax_TASK/NAME/1.0.0   the same data for TensorFlow Datasets, if asked for
    DATA_DIR/raw                    downloaded files

NAME is the source and eight digits that name the parameters and the files read. A store that is
missing is made from the TensorFlow Datasets data set of its name, or, without that, by the recipe.
"""

import contextlib
import dataclasses
import errno
import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.examples import Content
from ssm_jax.data.manifest import FORMAT, MANIFEST, DamagedError, read_manifest
from ssm_jax.data.release import Release, find_tfds, not_there
from ssm_jax.data.store import Store, locked, stores_of, write_store
from ssm_jax.files import json_digest, parse_json, printable
from ssm_jax.progress import stage

TFDS_VERSION = "1.0.0"  # of our TFDS data sets; raise it when an older reader would misread them
UNOFFICIAL = "; NOT of the official number of examples"  # the end of a detail


def cpu_count() -> int:
    """Cores this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


@dataclass(frozen=True)
class DataPaths:
    """The folders of data, and the processes that make them."""

    data_dir: Path  # see the head of this file
    files: Path | None = None  # official ones of the user, an archive or a folder
    workers: int = field(default_factory=cpu_count)  # processes; the data do not depend on it
    # Prepare, download and write nothing: where data are not there, the data set has their shapes
    # alone, as far as they are known, and says so in its detail.
    look_only: bool = False

    @property
    def raw(self) -> Path:
        """The folder of downloaded files."""
        return self.data_dir / "raw"

    def find_tfds(self, name: str, config: str = "") -> Release | None:
        """A data set prepared with TensorFlow Datasets, in its usual folders or in `files`."""
        usual = [self.data_dir / "tfds", Path("~/tensorflow_datasets").expanduser()]
        if folder := os.environ.get("TFDS_DATA_DIR"):
            usual.insert(1, Path(folder))
        return find_tfds(name, config, usual if self.files is None else [self.files])


def found_in_tfds(found: Release | None, asked: str) -> Release:
    """The data set that `DataPaths.find_tfds` found, or an error that says what to do."""
    if found is not None:
        return found
    raise FileNotFoundError(
        f"{asked} is in no folder of TensorFlow Datasets (data_dir/tfds, $TFDS_DATA_DIR, "
        "~/tensorflow_datasets); prepare it, where TensorFlow is installed, with "
        f"tfds.builder({asked!r}, file_format='array_record').download_and_prepare(), or give its "
        "folder with --from=PATH."
    )


def files_missing(task: str, what: str) -> FileNotFoundError:
    """The error of a recipe that cannot be made without files of the user."""
    return FileNotFoundError(
        f"the official {task} data cannot be downloaded; give them with --from=PATH ({what})."
    )


def command(task: str, source: str, paths: DataPaths, options: Any) -> str:
    """The command that prepares a data set; of the options it names those that are not usual."""
    words = ["ssm-jax", "prepare", task, f"--source={source}"]
    words.append(f"--data_dir={paths.data_dir}")
    if paths.files is not None:
        words.append(f"--from={paths.files}")
    for option in dataclasses.fields(options):
        value = getattr(options, option.name)
        if value != option.default:
            shown = str(value).lower() if isinstance(value, bool) else value
            words.append(f"--{option.name}={shown}")
    return shlex.join(words)


@dataclass(frozen=True)
class Recipe:
    """The way to make the data set of a task, or to find it again."""

    task: str  # a key of ssm_jax.lra.catalog.CATALOG
    source: str  # a value of data.source that the task has
    options: Any  # a dataclass, as the command line names them
    paths: DataPaths
    parameters: Mapping[str, Any]  # all that the examples depend on besides the files read; JSON
    # The examples, given the path of a folder to work in, which it makes if it needs one and which
    # a later try finds again. Without a stamp it only says which files are missing.
    make: Callable[[Path], Content]
    release: Release | None = None  # the files of the user, or of TFDS, that it reads
    # Refuses a single example (features by name, target) that cannot be
    check: Callable[[Mapping[str, np.ndarray], int], None] | None = None
    download: str | None = None  # stamp of what `make` downloads where none is known

    @property
    def stamp(self) -> str | None:
        """Tells the files read from others; None: there are none to read."""
        if self.release is not None:
            return self.release.stamp
        return self.download if self.source in ("official", "tfds") else ""

    @property
    def at_once(self) -> bool:
        """True if a training run may make the data without being asked."""
        return self.release is not None or self.source in ("generated", "stand_in")

    def folder(self, data_dir: Path) -> Path:
        """The folder of the store, whether it is there or not; without the files that it reads the
        one with these parameters: of several the first, if they hold the same arrays."""
        above, tfds = data_dir / self.task, data_dir / "tfds"
        if self.release is None and self.stamp != "":  # any files that were read before will do
            ours = tfds.glob(f"ssm_jax_{self.task}/{self.source}-*/{TFDS_VERSION}")
            names = {path.parent.name for path in ours}
            names |= {path.name for path in above.glob(f"{self.source}-*")}
            found = {}
            for folder in (above / name for name in sorted(names)):
                known = _manifest_in(folder if folder.is_dir() else tfds_folder(tfds, folder))
                if self._is_of(known):
                    found[folder] = known["sha256"]
            if len(set(found.values())) > 1:
                raise ValueError(
                    f"{above} holds different {self.source} data "
                    f"({', '.join(f.name for f in found)}); give the files of one, or delete "
                    "others."
                )
            if found or self.stamp is None:
                return next(iter(found), above / f"{self.source}-*")
        return above / _name(self.header)

    def _is_of(self, manifest: Mapping[str, Any]) -> bool:
        """True if a store with this manifest was made by such a recipe."""
        parameters = json.loads(json.dumps(dict(self.parameters)))
        made = (manifest.get("task"), manifest.get("source"), manifest.get("parameters"))
        return made == (self.task, self.source, parameters)

    @property
    def header(self) -> dict[str, Any]:
        """Entries of the manifest: what was made of what."""
        return {
            "task": self.task,
            "source": self.source,
            "parameters": dict(self.parameters),
            "stamp": self.stamp,
        }

    @property
    def asked(self) -> str:
        """The command that makes the store, with --from=PATH where files are missing."""
        usual = command(self.task, self.source, self.paths, self.options)
        return usual + " --from=PATH" * (self.stamp is None)

    def check_store(self, folder: Path) -> None:
        """Refuse a store that another recipe made, by a DamagedError."""
        manifest = read_manifest(folder)
        if not self._is_of(manifest):
            made = f"{manifest.get('source')} {manifest.get('task')} {manifest.get('parameters')}"
            wanted = f"{self.source} {self.task} {dict(self.parameters)}"
            raise DamagedError(folder, f"{folder} holds {printable(made)[:200]}, not {wanted}")


def _name(header: Mapping[str, Any]) -> str:
    """The name of the store whose manifest has these entries."""
    identity = {**header["parameters"], "files": header["stamp"], "format": FORMAT}
    return f"{header['source']}-{json_digest(identity)[:8]}"


def check_name(folder: Path) -> None:
    """Refuse a store, or its manifest, that was copied from another folder, by a DamagedError."""
    manifest = read_manifest(folder)
    stamp, known = manifest.get("stamp"), manifest.get("parameters") or {}
    if stamp is None and manifest["source"] == "official":
        return  # of an older version, which kept no stamp; nothing else of it read files
    name = _name({**manifest, "parameters": known, "stamp": stamp or ""})
    if (folder.parent.name, folder.name) != (manifest["task"], name):
        raise DamagedError(folder, f"{folder / MANIFEST} is that of another folder")


def tfds_folder(root: Path, folder: Path) -> Path:
    """The folder of a store's data set in DATA_DIR/tfds, whether it is there or not."""
    return root / f"ssm_jax_{folder.parent.name}" / folder.name / TFDS_VERSION


def _manifest_in(folder: Path) -> dict[str, Any]:
    """The manifest of a store, or that our TFDS data set keeps; nothing if it is not whole."""
    with contextlib.suppress(ValueError, OSError):
        if folder.name != TFDS_VERSION:
            return read_manifest(folder)
        manifest = parse_json((folder / "metadata.json").read_bytes())
        if isinstance(manifest, dict) and "sha256" in manifest:
            return manifest
    return {}


def find(recipe: Recipe, data_dir: Path) -> Path:
    """The folder of the prepared data set; made first if it is of those that are made at once, else
    the line of the FileNotFoundError gives the command that makes it."""
    folder = recipe.folder(data_dir)
    _refuse_other(data_dir, folder)
    if folder.is_dir():
        return folder
    if not recipe.at_once and not _manifest_in(tfds_folder(data_dir / "tfds", folder)):
        damaged = [f.name for f in stores_of(data_dir, recipe.task) if not _manifest_in(f)]
        unread = f" (and {', '.join(damaged)} cannot be read)" if damaged else ""
        raise FileNotFoundError(
            f"no {recipe.source} {recipe.task} data at {folder}{unread}; run: {recipe.asked}"
        )
    return prepare(recipe, data_dir)


def _refuse_other(data_dir: Path, folder: Path) -> None:
    """Check that nothing but a folder, or a link to one, is where folders are to be."""
    for path in (data_dir, data_dir / "tfds", folder.parent, folder):
        if path.is_symlink() and not path.exists():
            raise not_there(path, "bring back what it leads to, or delete the link.")
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path} is not a folder; move it away.")


def prepare(recipe: Recipe, data_dir: Path, *, tfds: bool = False) -> Path:
    """The folder of the data set, made unless it is there; an interrupted preparation resumes, also
    after a full disk. With `tfds` the TensorFlow Datasets data set is made too."""
    folder = recipe.folder(data_dir)
    _refuse_other(data_dir, folder)
    work = folder.with_name(f".{folder.name}.work")
    path = tfds_folder(data_dir / "tfds", folder)
    prepared = _manifest_in(path)
    there = folder.is_dir() and (not tfds or prepared)
    if there and (not work.exists() or not os.access(folder.parent, os.W_OK)):
        return folder  # also from a disk that can only be read
    if tfds and any("\udc80" <= c <= "\udcff" for c in str(data_dir.absolute())):
        raise ValueError(
            f"TensorFlow Datasets cannot write to {data_dir}, whose name is no UTF-8; prepare the "
            "data in a folder with another name, and rename that if need be."
        )
    try:
        if recipe.stamp is None and not folder.is_dir() and not prepared:
            recipe.make(work)  # raises: there is nothing to make them of, and no name for a lock
        with locked(folder.with_name(f".{folder.name}.lock")):
            if prepared or tfds:
                from ssm_jax.data import builder  # 0.4 s, and training must not need it
            if not folder.is_dir():
                content = builder.read(path) if prepared else recipe.make(work)
                check_content(content, recipe)
                stamp = {"stamp": prepared["stamp"]} if prepared else {}
                write_store(folder, work / "store", content, {**recipe.header, **stamp})
            if tfds and not prepared:
                store = Store(folder)
                builder.write(path, store.content, store.manifest)
            # The one before us may have been killed between its store and its last line; a worker
            # that outlived a killed preparation may still be writing a shard we did not need.
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"not prepared ({os.strerror(error.errno)}); make room, then run the same command "
            "again: it goes on from there.",
            str(folder),
        ) from None
    return folder


def check_content(content: Content, recipe: Recipe) -> None:
    """Refuse a value, or an example, that cannot be, with its split and number."""
    examples, splits = content.examples, content.splits
    content.check()
    if recipe.check is None:
        return
    with stage("checking", sum(map(len, splits.values())), "examples") as advance:
        for split, numbers in splits.items():
            for position, number in enumerate(numbers.tolist()):
                try:
                    recipe.check(examples.features(number), int(examples.targets[number]))
                except ValueError as error:
                    raise ValueError(f"{split} example {position}: {error}") from None
                advance(1)
