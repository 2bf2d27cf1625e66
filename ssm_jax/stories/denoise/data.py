"""Images as long sequences: crops of the photographs that come with the package, or CelebA.

Images are flattened row by row; stripes disturb them in evaluation alone. Source: image denoising
of arXiv:2410.02035. CelebA (Liu et al. 2015) is read image by image from the user's archive, which
stays packed. The pictures may not be handed on, so there is no download.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssm_jax.data.archive import GET_AGAIN, Limits, TooLargeError, counted, decoded, shown
from ssm_jax.data.dataset import Dataset, Provenance
from ssm_jax.data.draws import uniform
from ssm_jax.data.examples import SPLITS
from ssm_jax.data.prepare import DataPaths, found_in_tfds
from ssm_jax.data.release import Release, files_below, not_there
from ssm_jax.stories.denoise import DENOISE

FOLDER = Path(__file__).parent / "photos"  # LICENSES.md there names authors and licences
PHOTOGRAPHS: Mapping[str, tuple[str, ...]] = {  # none is in two splits
    "train": ("astronaut", "coffee", "rocket"),
    "val": ("hopper",),
    "test": ("chelsea",),
}
COUNTS: Mapping[str, int] = {"train": 96, "val": 16, "test": 16}  # unless a config asks for others
SMALLEST = 0.5  # side of a crop over that of its photograph, at least
NOISE_STREAM = 1 << 32  # past the streams of the crops

ARCHIVE = "img_align_celeba.zip"
PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
OFFICIAL = {"train": 162_770, "val": 19_867, "test": 19_962}
UNOFFICIAL = "; NOT of the official number of images"
CROP = 178  # the middle square of an image of 178 x 218 pixels
# 202,599 images of some 10 KB
LIMITS = Limits(members=400_000, files=400_000, largest=1 << 20)
LARGEST_SIDE = 1_024  # pixels
LARGEST_PARTITION = 1 << 24  # bytes; the official one has 3 MB
DAMAGE = (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)


class Photographs:
    """Crops in memory; each is a function of the seed, the split and its number."""

    def __init__(self, size: tuple[int, int], counts: Mapping[str, int], seed: int) -> None:
        """Crops of `size` (H, W); `counts` of each split are those of COUNTS where they are 0."""
        self._pixels: dict[str, np.ndarray] = {}
        digest = hashlib.sha256()
        for stream, (split, names) in enumerate(PHOTOGRAPHS.items()):
            photographs = [Image.open(FOLDER / f"{name}.jpg").convert("RGB") for name in names]
            drawn = uniform(seed, stream, 4 * (counts[split] or COUNTS[split])).reshape(-1, 4)
            crops = [
                _crop(photographs[i % len(names)], size, *four)
                for i, four in enumerate(drawn.tolist())
            ]
            self._pixels[split] = pixels = np.stack(crops)
            digest.update(repr(pixels.shape).encode() + pixels.tobytes())
        self.sha256 = digest.hexdigest()
        what = f"crops of {size[0]} x {size[1]} from photographs in the public domain"
        self.detail = f"{what}, seed {seed}"

    def size(self, split: str) -> int:
        return len(self._pixels[split])

    def pixels(self, split: str, index: int) -> np.ndarray:
        """An image, uint8 (H, W, 3)."""
        return self._pixels[split][index]


def _crop(
    photograph: Image.Image, size: tuple[int, int], scale: float, x: float, y: float, flip: float
) -> np.ndarray:
    """A square part, by four numbers in [0, 1), stretched to (H, W) and perhaps mirrored."""
    side = round(min(photograph.size) * (SMALLEST + (1 - SMALLEST) * scale))
    left, top = int(x * (photograph.width - side + 1)), int(y * (photograph.height - side + 1))
    box = (left, top, left + side, top + side)
    pixels = np.asarray(photograph.resize(size[::-1], Image.Resampling.BILINEAR, box))
    return pixels[:, ::-1] if flip < 0.5 else pixels


class CelebA:
    """Images of CelebA: the middle square, resized as torchvision does it."""

    def __init__(self, path: Path, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        """Args:
        path: img_align_celeba.zip, or the folder unpacked from it; next to it, or in it, is
          list_eval_partition.txt or, where that is not there, .csv.
        size: (H, W) to which an image is stretched.
        counts: images of each split that are used, evenly spread; 0: all.

        A FileNotFoundError or ValueError for files that are missing or do not fit each other.
        """
        self._path, self._shape = path, size
        self._archive: zipfile.ZipFile | None = None
        partition = _partition_of(path)
        self._names = names_of = _read_partition(partition)
        self._where: dict[str, str] = {}  # in the archive or folder, by name
        bytes_of: dict[str, int] = {}
        count = counted(LIMITS)
        for where, n_bytes in self._images():
            told, name = f"{shown(where)} of {shown(path)}", Path(where).name
            count(told, n_bytes)
            if name in bytes_of:
                raise ValueError(f"{told} is there twice, also as {shown(self._where[name])}.")
            self._where[name], bytes_of[name] = where, n_bytes
        for split, names in names_of.items():
            if not names:
                raise ValueError(f"{partition} has no images of the split {split!r}.")
            missing = [name for name in names if name not in bytes_of]
            if missing:
                raise ValueError(
                    f"{path} lacks {len(missing):,} of the {len(names):,} {split} images that "
                    f"{partition} names, such as {shown(missing[0])}; get it again."
                )
        official = {split: len(names) for split, names in names_of.items()} == OFFICIAL
        for split, n in counts.items():
            names_of[split] = [names_of[split][i] for i in _chosen(split, len(names_of[split]), n)]
        listed = "".join(
            f"{split} {name} {bytes_of[name]}\n" for split in names_of for name in names_of[split]
        )
        self.sha256 = hashlib.sha256(f"{size}\n{listed}".encode()).hexdigest()
        self.detail = f"CelebA, {_crop_of(size)}{'' if official else UNOFFICIAL}"

    def _images(self) -> Iterator[tuple[str, int]]:
        """Where each image is, and the bytes of its file."""
        if (path := self._path).is_dir():
            for _, entry in files_below(path, path.name):
                if entry.name.endswith(".jpg"):
                    if not entry.is_file():
                        raise not_there(Path(entry.path), f"get {ARCHIVE} again.")
                    yield entry.path, entry.stat().st_size
            return
        self._archive = _open_zip(path)
        for member in self._archive.infolist():
            if member.filename.endswith(".jpg"):
                # The memory that other methods take has no bound.
                known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
                if member.flag_bits & 1 or member.compress_type not in known:
                    raise ValueError(
                        f"{shown(member.filename)} of {shown(path)} is encrypted, or packed by a "
                        f"method of its own; {GET_AGAIN}"
                    )
                yield member.filename, member.file_size

    def size(self, split: str) -> int:
        return len(self._names[split])

    def pixels(self, split: str, index: int) -> np.ndarray:
        where = self._where[self._names[split][index]]
        try:
            # Never more than the index says: a member may unpack to more.
            with self._archive.open(where) if self._archive else open(where, "rb") as file:
                return _square(file.read(LIMITS.largest + 1), self._shape)
        except DAMAGE as error:
            raise ValueError(
                f"{shown(where)} of {shown(self._path)} is damaged ({shown(error)}); get it again."
            ) from None


class PreparedCelebA:
    """The data set celeb_a of TensorFlow Datasets, prepared by the user; see `CelebA`."""

    def __init__(self, release: Release, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        from ssm_jax.data.builder import open_split

        self._shape = size
        self._images = {
            split: open_split(release.path, {"val": "validation"}.get(split, split), ("image",))
            for split in SPLITS
        }
        found = {split: len(images) for split, images in self._images.items()}
        self._chosen = {split: _chosen(split, found[split], n) for split, n in counts.items()}
        identity = f"{size}\n{release.stamp}\n{dict(counts)}"
        self.sha256 = hashlib.sha256(identity.encode()).hexdigest()
        other = "" if found == OFFICIAL else UNOFFICIAL
        self.detail = f"CelebA as TensorFlow Datasets has it, {_crop_of(size)}{other}"

    def size(self, split: str) -> int:
        return len(self._chosen[split])

    def pixels(self, split: str, index: int) -> np.ndarray:
        number = self._chosen[split][index]
        try:
            return _square(self._images[split][number]["image"], self._shape)
        except ValueError as error:
            raise ValueError(f"{split} image {number} {error}; get it again.") from None


def _square(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The middle square of an image file, resized as torchvision does it, uint8 (H, W, 3)."""
    whole = decoded(data, "JPEG", "RGB", (LARGEST_SIDE, LARGEST_SIDE), at_most=True)
    left, top = round((whole.width - CROP) / 2), round((whole.height - CROP) / 2)
    part = whole.crop((left, top, left + CROP, top + CROP))
    return np.asarray(part.resize(size[::-1], Image.Resampling.BILINEAR))


