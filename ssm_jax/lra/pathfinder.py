"""Pathfinder (32 x 32) and Path-X (128 x 128): generated, or the official LRA release's hard level.

    pathfinder{32,128}/curv_contour_length_14/imgs/<k>/sample_<i>.png
    pathfinder{32,128}/curv_contour_length_14/metadata/<k>.npy

Despite their names the metadata are text, one line per image: `imgs/0 sample_0.png 0 1 1.0 14 ...`,
where the fourth word is the label. The lines of the files by their numbers are the order of the
images, which the split of S4 and S5 counts by.
"""

import dataclasses
import functools
import hashlib
import io
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from lra_generators.pathfinder import VERSION
from ssm_jax.data import release as releases
from ssm_jax.data.archive import Limits, decoded, shown
from ssm_jax.data.draws import torch_randperm
from ssm_jax.data.examples import SPLITS, Content, Images
from ssm_jax.data.prepare import DataPaths, Recipe, files_missing
from ssm_jax.data.release import Release
from ssm_jax.lra.pathfinder_generator import Spec, generate_images
from ssm_jax.lra.shards import write_mapped
from ssm_jax.options.rows import setting
from ssm_jax.progress import stage

SIZES = {"pathfinder": 32, "pathx": 128}
N_CLASSES = 2  # 1: the two marked ends are on one contour
OFFICIAL_ROWS = 200_000
LEVEL = "curv_contour_length_14"
_LABELS = {b"0": 0, b"1": 1}
_BLOCK = 1_000  # images decoded at a time
# 200,000 images of up to 4 KB (Path-X), and metadata of 60 bytes for each, a thousand in a file;
# the release has three levels of four sizes, and the other tasks.
LIMITS = Limits(files=250_000, largest=1 << 20, wanted=1 << 30)
_MOST_LISTED = 1_000_000  # images in all metadata


@dataclasses.dataclass(frozen=True)
class PathfinderOptions:
    """The options of the examples."""

    seed: int = 0  # of the generator, 0..2**63-1
    n_train: int = 160_000  # generated; the official files are split 8 : 1 : 1
    n_val: int = 20_000
    n_test: int = 20_000
    upstream: bool = setting(True, "generate with the original's border behaviour")
    allow_mismatch: bool = setting(False, "accept official files that are not 200,000 images")

    def __post_init__(self) -> None:
        for name in ("n_train", "n_val", "n_test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")


def find_release(path: Path, size: int) -> Release:
    return releases.find_release(path, f"pathfinder{size}")


