"""Images for denoising: photographs of the package, CelebA on imitations, sizes of stripes."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image

from ssm_jax import config
from ssm_jax.data.prepare import DataPaths
from ssm_jax.stories.denoise.data import open_denoise
from ssm_jax.stories.denoise.images import FOLDER, PHOTOGRAPHS, celeba, photographs
from tests.lra import fake_tfds

NONE = {"train": 0, "val": 0, "test": 0}


def options(**changes):
    cfg = config.default()
    cfg.data.source = "photographs"
    cfg.data.denoise.height, cfg.data.denoise.width, cfg.data.padded_length = 16, 8, 128
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 7, 3, 2
    cfg.data.update_from_flattened_dict(changes)
    return cfg.data.to_dict()


def test_every_photograph_has_its_licence_and_is_in_one_split():
    names = [name for split in PHOTOGRAPHS.values() for name in split]
    assert len(set(names)) == len(names)
    files = {path.name for path in FOLDER.glob("*.jpg")}
    assert files == {f"{name}.jpg" for name in names}
    licences = (FOLDER / "LICENSES.md").read_text()
    rows = [line for line in licences.splitlines() if line.startswith("| ") and ".jpg" in line]
    assert {row.split("|")[1].strip() for row in rows} == files
    assert all(row.split("|")[4].strip() in ("public domain", "CC0") for row in rows)


def test_crops_depend_on_the_seed_alone_and_differ():
    counts = {"train": 6, "val": 2, "test": 2}
    first, again, other = (photographs((16, 8), counts, seed) for seed in (0, 0, 1))
    assert first.sha256 == again.sha256 != other.sha256
    crops = np.stack([first.pixels("train", i) for i in range(6)])
    assert crops.shape == (6, 16, 8, 3) and crops.dtype == np.uint8
    assert len(np.unique(crops.reshape(6, -1), axis=0)) == 6


def test_batches_are_rows_of_pixels_and_amplitudes_within_their_bound():
    dataset = open_denoise(options(), DataPaths(data_dir=None))
    batch = dataset.gather("train", np.array([3, 0]))
    pixels = dataset._images.pixels("train", 3)
    np.testing.assert_allclose(batch["inputs"][0, 8 + 5], pixels[1, 5] / 255 * 2 - 1, atol=1e-6)
    assert {n: (a.shape, a.dtype) for n, a in batch.items()} == dataset.shapes(2, 128)
    every = dataset.gather("train", np.arange(7))["noise"]
    np.testing.assert_array_equal(every[3], batch["noise"][0])
    assert every.min() >= 0 and 0.5 < every.max() <= 1  # 2 * 0.5
    doubled = open_denoise(options(**{"denoise.amplitude": 1.0}), DataPaths(data_dir=None))
    np.testing.assert_allclose(doubled.gather("train", np.arange(7))["noise"], 2 * every)


def imitation(tmp_path, *, packed, csv=False, lines=None):
    """Ten images of CelebA's size, of which image i has the colour 20 i; 6 / 2 / 2."""
    folder = tmp_path / "img_align_celeba"
    folder.mkdir()
    names = [f"{i:06}.jpg" for i in range(1, 11)]
    for i, name in enumerate(names):
        Image.new("RGB", (178, 218), (20 * i, 20 * i, 20 * i)).save(folder / name, quality=95)
    splits = [0] * 6 + [1] * 2 + [2] * 2
    comma = "," if csv else " "
    rows = [f"{name}{comma}{split}" for name, split in zip(names, splits, strict=True)]
    head = ["image_id,partition"] if csv else []
    suffix = "csv" if csv else "txt"
    text = "\n".join(lines if lines is not None else head + rows) + "\n"
    (tmp_path / f"list_eval_partition.{suffix}").write_text(text)
    if not packed:
        return folder
    archive = tmp_path / "img_align_celeba.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in names:
            file.write(folder / name, f"img_align_celeba/{name}")
    return archive


