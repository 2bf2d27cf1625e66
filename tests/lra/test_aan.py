"""Pairs of papers: every row is kept, every text once; quotes; what is refused, and where."""

import csv
import hashlib
import random
from collections import Counter

import numpy as np
import pytest
from fake_aan import COUNTS, ROOT, files_of, make_small, pack, quoted, rows_of, unpack

from ssm_jax.lra.retrieval import find_release, read_release
from ssm_jax.lra.vocabulary import Vocabulary, character_counts


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    if "default" not in request.node.name:
        make_small(monkeypatch)


def read(path):
    return read_release(find_release(path))


def spelled(papers):
    """The rows again, without the ids."""
    return {
        split: [(f"{k}.0", papers.documents[i], papers.documents[j]) for i, j, k in pairs]
        for split, pairs in papers.splits.items()
    }


def without_ids(rows):
    return {split: [(r[0], *r[3:]) for r in part] for split, part in rows.items()}


def test_rows_come_back_and_texts_are_kept_once(tmp_path):
    rows = rows_of(0)
    papers = read(unpack(tmp_path, files_of(rows)))
    assert spelled(papers) == without_ids(rows)
    assert len(papers.documents) == len(set(papers.documents)) == 12
    assert (papers.quoting, papers.varying_papers) == (False, 0)
    for pairs in papers.splits.values():
        assert pairs.dtype == np.int32
    assert papers.sha256 == {
        name: hashlib.sha256(data).hexdigest() for name, data in files_of(rows).items()
    }


@pytest.mark.parametrize("root", [ROOT, "tsv_data", "lra_release/lra_release/lra_release/tsv_data"])
def test_an_archive_in_any_order_gives_what_its_folder_gives(tmp_path, root):
    files = files_of(rows_of(1))
    folder = read(unpack(tmp_path / "unpacked", files))
    for name, order in (("a.gz", files), ("b.gz", dict(reversed(files.items())))):
        archive = read(pack(tmp_path / name, order, root))
        assert archive.documents == folder.documents
        assert archive.sha256 == folder.sha256
        assert spelled(archive) == spelled(folder)


def test_a_paper_whose_text_varies_is_several_documents(tmp_path):
    rows = rows_of(2)
    label, one, two, text, other = rows["val"][3]
    rows["val"][3] = (label, one, two, text + " revised", other)
    papers = read(unpack(tmp_path, files_of(rows)))
    assert spelled(papers) == without_ids(rows)
    assert papers.varying_papers == 1
    assert len(papers.documents) == 13


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_quotes_are_characters_where_the_rows_fit_so(tmp_path, ending):
    rows = rows_of(3, lambda paper: f'"Quoted" paper {paper}, "open')
    files = {name: d.replace(b"\n", ending.encode()) for name, d in files_of(rows).items()}
    papers = read(unpack(tmp_path, files))
    assert not papers.quoting
    assert spelled(papers) == without_ids(rows)


@pytest.mark.parametrize("inside", ["\n", "\t", "\r\n"])
def test_quotes_delimit_where_the_rows_fit_only_so(tmp_path, inside, capsys):
    rows = rows_of(4, lambda paper: f'A {inside} "break" in {paper}')
    usual = csv.field_size_limit()
    papers = read(pack(tmp_path / "a.gz", quoted(rows)))
    assert papers.quoting
    assert spelled(papers) == without_ids(rows)
    assert csv.field_size_limit() == usual
    assert "with quoting on" in capsys.readouterr().err


def test_long_texts_can_be_quoted(tmp_path):
    long = {paper: f"{paper}\n" + "x" * 150_000 for paper in range(12)}
    rows = rows_of(5, long.__getitem__)
    assert spelled(read(unpack(tmp_path, quoted(rows)))) == without_ids(rows)


