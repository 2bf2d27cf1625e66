"""Image: gray pictures read pixel by pixel, CIFAR-10's (the task of LRA) or Fashion-MNIST's.

Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747, MIT licence) has gray images of
28 x 28 in ten classes of one size. Debian packs it anew, so what is compared with known hashes is
the content.
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

from ssm_jax.data.draws import held_out
from ssm_jax.data.examples import Content, Images
from ssm_jax.data.fetch import fetch
from ssm_jax.data.prepare import DataPaths, Recipe, found_in_tfds
from ssm_jax.data.release import Release
from ssm_jax.lra import cifar, stand_in
from ssm_jax.lra.cifar import N_CLASSES
from ssm_jax.options import Range, setting
from ssm_jax.progress import stage

TASK = "image"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_SIDE = 28  # pixels


@dataclass(frozen=True, kw_only=True)
class ImageOptions(stand_in.Drawn):
    """The options of the examples."""

    # The last of a random order (seed 42, as S4)
    n_held_out: int = setting(
        5_000, "training images for validation", Range(1, 49_999), source="S4: 5,000"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.n_held_out < 50_000:
            raise ValueError(f"n_held_out={self.n_held_out} must be from 1 to 49,999.")


class IdxFile(NamedTuple):
    """An official file of Fashion-MNIST, unpacked: an array of uint8."""

    shape: tuple[int, ...]
    sha256: str


FASHION: Mapping[str, IdxFile] = {
    "train-images-idx3-ubyte": IdxFile(
        (60_000, _SIDE, _SIDE), "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte": IdxFile(
        (60_000,), "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte": IdxFile(
        (10_000, _SIDE, _SIDE), "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte": IdxFile(
        (10_000,), "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}


def read_fashion(folder: Path = DEBIAN_FOLDER) -> tuple[Images, int, str]:
    """As `read_cifar`, Fashion-MNIST, from the folder of the four files, each as it is or as .gz;
    with two zeros on all four sides, L = 32**2."""
    arrays = []
    with stage(f"reading {folder}", len(FASHION), "files") as advance:
        for name, file in FASHION.items():
            array = _read_idx(folder, name, file)
            if array.ndim > 1:
                array = np.pad(array, ((0, 0), (2, 2), (2, 2))).reshape(len(array), -1)
            arrays.append(array)
            advance(1)
    detail = "official Fashion-MNIST, padded to 32 x 32; the training images have sha256 "
    images = Images(np.concatenate(arrays[::2]), np.concatenate(arrays[1::2]))
    return images, arrays[1].size, detail + FASHION["train-images-idx3-ubyte"].sha256


def _read_idx(folder: Path, name: str, file: IdxFile) -> np.ndarray:
    paths = (folder / name, folder / f"{name}.gz")
    path = next(filter(Path.is_file, paths), None)
    if path is None:
        raise FileNotFoundError(
            f"neither {name} nor {name}.gz is in {folder}; run: apt-get install "
            f"dataset-fashion-mnist (its files are in {DEBIAN_FOLDER}), or give the folder of "
            "the four official files."
        )
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
            f"the content of {path} has sha256 {found}, that of Fashion-MNIST {file.sha256}; it is "
            "another data set, or damaged."
        )
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(file.shape)


def image(options: ImageOptions, source: str, paths: DataPaths) -> Recipe:
    """The recipe of Image: "official" (CIFAR-10 in gray, LRA's), "tfds" (the same, as TensorFlow
    Datasets has it), "fashion_mnist" (padded to 32 x 32), or "stand_in" (stripes in noise)."""
    found: Release | None = None
    drawn = source == "stand_in"
    if source == "official" and paths.files is not None:
        found = cifar.find_cifar(paths.files)
    elif source == "tfds":
        found = paths.find_tfds("cifar10")
    elif source == "fashion_mnist" and paths.files is not None:
        found = Release(paths.files, False, "")  # its content is known

    def make(_: Path) -> Content:
        if drawn:
            images, splits = stand_in.images(options)
            detail = f"STAND-IN of stripes in noise, seed {options.seed}; not CIFAR-10"
            return Content(images, splits, detail, {}, (), N_CLASSES)
        if source == "official":
            path = paths.files or fetch(cifar.BINARY, paths.raw)
            images, n_train, detail = cifar.read_cifar(path)
        elif source == "tfds":
            path = found_in_tfds(found, "cifar10").path
            images, n_train, detail = cifar.read_cifar_tfds(path)
        else:
            images, n_train, detail = read_fashion(paths.files or DEBIAN_FOLDER)
        # The training images in S4's random order, the last of them for validation
        train, val = held_out(n_train, options.n_held_out, seed=42)
        splits = {"train": train, "val": val, "test": np.arange(n_train, len(images))}
        return Content(images, splits, detail, {}, (), N_CLASSES)

    parameters = options.identity() if drawn else {"n_held_out": options.n_held_out}
    download = f"archive {cifar.BINARY.size}" if source == "official" else None
    return Recipe(TASK, source, options, paths, parameters, make, found, download=download)
