"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747) as a task of 784 or 1024 steps.

60,000 and 10,000 grey images of 28 x 28 in ten classes of one size, MIT licence. Debian has it as a
package. What is compared with known hashes is the content, as archives of it were packed anew.

Recipes of Image: gray pictures read pixel by pixel.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.draws import held_out
from ssm_jax.data.examples import Content, Images
from ssm_jax.data.fetch import fetch
from ssm_jax.data.prepare import DataPaths, Recipe, command
from ssm_jax.lra import cifar, stand_in
from ssm_jax.lra.cifar import Pixels
from ssm_jax.options import Range, setting
from ssm_jax.progress import stage

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_SIDE = 28  # pixels


@dataclass(frozen=True)
class IdxFile:
    """An official file, unpacked.

    Attributes:
      shape: of its array of uint8.
      sha256: of all its bytes.
    """

    shape: tuple[int, ...]
    sha256: str

    def header(self) -> bytes:
        """Two zeros, 8 for uint8, the number of axes, and every axis in 4 bytes."""
        axes = b"".join(n.to_bytes(4, "big") for n in self.shape)
        return bytes([0, 0, 8, len(self.shape)]) + axes


# In the order of Pixels.
OFFICIAL: Mapping[str, IdxFile] = {
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


def find(folder: Path) -> list[Path]:
    """The four files in a folder, each as it is or as .gz, in the order of `OFFICIAL`.

    Raises:
      FileNotFoundError: if one is not there; the line says where Debian's package puts them.
    """
    paths = []
    for name in OFFICIAL:
        found = [p for p in (folder / name, folder / f"{name}.gz") if p.is_file()]
        if not found:
            raise FileNotFoundError(
                f"neither {name} nor {name}.gz is in {folder}; run: apt-get install "
                f"dataset-fashion-mnist (its files are in {DEBIAN_FOLDER}), or give the folder of "
                "the four official files."
            )
        paths.append(found[0])
    return paths


def read(
    folder: Path = DEBIAN_FOLDER,
    *,
    pad_to: int = _SIDE,
    official: Mapping[str, IdxFile] = OFFICIAL,
) -> Pixels:
    """All images of Fashion-MNIST.

    Args:
      folder: see `find`.
      pad_to: pixels in a row and in a column, L = pad_to**2; zeros are added on all four sides.
      official: what the files must be.

    Raises:
      FileNotFoundError: see `find`.
      ValueError: if a file is not the official one, or pad_to is smaller than the images.
    """
    if pad_to < _SIDE:
        raise ValueError(f"pad_to={pad_to} is smaller than the images; use at least {_SIDE}.")
    files = list(zip(find(folder), official.values(), strict=True))
    total = sum(_size(file) for _, file in files)
    with stage(f"reading {folder}", total, "bytes") as advance:
        train_images, train_targets, test_images, test_targets = (
            _read_idx(path, file, advance) for path, file in files
        )
    before = (pad_to - _SIDE) // 2
    margin = (before, pad_to - _SIDE - before)
    train_pixels, test_pixels = (
        np.pad(images, ((0, 0), margin, margin)).reshape(len(images), pad_to**2)
        for images in (train_images, test_images)
    )
    padded = f", padded to {pad_to} x {pad_to}" if pad_to > _SIDE else ""
    return Pixels(
        train_pixels,
        train_targets,
        test_pixels,
        test_targets,
        f"official Fashion-MNIST{padded}; the training images have sha256 "
        f"{next(iter(official.values())).sha256}",
    )


def _size(file: IdxFile) -> int:
    return len(file.header()) + math.prod(file.shape)


def _read_idx(path: Path, file: IdxFile, advance: Callable[[int], None]) -> np.ndarray:
    size = _size(file)
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as content:
            data = content.read(size + 1)  # whatever it may unpack to
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}); get it again.") from None
    header = file.header()
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
    advance(size)
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(file.shape)


TASK = "image"
N_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class ImageOptions(stand_in.Drawn):
    """What the examples depend on.

    Attributes:
      n_held_out: training images that are for validation: the last of a random order (seed 42, as
        S4, whose 5,000 they are).
    """

    n_held_out: int = setting(
        5_000, "training images for validation", Range(1, 49_999), source="S4: 5,000"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.n_held_out < 50_000:
            raise ValueError(f"n_held_out={self.n_held_out} must be from 1 to 49,999.")


def image(
    options: ImageOptions,
    source: str,
    place: DataPaths,
    *,
    official_cifar: cifar.Official = cifar.OFFICIAL,
    official_fashion: Mapping[str, IdxFile] = OFFICIAL,
) -> Recipe:
    """How Image is made.

    Args:
      options: what is made.
      source: "official" (CIFAR-10 in gray, LRA's), "fashion_mnist" (padded with black to 32 x 32),
        or "stand_in" (stripes in noise, for tests of the machinery).
      place: folders; its files are the archive or folder of the images.
      official_cifar, official_fashion: what the official files must be.
    """
    parameters: dict[str, Any] = {"n_held_out": options.n_held_out}
    if source == "stand_in":
        parameters = options.identity()
    stamp: str | None = ""  # the content of Fashion-MNIST is known
    if source == "official":
        stamp = None if place.files is None else cifar.find(place.files).stamp

    def make(_: Path) -> Content:
        if source == "stand_in":
            images, splits = stand_in.images(options.counts, options.seed)
            detail = f"STAND-IN of stripes in noise, seed {options.seed}; not CIFAR-10"
            return Content(images, splits, detail, {}, (), N_CLASSES)
        if source == "official":
            path = place.files or fetch(official_cifar.binary, place.raw)
            parts = cifar.read(path, official_cifar)
        else:
            path = place.files or DEBIAN_FOLDER
            parts = read(path, pad_to=32, official=official_fashion)
        n = parts.train_targets.size
        train, val = held_out(n, options.n_held_out, seed=42)
        splits = {
            "train": train,
            "val": val,
            "test": np.arange(n, n + parts.test_targets.size, dtype=np.int64),
        }
        images = Images(
            np.concatenate([parts.train_pixels, parts.test_pixels]),
            np.concatenate([parts.train_targets, parts.test_targets]),
        )
        return Content(images, splits, parts.detail, {}, (), N_CLASSES)

    return Recipe(
        task=TASK,
        source=source,
        parameters=parameters,
        stamp=stamp,
        make=make,
        at_once=source == "stand_in" or place.files is not None,
        download=f"archive {official_cifar.binary.size}",
        command=command(TASK, source, place, options),
    )
