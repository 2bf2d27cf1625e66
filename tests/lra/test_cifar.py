"""CIFAR-10 is read in grey from every official form of it, and nothing else is."""

import hashlib
import pickle
import tarfile

import numpy as np
import pytest
from fake_cifar import (
    BINARY,
    CLASSES,
    COLOURS,
    FORMS,
    OTHER,
    PYTHON,
    ROWS,
    make_small,
    pack,
    python2_pickle,
    short,
    unpack,
)
from PIL import Image

from ssm_jax.lra import cifar
from ssm_jax.lra.cifar import read_batch


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    if "official" not in request.node.name:
        make_small(monkeypatch)


def pillow_grey(colours):
    """(n, 3 L) planes as Pillow greys them."""
    rgb = colours.reshape(1, len(colours), 3, -1).transpose(0, 1, 3, 2)
    image = Image.fromarray(np.ascontiguousarray(rgb.reshape(len(colours), -1, 3)), "RGB")
    return np.asarray(image.convert("L"))


def check(result):
    """The result holds all images in order."""
    images, n_train, _ = result
    grey = np.stack([pillow_grey(colours) for colours in COLOURS])
    assert n_train == 5 * ROWS
    np.testing.assert_array_equal(images.pixels, grey.reshape(6 * ROWS, 1024))
    np.testing.assert_array_equal(images.targets, CLASSES.reshape(-1))
    assert (images.pixels.dtype, images.targets.dtype) == (np.uint8, np.uint8)


def test_grey_is_that_of_pillow_in_every_bit():
    corners = np.stack(np.meshgrid(*[[0, 1, 127, 128, 254, 255]] * 3), -1).reshape(-1, 3)
    noise = np.random.default_rng(1).integers(0, 256, size=(200_000, 3))
    planes = np.concatenate([corners, noise]).astype(np.uint8).T.reshape(1, -1)
    np.testing.assert_array_equal(cifar.gray(planes), pillow_grey(planes))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inner", ["", "cifar-10-batches", "a/b/c/cifar-10-batches"])
def test_unpacked_batches_are_found_and_read(tmp_path, form, inner):
    unpack(tmp_path / "root" / inner, FORMS[form] | OTHER)
    result = cifar.read_cifar(tmp_path / "root")
    check(result)
    sha256 = hashlib.sha256(b"".join(FORMS[form].values())).hexdigest()
    assert result[-1].endswith(f"version, sha256 {sha256}")


@pytest.mark.parametrize(("form", "version"), [("bin", "binary"), ("py", "python")])
def test_archives_are_read_in_any_order_without_unpacking(tmp_path, form, version, monkeypatch):
    members = OTHER | dict(reversed(FORMS[form].items()))
    members = {f"cifar-10-batches-{form}/{name}": data for name, data in members.items()}
    path = pack(tmp_path / f"cifar-10-{version}.tar.gz", members)
    make_small(monkeypatch, **{version: path})
    for where in (tmp_path, path):
        result = cifar.read_cifar(where)
        check(result)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        assert result[-1] == f"official CIFAR-10, {path.name}, sha256 {sha256}"
    assert list(tmp_path.iterdir()) == [path]
    renamed = path.rename(tmp_path / "other.name")
    check(cifar.read_cifar(renamed))


def test_an_archive_is_preferred_to_batches_and_the_stamp_tells_them_apart(tmp_path):
    unpack(tmp_path / "cifar-10-batches-bin", BINARY)
    unpacked = cifar.find_cifar(tmp_path)
    assert unpacked.path == tmp_path / "cifar-10-batches-bin"
    assert unpacked == cifar.find_cifar(unpacked.path)
    path = pack(tmp_path / "cifar-10-python.tar.gz", PYTHON)
    assert cifar.find_cifar(tmp_path) == cifar.find_cifar(path)
    assert cifar.find_cifar(path).stamp != unpacked.stamp


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "any"])
def test_another_archive_is_refused_with_its_hash_and_both_official_ones(tmp_path, name):
    path = pack(tmp_path / name, BINARY)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=rf"has sha256 {sha256}, .*c4a38c50.*6d958be0"):
        cifar.read_cifar(path)


def test_an_archive_without_a_batch_and_links_are_refused(tmp_path, monkeypatch):
    link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = pack(tmp_path / "a.tar.gz", BINARY | {"test_batch.bin": link})
    make_small(monkeypatch, binary=path)
    with pytest.raises(FileNotFoundError, match=r"test_batch.bin is not in the archive"):
        cifar.read_cifar(path)


