"""A batch of CIFAR-10's Python version: a pickle, of which nothing is executed.

Each is the dictionary {"batch_label", "labels", "data", "filenames"} as Python 2 pickled it; "data"
is a NumPy array uint8 (10000, 3072), for each image its red, green and blue values.

CIFAR-10 in grey, the Image task of LRA: from an official archive, or a folder unpacked from it.

The binary version is a row of records: the class, then 1024 red, green and blue values. The Python
version is read as described in `cifar_pickle`. Nothing is unpacked.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np

from ssm_jax.data.archive import Counted, Limits, Tar, shown
from ssm_jax.data.fetch import RemoteFile
from ssm_jax.data.release import DEPTH, nearest, not_there, sha256_of
from ssm_jax.progress import stage

_COLOURS = 3 * 32 * 32


class Pixels(NamedTuple):
    """Grey images and their classes, in the order of the official files."""

    train_pixels: np.ndarray
    train_targets: np.ndarray
    test_pixels: np.ndarray
    test_targets: np.ndarray
    detail: str


class _Kept:
    """Stands for an array, its type and what makes it: keeps what they are given, does nothing."""

    def __init__(self, *args: object) -> None:
        self.args = args
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Knows the three names in a pickled array, and lets none of them be what it names."""

    _NAMES = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._NAMES:
            raise pickle.UnpicklingError(f"names {module}.{name}"[:80])
        return _Kept


