"""All images of a Pathfinder specification, drawn over the cores into one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ssm_jax.data.mapped import write_mapped
from ssm_jax.data.pathfinder_generator import Spec
from ssm_jax.data.shards import fill, finish


def generate_images(
    spec: Spec, folder: Path, *, workers: int, advance: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """The images of all shards, in the order of generation.

    The result depends on `spec` alone, not on the workers nor on interruptions.

    Args:
      spec: what to generate.
      folder: where finished shards are and new ones go; made if missing.
      workers: processes, >= 1.
      advance: told of every shard's images once they exist.

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
