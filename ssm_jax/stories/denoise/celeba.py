"""CelebA from a user's archive or folder (Liu et al. 2015), image by image.

The archive stays packed: its index finds an image, which is decoded when it is asked for. The
pictures may not be handed on, so there is no download.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssm_jax.data.archive import Counted, Limits, check_zipped, decoded, open_zip, shown
from ssm_jax.data.release import Release, files_below, not_there

ARCHIVE = "img_align_celeba.zip"
PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
SPLITS = {"0": "train", "1": "val", "2": "test"}
OFFICIAL = {"train": 162_770, "val": 19_867, "test": 19_962}
# 202,599 images of some 10 KB
LIMITS = Limits(members=400_000, files=400_000, largest=1 << 20)
_LARGEST_SIDE = 1_024  # pixels; those of the archive are 178 x 218
_LARGEST_PARTITION = 1 << 24  # bytes; the official one has 3 MB
UNOFFICIAL = "; NOT of the official number of images"
DAMAGE = (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)
CROP = 178  # the middle square of an image of 178 x 218 pixels


class CelebA:
    """Images of CelebA: the middle square, resized as torchvision does it."""

    def __init__(self, path: Path, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        """Args:
          path: img_align_celeba.zip, or the folder unpacked from it; next to it, or in it, is
            list_eval_partition.txt or, where that is not there, .csv.
          size: (H, W) to which an image is stretched.
          counts: images of each split that are used, evenly spread; 0: all.

        Raises FileNotFoundError or ValueError for images or a partition that are not there or do
        not fit each other.
        """
        self.shape = size
        self._path = path
        self._archive: zipfile.ZipFile | None = None
        partition = _partition_beside(path)
        self._names = _read_partition(partition)
        bytes_of = self._index(path)
        for split, names in self._names.items():
            if not names:
                raise ValueError(f"{partition} has no images of the split {split!r}.")
            missing = [name for name in names if name not in bytes_of]
            if missing:
                raise ValueError(
                    f"{path} lacks {len(missing):,} of the {len(names):,} {split} images that "
                    f"{partition} names, such as {shown(missing[0])}; get it again."
                )
        official = {split: len(names) for split, names in self._names.items()} == OFFICIAL
        for split, n in counts.items():
            names = self._names[split]
            self._names[split] = [names[i] for i in _chosen(split, len(names), n)]
        listed = "".join(
            f"{split} {name} {bytes_of[name][1]}\n"
            for split, names in self._names.items()
            for name in names
        )
        self._place = {name: place for name, (place, _) in bytes_of.items()}
        self.sha256 = hashlib.sha256(f"{size}\n{listed}".encode()).hexdigest()
        self.detail = f"CelebA, {_crop_of(size)}{'' if official else UNOFFICIAL}"

    def _index(self, path: Path) -> dict[str, tuple[str, int]]:
        """Of each image the place in the archive or folder and the bytes of its file, by name."""
        found: dict[str, tuple[str, int]] = {}
        counted = Counted(LIMITS)
        for place, size in self._images(path):
            where = f"{shown(place)} of {shown(path)}"
            counted.add(where, size)
            name = Path(place).name
            if name in found:
                raise ValueError(f"{where} is there twice, also as {shown(found[name][0])}.")
            found[name] = place, size
        return found

    def _images(self, path: Path) -> Iterator[tuple[str, int]]:
        if path.is_dir():
            for _, entry in files_below(path, path.name):
                if entry.name.endswith(".jpg"):
                    if not entry.is_file():
                        raise not_there(Path(entry.path), f"get {ARCHIVE} again.")
                    yield entry.path, entry.stat().st_size
            return
        self._archive = open_zip(path, LIMITS)
        for member in self._archive.infolist():
            if member.filename.endswith(".jpg"):
                check_zipped(member, f"{shown(member.filename)} of {shown(path)}")
                yield member.filename, member.file_size

    def size(self, split: str) -> int:
        return len(self._names[split])

    def pixels(self, split: str, index: int) -> np.ndarray:
        place = self._place[self._names[split][index]]
        try:
            # Never more than the index says: a member may unpack to more.
            with self._archive.open(place) if self._archive else open(place, "rb") as file:
                data = file.read(LIMITS.largest + 1)
            whole = decoded(data, "JPEG", "RGB", (_LARGEST_SIDE,) * 2, at_most=True)
        except DAMAGE as error:
            raise ValueError(
                f"{shown(place)} of {shown(self._path)} is damaged ({shown(error)}); get it again."
            ) from None
        return _cropped(whole, self.shape)


class PreparedCelebA:
    """The data set celeb_a of TensorFlow Datasets, prepared by the user; see `CelebA`."""

    def __init__(self, release: Release, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        from ssm_jax.data.builder import open_split

        names = {"train": "train", "val": "validation", "test": "test"}
        self.shape = size
        self._images = {
            split: open_split(release.path, name, raw=("image",)) for split, name in names.items()
        }
        found = {split: len(images) for split, images in self._images.items()}
        self._chosen = {split: _chosen(split, found[split], n) for split, n in counts.items()}
        identity = f"{size}\n{release.stamp}\n{dict(counts)}"
        self.sha256 = hashlib.sha256(identity.encode()).hexdigest()
        self.detail = f"CelebA as TensorFlow Datasets has it, {_crop_of(size)}" + (
            "" if found == OFFICIAL else UNOFFICIAL
        )

    def size(self, split: str) -> int:
        return len(self._chosen[split])

    def pixels(self, split: str, index: int) -> np.ndarray:
        number = self._chosen[split][index]
        try:
            data = self._images[split][number]["image"]
            whole = decoded(data, "JPEG", "RGB", (_LARGEST_SIDE,) * 2, at_most=True)
        except ValueError as error:
            raise ValueError(f"{split} image {number} {error}; get it again.") from None
        return _cropped(whole, self.shape)


def _crop_of(size: tuple[int, int]) -> str:
    return f"middle {CROP} pixels stretched to {size[0]} x {size[1]}"


def _cropped(whole: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The middle square of an image, resized as torchvision does it, uint8 (H, W, 3)."""
    left, top = round((whole.width - CROP) / 2), round((whole.height - CROP) / 2)
    box = (left, top, left + CROP, top + CROP)
    return np.asarray(whole.crop(box).resize(size[::-1], Image.Resampling.BILINEAR))


