"""The four files of Fashion-MNIST in small."""

import hashlib
import struct
from dataclasses import replace

import numpy as np

from ssm_jax.data.idx_files import FASHION, IdxFile

rng = np.random.default_rng(0)
ARRAYS = {
    name: rng.integers(0, 10, size=(count, *file.shape[1:]), dtype=np.uint8)
    for (name, file), count in zip(FASHION.files.items(), (7, 7, 3, 3), strict=True)
}


def idx(array):
    """The file of an array of uint8, as http://yann.lecun.com/exdb/mnist describes it."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


FILES = {name: idx(array) for name, array in ARRAYS.items()}
SMALL = {
    name: IdxFile(array.shape, hashlib.sha256(FILES[name]).hexdigest())
    for name, array in ARRAYS.items()
}


def make_small(monkeypatch):
    """Let the small files be the official ones."""
    monkeypatch.setattr("ssm_jax.lra.image.FASHION", replace(FASHION, files=SMALL))


def lay(folder, files):
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
