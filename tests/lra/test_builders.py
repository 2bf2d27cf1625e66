"""The tasks in TensorFlow Datasets: known by name, prepared, and stores made of them."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

import ssm_jax.lra.builders
from ssm_jax.data.prepare import DataPaths, find, prepare
from ssm_jax.data.store import Store
from ssm_jax.lra.catalog import CATALOG

COUNTS = {"n_train": 20, "n_val": 10, "n_test": 10}
SMALL = {
    "listops": {"shorter_than": 60, "longer_than": 10, **COUNTS},
    "text": {"max_length": 50, **COUNTS},
    "retrieval": {"max_length": 50, **COUNTS},
    "image": COUNTS,
    "pathfinder": {"n_train": 3, "n_val": 1, "n_test": 1},
}
SOURCE = {task: CATALOG[task].sources[-1] for task in ("text", "retrieval", "image")}


def recipe_of(task, data_dir, **changes):
    entry, source = CATALOG[task], SOURCE.get(task, "generated")
    return entry.recipe(entry.options(**SMALL[task], **changes), source, DataPaths(data_dir))


def test_importing_the_module_makes_every_task_known():
    for task in CATALOG:
        known = tfds.builder_cls(f"ssm_jax_{task}")
        assert issubclass(known, ssm_jax.lra.builders.TaskBuilder)


@pytest.mark.parametrize("task", SMALL)
def test_a_data_source_is_prepared_and_a_store_made_of_it(tmp_path, task):
    arguments = {"source": SOURCE.get(task, ""), "options": SMALL[task]}
    name, data_dir = f"ssm_jax_{task}", tmp_path / "tfds"
    source = tfds.data_source(name, split="val", data_dir=data_dir, builder_kwargs=arguments)
    assert len(source) == SMALL[task]["n_val"]
    again = tfds.builder(name, data_dir=data_dir, **arguments)
    assert again.info.splits["train"].num_examples == SMALL[task]["n_train"]
    recipe = recipe_of(task, tmp_path)
    found = find(recipe, tmp_path)
    assert found.name == again.builder_config.name
    direct = prepare(recipe, tmp_path / "direct")
    manifests = [Store(folder).manifest for folder in (found, direct)]
    assert manifests[0] == manifests[1]
    # By name alone, as others read it
    alone = tfds.data_source(f"{name}/{found.name}", split="train", data_dir=data_dir)
    store = Store(found)
    for row, number in zip(alone, store.content.splits["train"], strict=True):
        assert (row["number"], row["target"]) == (number, store.content.examples.targets[number])
        for key, array in store.content.examples.features(number).items():
            np.testing.assert_array_equal(row[key], array)


def test_what_is_prepared_is_not_made_again_and_other_options_are_another(tmp_path, monkeypatch):
    arguments = {"source": "stand_in", "options": SMALL["text"], "data_dir": tmp_path}
    builder = tfds.builder("ssm_jax_text", **arguments)
    builder.download_and_prepare()
    again = tfds.builder("ssm_jax_text", **arguments)
    monkeypatch.setattr("ssm_jax.lra.text._content", lambda *_: pytest.fail("made again"))
    again.download_and_prepare()
    assert [row["target"] for row in again.as_data_source("test")] == [0, 1] * 5
    other = tfds.builder("ssm_jax_text", **{**arguments, "options": {"seed": 1}})
    assert other.data_path != builder.data_path
    shutil.rmtree(builder.data_path)
    with pytest.raises(pytest.fail.Exception):
        tfds.builder("ssm_jax_text", **arguments).download_and_prepare()


def test_files_that_are_not_given_are_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the official retrieval data cannot be downl"):
        tfds.builder("ssm_jax_retrieval", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"data.source='nothing' is not known to text"):
        tfds.builder("ssm_jax_text", data_dir=tmp_path, source="nothing")