def _chosen(split: str, there: int, n: int) -> Sequence[int]:
    """The numbers of n images, evenly spread; 0: all that are there."""
    if n > there:
        raise ValueError(f"data.n_{split}={n}: there are {there:,} {split} images; ask for fewer.")
    return [i * there // n for i in range(n)] if n else range(there)


def _partition_beside(path: Path) -> Path:
    if not (path.is_file() or path.is_dir()):
        if path.exists() or path.is_symlink():
            raise not_there(path, f"give {ARCHIVE} or its folder with --from.")
        raise FileNotFoundError(f"there is no {path}; give {ARCHIVE} or its folder with --from.")
    folders = (path, path.parent) if path.is_dir() else (path.parent,)
    for folder in folders:
        for name in PARTITION:
            if (folder / name).is_file():
                return folder / name
    raise FileNotFoundError(
        f"{PARTITION[0]} is not beside {path}; put it there, it says which images are for training."
    )


def _read_partition(path: Path) -> dict[str, list[str]]:
    """The images of each split, in order. Lines are "000001.jpg 0", in CSV with a comma."""
    names: dict[str, list[str]] = {split: [] for split in SPLITS.values()}
    with open(path, "rb") as file:
        data = file.read(_LARGEST_PARTITION + 1)
    if len(data) > _LARGEST_PARTITION:
        raise ValueError(f"{path} has more than {_LARGEST_PARTITION:,} bytes; get it again.")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); get it again.") from None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.replace(",", " ").split()
        if (number == 1 and words[:1] == ["image_id"]) or not words:
            continue
        if len(words) != 2 or words[1] not in SPLITS:
            raise ValueError(
                f"{path}: line {number} is {line[:60]!r}; it must be the name of an image and 0, 1 "
                "or 2."
            )
        names[SPLITS[words[1]]].append(words[0])
    return names
