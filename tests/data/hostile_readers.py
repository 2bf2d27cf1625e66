"""What reads a hostile archive or folder: functions of its path."""

import dataclasses
import tempfile
from pathlib import Path


def imdb(path):
    from ssm_jax.lra import text as imdb

    imdb._check_sha256 = lambda *_: None  # as if it were the official archive
    imdb.ARCHIVE = dataclasses.replace(imdb.ARCHIVE, size=path.stat().st_size)
    imdb.OFFICIAL_ROWS = 1
    imdb.read_official(path)


def few(path):
    """IMDB with lower limits, as a hundred thousand members take seconds."""
    from ssm_jax.lra import text as reader

    usual = reader.LIMITS
    reader.LIMITS = dataclasses.replace(usual, members=20_000, files=2_000)
    try:
        imdb(path)
    finally:
        reader.LIMITS = usual


def listops(path):
    from ssm_jax.lra.listops import find_release, read_release

    read_release(find_release(path))


def aan(path):
    from ssm_jax.lra import retrieval as aan

    aan._LONGEST_LINE = 1 << 20
    aan.read_release(aan.find_release(path))


def pathfinder(path):
    from ssm_jax.lra import pathfinder as reader

    reader.OFFICIAL_ROWS = 1
    with tempfile.TemporaryDirectory() as work:
        reader.read_release(reader.find_release(path, 32), 32, Path(work))


def celeba(path):
    from ssm_jax.stories.denoise.images import celeba

    celeba(path, (8, 8), {"train": 0, "val": 0, "test": 0}).pixels("train", 0)


def fashion(path):
    from ssm_jax.lra.image import read_fashion

    read_fashion(path)


def cifar_batch(path):
    from ssm_jax.lra.cifar import read_batch

    read_batch(path.read_bytes(), 20)
