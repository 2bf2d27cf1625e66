"""Where images come from: crops of the photographs that come with the package, or CelebA.

CelebA (Liu et al. 2015) is read image by image from the user's archive, which stays packed. The
pictures may not be handed on, so there is no download.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssm_jax.data.archive import GET_AGAIN, Limits, RefusedError, counted, decoded, shown
from ssm_jax.data.draws import uniform
from ssm_jax.data.examples import SPLITS, spread
from ssm_jax.data.release import Release, files_below, not_there

FOLDER = Path(__file__).parent / "photos"  # LICENSES.md there names authors and licences
# None is in two splits.
PHOTOGRAPHS = {"train": ("astronaut", "coffee", "rocket"), "val": ("hopper",), "test": ("chelsea",)}
COUNTS: Mapping[str, int] = {"train": 96, "val": 16, "test": 16}  # unless a config asks for others
SMALLEST = 0.5  # side of a crop over that of its photograph, at least

ARCHIVE = "img_align_celeba.zip"
PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
OFFICIAL = {"train": 162_770, "val": 19_867, "test": 19_962}
CROP = 178  # the middle square of an image of 178 x 218 pixels
# 202,599 images of some 10 KB
LIMITS = Limits(members=400_000, files=400_000, largest=1 << 20)
LARGEST_SIDE = 1_024  # pixels
LARGEST_PARTITION = 1 << 24  # bytes; the official one has 3 MB
DAMAGE = (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class Images:
    """Colour images of one size, and where they come from."""

    rows: Mapping[str, Sequence[Any] | np.ndarray]  # of each split as many as it has images
    pixels: Callable[[str, int], np.ndarray]  # of a split and a number, uint8 (H, W, 3)
    detail: str
    sha256: str


def photographs(size: tuple[int, int], counts: Mapping[str, int], seed: int) -> Images:
    """Crops of `size` (H, W), each a function of the seed, the split and its number, in memory.
    COUNTS of them where `counts` are 0."""
    pixels: dict[str, np.ndarray] = {}
    digest = hashlib.sha256()
    for stream, (split, names) in enumerate(PHOTOGRAPHS.items()):
        whole = [Image.open(FOLDER / f"{name}.jpg").convert("RGB") for name in names]
        drawn = uniform(seed, stream, 4 * (counts[split] or COUNTS[split])).reshape(-1, 4).tolist()
        crops = []
        for i, (scale, x, y, flip) in enumerate(drawn):
            photograph = whole[i % len(names)]
            side = round(min(photograph.size) * (SMALLEST + (1 - SMALLEST) * scale))
            width, height = photograph.size
            left, top = int(x * (width - side + 1)), int(y * (height - side + 1))
            box = (left, top, left + side, top + side)
            crop = np.asarray(photograph.resize(size[::-1], Image.Resampling.BILINEAR, box))
            crops.append(crop[:, ::-1] if flip < 0.5 else crop)
        pixels[split] = np.stack(crops)
        digest.update(repr(pixels[split].shape).encode() + pixels[split].tobytes())
    detail = f"crops of {size[0]} x {size[1]} from photographs in the public domain, seed {seed}"
    return Images(pixels, lambda split, index: pixels[split][index], detail, digest.hexdigest())


def celeba(path: Path, size: tuple[int, int], counts: Mapping[str, int]) -> Images:
    """Images of CelebA: the middle square, resized to (H, W) as torchvision does it.

    `path` is img_align_celeba.zip, or the folder unpacked from it, with list_eval_partition.txt or
    .csv next to it or in it. Of each split so many images are used, evenly spread; 0: all.
    """
    partition, names_of = _partition_of(path)
    archive = None if path.is_dir() else _open_zip(path)
    places: dict[str, str] = {}  # in the archive or folder, by name
    bytes_of: dict[str, int] = {}
    check = counted(LIMITS)
    for place, n_bytes in _images_in(path, archive):
        where, name = f"{shown(place)} of {shown(path)}", Path(place).name
        check(where, n_bytes)
        if name in places:
            raise ValueError(f"{where} is there twice, also as {shown(places[name])}.")
        places[name], bytes_of[name] = place, n_bytes
    for split, names in names_of.items():
        if not names:
            raise ValueError(f"{partition} has no images of the split {split!r}.")
        if missing := [name for name in names if name not in places]:
            raise ValueError(
                f"{path} lacks {len(missing):,} of the {len(names):,} {split} images that "
                f"{partition} names, such as {shown(missing[0])}; get it again."
            )
    found = {split: len(names) for split, names in names_of.items()}
    chosen = {split: spread(np.arange(found[split]), counts[split], split) for split in SPLITS}
    used = {split: [names_of[split][i] for i in chosen[split]] for split in SPLITS}
    listed = "".join(f"{split} {n} {bytes_of[n]}\n" for split in used for n in used[split])

    def pixels(split: str, index: int) -> np.ndarray:
        place = places[used[split][index]]
        try:
            # Never more than the index says: a member may unpack to more.
            with archive.open(place) if archive else open(place, "rb") as file:
                return _square(file.read(LIMITS.largest + 1), size)
        except DAMAGE as error:
            raise ValueError(
                f"{shown(place)} of {shown(path)} is damaged ({shown(error)}); get it again."
            ) from None

    sha256 = hashlib.sha256(f"{size}\n{listed}".encode()).hexdigest()
    return Images(used, pixels, _detail("CelebA", found, size), sha256)


def prepared_celeba(release: Release, size: tuple[int, int], counts: Mapping[str, int]) -> Images:
    """The data set celeb_a of TensorFlow Datasets, prepared by the user; see `celeba`."""
    from ssm_jax.data.builder import open_split

    names = {"train": "train", "val": "validation", "test": "test"}
    images = {split: open_split(release.path, name, ("image",)) for split, name in names.items()}
    found = {split: len(rows) for split, rows in images.items()}
    used = {split: spread(np.arange(found[split]), n, split) for split, n in counts.items()}

    def pixels(split: str, index: int) -> np.ndarray:
        number = int(used[split][index])
        try:
            return _square(images[split][number]["image"], size)
        except ValueError as error:
            raise ValueError(f"{split} image {number} {error}; get it again.") from None

    detail = _detail("CelebA as TensorFlow Datasets has it", found, size)
    identity = f"{size}\n{release.stamp}\n{dict(counts)}"
    return Images(used, pixels, detail, hashlib.sha256(identity.encode()).hexdigest())


def _detail(what: str, found: Mapping[str, int], size: tuple[int, int]) -> str:
    other = "" if found == OFFICIAL else "; NOT of the official number of images"
    return f"{what}, middle {CROP} pixels stretched to {size[0]} x {size[1]}{other}"


def expected(size: tuple[int, int], counts: Mapping[str, int]) -> Images:
    """Of CelebA, which is not there, the number of images and black ones."""
    rows = {split: range(counts[split] or OFFICIAL[split]) for split in SPLITS}
    black = np.zeros((*size, 3), np.uint8)
    detail = "not given; assumed: CelebA, images as published or asked"
    return Images(rows, lambda split, index: black, detail, "0" * 64)


def _square(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The middle square of an image file, resized as torchvision does it, uint8 (H, W, 3)."""
    whole = decoded(data, "JPEG", "RGB", (LARGEST_SIDE, LARGEST_SIDE), at_most=True)
    left, top = round((whole.width - CROP) / 2), round((whole.height - CROP) / 2)
    part = whole.crop((left, top, left + CROP, top + CROP))
    return np.asarray(part.resize(size[::-1], Image.Resampling.BILINEAR))