@pytest.mark.parametrize("csv", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_celeba_is_read_from_archive_or_folder(tmp_path, packed, csv):
    images = celeba(imitation(tmp_path, packed=packed, csv=csv), (32, 16), NONE)
    assert [len(images.rows[split]) for split in NONE] == [6, 2, 2]
    assert images.pixels("val", 1).shape == (32, 16, 3)
    assert abs(int(images.pixels("val", 1).mean()) - 140) <= 2  # the eighth image
    assert "NOT of the official number" in images.detail


def test_archive_and_folder_are_the_same_data_and_counts_spread(tmp_path):
    archive = imitation(tmp_path, packed=True)
    packed = celeba(archive, (32, 16), NONE)
    unpacked = celeba(archive.with_suffix(""), (32, 16), NONE)
    assert packed.sha256 == unpacked.sha256
    some = celeba(archive, (32, 16), {**NONE, "train": 3})
    assert [round(some.pixels("train", i).mean() / 20) for i in range(3)] == [0, 2, 4]
    assert some.sha256 != packed.sha256


def test_the_middle_square_is_taken(tmp_path):
    archive = imitation(tmp_path, packed=True)
    marked = Image.new("RGB", (178, 218))
    marked.paste((255, 255, 255), (0, 20, 178, 198))  # rows 20..197 are the middle 178
    marked.save(archive.with_suffix("") / "000001.jpg", quality=100)
    image = celeba(archive.with_suffix(""), (178, 178), NONE).pixels("train", 0)
    assert image[2:-2].min() > 240


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lines": ["000001.jpg 7"]}, "line 1 is '000001.jpg 7'"),
        ({"lines": ["000001.jpg 0", "000099.jpg 1", "000002.jpg 2"]}, "lacks 1 of the 1 val"),
        ({"lines": ["000001.jpg 0"]}, "no images of the split 'val'"),
    ],
)
def test_a_partition_that_does_not_fit_is_refused(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        celeba(imitation(tmp_path, packed=True, **changes), (32, 16), NONE)


def test_missing_and_damaged_files_are_named(tmp_path):
    archive = imitation(tmp_path, packed=True)
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere"):
        celeba(tmp_path / "nowhere", (32, 16), NONE)
    with pytest.raises(ValueError, match="n_train=7: there are only 6 examples"):
        celeba(archive, (32, 16), {**NONE, "train": 7})
    (archive.with_suffix("") / "000001.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"000001.jpg of .* is damaged"):
        celeba(archive.with_suffix(""), (32, 16), NONE).pixels("train", 0)
    archive.write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match="no whole zip"):
        celeba(archive, (32, 16), NONE)
    (tmp_path / "list_eval_partition.txt").unlink()
    with pytest.raises(FileNotFoundError, match="is not beside"):
        celeba(archive, (32, 16), NONE)


@pytest.mark.parametrize(
    ("changes", "files", "words"),
    [
        ({"padded_length": 127}, None, r"height \* width = 128"),
        ({}, "a.zip", "only read with data.source=official"),
        ({"source": "official"}, None, "CelebA cannot be downloaded"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, files, words, tmp_path):
    paths = DataPaths(data_dir=tmp_path, files=None if files is None else tmp_path / files)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        open_denoise(options(**changes), paths)


class TestPreparedWithTfds:
    """The data set celeb_a of TensorFlow Datasets in small: image i has the colour 12 i."""

    @pytest.fixture
    def paths(self, tmp_path):
        fake_tfds.write(fake_tfds.CelebA, tmp_path / "tfds")
        return DataPaths(data_dir=tmp_path)

    def test_its_images_are_cropped_and_stretched_as_those_of_the_archive(self, paths, tmp_path):
        none = {"n_train": 0, "n_val": 0, "n_test": 0}
        dataset = open_denoise(options(source="tfds", **none), paths)
        assert [dataset.size(split) for split in dataset.splits] == [6, 2, 2]
        assert dataset.provenance.source == "tfds"
        assert dataset.provenance.detail == (
            "CelebA as TensorFlow Datasets has it, middle 178 pixels stretched to 16 x 8; "
            "NOT of the official number of images"
        )
        for split, colours in {"train": range(6), "val": (6, 7), "test": (8, 9)}.items():
            inputs = dataset.gather(split, np.arange(dataset.size(split)))["inputs"]
            found = np.rint((inputs + 1) * 127.5)
            assert (found.min(axis=(1, 2)) == found.max(axis=(1, 2))).all()
            assert sorted(found[:, 0, 0]) == [12 * i for i in colours]  # in TFDS's order
        few = open_denoise(options(source="tfds", n_train=2, n_val=1, n_test=1), paths)
        assert few.size("train") == 2 and few.fingerprint != dataset.fingerprint

    def test_more_than_there_are_are_refused(self, paths):
        with pytest.raises(ValueError, match="n_train=7: there are only 6 examples"):
            open_denoise(options(source="tfds"), paths)

    def test_without_it_the_line_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
        with pytest.raises(FileNotFoundError, match=r"celeb_a is in no folder of TensorFlow Data"):
            open_denoise(options(source="tfds"), DataPaths(data_dir=tmp_path))