def read_release(
    release: Release, size: int, folder: Path, *, allow_mismatch: bool = False
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """All images of the hard level, in the order of the metadata.

    The PNG files, 0.5 GB for Path-X, are in memory until all metadata are known: an archive may
    hold them in any order. Empty ones are skipped, with a line on standard error that counts them.

    Returns:
      Pixels, (N, size * size) uint8, the read-only map of pixels.npy in `folder` (3.3 GB for
      Path-X); targets, (N,) uint8; and notes: the `empty`, `missing` and `unlisted` files, the
      `sha256` of all metadata.
    """
    level = f"pathfinder{size}/{LEVEL}"
    pattern = rf"(?:.*/)?{level}/(imgs/\d+/sample_\d+\.png|metadata/\d+\.npy)"

    def wanted(path: str) -> str | None:
        match = re.fullmatch(pattern, path)
        return match[1] if match else None

    with closing(releases.members(release, wanted, f"reading {release.path}", LIMITS)) as found:
        files = {name: (where, file.read()) for name, where, file in found}
    images = {name: file for name, file in files.items() if name.startswith("imgs/")}
    metadata = sorted(files.keys() - images.keys(), key=lambda name: int(Path(name).stem))
    if not metadata:
        raise FileNotFoundError(
            f"{level}/metadata is not in {release.path}; get the release again."
        )
    listed, sha256 = _listed([files[name] for name in metadata])
    present = [name for name in listed if name in images and images[name][1]]
    missing, unlisted = listed.keys() - images.keys(), images.keys() - listed.keys()
    notes: dict[str, Any] = {"empty": len(listed) - len(missing) - len(present)}
    notes |= {"missing": len(missing), "unlisted": len(unlisted), "sha256": sha256}
    if len(present) != OFFICIAL_ROWS and not allow_mismatch:
        raise ValueError(
            f"{release.path} has {len(present):,} images of {level}, the official release has "
            f"{OFFICIAL_ROWS:,} ({notes['empty']} are empty, {notes['missing']} missing); get it "
            "again, or allow the mismatch, which makes another split."
        )
    if counts := [f"{notes[k]:,} {k}" for k in ("empty", "missing", "unlisted") if notes[k]]:
        print(f"{shown(release.path)}: skipped {' and '.join(counts)} images", file=sys.stderr)

    def decode(name: str) -> np.ndarray:
        where, data = images[name]
        try:
            pixels = np.asarray(decoded(data, "PNG", "L", (size, size)))
        except ValueError as error:
            raise ValueError(f"{where} {error}; get the release again.") from None
        advance(1)
        return pixels.ravel()

    with stage(f"decoding pathfinder{size}", len(present), "images") as advance:
        blocks = (
            np.array([decode(name) for name in present[start : start + _BLOCK]])
            for start in range(0, len(present), _BLOCK)
        )
        folder.mkdir(parents=True, exist_ok=True)
        pixels = write_mapped(folder / "pixels.npy", (len(present), size * size), blocks)
    return pixels, np.array([listed[name] for name in present], np.uint8), notes


def _listed(metadata: list[tuple[str, bytes]]) -> tuple[dict[str, int], str]:
    """The labels of the images that metadata list, by name, and the sha256 of all metadata, given
    where each of these is, for messages, and its content."""
    labels: dict[str, int] = {}
    digest = hashlib.sha256()
    for where, data in metadata:
        digest.update(data)
        for number, line in enumerate(io.BytesIO(data), 1):
            words = line.split()
            if not words:
                continue
            if len(words) < 4 or words[3] not in _LABELS:
                raise ValueError(
                    f"{where} line {number}: expected FOLDER FILE NUMBER LABEL and more words "
                    f"with a label 0 or 1, got {line[:60]!r}."
                )
            name = b"/".join(words[:2]).decode("ascii", "replace")
            if name in labels:
                raise ValueError(f"{where} lists {shown(name)} twice; get the release again.")
            labels[name] = _LABELS[words[3]]
            if len(labels) > _MOST_LISTED:
                raise ValueError(
                    f"{where} and those before it list more than {_MOST_LISTED:,} images; "
                    "get the release again."
                )
    return labels, digest.hexdigest()


def _recipe(task: str, options: PathfinderOptions, source: str, paths: DataPaths) -> Recipe:
    """The recipe of Pathfinder or Path-X, "generated" or "official" (the LRA release)."""
    size, official = SIZES[task], source == "official"
    release = find_release(paths.files, size) if official and paths.files is not None else None
    counts = (options.n_train, options.n_val, options.n_test)
    parameters: dict[str, Any] = {"size": size}
    if not official:
        parameters |= {"counts": counts, "seed": options.seed, "upstream": options.upstream}
        parameters["generator"] = VERSION
    elif options.allow_mismatch:
        parameters["allow_mismatch"] = True

    def content(images: Images, sizes: tuple, detail: str, notes: dict[str, Any]) -> Content:
        order = torch_randperm(len(images), 42)  # S4's random order, cut in three
        parts = np.split(order, np.cumsum(sizes)[:-1])
        splits = dict(zip(SPLITS, parts, strict=True))
        return Content(images, splits, detail, notes, (), N_CLASSES)

    def generate(work: Path) -> Content:
        spec = Spec(options.seed, sum(counts), size, options.upstream)
        with stage(f"generating {task}", spec.n_images, "images") as advance:
            images = generate_images(spec, work / "shards", workers=paths.workers, advance=advance)
        detail = f"generated by the Pathfinder procedure, {size} x {size}, seed {options.seed}, "
        detail += f"generator v{VERSION}"
        detail += "" if options.upstream else ", without the original's border behaviour"
        return content(Images(*images), counts, detail, {})

    def read(work: Path) -> Content:
        if release is None:
            what = f"the LRA release, an archive or a folder above pathfinder{size}"
            raise files_missing(task, what)
        allow = options.allow_mismatch
        pixels, targets, notes = read_release(release, size, work, allow_mismatch=allow)
        n = targets.size
        detail = f"official LRA release, read from {shown(release.path.name)}; {n:,} images"
        sizes = (n * 8 // 10, n // 10, n - n * 8 // 10 - n // 10)
        return content(Images(pixels, targets), sizes, detail, notes)

    make = read if official else generate
    return Recipe(task, source, options, paths, parameters, make, release)


pathfinder = functools.partial(_recipe, "pathfinder")
pathx = functools.partial(_recipe, "pathx")
