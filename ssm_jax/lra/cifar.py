"""CIFAR-10 in gray, from the files of its makers or of TensorFlow Datasets.

The binary version is a row of records: the class, then 1024 red, green and blue values. A batch of
the Python version is the dictionary {"batch_label", "labels", "data", "filenames"} as Python 2
pickled it; "data" is a NumPy array uint8 (10000, 3072). Nothing of a pickle is executed, and
nothing is unpacked to the disk.
"""

import hashlib
import io
import pickle
import pickletools
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ssm_jax.data.archive import decoded
from ssm_jax.data.examples import Images
from ssm_jax.data.fetch import RemoteFile
from ssm_jax.data.prepare import UNOFFICIAL
from ssm_jax.data.release import DEPTH, Release, nearest, not_there, sha256_of, stamp_of
from ssm_jax.files import printable
from ssm_jax.progress import stage

N_CLASSES = 10
_SITE = "https://www.cs.toronto.edu/~kriz/"
BINARY, PYTHON = (
    RemoteFile(f"cifar-10-{kind}.tar.gz", (f"{_SITE}cifar-10-{kind}.tar.gz",), size, sha256)
    for kind, size, sha256 in (
        ("binary", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
        ("python", 170_498_071, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),
    )
)
OFFICIAL_ROWS = 10_000  # images in each of the six batches
# Of the files of the Python version, as published with torchvision; the test batch last.
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_BATCHES = tuple(MD5)
_COLOURS = 3 * 32 * 32
_LARGEST = 1 << 28  # bytes of an archive
_WANTED = (
    f"{BINARY.name} (sha256 {BINARY.sha256}), or the folder cifar-10-batches-bin unpacked from it, "
    "or a folder above either"
)


def find_cifar(path: Path) -> Release:
    """Find CIFAR-10 at a path the user gave: an archive, the folder of the batches, or a folder at
    most four levels above either; an archive is preferred to batches."""
    if path.is_file():
        return Release(path, True, f"archive {path.stat().st_size}")
    if not path.is_dir():
        raise not_there(path, f"give {_WANTED}.")
    signs = (BINARY.name, PYTHON.name, f"{_BATCHES[0]}.bin", _BATCHES[0])
    folder = nearest(path, lambda below: any((below / s).is_file() for s in signs), "CIFAR-10s")
    if folder is None:
        raise FileNotFoundError(
            f"no CIFAR-10 in {path}, nor in the {DEPTH} levels below it; give {_WANTED}."
        )
    sign = next(sign for sign in signs if (folder / sign).is_file())
    if sign in signs[:2]:
        return find_cifar(folder / sign)
    suffix = PurePosixPath(sign).suffix
    names = [f"{name}{suffix}" for name in _BATCHES]
    sizes = stamp_of(folder, names, "CIFAR-10").removeprefix("files")
    return Release(folder, False, f"files{suffix}{sizes}")


def read_cifar(path: Path) -> tuple[Images, int, str]:
    """All images of CIFAR-10 in gray, L = 1024, in the order of the batches; how many at the
    beginning are for training, and what they are, in words."""
    found, archive = find_cifar(path), None
    if found.is_archive:  # one of the two, whatever its name
        size = found.path.stat().st_size
        if size > _LARGEST:
            raise ValueError(f"{found.path} has {size:,} bytes, too many for {_WANTED}.")
        sha256, known = sha256_of(found.path), (BINARY, PYTHON)
        archive = next((archive for archive in known if archive.sha256 == sha256), None)
        if archive is None:
            names = " nor ".join(f"{archive.name} (sha256 {archive.sha256})" for archive in known)
            raise ValueError(
                f"{found.path} has sha256 {sha256}, that is neither {names}; get one of them."
            )
    binary = archive == BINARY if archive else found.stamp.startswith("files.bin")
    suffix = ".bin" if binary else ""
    digest = hashlib.sha256()
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with stage(f"reading {found.path}", len(_BATCHES), "batches") as advance:
        for name, data in _cifar_files(found, suffix):
            digest.update(data)
            try:
                batches[name] = _cifar_batch(data, MD5[name], binary)
            except ValueError as error:
                raise ValueError(f"{found.path}: {name}{suffix} {error}; get it again.") from None
            advance(1)
    if missing := [name for name in _BATCHES if name not in batches]:
        raise FileNotFoundError(f"{missing[0]}{suffix} is not in the archive {found.path}.")
    pixels, targets = map(np.concatenate, zip(*map(batches.get, _BATCHES), strict=True))
    n_train = 5 * OFFICIAL_ROWS
    for what, classes in (("training", targets[:n_train]), ("test", targets[n_train:])):
        counts = np.bincount(classes, minlength=N_CLASSES)
        if (counts != classes.size // N_CLASSES).any():
            raise ValueError(
                f"{found.path}: the classes of the {classes.size:,} {what} images have "
                f"{', '.join(map(str, counts))} images, those of CIFAR-10 are of one size."
            )
    version = "binary" if binary else "Python"
    detail = f"CIFAR-10, six batches of its {version} version, sha256 {digest.hexdigest()}"
    if archive:
        detail = f"official CIFAR-10, {archive.name}, sha256 {archive.sha256}"
    return Images(pixels, targets), n_train, detail


def read_cifar_tfds(path: Path) -> tuple[Images, int, str]:
    """As `read_cifar`, of the data set cifar10 of TensorFlow Datasets, in the official order."""
    from ssm_jax.data.builder import rows_of

    # Their ids count in the official order.
    train, test = (
        sorted(rows_of(path, split, raw=("image",)), key=lambda row: row["id"])
        for split in ("train", "test")
    )
    rows = [*train, *test]
    images = [np.asarray(decoded(row["image"], "PNG", "RGB", (32, 32))) for row in rows]
    colours = np.stack(images).transpose(0, 3, 1, 2).reshape(len(rows), -1)
    targets = np.array([row["label"] for row in rows], np.uint8)
    other = "" if (len(train), len(test)) == (5 * OFFICIAL_ROWS, OFFICIAL_ROWS) else UNOFFICIAL
    detail = f"CIFAR-10 as TensorFlow Datasets has it, version {path.name}{other}"
    return Images(gray(colours), targets), len(train), detail


def _cifar_files(found: Release, suffix: str) -> Iterator[tuple[str, bytes]]:
    """The first bytes of the batches in a folder, or in an archive whose sha256 is known."""
    # A record of the Python version is the longer one, by its file name and small change.
    most = OFFICIAL_ROWS * (_COLOURS + 100) + 10_000
    if not found.is_archive:
        for name in _BATCHES:
            with open(found.path / f"{name}{suffix}", "rb") as file:
                yield name, file.read(most)
        return
    with tarfile.open(found.path) as archive:
        for member in archive:
            name = PurePosixPath(member.name).name.removesuffix(".bin")
            content = archive.extractfile(member) if member.isreg() else None
            if name in _BATCHES and content is not None:
                yield name, content.read(most)


def _cifar_batch(data: bytes, md5: str, binary: bool) -> tuple[np.ndarray, np.ndarray]:
    """Gray pixels (n, 1024) and classes of a batch; errors continue after the file's name."""
    if binary:
        size = OFFICIAL_ROWS * (1 + _COLOURS)
        if len(data) != size:
            raise ValueError(
                f"is not {OFFICIAL_ROWS:,} records of {1 + _COLOURS:,} bytes, {size:,} in all "
                f"({len(data):,} were read)"
            )
        records = np.frombuffer(data, np.uint8).reshape(-1, 1 + _COLOURS)
        targets, colours = records[:, 0].copy(), records[:, 1:]
    else:
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found != md5:
            raise ValueError(f"has md5 {found}, expected {md5}")
        colours, targets = read_batch(data, OFFICIAL_ROWS)
    if targets.max() >= N_CLASSES:
        raise ValueError(f"has an image of class {targets.max()}, the last one is {N_CLASSES - 1}")
    return gray(colours), targets


def gray(colours: np.ndarray) -> np.ndarray:
    """Luma (n, L) of red, green and blue planes uint8 (n, 3 L), in every bit as Pillow's mode L."""
    red, green, blue = np.split(colours.astype(np.uint32), 3, axis=1)
    return ((19_595 * red + 38_470 * green + 7_471 * blue + 32_768) >> 16).astype(np.uint8)


class _Kept:
    """Stands for an array, its type and what makes it: keeps what they are given, does nothing."""

    state: object = None

    def __init__(self, *args: object) -> None:
        self.args = args

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Knows the three names in a pickled array, and lets none of them be what it names."""

    def find_class(self, module: str, name: str) -> Any:
        known = ("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype")
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"names {module}.{name}"[:80])
        return _Kept


def read_batch(data: bytes, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours uint8 (rows, 3072) and classes uint8 (rows,) of a pickled batch.

    If it is no such batch, the text of the ValueError continues after the name of the file.
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
        text = printable(f"{type(error).__name__}: {error}".removesuffix(": "))
        raise ValueError(f"is no pickle of plain data ({text})") from None
    if not isinstance(batch, dict):
        raise ValueError(f"is a pickle of a {type(batch).__name__}, not of a dictionary")
    # What ndarray.__reduce__ gives as state: version, shape, type, column-major or not, content.
    match getattr(batch.get(b"data"), "state", None):
        case (1, shape, _Kept(args=(b"u1", *_)), False, bytes(raw)) if (
            shape == (rows, _COLOURS) and len(raw) == rows * _COLOURS
        ):
            colours = np.frombuffer(raw, np.uint8).reshape(rows, _COLOURS)
        case _:
            raise ValueError(f"has no data that are a uint8 array ({rows}, {_COLOURS})")
    match batch.get(b"labels"):
        case list(labels) if len(labels) == rows and all(
            type(label) is int and 0 <= label < 256 for label in labels
        ):
            return colours, np.array(labels, np.uint8)
    raise ValueError(f"has no labels that are a list of {rows} small whole numbers")
