"""Images as long sequences: crops of the photographs that come with the package, or CelebA.

A crop is a function of the seed, the split and its number, and no photograph is in two splits.
Images are flattened row by row; stripes disturb them in evaluation alone. Source: image denoising
of arXiv:2410.02035.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ssm_jax.data.dataset import Dataset, Provenance
from ssm_jax.data.draws import uniform
from ssm_jax.data.examples import SPLITS
from ssm_jax.data.prepare import DataPaths, found_in_tfds
from ssm_jax.stories.denoise import DENOISE
from ssm_jax.stories.denoise.celeba import ARCHIVE, CelebA, PreparedCelebA

FOLDER = Path(__file__).parent / "photos"  # LICENSES.md there names authors and licences
PHOTOGRAPHS: Mapping[str, tuple[str, ...]] = {
    "train": ("astronaut", "coffee", "rocket"),
    "val": ("hopper",),
    "test": ("chelsea",),
}
COUNTS: Mapping[str, int] = {"train": 96, "val": 16, "test": 16}  # unless a config asks for others
SMALLEST = 0.5  # side of a crop over that of its photograph, at least


class Photographs:
    """Crops in memory, uint8 (n, H, W, 3) for each split."""

    def __init__(self, size: tuple[int, int], counts: Mapping[str, int], seed: int) -> None:
        """Crops of `size` (H, W); `counts` of each split are those of COUNTS where they are 0."""
        self._pixels: dict[str, np.ndarray] = {}
        digest = hashlib.sha256()
        for number, (split, names) in enumerate(PHOTOGRAPHS.items()):
            photographs, n = [_read(name) for name in names], counts[split] or COUNTS[split]
            drawn = uniform(seed, number, 4 * n).reshape(n, 4).tolist()
            crops = [_crop(photographs[i % len(names)], size, *drawn[i]) for i in range(n)]
            self._pixels[split] = pixels = np.stack(crops)
            digest.update(repr(pixels.shape).encode() + pixels.tobytes())
        self.sha256 = digest.hexdigest()
        self.detail = (
            f"crops of {size[0]} x {size[1]} from photographs in the public domain, seed {seed}"
        )

    def size(self, split: str) -> int:
        return len(self._pixels[split])

    def pixels(self, split: str, index: int) -> np.ndarray:
        return self._pixels[split][index]


def _read(name: str) -> Image.Image:
    with Image.open(FOLDER / f"{name}.jpg") as photograph:
        return photograph.convert("RGB")


def _crop(
    photograph: Image.Image, size: tuple[int, int], scale: float, x: float, y: float, flip: float
) -> np.ndarray:
    """A square part, by four numbers in [0, 1), stretched to (H, W) and perhaps mirrored."""
    shorter = min(photograph.size)
    side = round(shorter * (SMALLEST + (1 - SMALLEST) * scale))
    left, top = int(x * (photograph.width - side + 1)), int(y * (photograph.height - side + 1))
    part = photograph.resize(
        (size[1], size[0]), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
    )
    pixels = np.asarray(part)
    return pixels[:, ::-1] if flip < 0.5 else pixels


_NOISE_STREAM = 1 << 32  # past the streams of the crops


class ImageSource(Protocol):
    """Where the images of `DenoiseDataset` are; pixels are uint8 (H, W, 3)."""

    sha256: str
    detail: str

    def size(self, split: str) -> int: ...

    def pixels(self, split: str, index: int) -> np.ndarray: ...


class DenoiseDataset(Dataset):
    """Colour images of `size` (height, width), flattened row by row. `gather` returns

    "inputs": float32 (B, L, 3) in [-1, 1], L = height * width;
    "noise": float32 (B, 3), amplitudes of stripes by channel, uniform in [0, 2 * amplitude): the
      unit is that of the inputs, where black to white is 2. A function of the seed and example.
    """

    def __init__(
        self,
        images: ImageSource,
        size: tuple[int, int],
        *,
        source: str,
        amplitude: float,
        seed: int,
    ) -> None:
        self.height, self.width = size
        provenance = Provenance(source, images.detail, images.sha256)
        super().__init__("denoise", self.height * self.width, provenance)
        self._images = images
        self._noise = {}
        for i, split in enumerate(SPLITS):
            drawn = 2 * amplitude * uniform(seed, _NOISE_STREAM + i, 3 * images.size(split))
            self._noise[split] = drawn.reshape(-1, 3).astype(np.float32)

    def size(self, split: str) -> int:
        if split not in self.splits:
            raise self.no_split(split)
        return self._images.size(split)

    def lengths(self, split: str) -> np.ndarray:
        return np.full(self.size(split), self.padded_length, np.int64)

    def shapes(self, batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], type]]:
        return {
            "inputs": ((batch_size, length, 3), np.float32),
            "noise": ((batch_size, 3), np.float32),
        }

    def gather(
        self, split: str, indices: np.ndarray, length: int | None = None
    ) -> dict[str, np.ndarray]:
        indices = self.check(split, indices)
        pixels = np.stack([self._images.pixels(split, i) for i in indices.tolist()])
        inputs_BL3 = pixels.reshape(len(pixels), -1, 3).astype(np.float32) / np.float32(127.5) - 1
        return {"inputs": inputs_BL3, "noise": self._noise[split][indices]}

    def steps_of(self, batch: Mapping[str, Any]) -> int:
        return batch["inputs"].shape[1]


def open_denoise(options: Mapping[str, Any], place: DataPaths) -> DenoiseDataset:
    """The images that `cfg.data` asks for; files are CelebA's.

    Raises:
      ValueError: for another source, or a padded_length that is not height * width.
      FileNotFoundError: for source "official" without files.
    """
    own, source, seed = options["denoise"], options["source"], options["seed"]
    size = own["height"], own["width"]
    if source not in DENOISE.sources:
        raise ValueError(
            f"data.source={source!r} is not known to denoise; "
            f"choose one of {', '.join(DENOISE.sources)}."
        )
    if options["padded_length"] != size[0] * size[1]:
        raise ValueError(
            f"data.padded_length={options['padded_length']} must be the pixels of an image, "
            f"data.denoise.height * width = {size[0] * size[1]}."
        )
    counts = {split: options[f"n_{split}"] for split in SPLITS}
    if source == "photographs":
        if place.files is not None:
            raise ValueError(
                f"{place.files} is only read with data.source=official, and it is photographs; "
                "change one of the two."
            )
        images: ImageSource = Photographs(size, counts, seed)
    elif source == "tfds":
        images = PreparedCelebA(found_in_tfds(place.find_tfds("celeb_a"), "celeb_a"), size, counts)
    else:
        if place.files is None:
            raise FileNotFoundError(
                f"CelebA cannot be downloaded; give {ARCHIVE} or its folder with --from=PATH, or "
                "take the photographs of the package with --config.data.source=photographs."
            )
        images = CelebA(place.files, size, counts)
    return DenoiseDataset(images, size, source=source, amplitude=own["amplitude"], seed=seed)
