"""The IDX files of MNIST and Fashion-MNIST: four arrays of uint8, each as it is or as .gz.

MNIST is of LeCun, Cortes and Burges; Fashion-MNIST of Xiao, Rasul and Vollgraf 2017
(arXiv:1708.07747, MIT licence). Both have gray images of 28 x 28 in ten classes. The files may have
been packed anew, so what is compared with known hashes is the content.
"""

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SIDE = 28  # pixels


class IdxFile(NamedTuple):
    """An official file, unpacked: an array of uint8."""

    shape: tuple[int, ...]
    sha256: str


def _four(*sha256: str) -> dict[str, IdxFile]:
    kinds = ("images-idx3", "labels-idx1")
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in kinds]
    shapes = [(60_000, SIDE, SIDE), (60_000,), (10_000, SIDE, SIDE), (10_000,)]
    files = [IdxFile(shape, digest) for shape, digest in zip(shapes, sha256, strict=True)]
    return dict(zip(names, files, strict=True))


@dataclass(frozen=True)
class IdxSet:
    """A data set of four files: images and labels for training, images and labels for testing."""

    title: str
    licence: str
    files: Mapping[str, IdxFile]
    get: str  # what brings them
    folder: Path | None = None  # where that puts them


FASHION = IdxSet(
    "Fashion-MNIST",
    "MIT",
    _four(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    f"apt-get install dataset-fashion-mnist (its files are in {DEBIAN_FOLDER}), or give the folder "
    "of the four official files",
    DEBIAN_FOLDER,
)
MNIST = IdxSet(
    "MNIST",
    "as its authors say",
    _four(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "give the folder of the four official files with --from=FOLDER",
)


def read_idx(folder: Path, name: str, about: IdxSet) -> np.ndarray:
    """The array of one file of a set; OSError or ValueError if it is not there, or another."""
    file = about.files[name]
    paths = (folder / name, folder / f"{name}.gz")
    path = next(filter(Path.is_file, paths), None)
    if path is None:
        verb = "run: " if about.folder else ""
        raise FileNotFoundError(f"neither {name} nor {name}.gz is in {folder}; {verb}{about.get}.")
    # Two zeros, 8 for uint8, the number of axes, and every axis in 4 bytes
    axes = b"".join(n.to_bytes(4, "big") for n in file.shape)
    header = bytes([0, 0, 8, len(file.shape)]) + axes
    size = len(header) + math.prod(file.shape)
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as content:
            data = content.read(size + 1)  # whatever it may unpack to
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}); get it again.") from None
    if not data.startswith(header):
        raise ValueError(
            f"{path} is not an IDX file of {' x '.join(map(str, file.shape))} bytes: it begins "
            f"with {data[: len(header)].hex()}, expected {header.hex()}."
        )
    if len(data) != size:
        got = f"more than {size:,}" if len(data) > size else f"{len(data):,}"
        raise ValueError(f"{path} holds {got} bytes, expected {size:,}; get it again.")
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise ValueError(
            f"the content of {path} has sha256 {found}, that of {about.title} {file.sha256}; it is "
            "another data set, or damaged."
        )
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(file.shape)
