"""The official Pathfinder files, imitated: only the hard level, in the order of the metadata."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from ssm_jax.lra.pathfinder import OFFICIAL_ROWS, find_release, read_release

ROOT = "lra_release/lra_release/"
LEVEL = "curv_contour_length_14"


def png(pixels, mode="L"):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def image(k, i, size=32):
    """A picture that tells which one it is."""
    return np.random.default_rng([k, i]).integers(0, 256, (size, size), np.uint8)


def label(k, i):
    return (k + i) % 2


def line(k, i, y=None):
    y = label(k, i) if y is None else y
    return f"imgs/{k} sample_{i}.png {i} {y} 1.0 14 4 2 0.5 1 1\n"


def official(size=32, level=LEVEL, numbers=(0, 1, 2, 10), rows=3):
    """Files of a level: as many metadata as numbers, whose lines are not in the order of names."""
    top = f"pathfinder{size}/{level}"
    files = {}
    for k in numbers:
        order = [2, 0, 1][:rows]
        files[f"{top}/metadata/{k}.npy"] = "".join(line(k, i) for i in order).encode()
        for i in order:
            files[f"{top}/imgs/{k}/sample_{i}.png"] = png(image(k, i, size))
    return files


def pack(path, files, root=ROOT):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(root + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def unpack(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.fixture
def read(tmp_path_factory):
    """Read a release, its pixels into a new folder."""

    def read(path, size=32, **options):
        folder = options.pop("folder", None) or tmp_path_factory.mktemp("work")
        return read_release(find_release(path, size), size, folder, **options)

    return read


@pytest.fixture(autouse=True)
def expect(monkeypatch):
    """Let the official files have so many images, at first twelve."""

    def change(rows):
        monkeypatch.setattr("ssm_jax.lra.pathfinder.OFFICIAL_ROWS", rows)

    change(12)
    return change


ORDER = [(k, i) for k in (0, 1, 2, 10) for i in (2, 0, 1)]


@pytest.mark.parametrize("size", [32, 128])
def test_images_come_in_the_order_of_the_metadata_by_number(read, tmp_path, size):
    """10.npy after 2.npy, and lines as they stand: the index space of the official split."""
    files = official(size)
    other = 160 - size
    files |= official(other, numbers=(0,))
    files |= official(size, "curv_baseline") | official(size, "curv_contour_length_9")
    for path in (pack(tmp_path / "lra.gz", files), unpack(tmp_path / "lra", files)):
        pixels, targets, notes = read(path, size)
        assert (pixels.dtype, targets.dtype, pixels.shape) == (np.uint8, np.uint8, (12, size**2))
        for row, (k, i) in enumerate(ORDER):
            np.testing.assert_array_equal(pixels[row].reshape(size, size), image(k, i, size))
            assert targets[row] == label(k, i)
        assert (notes["empty"], notes["missing"], notes["unlisted"]) == (0, 0, 0)


@pytest.mark.parametrize("order", ["images first", "metadata first", "backwards"])
def test_the_order_of_an_archive_does_not_matter(read, tmp_path, order):
    files = official()
    names = {
        "images first": sorted(files),
        "metadata first": sorted(files, key=lambda name: "imgs" in name),
        "backwards": sorted(files, reverse=True),
    }[order]
    expected = read(unpack(tmp_path / "u", files))
    found = read(pack(tmp_path / "t", {name: files[name] for name in names}))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_equal(a, b)


def test_the_pixels_are_mapped(read, tmp_path, monkeypatch):
    """And decoded in blocks, here of five images."""
    monkeypatch.setattr("ssm_jax.lra.pathfinder._BLOCK", 5)
    mapped, *_ = read(pack(tmp_path / "t", official()), folder=tmp_path / "work")
    assert isinstance(mapped, np.memmap)
    expected = np.stack([image(k, i).ravel() for k, i in ORDER])
    np.testing.assert_array_equal(mapped, expected)
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["pixels.npy"]


def test_other_kinds_of_png_become_grey(read, tmp_path, expect):
    expect(3)
    files = official(numbers=(0,))
    names = [name for name in files if name.endswith(".png")]
    grey = png(np.full((32, 32), 200, np.uint8), "RGB")
    rgb = png(np.full((32, 32, 3), (255, 0, 0), np.uint8), "RGB")
    files[names[0]], files[names[1]] = grey, rgb
    pixels, *_ = read(unpack(tmp_path, files))
    assert set(pixels[0].tolist()) == {200}
    assert set(pixels[1].tolist()) == {76}  # 0.299 * 255


def test_empty_images_are_skipped_and_counted(read, tmp_path, capsys, expect):
    files = official()
    files[f"pathfinder32/{LEVEL}/imgs/1/sample_0.png"] = b""
    path = pack(tmp_path / "t", files)
    with pytest.raises(ValueError, match=r"has 11 images .* has 12 \(1 are empty, 0 missing\)"):
        read(path)
    expect(11)
    pixels, targets, notes = read(path)
    assert (len(pixels), len(targets), notes["empty"]) == (11, 11, 1)
    assert "skipped 1 empty images" in capsys.readouterr().err
    kept = [row for row in ORDER if row != (1, 0)]
    np.testing.assert_array_equal(pixels[4], image(*kept[4]).ravel())


def test_another_number_of_images_is_refused_unless_allowed(read, tmp_path, expect):
    files = official()
    path = unpack(tmp_path / "u", files)
    expect(OFFICIAL_ROWS)
    with pytest.raises(ValueError, match=r"has 12 images of pathfinder32/.* has 200,000 "):
        read(path)
    expect(13)
    assert len(read(path, allow_mismatch=True)[0]) == 12
    expect(12)
    (path / f"pathfinder32/{LEVEL}/imgs/2/sample_2.png").unlink()
    unpack(path, {f"pathfinder32/{LEVEL}/imgs/2/sample_7.png": png(image(2, 7))})
    with pytest.raises(ValueError, match=r"\(0 are empty, 1 missing\)"):
        read(path)
    pixels, _, notes = read(path, allow_mismatch=True)
    assert (len(pixels), notes["missing"], notes["unlisted"]) == (11, 1, 1)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("metadata/1.npy", b"imgs/1 sample_0.png 0\n", "1.npy line 1: expected FOLDER FILE"),
        ("metadata/1.npy", line(1, 0, y=2).encode(), "line 1: .* label 0 or 1, got b'imgs/1"),
        ("metadata/1.npy", b"\x93NUMPY\x01\x00v\x00{'descr'", "1.npy line 1: expected FOLDER"),
        ("metadata/1.npy", line(0, 0).encode(), "1.npy lists imgs/0/sample_0.png twice"),
        ("imgs/1/sample_0.png", b"no image", "sample_0.png is not a whole PNG"),
        ("imgs/1/sample_0.png", png(image(1, 0))[:600], "sample_0.png is not a whole PNG"),
        ("imgs/1/sample_0.png", png(image(1, 0, 31)), "has 31 x 31 pixels, expected 32 x 32"),
    ],
)
def test_a_malformed_file_is_named(read, tmp_path, name, data, message):
    files = official() | {f"pathfinder32/{LEVEL}/{name}": data}
    with pytest.raises(ValueError, match=message) as error:
        read(pack(tmp_path / "t", files), folder=tmp_path / "work", allow_mismatch=True)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("work/*"))


def test_a_release_without_the_hard_level_is_refused(read, tmp_path):
    files = official(level="curv_baseline")
    for path in (pack(tmp_path / "t", files), unpack(tmp_path / "u", files)):
        with pytest.raises(FileNotFoundError, match=f"pathfinder32/{LEVEL}/metadata is not in"):
            read(path)
    with pytest.raises(FileNotFoundError, match="no folder pathfinder128"):
        find_release(tmp_path / "u", 128)
