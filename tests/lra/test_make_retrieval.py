"""Retrieval from a release: the pairs of its rows, in the characters of the training rows."""

import itertools

import numpy as np
import pytest
from fake_aan import files_of, make_small, pack, quoted, rows_of, unpack

from ssm_jax.data.dataset import open_dataset
from ssm_jax.data.manifest import read_manifest
from ssm_jax.data.prepare import DataPaths, prepare
from ssm_jax.data.store import Store
from ssm_jax.lra.catalog import open_data
from ssm_jax.lra.retrieval import RetrievalOptions, retrieval
from ssm_jax.lra.vocabulary import Vocabulary
from tests.data import data_options

ROWS = rows_of(0)


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    if "default" not in request.node.name:
        make_small(monkeypatch)


def official(data_dir, path, max_length=60):
    options = RetrievalOptions(max_length=max_length)
    return retrieval(options, "official", DataPaths(data_dir, path))


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    unpack(folder, files_of(ROWS))
    return folder


@pytest.fixture(scope="module")
def data_dir(release, tmp_path_factory):
    """A folder in which the small release is prepared."""
    data_dir = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_small(monkeypatch)
        prepare(official(data_dir, release), data_dir)
    return data_dir


def test_batches_spell_the_rows_of_the_release(data_dir):
    options = data_options.options(source="official", padded_length=60)
    data = open_data("retrieval", options, DataPaths(data_dir))
    assert (data.name, data.n_classes, data.paired) == ("retrieval", 2, True)
    for split, rows in ROWS.items():
        batch = data.gather(split, np.arange(data.size(split)))
        for row, inputs, steps, target in zip(
            rows, batch["inputs"], batch["lengths"], batch["targets"], strict=True
        ):
            assert target == float(row[0])
            for text, inputs_L, length in zip(row[3:], inputs, steps, strict=True):
                assert "".join(data.vocabulary[i] for i in inputs_L[: length - 1]) == text[:59]
                assert inputs_L[length - 1] == 2 and not inputs_L[length:].any()


def test_a_text_is_stored_once(release, data_dir):
    opened = Store(official(data_dir, release).folder(data_dir))
    manifest, pairs = opened.manifest, opened.content.examples
    texts = {text for rows in ROWS.values() for row in rows for text in row[3:]}
    assert len(pairs.documents) == len(texts) == 12
    assert manifest["detail"].endswith("without quoting; 12 texts, 0 papers have several")


def test_the_vocabulary_is_that_of_the_training_rows_and_is_in_the_manifest(release, data_dir):
    manifest = read_manifest(official(data_dir, release).folder(data_dir))
    every = [text for row in ROWS["train"] for text in row[3:]]
    expected = Vocabulary.of_characters(every, min_freq=1, max_length=60)
    assert manifest["vocabulary"] == ["pad", "unknown", "eos", *expected.tokens]
    assert len(manifest["facts"]["read"]) == 3


def test_characters_that_no_training_row_has_are_unknown(tmp_path):
    rows = {split: list(part) for split, part in ROWS.items()}
    label, one, two, text, other = rows["test"][0]
    rows["test"][0] = (label, one, two, "\u0416" + text, other)
    folder = unpack(tmp_path, files_of(rows)) or tmp_path
    data = open_dataset(prepare(official(tmp_path, folder), tmp_path), 60)
    assert "\u0416" not in data.vocabulary
    assert data.gather("test", np.array([0]))["inputs"][0, 0, 0] == 1


def test_the_archive_and_a_quoted_release_give_the_same_arrays(tmp_path, release, data_dir):
    plain = read_manifest(official(data_dir, release).folder(data_dir))
    archive = official(tmp_path, pack(tmp_path / "lra.gz", files_of(ROWS)))
    assert read_manifest(prepare(archive, tmp_path))["sha256"] == plain["sha256"]
    with_breaks = rows_of(0, lambda paper: f"paper {paper}\nsays é")
    quoted_one = official(tmp_path, pack(tmp_path / "q.gz", quoted(with_breaks)))
    assert "with quoting" in read_manifest(prepare(quoted_one, tmp_path))["detail"]


def test_a_release_is_another_folder_by_its_files_and_by_what_is_made_of_it(tmp_path, release):
    path = pack(tmp_path / "lra.gz", files_of(ROWS))
    folders = {
        official(tmp_path, files, length).folder(tmp_path)
        for files, length in itertools.product((release, path), (60, 61))
    }
    for changes in ({}, {"max_length": 61}, {"seed": 1}, {"n_val": 9}):
        recipe = retrieval(RetrievalOptions(**changes), "stand_in", DataPaths(tmp_path))
        folders.add(recipe.folder(tmp_path))
    assert len(folders) == 8


def test_two_different_releases_are_refused_unless_one_is_named(tmp_path):
    options = data_options.options(source="official", padded_length=60)
    for seed in (1, 2):
        unpack(tmp_path / str(seed), files_of(rows_of(seed)))
        prepare(official(tmp_path, tmp_path / str(seed)), tmp_path)
    with pytest.raises(ValueError, match="holds different official data"):
        open_data("retrieval", options, DataPaths(tmp_path))
    found = {
        open_data("retrieval", options, DataPaths(tmp_path, tmp_path / str(seed))).fingerprint
        for seed in (1, 2)
    }
    assert len(found) == 2
    longer = data_options.options(source="official", padded_length=61)
    with pytest.raises(FileNotFoundError, match=r"--max_length=61 --from=PATH$"):
        open_data("retrieval", longer, DataPaths(tmp_path))


def test_the_official_counts_are_the_default(tmp_path, release):
    recipe = retrieval(RetrievalOptions(), "official", DataPaths(tmp_path, release))
    with pytest.raises(ValueError, match=r"eval.tsv has 8 rows, the official file has 18,090"):
        prepare(recipe, tmp_path)


def test_without_files_the_error_says_which(tmp_path):
    recipe = retrieval(RetrievalOptions(), "official", DataPaths(tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match=r"--from=PATH \(the LRA release, .*tsv_data"):
        prepare(recipe, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_length_without_room_is_refused():
    with pytest.raises(ValueError, match="max_length=1 must be at least 2"):
        RetrievalOptions(max_length=1)
