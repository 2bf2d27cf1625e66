"""Recipes of Image: gray pictures read pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data import cifar, fashion_mnist, stand_in
from ssm_jax.data.examples import Images, Made
from ssm_jax.data.fetch import fetch
from ssm_jax.data.recipe import Place, Recipe, command
from ssm_jax.data.splits import held_out

TASK = "image"
N_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class ImageOptions(stand_in.Drawn):
    """What the examples depend on.

    Attributes:
      n_held_out: training images that are for validation: the last of a random order (seed 42, as
        S4, whose 5,000 they are).
    """

    n_held_out: int = 5_000

    def __post_init__(self) -> None:
        if not 1 <= self.n_held_out < 50_000:
            raise ValueError(f"n_held_out={self.n_held_out} must be from 1 to 49,999.")


def image(
    options: ImageOptions,
    source: str,
    place: Place,
    *,
    official_cifar: cifar.Official = cifar.OFFICIAL,
    official_fashion: Mapping[str, fashion_mnist.IdxFile] = fashion_mnist.OFFICIAL,
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

    def make(_: Path) -> Made:
        if source == "stand_in":
            images, splits = stand_in.images(options.counts, options.seed)
            detail = f"STAND-IN of stripes in noise, seed {options.seed}; not CIFAR-10"
            return Made(images, splits, detail, {}, (), N_CLASSES)
        if source == "official":
            path = place.files or fetch(official_cifar.binary, place.raw)
            parts = cifar.read(path, official_cifar)
        else:
            path = place.files or fashion_mnist.DEBIAN_FOLDER
            parts = fashion_mnist.read(path, pad_to=32, official=official_fashion)
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
        return Made(images, splits, parts.detail, {}, (), N_CLASSES)

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
