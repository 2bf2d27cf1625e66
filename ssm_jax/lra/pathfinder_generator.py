"""Pathfinder and Path-X images of a seed, drawn in shards; a function of the specification."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lra_generators.pathfinder import DRAWINGS, sketches
from ssm_jax.data.draws import philox
from ssm_jax.lra.shards import Arrays, Sharded, fill, write_mapped

SHARD_ROWS = 1_000  # images drawn from one random stream
_FAMILY = 2  # of the random streams, so that they share no number with other users of a seed


@dataclass(frozen=True)
class Spec(Sharded):
    """A specification of images; a ValueError for values out of range."""

    title = "Pathfinder"
    compress = True  # two thirds of the pixels, and more at 128, are 0

    seed: int = 0  # 0..2**63-1
    n_images: int = 200_000
    size: int = 32  # pixels; 128 for Path-X
    upstream: bool = True  # see `sketches`

    def __post_init__(self) -> None:
        self.check_whole(seed=(0, 2**63 - 1), n_images=(1, 10**8))
        if type(self.size) is not int or self.size not in DRAWINGS:
            raise ValueError(
                f"Pathfinder size={self.size!r} is not known; choose 32, or 128 for Path-X."
            )
        if not isinstance(self.upstream, bool):
            raise ValueError(f"Pathfinder upstream={self.upstream!r} must be true or false.")

    @property
    def n_shards(self) -> int:
        return -(-self.n_images // SHARD_ROWS)

    def rows(self, shard: int) -> int:
        return min(SHARD_ROWS, self.n_images - shard * SHARD_ROWS)

    def arrays(self, shard: int) -> Arrays:
        pixels, labels = generate_shard(self, shard)
        return {"pixels": pixels, "targets": labels}

    def check(self, shard: int, arrays: Arrays) -> None:
        shapes = {"pixels": (self.rows(shard), self.size**2), "targets": (self.rows(shard),)}
        for name, shape in shapes.items():
            if arrays[name].dtype != np.uint8 or arrays[name].shape != shape:
                raise ValueError(f"{name} of shard {shard} must be bytes of the shape {shape}.")


def generate_shard(spec: Spec, shard: int) -> tuple[np.ndarray, np.ndarray]:
    """The images of one shard, a function of `shard` and of `spec` without its number of images:
    pixels, (rows, size * size) uint8 in rows from the top, and labels, (rows,) uint8."""
    if not 0 <= shard < spec.n_shards:
        raise ValueError(
            f"Pathfinder shard {shard} does not exist; {spec.n_images:,} images are shards 0 to "
            f"{spec.n_shards - 1}."
        )
    bits = philox(spec.seed, shard, _FAMILY)
    images = sketches(bits, spec.rows(shard), spec.size, spec.upstream)
    drawn = [(sketch.pixels.ravel(), sketch.label) for sketch in images]
    pixels, labels = zip(*drawn, strict=True)
    return np.stack(pixels), np.array(labels, np.uint8)


def generate_images(
    spec: Spec, folder: Path, *, workers: int, advance: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """The images of all shards in order, a function of `spec` alone; see `shards.fill`.

    Pixels, (N, size * size) uint8, are a read-only map of `folder`/pixels.npy: the 3.3 GB of Path-X
    are never in memory at once. Targets are (N,) uint8.
    """
    shards = fill(spec, folder, range(spec.n_shards), workers, advance)
    targets = []

    def pixels() -> Iterator[np.ndarray]:
        for arrays in shards:
            targets.append(arrays["targets"])
            yield arrays["pixels"]

    shape = spec.n_images, spec.size**2
    return write_mapped(folder / "pixels.npy", shape, pixels()), np.concatenate(targets)