def test_the_counts_of_both_readings_are_in_the_error(tmp_path):
    rows = rows_of(6)
    label, one, two, text, _ = rows["test"][2]
    rows["test"][2] = (label, one, two, text, '"open')  # swallows the next row's 4 tabs
    rows["test"][3] = ("1.0", "a", "b", "c", 'closed"')
    files = files_of({**rows, "test": rows["test"][:-1]})
    with pytest.raises(ValueError) as caught:
        read(unpack(tmp_path, files))
    message = str(caught.value)
    assert "test.tsv has 6 rows, the official file has 7; with quoting on, " in message
    assert message.count("\n") == 0 and "test.tsv has 5 rows" in message


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1.0\ta\tb\tc", "line 4 has 4 columns instead of the 5"),
        ("1.0\ta\tb\tc\td\te", "line 4 has 6 columns instead of the 5"),
        ("", "line 4 has 1 columns instead of the 5"),
        ("2.0\ta\tb\tc\td", "line 4 has the label '2.0' instead of 0.0 or 1.0"),
        ("label\ta\tb\tc\td", "line 4 has the label 'label'"),
    ],
)
def test_a_malformed_row_is_refused_with_file_and_line(tmp_path, row, message):
    files = files_of(rows_of(7))
    lines = files["new_aan_pairs.eval.tsv"].decode().split("\n")
    lines[3] = row
    files["new_aan_pairs.eval.tsv"] = "\n".join(lines).encode()
    with pytest.raises(ValueError, match=rf"new_aan_pairs.eval.tsv {message}"):
        read(unpack(tmp_path, files))


def test_text_that_is_not_utf8_is_refused_with_file_and_line(tmp_path):
    files = files_of(rows_of(8))
    files["new_aan_pairs.train.tsv"] += b"1.0\ta\tb\tc\td\xe9\n"
    with pytest.raises(ValueError, match=r"new_aan_pairs.train.tsv line 61 is not UTF-8"):
        read(unpack(tmp_path, files))


def test_the_official_counts_are_the_default(tmp_path):
    unpack(tmp_path, files_of(rows_of(9)))
    with pytest.raises(ValueError, match=r"eval.tsv has 8 rows, the official file has 18,090"):
        read(tmp_path)


def test_missing_files_are_named(tmp_path):
    files = files_of(rows_of(10))
    del files["new_aan_pairs.eval.tsv"]
    with pytest.raises(FileNotFoundError, match=r"new_aan_pairs.eval.tsv is not in .*tsv_data"):
        read(unpack(tmp_path / "u", files))
    with pytest.raises(FileNotFoundError, match=r"tsv_data/new_aan_pairs.eval.tsv is not in the"):
        read(pack(tmp_path / "a.gz", files))


def test_a_hostile_name_is_not_read(tmp_path):
    path = pack(tmp_path / "a.gz", files_of(rows_of(11)), "../tsv_data")
    with pytest.raises(FileNotFoundError, match="is not in the archive"):
        read(path)


def test_a_cut_archive_is_refused_at_once(tmp_path, capsys):
    noise = random.Random(0).choices("abcdefgh", k=400_000)
    rows = rows_of(12, lambda paper: "".join(noise[paper * 30_000 : (paper + 1) * 30_000]))
    path = pack(tmp_path / "a.gz", files_of(rows))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"a.gz is not a whole tar archive"):
        read(path)
    assert "quoting" not in capsys.readouterr().err


def test_the_vocabulary_counts_every_row(tmp_path):
    """As if the texts of all rows of train lay in a line, as S4 counts them."""
    rows = rows_of(13)
    papers = read(unpack(tmp_path, files_of(rows)))
    every = [text for row in rows["train"] for text in row[3:]]
    weights = papers.occurrences("train")
    assert weights.sum() == 2 * COUNTS["train"]
    counts = character_counts(papers.documents, max_length=30, weights=weights)
    assert counts == Counter("".join(text[:29] for text in every))
    made = Vocabulary.of_characters(papers.documents, min_freq=1, max_length=30, weights=weights)
    assert made == Vocabulary.of_characters(every, min_freq=1, max_length=30)
