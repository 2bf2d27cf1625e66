"""Random Pathfinder images by the procedure of the Pathfinder challenge, as the Long Range Arena
used it: Pathfinder at 32 x 32 and Path-X at 128 x 128 pixels.

Two dashed contours wind through an image; a disc marks an end of one, another disc the other end of
the same contour (label 1) or the far end of the other one (label 0). Shorter dashed distractors
fill the rest. Upstream sets no seed, so its files cannot be made again, only others with the same
distribution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssm_jax.data.draws import philox
from ssm_jax.lra.pathfinder_stamps import PATHFINDER32, PATHX, Drawing, dilate, render, strokes
from ssm_jax.lra.shards import Arrays, Sharded, fill, finish, write_mapped

GENERATOR_VERSION = 1  # raise it whenever the same specification would give other images
SHARD_ROWS = 1_000  # images drawn from one random stream
_FAMILY = 2  # of the random streams, so that they share no number with other users of a seed
_BLOCK = 1 << 15  # words of 64 bits drawn at once
_DRAWINGS = {drawing.size: drawing for drawing in (PATHFINDER32, PATHX)}


@dataclass(frozen=True)
class Spec(Sharded):
    """A specification of images.

    Attributes:
      seed: of all random numbers, 0..2**63-1.
      n_images: >= 1.
      size: 32 for Pathfinder, 128 for Path-X, in pixels.
      upstream: as the original program, in which cv2.dilate keeps most contours from starting (330
        of 360 orientations at 32 px) and so 1.2 of 5 distractors fit. Without it 4.7 do, which is
        another task.

    Raises:
      ValueError: for values out of range.
    """

    title = "Pathfinder"
    compress = True  # two thirds of the pixels, and more at 128, are 0

    seed: int = 0
    n_images: int = 200_000
    size: int = 32
    upstream: bool = True

    def __post_init__(self) -> None:
        for name, low, high in (("seed", 0, 2**63 - 1), ("n_images", 1, 10**8)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(
                    f"Pathfinder {name}={value!r} must be a whole number from {low} to {high}."
                )
        if type(self.size) is not int or self.size not in _DRAWINGS:
            raise ValueError(
                f"Pathfinder size={self.size!r} is not known; choose 32, or 128 for Path-X."
            )
        if not isinstance(self.upstream, bool):
            raise ValueError(f"Pathfinder upstream={self.upstream!r} must be true or false.")

    @property
    def n_shards(self) -> int:
        """Shards that hold all images."""
        return -(-self.n_images // SHARD_ROWS)

    def rows(self, shard: int) -> int:
        """Images in a shard; the last one may be short."""
        return min(SHARD_ROWS, self.n_images - shard * SHARD_ROWS)

    def arrays(self, shard: int) -> Arrays:
        pixels, labels = generate_shard(self, shard)
        return {"pixels": pixels, "targets": labels}

    def check(self, shard: int, arrays: Arrays) -> None:
        shapes = {"pixels": (self.rows(shard), self.size**2), "targets": (self.rows(shard),)}
        for name, shape in shapes.items():
            if arrays[name].dtype != np.uint8 or arrays[name].shape != shape:
                raise ValueError(f"{name} of shard {shard} must be bytes of the shape {shape}.")


class Sketch(NamedTuple):
    """One image and how it came about.

    Attributes:
      pixels: (size, size) uint8.
      label: 1 if both discs are on one contour.
      margin: around its strokes, in pixels.
      contours: strokes of the two contours, (2, strokes, 3): y, x and stamp.
      distractors: strokes of those that fit, (n, strokes, 3).
      discs: (y, x) of the two discs.
      attempts: at the two contours.
    """

    pixels: np.ndarray
    label: int
    margin: int
    contours: np.ndarray
    distractors: np.ndarray
    discs: tuple[list[int], list[int]]
    attempts: int


class _Words:
    """The random numbers of one shard; rounding 32 bits to n outcomes biases them by n / 2**32."""

    def __init__(self, seed: int, shard: int) -> None:
        self._bits = philox(seed, shard, _FAMILY)
        self.refill()

    def refill(self) -> None:
        """Go on with fresh words; the unread ones are lost."""
        raw = self._bits.random_raw(_BLOCK).astype("<u8")
        self.words, self.next = raw.view("<u4").astype(np.int64), 0

    def below(self, n: int) -> int:
        """A whole number 0..n - 1."""
        if self.next == len(self.words):
            self.refill()
        self.next += 1
        return int(self.words[self.next - 1]) * n >> 32


@functools.cache
def _empty_frames(drawing: Drawing, margin: int) -> np.ndarray:
    """The mask and the dilated mask of an image without strokes; see `draw_image`."""
    size, pad = drawing.size, drawing.pad
    edge = np.full((size, size), 255, np.int16)
    edge[1:-1, 1:-1] = 0
    grown = dilate(edge, margin)[margin:-margin, margin:-margin]
    return np.array([np.pad(edge, pad), np.pad(grown, pad, constant_values=255)])


def sketches(
    spec: Spec, shard: int, draw: Callable[..., tuple[int, int, int]] | None = None
) -> Iterator[Sketch]:
    """The images of a shard, one by one.

    Args:
      shard: 0..spec.n_shards - 1.
      draw: `draw_image` or its compiled form, by default the faster one.
    """
    # Imported here: where numba is installed it takes a second.
    from ssm_jax.lra.pathfinder_raster import compiled

    draw = draw or compiled()
    drawing, words = _DRAWINGS[spec.size], _Words(spec.seed, shard)
    for _ in range(spec.rows(shard)):
        label = words.below(2)
        margin = drawing.margins[words.below(len(drawing.margins))]
        stamps, empty = strokes(drawing, margin, spec.upstream), _empty_frames(drawing, margin)
        contours = np.zeros((2, drawing.contour_length, 3), np.int64)
        distractors = np.zeros((drawing.n_distractors, drawing.distractor_length, 3), np.int64)
        attempts, placed = 0, -1
        while placed < 0:
            words.next, more, placed = draw(
                words.words, words.next, stamps, empty, contours, distractors
            )
            attempts += more
            if placed < 0:
                words.refill()
        origin = words.below(2)
        terminal = origin if label else 1 - origin
        ends = contours[origin, 0, :2].tolist(), contours[terminal, -1, :2].tolist()
        pixels = render(drawing, stamps, contours, distractors[:placed], ends)
        yield Sketch(pixels, label, margin, contours, distractors[:placed], ends, attempts)


def generate_shard(spec: Spec, shard: int) -> tuple[np.ndarray, np.ndarray]:
    """The images of one shard, a function of `shard` and of `spec` without its number of images.

    Returns:
      Pixels, (rows, size * size) uint8 in rows from the top, and labels, (rows,) uint8.

    Raises:
      ValueError: if there is no such shard.
    """
    if not 0 <= shard < spec.n_shards:
        raise ValueError(
            f"Pathfinder shard {shard} does not exist; {spec.n_images:,} images are shards 0 to "
            f"{spec.n_shards - 1}."
        )
    drawn = [(sketch.pixels.ravel(), sketch.label) for sketch in sketches(spec, shard)]
    pixels, labels = zip(*drawn, strict=True)
    return np.stack(pixels), np.array(labels, np.uint8)


def generate_images(
    spec: Spec, folder: Path, *, workers: int, advance: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """The images of all shards, in the order of generation.

    The result depends on `spec` alone, not on the workers nor on interruptions.

    Args:
      folder: where finished shards are and new ones go; made if missing.
      workers: processes, >= 1.
      advance: called with the number of every shard's images once they exist.

    Returns:
      Pixels, (N, size * size) uint8, a read-only map of `folder`/pixels.npy: the 3.3 GB of Path-X
      are never in memory at once. And targets, (N,) uint8.
    """
    fill(spec, folder, range(spec.n_shards), workers, advance)
    targets = []

    def pixels() -> Iterator[np.ndarray]:
        for shard in range(spec.n_shards):
            arrays = finish(spec, folder, shard)
            targets.append(arrays["targets"])
            yield arrays["pixels"]

    shape = spec.n_images, spec.size**2
    return write_mapped(folder / "pixels.npy", shape, pixels()), np.concatenate(targets)