def _partition_of(path: Path) -> tuple[Path, dict[str, list[str]]]:
    """The file of lines "000001.jpg 0", in CSV with a comma, and the images of each split."""
    if not (path.is_file() or path.is_dir()):
        if path.exists() or path.is_symlink():
            raise not_there(path, f"give {ARCHIVE} or its folder with --from.")
        raise FileNotFoundError(f"there is no {path}; give {ARCHIVE} or its folder with --from.")
    folders = (path, path.parent) if path.is_dir() else (path.parent,)
    listed = next((f / n for f in folders for n in PARTITION if (f / n).is_file()), None)
    if listed is None:
        raise FileNotFoundError(
            f"{PARTITION[0]} is not beside {path}; put it there, it says which images are for "
            "training."
        )
    with open(listed, "rb") as file:
        data = file.read(LARGEST_PARTITION + 1)
    if len(data) > LARGEST_PARTITION:
        raise ValueError(f"{listed} has more than {LARGEST_PARTITION:,} bytes; get it again.")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{listed} is not UTF-8 ({error}); get it again.") from None
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    by_word = dict(zip("012", names.values(), strict=True))
    for number, line in enumerate(lines, start=1):
        words = line.replace(",", " ").split()
        if (number == 1 and words[:1] == ["image_id"]) or not words:
            continue
        if len(words) != 2 or words[1] not in by_word:
            raise ValueError(
                f"{listed}: line {number} is {line[:60]!r}; it must be the name of an image and "
                "0, 1 or 2."
            )
        by_word[words[1]].append(words[0])
    return listed, names


def _images_in(path: Path, archive: zipfile.ZipFile | None) -> Iterator[tuple[str, int]]:
    """Where each image is in the archive or folder, and the bytes of its file."""
    if archive is None:
        for _, entry in files_below(path, path.name):
            if entry.name.endswith(".jpg"):
                if not entry.is_file():
                    raise not_there(Path(entry.path), f"get {ARCHIVE} again.")
                yield entry.path, entry.stat().st_size
        return
    for member in archive.infolist():
        if member.filename.endswith(".jpg"):
            # The memory that other methods take has no bound.
            known = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if member.flag_bits & 1 or not known:
                fault = f"is encrypted, or packed by a method of its own; {GET_AGAIN}"
                raise ValueError(f"{shown(member.filename)} of {shown(path)} {fault}")
            yield member.filename, member.file_size


class _Index(io.FileIO):
    """A zip archive whose index, which `zipfile` reads at once, is bounded."""

    def read(self, n: int | None = -1) -> bytes:
        most = 200 * LIMITS.members  # an entry is 46 bytes, its name and its attributes
        data = super().read(most + 1 if n is None or n < 0 else min(n, most + 1))
        if len(data) > most or data.count(b"PK\x01\x02") > LIMITS.members:
            more = f"has an index of more than {LIMITS.members:,} members"
            raise RefusedError(f"{shown(self.name)} {more}; {GET_AGAIN}")
        return data

    def __del__(self) -> None:
        self.close()


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(_Index(path))
    except RefusedError:
        raise
    except DAMAGE as error:
        fault = f"is no whole zip archive ({shown(error)})"
        raise ValueError(f"{shown(path)} {fault}; {GET_AGAIN}") from None
