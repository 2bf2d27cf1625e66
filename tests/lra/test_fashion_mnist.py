"""Fashion-MNIST is read from its four files, and no other content is."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
from fake_fashion_mnist import ARRAYS, FILES, SMALL, lay, make_small

from ssm_jax.data import idx_files, packages
from ssm_jax.data.prepare import DataPaths
from ssm_jax.lra.image import DEBIAN_FOLDER
from ssm_jax.lra.image import read_fashion as read

TRAIN = "train-images-idx3-ubyte"


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    if "debian" not in request.node.name:
        make_small(monkeypatch)


@pytest.fixture(params=["plain", "gzip"])
def folder(request, tmp_path):
    """The four files, one of them in the other form too."""
    packed = {f"{name}.gz": gzip.compress(data) for name, data in FILES.items()}
    if request.param == "plain":
        return lay(tmp_path / "f", FILES | {f"{TRAIN}.gz": b"not needed"})
    return lay(tmp_path / "f", packed)


def test_images_are_read_row_by_row_with_two_zeros_around_them(folder):
    images, n_train, detail = read(folder)
    train, train_targets, test, test_targets = ARRAYS.values()
    assert n_train == len(train)
    assert (images.pixels.dtype, images.targets.dtype) == (np.uint8, np.uint8)
    np.testing.assert_array_equal(images.targets, np.concatenate([train_targets, test_targets]))
    expected = np.concatenate([train, test])
    assert images.pixels.shape == (len(expected), 32**2)
    np.testing.assert_array_equal(images.pixels.reshape(-1, 32, 32)[:, 2:30, 2:30], expected)
    assert images.pixels.sum() == expected.sum()
    assert SMALL[TRAIN].sha256 in detail and "padded to 32 x 32" in detail


def test_a_missing_file_names_the_package(tmp_path):
    lay(tmp_path / "f", {n: d for n, d in FILES.items() if n != "t10k-labels-idx1-ubyte"})
    for place in (tmp_path / "f", tmp_path / "gone"):
        with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
            read(place)


def changed(data, where):
    other = bytearray(data)
    other[where] ^= 1
    return bytes(other)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(FILES[TRAIN], -1), "has sha256 .* Fashion-MNIST"),
        (
            changed(FILES[TRAIN], 3),
            r"not an IDX file of 7 x 28 x 28 bytes: it begins with 00000802",
        ),
        (changed(FILES[TRAIN], 7), "not an IDX file of 7 x 28 x 28"),
        (FILES[TRAIN][:-1], "holds 5,503 bytes, expected 5,504"),
        (FILES[TRAIN] + b"x", "holds more than 5,504 bytes"),
        (b"", "not an IDX file"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_another_content_is_refused(tmp_path, data, message, packed):
    files = dict(FILES)
    del files[TRAIN]
    files[TRAIN + ".gz" * packed] = gzip.compress(data) if packed else data
    with pytest.raises(ValueError, match=f"{TRAIN}.*{message}"):
        read(lay(tmp_path / "f", files))


@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_a_damaged_gzip_file_is_refused(tmp_path, keep):
    packed = {f"{name}.gz": gzip.compress(data) for name, data in FILES.items()}
    data = packed[f"{TRAIN}.gz"]
    for wrong in (data[: int(len(data) * keep)], b"not gzip", changed(data, -5)):
        (tmp_path / "f").mkdir(exist_ok=True)
        for name, content in (packed | {f"{TRAIN}.gz": wrong}).items():
            (tmp_path / "f" / name).write_bytes(content)
        with pytest.raises(ValueError, match="is not a whole gzip file"):
            read(tmp_path / "f")


def test_a_bomb_is_unpacked_no_further_than_the_known_size(tmp_path, monkeypatch):
    """A gigabyte of zeros behind a true header: one byte too many is enough to refuse it."""
    asked = []

    class Counting(gzip.GzipFile):
        def read(self, size=-1):
            asked.append(size)
            return super().read(size)

    bomb = gzip.compress(FILES[TRAIN]) + gzip.compress(bytes(1 << 20), 1) * 1_000
    lay(tmp_path / "f", FILES | {f"{TRAIN}.gz": bomb})
    (tmp_path / "f" / TRAIN).unlink()
    monkeypatch.setattr(idx_files.gzip, "open", Counting)
    with pytest.raises(ValueError, match="holds more than 5,504 bytes"):
        read(tmp_path / "f")
    assert asked == [5_505]


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_debian_package_is_read():
    images, n_train, _ = read()
    assert (n_train, images.pixels.shape) == (60_000, (70_000, 1_024))
    assert np.bincount(images.targets[:n_train]).tolist() == [6_000] * 10
    assert np.bincount(images.targets[n_train:]).tolist() == [1_000] * 10
    # The mean that users of the data set publish, as a part of the range.
    inner = images.pixels[:n_train].reshape(-1, 32, 32)[:, 2:30, 2:30]
    assert round(inner.mean() / 255, 4) == 0.2860
    assert inner.sum() == images.pixels[:n_train].sum()
    # The first training images show a boot, two tops and two dresses.
    assert images.targets[:5].tolist() == [9, 0, 0, 3, 0]


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_the_files_are_a_set_of_series_too(name, folder, tmp_path, monkeypatch):
    """Pixels as they are, 784 in a row, with the official split."""
    monkeypatch.setitem(packages.IDX, name, replace(packages.IDX[name], files=SMALL))
    made = packages.unpack(name, DataPaths(tmp_path / "data", folder))
    train, train_targets, test, test_targets = ARRAYS.values()
    with np.load(made / f"{name}.npz") as found:
        np.testing.assert_array_equal(found["x_train"], train.reshape(7, 784, 1))
        np.testing.assert_array_equal(found["x_test"], test.reshape(3, 784, 1))
        np.testing.assert_array_equal(found["y_train"], train_targets)
        np.testing.assert_array_equal(found["y_test"], test_targets)


def test_official_digits_come_from_a_folder_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match="MNIST is not there; give the folder of the four"):
        packages.unpack("mnist", DataPaths(tmp_path / "data"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"neither train-images.* nor .*; give the"):
        packages.unpack("mnist", DataPaths(tmp_path / "data", tmp_path / "empty"))
    assert not (tmp_path / "data").exists()