def read_batch(data: bytes, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours uint8 (rows, 3072) and classes uint8 (rows,) of a batch.

    Args:
      data: the pickle.
      rows: images that it must hold.

    Raises:
      ValueError: if it is no such batch; the text goes on after the name of the file.
    """
    try:
        if not data:
            raise EOFError("it is empty")
        # The C unpickler makes room for all numbers below the one that it is to remember.
        for code, argument, _ in pickletools.genops(data):
            if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise pickle.UnpicklingError(f"remembers object {argument}")
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # the documentation does not say which ones a bad pickle raises
        raise ValueError(f"is no pickle of plain data ({_words(error)})") from None
    if not isinstance(batch, dict):
        raise ValueError(f"is a pickle of a {type(batch).__name__}, not of a dictionary")
    return _colours(batch.get(b"data"), rows), _classes(batch.get(b"labels"), rows)


def _words(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text)


def _colours(array: object, rows: int) -> np.ndarray:
    # What ndarray.__reduce__ gives as state: version, shape, type, column-major or not, content.
    match array.state if isinstance(array, _Kept) else None:
        case (1, shape, _Kept(args=(b"u1", *_)), False, bytes(raw)) if (
            shape == (rows, _COLOURS) and len(raw) == rows * _COLOURS
        ):
            return np.frombuffer(raw, np.uint8).reshape(rows, _COLOURS)
    raise ValueError(f"has no data that are a uint8 array ({rows}, {_COLOURS})")


def _classes(labels: object, rows: int) -> np.ndarray:
    if (
        isinstance(labels, list)
        and len(labels) == rows
        and all(type(label) is int and 0 <= label < 256 for label in labels)
    ):
        return np.array(labels, np.uint8)
    raise ValueError(f"has no labels that are a list of {rows} small whole numbers")


BINARY = RemoteFile(
    "cifar-10-binary.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
PYTHON = RemoteFile(
    "cifar-10-python.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    170_498_071,
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
# Of the files of the Python version, as published with torchvision.
_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_BATCHES = tuple(_MD5)  # the test batch last
# What a folder of CIFAR-10 holds, and the suffix of its batches; None: an archive
_SIGNS = {BINARY.name: None, PYTHON.name: None, f"{_BATCHES[0]}.bin": ".bin", _BATCHES[0]: ""}
# Six batches of 31 MB, and three small files
LIMITS = Limits(members=100, files=6, largest=1 << 25, wanted=1 << 28, unpacked=1 << 28)
_CLASSES = 10
_WANTED = (
    f"{BINARY.name} (sha256 {BINARY.sha256}), or the folder cifar-10-batches-bin unpacked from it, "
    "or a folder above either"
)


@dataclass(frozen=True)
class Official:
    """What official files must be; tests imitate them in small.

    Attributes:
      binary: the archive of the binary version.
      python: the archive of the Python version.
      rows: images in each of the six batches.
      md5: of each batch of the Python version.
    """

    binary: RemoteFile = BINARY
    python: RemoteFile = PYTHON
    rows: int = 10_000
    md5: Mapping[str, str] = field(default_factory=lambda: _MD5)


OFFICIAL = Official()


@dataclass(frozen=True)
class Found:
    """Where CIFAR-10 is.

    Attributes:
      path: an archive, or the folder that holds the six batches.
      suffix: of the batches in a folder, `.bin` in the binary version; None for an archive.
      stamp: sizes in bytes; tells two sources apart without reading them.
    """

    path: Path
    suffix: str | None
    stamp: str


def find(path: Path) -> Found:
    """Find CIFAR-10 at a path the user gave; in a folder, an archive is preferred to batches.

    Args:
      path: an archive, the folder of the batches, or a folder at most four levels above either.

    Raises:
      FileNotFoundError: if it, or one of the six batches, is not there.
    """
    if path.is_file():
        return Found(path, None, f"archive {path.stat().st_size}")
    if not path.is_dir():
        raise not_there(path, f"give {_WANTED}.")
    folder = nearest(path, lambda below: any((below / s).is_file() for s in _SIGNS), "CIFAR-10s")
    for sign, suffix in _SIGNS.items() if folder else ():
        assert folder is not None
        if (folder / sign).is_file():
            return find(folder / sign) if suffix is None else _unpacked(folder, suffix)
    raise FileNotFoundError(
        f"no CIFAR-10 in {path}, nor in the {DEPTH} levels below it; give {_WANTED}."
    )


def _unpacked(folder: Path, suffix: str) -> Found:
    for name in _BATCHES:
        if not (folder / f"{name}{suffix}").is_file():
            raise FileNotFoundError(f"{name}{suffix} is not in {folder}; unpack CIFAR-10 again.")
    sizes = [str((folder / f"{name}{suffix}").stat().st_size) for name in _BATCHES]
    return Found(folder, suffix, f"files{suffix} {' '.join(sizes)}")


def read(path: Path, official: Official = OFFICIAL) -> Pixels:
    """All images of CIFAR-10 in grey, L = 1024; batches 1 to 5 in order are the training set.

    Args:
      path: see `find`.
      official: what the files must be.

    Raises:
      FileNotFoundError: see `find`.
      ValueError: if what is there is not CIFAR-10.
    """
    found = find(path)
    digest = hashlib.sha256()
    archive, suffix = None, found.suffix
    if suffix is None:
        archive, suffix = _known_archive(found.path, official)
    paths = [found.path] if archive else [found.path / f"{name}{suffix}" for name in _BATCHES]
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with stage(f"reading {found.path}", sum(p.stat().st_size for p in paths), "bytes") as advance:
        for name, file in _in_archive(paths[0], advance) if archive else _in_folder(paths, advance):
            # A record of the Python version is the longer one, by its file name and small change.
            data = file.read(official.rows * (_COLOURS + 100) + 10_000)
            digest.update(data)
            try:
                batches[name] = _batch(data, official.rows, official.md5[name], suffix)
            except ValueError as error:
                raise ValueError(f"{found.path}: {name}{suffix} {error}; get it again.") from None
    if missing := [name for name in _BATCHES if name not in batches]:
        raise FileNotFoundError(f"{missing[0]}{suffix} is not in the archive {found.path}.")
    train = [batches[name] for name in _BATCHES[:-1]]
    pixels, targets = (np.concatenate(parts) for parts in zip(*train, strict=True))
    for what, classes in (("training", targets), ("test", batches[_BATCHES[-1]][1])):
        counts = np.bincount(classes, minlength=_CLASSES)
        if (counts != classes.size // _CLASSES).any():
            raise ValueError(
                f"{found.path}: the classes of the {classes.size:,} {what} images have "
                f"{', '.join(map(str, counts))} images, those of CIFAR-10 are of one size."
            )
    if archive:
        detail = f"official CIFAR-10, {archive.name}, sha256 {archive.sha256}"
    else:
        version = "binary" if suffix else "Python"
        detail = f"CIFAR-10, six batches of its {version} version, sha256 {digest.hexdigest()}"
    return Pixels(pixels, targets, *batches[_BATCHES[-1]], detail)


def _known_archive(path: Path, official: Official) -> tuple[RemoteFile, str]:
    """Which archive a file is, whatever its name, and the suffix of the batches in it."""
    if path.stat().st_size > LIMITS.unpacked:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, too many for {_WANTED}.")
    sha256 = sha256_of(path)
    for archive, suffix in ((official.binary, ".bin"), (official.python, "")):
        if sha256 == archive.sha256:
            return archive, suffix
    raise ValueError(
        f"{path} has sha256 {sha256}, that is neither {official.binary.name} (sha256 "
        f"{official.binary.sha256}) nor {official.python.name} (sha256 {official.python.sha256}); "
        "get one of them."
    )


def _in_archive(path: Path, advance: Callable[[int], None]) -> Iterator[tuple[str, IO[bytes]]]:
    """The six batches as they come by, each with its name without suffix."""
    with open(path, "rb") as raw:
        archive, counted, seen = Tar(raw, path, LIMITS), Counted(LIMITS), 0
        while (member := archive.next()) is not None:
            name = PurePosixPath(member.name).name.removesuffix(".bin")
            if name in _BATCHES and member.isreg():
                where = f"{shown(path)}:{shown(member.name)}"
                counted.add(where, member.size)
                yield name, archive.open(member, where)
                advance(raw.tell() - seen)
                seen = raw.tell()


def _in_folder(
    paths: Iterable[Path], advance: Callable[[int], None]
) -> Iterator[tuple[str, IO[bytes]]]:
    for path in paths:
        with open(path, "rb") as file:
            yield path.name.removesuffix(".bin"), file
            advance(file.tell())


def _batch(data: bytes, rows: int, md5: str, suffix: str) -> tuple[np.ndarray, np.ndarray]:
    """Grey pixels (rows, 1024) and classes of a batch; errors go on after the file's name."""
    if suffix:
        if len(data) != rows * (1 + _COLOURS):
            raise ValueError(
                f"is not {rows:,} records of {1 + _COLOURS:,} bytes, {rows * (1 + _COLOURS):,} in "
                f"all ({len(data):,} were read)"
            )
        records = np.frombuffer(data, np.uint8).reshape(rows, 1 + _COLOURS)
        targets, colours = records[:, 0].copy(), records[:, 1:]
    else:
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found != md5:
            raise ValueError(f"has md5 {found}, expected {md5}")
        colours, targets = read_batch(data, rows)
    if targets.max() >= _CLASSES:
        raise ValueError(f"has an image of class {targets.max()}, the last one is {_CLASSES - 1}")
    return grey(colours), targets


def grey(colours: np.ndarray) -> np.ndarray:
    """Luma of planes of red, green and blue, bit for bit as Pillow's `convert("L")`.

    Args:
      colours: uint8 (n, 3 L).

    Returns:
      uint8 (n, L).
    """
    red, green, blue = np.split(colours.astype(np.uint32), 3, axis=1)
    return ((19_595 * red + 38_470 * green + 7_471 * blue + 32_768) >> 16).astype(np.uint8)