def _crop_of(size: tuple[int, int]) -> str:
    return f"middle {CROP} pixels stretched to {size[0]} x {size[1]}"


def _chosen(split: str, there: int, n: int) -> Sequence[int]:
    """The numbers of n images, evenly spread; 0: all that are there."""
    if n > there:
        raise ValueError(f"data.n_{split}={n}: there are {there:,} {split} images; ask for fewer.")
    return [i * there // n for i in range(n)] if n else range(there)


def _partition_of(path: Path) -> Path:
    if not (path.is_file() or path.is_dir()):
        if path.exists() or path.is_symlink():
            raise not_there(path, f"give {ARCHIVE} or its folder with --from.")
        raise FileNotFoundError(f"there is no {path}; give {ARCHIVE} or its folder with --from.")
    for folder in (path, path.parent) if path.is_dir() else (path.parent,):
        for name in PARTITION:
            if (folder / name).is_file():
                return folder / name
    raise FileNotFoundError(
        f"{PARTITION[0]} is not beside {path}; put it there, it says which images are for training."
    )


def _read_partition(path: Path) -> dict[str, list[str]]:
    """The images of each split, in order. Lines are "000001.jpg 0", in CSV with a comma."""
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    of_word = dict(zip("012", names.values(), strict=True))
    with open(path, "rb") as file:
        data = file.read(LARGEST_PARTITION + 1)
    if len(data) > LARGEST_PARTITION:
        raise ValueError(f"{path} has more than {LARGEST_PARTITION:,} bytes; get it again.")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); get it again.") from None
    for number, line in enumerate(lines, start=1):
        words = line.replace(",", " ").split()
        if (number == 1 and words[:1] == ["image_id"]) or not words:
            continue
        if len(words) != 2 or words[1] not in of_word:
            raise ValueError(
                f"{path}: line {number} is {line[:60]!r}; it must be the name of an image and 0, 1 "
                "or 2."
            )
        of_word[words[1]].append(words[0])
    return names


