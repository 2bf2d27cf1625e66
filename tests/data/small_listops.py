"""A ListOps specification small enough for every test, and how to compare stores."""

from pathlib import Path

from ssm_jax.data.listops_generator import Spec

# 250 expressions of 11..59 tokens: one shard, 0.1 s.
SMALL = Spec(seed=3, n_train=170, n_val=50, n_test=30, shorter_than=60, longer_than=10)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}
