"""A ListOps specification small enough for every test, and how to compare stores."""

import dataclasses
from pathlib import Path

from ssm_jax.data.prepare import DataPaths, Recipe
from ssm_jax.lra.listops import Spec, listops

# 250 expressions of 11..59 tokens: one shard, 0.1 s.
SMALL = Spec(seed=3, n_train=170, n_val=50, n_test=30, shorter_than=60, longer_than=10)


def generated(spec: Spec, data_dir: Path, *, workers: int = 1) -> Recipe:
    """How a specification is made in a data folder."""
    return listops(spec, "generated", DataPaths(data_dir, workers=workers))


def folder_of(spec: Spec, data_dir: Path) -> Path:
    """Where its store is, or would be."""
    return generated(spec, data_dir).folder(data_dir)


def arguments_of(spec: Spec, data_dir: Path) -> list[str]:
    """The arguments of scripts/prepare_data.py that make it."""
    numbers = [f"--{name}={value}" for name, value in dataclasses.asdict(spec).items()]
    return ["prepare", "listops", f"--data_dir={data_dir}", *numbers]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def flip(path: Path) -> None:
    """Change the last bit of a file."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
