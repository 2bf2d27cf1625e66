"""Image from CIFAR-10 or Fashion-MNIST: every image in its split, at its place in the store."""

import dataclasses
import time

import fake_fashion_mnist as fashion
import numpy as np
import pytest
from fake_cifar import BINARY, CLASSES, COLOURS, PYTHON, ROWS, make_small, pack, unpack

from ssm_jax.data.dataset import open_dataset
from ssm_jax.data.draws import torch_randperm
from ssm_jax.data.prepare import DataPaths, prepare
from ssm_jax.lra import cifar
from ssm_jax.lra.catalog import open_data
from ssm_jax.lra.image import ImageOptions, image
from tests.data import data_options

TRAIN = 5 * ROWS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return unpack(tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin", BINARY)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    make_small(monkeypatch, BINARY)


def recipe_of(data_dir, path, **options):
    options = {"n_held_out": 30, **options}
    return image(ImageOptions(**options), "official", DataPaths(data_dir, path))


def test_every_image_is_in_the_split_where_s4_has_it(folder, tmp_path):
    """The training images in the order of torch's permutation, the last 30 for validation."""
    data_dir = tmp_path
    data = open_dataset(prepare(recipe_of(data_dir, folder), data_dir), 1_024)
    gray = np.concatenate([cifar.gray(colours) for colours in COLOURS])
    order = torch_randperm(TRAIN, 42)
    expected = {
        "train": order[:70],
        "val": order[70:],
        "test": np.arange(TRAIN, TRAIN + ROWS),
    }
    for split, numbers in expected.items():
        batch = data.gather(split, np.arange(numbers.size))
        np.testing.assert_array_equal(batch["targets"], CLASSES.ravel()[numbers])
        pixels = np.rint(batch["inputs"][:, :, 0] * 255).astype(np.uint8)
        np.testing.assert_array_equal(pixels, gray[numbers])
    assert (data.name, data.n_classes, data.d_input) == ("image", 10, 1)
    assert data.provenance.source == "official"
    assert data.provenance.detail.startswith("CIFAR-10, six batches of its binary version")


def test_the_mean_and_the_standard_deviation_are_those_of_the_config(folder, tmp_path):
    recipe = recipe_of(tmp_path, folder, n_held_out=5_000 // 500)
    prepare(recipe, tmp_path)
    options = {"source": "official", "padded_length": 1_024, "image__n_held_out": 10}
    plain = open_data("image", data_options.options(**options), DataPaths(tmp_path))
    scaled = data_options.options(**options, mean=122.6 / 255, std=61 / 255)
    scaled = open_data("image", scaled, DataPaths(tmp_path))
    assert scaled.fingerprint == plain.fingerprint
    one, two = (data.gather("val", np.arange(10))["inputs"] for data in (plain, scaled))
    exact = (one.astype(np.float64) - 122.6 / 255) / (61 / 255)
    np.testing.assert_allclose(two, exact, rtol=0, atol=2e-6)
    few = data_options.options(**options, n_train=7, n_val=3)
    few = open_data("image", few, DataPaths(tmp_path))
    assert [few.size(s) for s in ("train", "val", "test")] == [7, 3, 20]


def test_the_archives_give_what_the_folder_gives(folder, tmp_path, monkeypatch):
    expected = open_dataset(prepare(recipe_of(tmp_path, folder), tmp_path), 1_024)
    for n, (version, batches) in enumerate((("binary", BINARY), ("python", PYTHON))):
        path = pack(tmp_path / f"cifar-10-{version}.tar.gz", batches)
        make_small(monkeypatch, batches, **{version: path})
        data = open_dataset(prepare(recipe_of(tmp_path, path), tmp_path / str(n)), 1_024)
        assert data.fingerprint == expected.fingerprint
        assert f"official CIFAR-10, {path.name}" in data.provenance.detail


def test_a_downloaded_archive_is_found_in_its_folder(tmp_path, monkeypatch):
    path = pack(tmp_path / "raw" / "cifar-10-binary.tar.gz", BINARY)
    make_small(monkeypatch, BINARY, binary=path)
    data = open_dataset(prepare(recipe_of(tmp_path, None), tmp_path), 1_024)
    assert data.size("train") == 70


def test_fashion_mnist_is_padded_to_32_pixels(tmp_path, monkeypatch):
    fashion.make_small(monkeypatch)
    files = fashion.lay(tmp_path / "files", fashion.FILES)
    options = ImageOptions(n_held_out=2)
    paths = DataPaths(tmp_path, files)
    recipe = image(options, "fashion_mnist", paths)
    data = open_dataset(prepare(recipe, tmp_path), 1_024)
    assert [data.size(s) for s in ("train", "val", "test")] == [5, 2, 3]
    pixels = data.gather("test", np.arange(3))["inputs"].reshape(3, 32, 32) * 255
    expected = fashion.ARRAYS["t10k-images-idx3-ubyte"]
    np.testing.assert_array_equal(np.rint(pixels[:, 2:30, 2:30]), expected)
    assert pixels.sum() == pytest.approx(expected.sum())
    assert data.provenance.source == "fashion_mnist", "it shall never pass for CIFAR-10"
    assert "Fashion-MNIST" in data.provenance.detail


def test_every_option_that_changes_the_examples_is_another_folder(tmp_path):
    folders = [
        image(ImageOptions(**changes), source, DataPaths(tmp_path)).folder(tmp_path)
        for source, changes in (
            ("official", {}),
            ("fashion_mnist", {}),
            ("official", {"n_held_out": 4_999}),
            ("stand_in", {}),
            ("stand_in", {"seed": 1}),
            ("stand_in", {"n_test": 101}),
        )
    ]
    assert len(set(folders)) == len(folders)


def test_without_a_network_it_ends_within_ten_seconds_in_a_line_with_file_and_folder(
    tmp_path, monkeypatch, run_script
):
    """A name under .invalid is never resolved."""
    nowhere = dataclasses.replace(cifar.BINARY, urls=("https://cifar.invalid/cifar-10.tar.gz",))
    monkeypatch.setattr(cifar, "BINARY", nowhere)
    start = time.monotonic()
    code, out, err = run_script("prepare", "image", f"--data_dir={tmp_path}")
    assert time.monotonic() - start < 10
    assert (code, out, len(err)) == (2, "", 1)
    assert "https://cifar.invalid/cifar-10.tar.gz cannot be reached" in err[0]
    assert (
        f"put cifar-10-binary.tar.gz (sha256 {cifar.BINARY.sha256}) into {tmp_path / 'raw'}"
        in (err[0])
    )
    assert not list(tmp_path.glob("image/official-*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_held_out": 0}, "n_held_out=0 must be from 1 to 49,999"),
        ({"n_held_out": 50_000}, "n_held_out=50000 must be"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ImageOptions(**options)