def test_missing_paths_and_batches_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone does not exist; give cifar-10-binary"):
        cifar.read_cifar(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"no CIFAR-10 in .*4 levels below"):
        cifar.read_cifar(tmp_path)
    unpack(tmp_path / "a/b/c/d/e", BINARY)
    with pytest.raises(FileNotFoundError, match=r"no CIFAR-10 in .*4 levels below"):
        cifar.read_cifar(tmp_path)
    (tmp_path / "a/b/c/d/e/data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3.bin is not in .*/e;"):
        cifar.read_cifar(tmp_path / "a")


@pytest.mark.parametrize("change", [-1, 1, 3_073])
def test_a_binary_batch_of_another_size_is_refused(tmp_path, change):
    data = (BINARY["data_batch_2.bin"] + bytes(3_073))[: ROWS * 3_073 + change]
    unpack(tmp_path / "a", BINARY | {"data_batch_2.bin": data})
    with pytest.raises(ValueError, match=r"data_batch_2.bin is not 20 records of 3,073 bytes"):
        cifar.read_cifar(tmp_path)


def test_classes_are_counted(tmp_path):
    data = bytearray(BINARY["test_batch.bin"])
    data[0] = 10
    unpack(tmp_path / "a", BINARY | {"test_batch.bin": data})
    with pytest.raises(ValueError, match=r"test_batch.bin has an image of class 10"):
        cifar.read_cifar(tmp_path)
    data[0] = (CLASSES[5, 0] + 1) % 10
    (tmp_path / "a/test_batch.bin").write_bytes(data)
    with pytest.raises(ValueError, match=r"the classes of the 20 test images have .*of one size"):
        cifar.read_cifar(tmp_path)


def test_a_changed_batch_of_the_python_version_is_not_even_unpickled(tmp_path):
    evil = pickle.dumps(pytest.fail)
    unpack(tmp_path / "a", PYTHON | {"data_batch_4": evil})
    with pytest.raises(ValueError, match=r"data_batch_4 has md5 .*expected .*; get it again"):
        cifar.read_cifar(tmp_path)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps({"data": Evil()}, 0), "names __builtin__.exec"),
        (pickle.dumps({"data": Evil()}, 2), "names __builtin__.exec"),
        (pickle.dumps({"data": Evil()}, 5), "names builtins.exec"),
        (b"cos\nsystem\n(S'false'\ntR.", "names os.system"),
        (b"cnumpy\nload\n(S'x'\ntR.", "names numpy.load"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.", "names numpy.ndarray.dump"),
        (b"S'x'\nP1\n.", "no pickle of plain data"),
        (b"\x82\x01.", "no pickle of plain data"),
        (PYTHON["test_batch"][:-10], "no pickle of plain data"),
        (b"", "EOFError"),
        (b"airplane\n", "no pickle of plain data"),
        (b"cnumpy\nndarray\n}S'a'\nK\x01sb.", "no pickle of plain data"),
        (pickle.dumps([1]), "is a pickle of a list"),
        (pickle.dumps({b"labels": [0] * ROWS}), "no data that are a uint8 array"),
        (pickle.dumps({b"data": bytes(ROWS * 3072)}), "no data that are a uint8 array"),
        (python2_pickle(COLOURS[0][1:], CLASSES[0]), "no data that are a uint8 array"),
        (python2_pickle(COLOURS[0], CLASSES[0], shape=(ROWS, 3073)), "no data that are a uint8"),
        (python2_pickle(COLOURS[0][1:], CLASSES[0], shape=(ROWS, 3072)), "no data that are"),
        (python2_pickle(COLOURS[0], CLASSES[0], kind=b"O8"), "no data that are a uint8 array"),
        (python2_pickle(COLOURS[0], CLASSES[0][1:]), "no labels that are a list of 20"),
        (python2_pickle(COLOURS[0], [0] * (ROWS - 1)), "no labels that are a list of 20"),
        (python2_pickle(COLOURS[0], [], extra=short(b"labels") + b"](" + b"J\0\1\0\0" * 20 + b"e"),
         "no labels that are a list of 20 small whole numbers"),
        (python2_pickle(COLOURS[0], [], extra=short(b"labels") + b"](" + b"\x88" * 20 + b"e"),
         "no labels that are a list of 20 small whole numbers"),
    ],
)  # fmt: skip
def test_a_hostile_or_foreign_pickle_is_refused_in_one_line(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_batch(data, ROWS)
    assert str(caught.value).isprintable()


def test_the_fake_pickle_is_one_that_numpy_itself_reads():
    batch = pickle.loads(PYTHON["test_batch"], encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], COLOURS[5])
    assert batch[b"labels"] == CLASSES[5].tolist()


def test_the_official_sizes_are_the_default(tmp_path):
    unpack(tmp_path / "a", BINARY)
    with pytest.raises(ValueError, match=r"is not 10,000 records of 3,073 bytes, 30,730,000 in"):
        cifar.read_cifar(tmp_path)
