"""The official files of ListOps in small."""

import io
import random
import tarfile

import listops_oracle as oracle

COUNTS = {"train": 12, "val": 4, "test": 3}


def release():
    """{split: [(text, value)]} and {file name: bytes} of a tiny release."""
    rng = random.Random(5)
    rows, files = {}, {}
    for split, count in COUNTS.items():
        trees = []
        while len(trees) < count:
            tree, length = oracle.tree(rng, 5, 5)
            if length > 5:
                trees.append(tree)
        rows[split] = [(oracle.text(t), oracle.value(oracle.text(t))) for t in trees]
        lines = ["Source\tTarget"]
        lines += [
            f"{oracle.official(t)}\t{v}" for t, (_, v) in zip(trees, rows[split], strict=True)
        ]
        files[f"basic_{split}.tsv"] = ("\n".join(lines) + "\n").encode()
    return rows, files


def make_small(monkeypatch):
    """Let the official files have as few rows."""
    monkeypatch.setattr("ssm_jax.lra.listops.OFFICIAL_ROWS", COUNTS)


def unpack(folder, files):
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def pack(path, members, mode="w:gz"):
    """A tar of (name or TarInfo, bytes)."""
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return path
