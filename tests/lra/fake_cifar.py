"""CIFAR-10 in small: six batches of 20 images in both official versions."""

import dataclasses
import hashlib
import io
import struct
import tarfile

import numpy as np

from ssm_jax.lra import cifar

ROWS = 20
NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
rng = np.random.default_rng(0)
COLOURS = rng.integers(0, 256, size=(6, ROWS, 3072), dtype=np.uint8)
CLASSES = np.stack([rng.permutation(np.arange(ROWS) % 10) for _ in NAMES]).astype(np.uint8)


def short(text):
    return b"U" + bytes([len(text)]) + text


def number(n):
    return b"J" + struct.pack("<i", n)


def python2_pickle(colours, classes, *, kind=b"u1", shape=None, extra=b""):
    """A batch as Python 2 wrote it, protocol 2; byte strings are its `str`."""
    raw = colours.tobytes()
    rows, columns = shape or colours.shape
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\x00\x85"
        + short(b"b") + b"\x87R" + b"(K\x01" + number(rows) + number(columns) + b"\x86"
        + b"cnumpy\ndtype\n" + short(kind) + b"K\x00K\x01\x87R" + b"(K\x03" + short(b"|")
        + b"NNN" + number(-1) + number(-1) + b"K\x00tb"
        + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )  # fmt: skip
    labels = b"](" + b"".join(b"K" + bytes([c]) for c in classes) + b"e"
    return (
        b"\x80\x02}(" + short(b"batch_label") + short(b"training batch 1 of 5")
        + short(b"labels") + labels + short(b"data") + array + extra + b"u."
    )  # fmt: skip


BINARY = {
    f"{name}.bin": np.concatenate([classes[:, None], colours], axis=1).tobytes()
    for name, colours, classes in zip(NAMES, COLOURS, CLASSES, strict=True)
}
PYTHON = {
    name: python2_pickle(colours, classes)
    for name, colours, classes in zip(NAMES, COLOURS, CLASSES, strict=True)
}
FORMS = {"bin": BINARY, "py": PYTHON}
OTHER = {"batches.meta.txt": b"airplane\n", "readme.html": b"<html>"}


def pack(path, members):
    """A .tar.gz of {name: content or TarInfo}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def unpack(folder, files):
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def make_small(monkeypatch, files=PYTHON, **archives):
    """Let fake files and archives, by version, be the official ones."""
    monkeypatch.setattr(cifar, "OFFICIAL_ROWS", ROWS)
    md5 = {name: hashlib.md5(files.get(name, b"")).hexdigest() for name in NAMES}
    monkeypatch.setattr(cifar, "MD5", md5)
    for version, path in archives.items():
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        name = version.upper()
        remote = dataclasses.replace(getattr(cifar, name), sha256=sha256)
        monkeypatch.setattr(cifar, name, remote)
