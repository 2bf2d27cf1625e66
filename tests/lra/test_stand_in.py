"""Stand-ins: of the right form, the same for the same seed, and never without their label."""

import numpy as np
import pytest

from ssm_jax.data.prepare import DataPaths
from ssm_jax.data.store import stores_of
from ssm_jax.lra import stand_in
from ssm_jax.lra.catalog import CATALOG, open_data
from tests.data import data_options

SIZES = {"n_train": 40, "n_val": 10, "n_test": 20}
LENGTH = {"text": 64, "retrieval": 64, "image": 1_024}
TASKS = [task for task, entry in CATALOG.items() if "stand_in" in entry.sources]


def open_it(task, data_dir, **changes):
    changes = {"source": "stand_in", "padded_length": LENGTH[task], **SIZES, **changes}
    return open_data(task, data_options.options(**changes), DataPaths(data_dir))


def test_the_tasks_of_files_have_stand_ins():
    assert list(LENGTH) == TASKS


@pytest.mark.parametrize("task", TASKS)
def test_a_stand_in_says_so_and_is_not_taken_for_anything_else(task, tmp_path):
    data = open_it(task, tmp_path)
    assert data.provenance.source == "stand_in"
    assert data.provenance.detail.startswith("STAND-IN of ")
    assert all(f.name.startswith("stand_in-") for f in stores_of(tmp_path, task))
    for source in set(CATALOG[task].sources) - {"stand_in"}:
        with pytest.raises(FileNotFoundError, match=rf"no {source} {task} data at .*; run: "):
            open_it(task, tmp_path, source=source)


@pytest.mark.parametrize("task", TASKS)
def test_as_many_as_asked_for_are_made_in_classes_of_one_size(task, tmp_path):
    data = open_it(task, tmp_path)
    for split, n in zip(("train", "val", "test"), SIZES.values(), strict=True):
        counts = np.bincount(data.targets(split), minlength=data.n_classes)
        assert counts.tolist() == [n // data.n_classes] * data.n_classes
        assert data.lengths(split).max() <= LENGTH[task]


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_data_and_another_one_others(task, tmp_path):
    prints = [
        open_it(task, tmp_path / where, seed=seed).fingerprint
        for where, seed in (("a", 0), ("b", 0), ("a", 1))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_each_class_has_its_mark():
    """What a model has to find to show that the machinery works."""
    drawn = stand_in.Drawn(n_train=200)
    reviews = stand_in.reviews(drawn, 1_000)["train"]
    good = [review.split().count("good") > review.split().count("bad") for review, _ in reviews]
    assert np.mean(np.array(good) == [target for _, target in reviews]) > 0.98
    documents, pairs = stand_in.papers(drawn, 1_000)
    first, second, targets = pairs["train"].T
    marks = [
        document.split().count("good") > document.split().count("bad") for document in documents
    ]
    same = np.array(marks)[first] == np.array(marks)[second]
    assert np.mean(same == targets) > 0.98
    images, _ = stand_in.images(stand_in.Drawn(n_train=98, n_val=1, n_test=1))
    spectra = np.abs(np.fft.rfft(images.pixels.reshape(100, 32, 32).mean(axis=1)))
    stripes = spectra[:, 1:].argmax(axis=1) + 1
    np.testing.assert_array_equal(stripes, images.targets + 1)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--n_train=0", "n_train=0 of a stand-in must be at least 1"),
        ("--n_test=-3", "n_test=-3 of a stand-in must be at least 1"),
        ("--seed=-1", "seed=-1 of a stand-in must be at least 0"),
        (
            "--seed=4294967296",
            "seed=4294967296 is out of range; it must be at least 0 and below 2^32 = 4294967296",
        ),
        (
            "--seed=18446744073709551616",
            "--seed=18446744073709551616 does not fit: it must be a whole number of at most 63 "
            "bits",
        ),
    ],
)
def test_counts_and_seeds_out_of_range_are_refused(tmp_path, run_script, task, argument, message):
    code, _, err = run_script(
        "prepare", task, "--source=stand_in", f"--data_dir={tmp_path}", argument
    )
    assert (code, err) == (2, [f"error: {message}."])
    assert not list(tmp_path.glob("*/stand_in-*"))
