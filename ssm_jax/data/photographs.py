"""Crops of the photographs that come with the package, for image denoising without a download.

A crop is a function of the seed, the split and its number. No photograph is in two splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ssm_jax.data.draws import uniform

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
        """Args:
        size: (H, W) of a crop; a square part of a photograph is stretched to it.
        counts: crops of each split; 0: those of COUNTS.
        seed: of the crops, >= 0.
        """
        self._pixels = {
            split: self._crops(number, split, size, counts[split] or COUNTS[split], seed)
            for number, split in enumerate(PHOTOGRAPHS)
        }
        digest = hashlib.sha256()
        for pixels in self._pixels.values():
            digest.update(repr(pixels.shape).encode() + pixels.tobytes())
        self.sha256 = digest.hexdigest()
        self.detail = (
            f"crops of {size[0]} x {size[1]} from photographs in the public domain, seed {seed}"
        )

    @staticmethod
    def _crops(number: int, split: str, size: tuple[int, int], count: int, seed: int) -> np.ndarray:
        photographs = [_read(name) for name in PHOTOGRAPHS[split]]
        drawn_n4 = uniform(seed, number, 4 * count).reshape(count, 4)
        crops = [
            _crop(photographs[i % len(photographs)], size, *drawn_n4[i].tolist())
            for i in range(count)
        ]
        return np.stack(crops)

    def size(self, split: str) -> int:
        return len(self._pixels[split])

    def pixels(self, split: str, index: int) -> np.ndarray:
        """An image, uint8 (H, W, 3)."""
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
