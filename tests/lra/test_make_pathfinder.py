"""Pathfinder and Path-X, generated or official: S4's split of all images, each at its place."""

import numpy as np
import pytest
from test_pathfinder_release import ORDER, image, label, official, pack, unpack

from ssm_jax.data.dataset import open_dataset
from ssm_jax.data.draws import torch_randperm
from ssm_jax.data.manifest import read_manifest
from ssm_jax.data.prepare import DataPaths, prepare
from ssm_jax.lra.catalog import CATALOG, open_data
from ssm_jax.lra.pathfinder import PathfinderOptions
from ssm_jax.lra.pathfinder_generator import Spec, generate_images
from tests.data import data_options

SIZES = {"pathfinder": 32, "pathx": 128}


def recipe_of(task, source, paths, **options):
    return CATALOG[task].recipe(PathfinderOptions(**options), source, paths)


def gathered(data):
    """{split: (pixels 0..255, targets)}."""
    found = {}
    for split in ("train", "val", "test"):
        batch = data.gather(split, np.arange(data.size(split)))
        found[split] = np.rint(batch["inputs"][:, :, 0] * 255), batch["targets"]
    return found


def assert_split(data, pixels, targets, sizes):
    """All images in S4's order, cut in three."""
    order = torch_randperm(sum(sizes), 42)
    parts = np.split(order, np.cumsum(sizes)[:-1])
    for numbers, (found, classes) in zip(parts, gathered(data).values(), strict=True):
        np.testing.assert_array_equal(found, pixels[numbers])
        np.testing.assert_array_equal(classes, targets[numbers])


@pytest.mark.parametrize(("task", "sizes"), [("pathfinder", (20, 6, 4)), ("pathx", (2, 1, 1))])
def test_generated_images_are_split_as_s4_splits_them(tmp_path, task, sizes):
    size = SIZES[task]
    counts = dict(zip(("n_train", "n_val", "n_test"), sizes, strict=True))
    options = data_options.options(padded_length=size**2, seed=5, **counts)
    data = open_data(task, options, DataPaths(tmp_path, workers=1))
    spec = Spec(seed=5, n_images=sum(sizes), size=size)
    pixels, targets = generate_images(spec, tmp_path / "s", workers=1, advance=lambda n: None)
    assert_split(data, pixels, targets, sizes)
    assert (data.name, data.n_classes, data.d_input) == (task, 2, 1)
    assert data.provenance.source == "generated"
    assert f"{size} x {size}, seed 5" in data.provenance.detail
    assert [p.name[0] for p in sorted((tmp_path / task).iterdir())] == [".", "g"]  # lock and store


@pytest.mark.parametrize("task", SIZES)
def test_official_images_are_split_eight_to_one_to_one(tmp_path, task):
    size = SIZES[task]
    files = official(size)
    pixels = np.array([image(k, i, size).ravel() for k, i in ORDER])
    targets = np.array([label(k, i) for k, i in ORDER])
    prints = set()
    for n, path in enumerate(
        (unpack(tmp_path / "lra", files), pack(tmp_path / "lra_release.gz", files))
    ):
        recipe = recipe_of(task, "official", DataPaths(tmp_path, path), allow_mismatch=True)
        folder = prepare(recipe, tmp_path / str(n))
        data = open_dataset(folder, size**2)
        assert_split(data, pixels, targets, (9, 1, 2))
        assert "12 images" in data.provenance.detail
        manifest = read_manifest(folder)
        assert manifest["facts"]["missing"] == 0
        assert manifest["facts"]["sha256"] != manifest["sha256"]
        prints.add(data.fingerprint)
    assert len(prints) == 1


def test_another_number_of_official_images_is_refused_unless_allowed(tmp_path):
    paths = DataPaths(tmp_path / "data", unpack(tmp_path / "lra", official()))
    options = {"source": "official", "padded_length": 1_024}
    with pytest.raises(ValueError, match=r"has 12 images .* release has 200,000"):
        open_data("pathfinder", data_options.options(**options), paths)
    allowed = data_options.options(**options, pathfinder__allow_mismatch=True, n_train=4)
    for files in (paths.files, None):
        data = open_data("pathfinder", allowed, DataPaths(paths.data_dir, files))
        assert [data.size(s) for s in ("train", "val", "test")] == [4, 1, 2]
    with pytest.raises(FileNotFoundError, match=r"prepare pathfinder .* --from=PATH$"):
        open_data("pathfinder", data_options.options(**options), DataPaths(paths.data_dir))


@pytest.mark.parametrize("name", ["n_train", "n_val", "n_test"])
def test_splits_without_images_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
        PathfinderOptions(**{name: 0})