class _Index(io.FileIO):
    """A zip archive whose index, which `zipfile` reads at once, is bounded."""

    def read(self, n: int | None = -1) -> bytes:
        most = 200 * LIMITS.members  # an entry is 46 bytes, its name and its attributes
        data = super().read(most + 1 if n is None or n < 0 else min(n, most + 1))
        if len(data) > most or data.count(b"PK\x01\x02") > LIMITS.members:
            raise TooLargeError(f"has an index of more than {LIMITS.members:,} members")
        return data

    def __del__(self) -> None:
        self.close()


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(_Index(path))
    except TooLargeError as error:
        raise ValueError(f"{shown(path)} {error}; {GET_AGAIN}") from None
    except DAMAGE as error:
        text = f"{shown(path)} is no whole zip archive ({shown(error)})"
        raise ValueError(f"{text}; {GET_AGAIN}") from None


Source = Photographs | CelebA | PreparedCelebA


class DenoiseDataset(Dataset):
    """Colour images of `size` (height, width), flattened row by row. `gather` returns

    "inputs": float32 (B, L, 3) in [-1, 1], L = height * width;
    "noise": float32 (B, 3), amplitudes of stripes by channel, uniform in [0, 2 * amplitude): the
      unit is that of the inputs, where black to white is 2. A function of the seed and example.
    """

    def __init__(
        self, images: Source, size: tuple[int, int], *, source: str, amplitude: float, seed: int
    ) -> None:
        self.height, self.width = size
        provenance = Provenance(source, images.detail, images.sha256)
        super().__init__("denoise", self.height * self.width, provenance)
        self._images = images
        self._noise = {}
        for i, split in enumerate(SPLITS):
            drawn = 2 * amplitude * uniform(seed, NOISE_STREAM + i, 3 * images.size(split))
            self._noise[split] = drawn.reshape(-1, 3).astype(np.float32)

    def size(self, split: str) -> int:
        return len(self.of_split(self._noise, split))

    def gather(
        self, split: str, indices: np.ndarray, length: int | None = None
    ) -> dict[str, np.ndarray]:
        indices = self.check(split, indices)
        pixels = np.array([self._images.pixels(split, i) for i in indices.tolist()])
        pixels_BL3 = pixels.reshape(len(indices), self.padded_length, 3).astype(np.float32)
        inputs_BL3 = pixels_BL3 / np.float32(127.5) - 1
        return {"inputs": inputs_BL3, "noise": self._noise[split][indices]}


def open_denoise(options: Mapping[str, Any], paths: DataPaths) -> DenoiseDataset:
    """The images that `cfg.data` asks for; files are CelebA's.

    Raises:
      ValueError: for another source, or a padded_length that is not height * width.
      FileNotFoundError: for source "official" without files.
    """
    own, source, seed = options["denoise"], options["source"], options["seed"]
    size = own["height"], own["width"]
    if source not in DENOISE.sources:
        raise ValueError(
            f"data.source={source!r} is not known to denoise; "
            f"choose one of {', '.join(DENOISE.sources)}."
        )
    if options["padded_length"] != size[0] * size[1]:
        raise ValueError(
            f"data.padded_length={options['padded_length']} must be the pixels of an image, "
            f"data.denoise.height * width = {size[0] * size[1]}."
        )
    counts = {split: options[f"n_{split}"] for split in SPLITS}
    images: Source
    if source == "photographs":
        if paths.files is not None:
            raise ValueError(
                f"{paths.files} is only read with data.source=official, and it is photographs; "
                "change one of the two."
            )
        images = Photographs(size, counts, seed)
    elif source == "tfds":
        images = PreparedCelebA(found_in_tfds(paths.find_tfds("celeb_a"), "celeb_a"), size, counts)
    elif paths.files is None:
        raise FileNotFoundError(
            f"CelebA cannot be downloaded; give {ARCHIVE} or its folder with --from=PATH, or "
            "take the photographs of the package with --config.data.source=photographs."
        )
    else:
        images = CelebA(paths.files, size, counts)
    return DenoiseDataset(images, size, source=source, amplitude=own["amplitude"], seed=seed)
