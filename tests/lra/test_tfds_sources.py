"""Data sets that the user has prepared with TensorFlow Datasets are read without TensorFlow."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from fake_tfds import CIFAR, COLOURS, REVIEWS, Cifar10, ImdbReviews, write

from ssm_jax.data.prepare import DataPaths, prepare
from ssm_jax.data.store import Store
from ssm_jax.lra import cifar
from ssm_jax.lra.catalog import open_data
from ssm_jax.lra.image import ImageOptions, image
from ssm_jax.lra.text import TextOptions, text
from tests.data import data_options

KINDS = {"cifar10": Cifar10, "imdb_reviews": ImdbReviews}
TASKS = {"cifar10": "image", "imdb_reviews": "text"}
ASKED = {"cifar10": "cifar10", "imdb_reviews": "imdb_reviews/plain_text"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder of TensorFlow Datasets with both."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    for kind in KINDS.values():
        write(kind, folder)
    return folder


@pytest.fixture(autouse=True)
def without_others(monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def recipe_of(name, data_dir, files=None):
    paths = DataPaths(data_dir, files)
    if name == "cifar10":
        return image(ImageOptions(n_held_out=5), "tfds", paths)
    return text(TextOptions(min_freq=1, val_fraction=0.25), "tfds", paths)


def test_images_are_in_the_official_order(tmp_path, prepared, monkeypatch):
    """That of their ids; TFDS has shuffled them. So the split is S4's."""
    recipe = recipe_of("cifar10", tmp_path, prepared)
    store = Store(prepare(recipe, tmp_path))
    planes = COLOURS.transpose(0, 3, 1, 2).reshape(len(COLOURS), -1)
    np.testing.assert_array_equal(store.content.examples.pixels, cifar.gray(planes))
    np.testing.assert_array_equal(store.content.examples.targets, np.arange(sum(CIFAR)) % 10)
    assert [n.size for n in store.content.splits.values()] == [20, 5, 10]
    detail = "CIFAR-10 as TensorFlow Datasets has it, version 3.0.2"
    assert store.manifest["detail"] == f"{detail}; NOT of the official number of examples"
    monkeypatch.setattr(cifar, "OFFICIAL_ROWS", 5)
    detail = cifar.read_cifar_tfds(prepared / "cifar10/3.0.2")[-1]
    assert detail.endswith("NOT of the official number of examples")


def test_reviews_are_all_read_and_those_without_a_class_are_not(tmp_path, prepared):
    store = Store(prepare(recipe_of("imdb_reviews", tmp_path, prepared), tmp_path))
    vocabulary = store.manifest["vocabulary"]
    rows = [("".join(vocabulary[i] for i in tokens), target) for tokens, target in
            store.content.examples.rows()]  # fmt: skip
    assert sorted(rows[:24]) == sorted(REVIEWS["train"])
    assert sorted(rows[24:]) == sorted(REVIEWS["test"])
    assert [n.size for n in store.content.splits.values()] == [18, 6, 24]
    assert "in its order; NOT of the official number of examples; 6 tr" in store.manifest["detail"]


@pytest.mark.parametrize("name", KINDS)
def test_it_is_found_in_every_usual_folder_and_at_every_depth(
    tmp_path, prepared, name, monkeypatch
):
    found = recipe_of(name, tmp_path, prepared).stamp
    assert found.startswith("tfds ") and "train " in found
    folder = write(KINDS[name], tmp_path / "own")
    for path in (tmp_path / "own", *[p for p in folder.parents if p.is_relative_to(tmp_path / "own")
                                     and p != tmp_path / "own"], folder):  # fmt: skip
        assert recipe_of(name, tmp_path / "data", path).stamp == found
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert recipe_of(name, tmp_path / "data").stamp == found
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert recipe_of(name, tmp_path / "data").stamp is None
    for usual in (tmp_path / "data/tfds", tmp_path / "home/tensorflow_datasets"):
        usual.parent.mkdir(parents=True, exist_ok=True)
        usual.symlink_to(prepared)
        assert recipe_of(name, tmp_path / "data").stamp == found
        usual.unlink()


@pytest.mark.parametrize("name", KINDS)
def test_a_config_reads_them_and_goes_on_without_them(tmp_path, prepared, name):
    options = {
        "cifar10": {"image__n_held_out": 5, "padded_length": 1_024},
        "imdb_reviews": {"text__min_freq": 1, "padded_length": 64},
    }[name]
    options = data_options.options(source="tfds", **options)
    task = TASKS[name]
    first = open_data(task, options, DataPaths(tmp_path, prepared))
    assert first.provenance.source == "tfds"
    assert open_data(task, options, DataPaths(tmp_path)).fingerprint == first.fingerprint


@pytest.mark.parametrize("name", KINDS)
def test_a_data_set_that_is_not_there_is_one_line_with_what_to_do(tmp_path, run_script, name):
    code, out, err = run_script(
        "prepare", TASKS[name], "--source=tfds", f"--data_dir={tmp_path}", f"--from={tmp_path}"
    )
    assert (code, out, len(err)) == (2, "", 1)
    assert f"{ASKED[name]} is in no folder of TensorFlow Datasets" in err[0]
    assert f"tfds.builder('{ASKED[name]}', file_format='array_record')" in err[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", KINDS)
def test_another_format_is_one_line_with_what_to_do(tmp_path, prepared, run_script, name):
    folder = write(KINDS[name], tmp_path / "own")
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    code, out, err = run_script(
        "prepare", TASKS[name], "--source=tfds", f"--data_dir={tmp_path}", f"--from={folder}"
    )
    assert (code, out, len(err)) == (2, "", 1)
    assert "is in the format tfrecord, which only TensorFlow reads" in err[0]
    assert f"tfds.builder('{ASKED[name]}', file_format='array_record')" in err[0]


def test_neither_tensorflow_nor_opencv_is_imported(tmp_path, prepared):
    code = (
        "import sys\n"
        "from ssm_jax.commands.data import prepare\n"
        "code = prepare(['image', '--source=tfds', '--n_held_out=5', "
        f"'--from={prepared}', '--data_dir={tmp_path}'])\n"
        "sys.exit(code or 'tensorflow' in sys.modules or 'cv2' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "CIFAR-10 as TensorFlow Datasets has it" in done.stdout
    assert "Warning" not in done.stderr and "OpenCV" not in done.stderr
