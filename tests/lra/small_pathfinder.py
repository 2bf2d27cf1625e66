"""Pathfinder images in shards of ten, which a worker can import too."""

from dataclasses import dataclass

from ssm_jax.lra import pathfinder_generator


@dataclass(frozen=True)
class Spec(pathfinder_generator.Spec):
    @property
    def n_shards(self) -> int:
        return -(-self.n_images // 10)

    def rows(self, shard: int) -> int:
        return min(10, self.n_images - shard * 10)
