"""Image: gray pictures read pixel by pixel, CIFAR-10's (the task of LRA) or Fashion-MNIST's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssm_jax.data.draws import held_out
from ssm_jax.data.examples import Content, Images
from ssm_jax.data.fetch import fetch
from ssm_jax.data.idx_files import DEBIAN_FOLDER, FASHION, read_idx
from ssm_jax.data.prepare import DataPaths, Recipe, found_in_tfds
from ssm_jax.data.release import Release
from ssm_jax.lra import cifar, stand_in
from ssm_jax.lra.cifar import N_CLASSES
from ssm_jax.options.rows import Range, setting
from ssm_jax.progress import stage

TASK = "image"


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


def read_fashion(folder: Path = DEBIAN_FOLDER) -> tuple[Images, int, str]:
    """As `read_cifar`, Fashion-MNIST, from the folder of the four files, each as it is or as .gz;
    with two zeros on all four sides, L = 32**2."""
    arrays = []
    with stage(f"reading {folder}", len(FASHION.files), "files") as advance:
        for name in FASHION.files:
            array = read_idx(folder, name, FASHION)
            if array.ndim > 1:
                array = np.pad(array, ((0, 0), (2, 2), (2, 2))).reshape(len(array), -1)
            arrays.append(array)
            advance(1)
    detail = "official Fashion-MNIST, padded to 32 x 32; the training images have sha256 "
    images = Images(np.concatenate(arrays[::2]), np.concatenate(arrays[1::2]))
    return images, arrays[1].size, detail + FASHION.files["train-images-idx3-ubyte"].sha256


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
