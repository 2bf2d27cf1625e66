"""Digits that move at constant speed and bounce at the border, drawn when they are looked at.

An example is a few digits, where each begins and in which direction it goes: nothing but sprites is
stored. The videos of arXiv:2410.02035 have one digit for each colour, a fast red one and a slow
blue one; those of Moving MNIST (arXiv:1502.04681) two digits in one channel. A digit's place is a
point of the unit square, of which a step moves it by 0.15 times its speed; a step beyond the border
is clipped to it, and the digit turns.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from ssm_jax.data.dataset import Arrays, Dataset, Provenance
from ssm_jax.data.draws import uniform
from ssm_jax.data.examples import SPLITS
from ssm_jax.data.idx_files import SIDE
from ssm_jax.data.packages import unpack
from ssm_jax.data.prepare import DataPaths

WINDOW = 11  # rows and columns of the window of SSIM (Wang et al. 2004)
STEP = 0.15  # of the way that is free, in a frame, at speed 1
# The appendix's generator makes 2,000 videos for training; how many validate and test is ours.
COUNTS = {"train": 2_000, "val": 128, "test": 1_024}
SETS = {"mnist5k": "smnist", "fashion_mnist": "fashion_mnist", "mnist": "mnist"}
COLOURS = ("red", "green", "blue")
PIXELS = 1 << 22  # of the frames that are looked at together
WATCHED = 1_024  # frames by which periods are measured
_STREAM = 1_000  # of the seed; the splits have it and the next two, the blobs another
_DRAWS = 4  # numbers of a digit: which, where in rows and columns, where to


class Scene(NamedTuple):
    """What all videos of an experiment have in common."""

    canvas: int  # rows and columns of a frame
    speeds: tuple[float, ...]  # of the digits
    colours: int  # channels of a frame, 1 to 3
    train_frames: int
    context: int  # true frames before those that are predicted
    horizon: int  # predicted frames

    @property
    def frames(self) -> int:
        """Frames of a video, which is long enough for both."""
        return max(self.train_frames, self.context + self.horizon)

    @property
    def channels(self) -> tuple[int, ...]:
        """The channel of each digit: of three red, blue, green and again."""
        order = (0, 2, 1) if self.colours == 3 else range(self.colours)
        return tuple(order[i % len(order)] for i in range(len(self.speeds)))

    def draw(self, sprites_BDSS: Array, places_BDT2: Array) -> Array:
        """Frames float32 (B, T, Y, X, colours) in -1..1; digits of a channel add up to white."""
        S = sprites_BDSS.shape[-1]
        # Where each row of a sprite is on the canvas: two products place it without a loop.
        places_BDT21 = places_BDT2[..., None].astype(jnp.int32)
        row_BDT2S = places_BDT21 + jnp.arange(S)[None, None, None, None]
        pixel_11111Y = jnp.arange(self.canvas)[None, None, None, None, None]
        at_BDT2SY = (row_BDT2S[..., None] == pixel_11111Y).astype(jnp.float32)
        rows, columns = at_BDT2SY[:, :, :, 0], at_BDT2SY[:, :, :, 1]
        sprites_BDSS = sprites_BDSS.astype(jnp.float32)
        moved = jnp.einsum("bdsr,bdtsy->bdtry", sprites_BDSS, rows)
        paint_DC = jnp.asarray(np.eye(self.colours, dtype=np.float32)[list(self.channels)])
        frames = jnp.einsum("bdtry,bdtrx,dc->btyxc", moved, columns, paint_DC)
        return 2 * jnp.minimum(frames, 255.0) / 255 - 1


class MovingDigits(Dataset):
    """Videos of a scene, as what is needed to draw them. `gather` returns

    "inputs": uint8 (B, D, S, S), the sprites of D digits;
    "places": int16 (B, D, T, 2), the row and column of the upper left pixel of each.

    An example is a function of the seed, the split and its number.
    """

    paired, d_input = False, None

    def __init__(
        self,
        sprites: Mapping[str, np.ndarray],
        scene: Scene,
        *,
        source: str,
        detail: str,
        counts: Mapping[str, int],
        seed: int,
    ) -> None:
        """Of sprites uint8 (n, S, S) in splits; `counts` of 0 are COUNTS."""
        self.sprites, self.scene, self._seed = sprites, scene, seed
        self._facts = dict[str, dict[str, float]]()
        self.rows = {split: np.arange(counts[split] or COUNTS[split]) for split in SPLITS}
        sha256 = hashlib.sha256(json.dumps([1, *scene, seed]).encode())
        for images in sprites.values():
            sha256.update(images.tobytes())
        provenance = Provenance(source, detail, sha256.hexdigest())
        super().__init__("video", scene.train_frames, provenance)

    def gather(self, split: str, indices: np.ndarray, length: int | None = None) -> Arrays:
        numbers, D = self.check(split, indices), len(self.scene.speeds)
        images, stream = self.sprites[split], _STREAM + SPLITS.index(split)
        draws = np.zeros((numbers.size, D, _DRAWS))
        for row, number in zip(draws, numbers.tolist(), strict=True):
            row[:] = uniform(self._seed, stream + 10 * number, D * _DRAWS).reshape(D, _DRAWS)
        which = (draws[..., 0] * len(images)).astype(int)
        places = paths(draws, self.scene.speeds, self.scene.frames)
        free = self.scene.canvas - images.shape[1]
        return {"inputs": images[which], "places": (places * free).astype(np.int16)}

    def steps_of(self, batch: Mapping[str, Any]) -> int:
        return self.scene.train_frames

    def facts(self, split: str) -> dict[str, float]:
        """Errors to compare forced_mse of each digit's colour with: "black_mse_COLOUR" of black
        frames, "last_mse_COLOUR" of the frame before again. Of one channel without COLOUR."""
        if split not in self._facts:
            self._facts[split] = self._without_model(split)
        return self._facts[split]

    def _without_model(self, split: str) -> dict[str, float]:
        scene, n = self.scene, self.size(split)
        T = scene.train_frames - 1
        channels = list(dict.fromkeys(scene.channels))
        together = max(1, PIXELS // (scene.train_frames * scene.canvas**2))
        square_2C = np.zeros((2, len(channels)))
        for first in range(0, n, together):
            batch: dict[str, Any] = dict(
                self.gather(split, np.arange(first, min(n, first + together)))
            )
            video = scene.draw(batch["inputs"], batch["places"][:, :, : scene.train_frames])
            white = np.asarray((video[..., channels] + 1) / 2, np.float64)
            for square_C, error in zip(square_2C, (white, np.diff(white, axis=1)), strict=True):
                square_C += np.mean(error[:, -T:] ** 2, axis=(1, 2, 3)).sum(axis=0)
        ends = [f"_{COLOURS[c]}" if scene.colours == 3 else "" for c in channels]
        return {
            f"{guess}_mse{end}": float(square / n)
            for guess, square_C in zip(("black", "last"), square_2C, strict=True)
            for end, square in zip(ends, square_C, strict=True)
        }

    def describe(self) -> list[str]:
        periods = zip(self.scene.speeds, measured_periods(self.scene), strict=True)
        longest = f"more than {2 * WATCHED // 3}"
        found = ", ".join(
            f"{longest if np.isinf(period) else f'{period:.1f}'} frames at speed {speed:g}"
            for speed, period in periods
        )
        return [f"periods of the digits' motion, as measured: {found}"]


def paths(draws_BD4: np.ndarray, speeds: Sequence[float], frames: int) -> np.ndarray:
    """Places (B, D, frames, 2) in the unit square, of draws in 0..1: of the digit, of the row and
    the column where it begins, and of the direction, a share of a turn."""
    angle_BD = 2 * np.pi * draws_BD4[..., 3]
    step_1D1 = STEP * np.asarray(speeds)[None, :, None]
    move_BD2 = step_1D1 * np.stack([np.sin(angle_BD), np.cos(angle_BD)], axis=-1)
    at_BD2, places = draws_BD4[..., 1:3], np.empty((*angle_BD.shape, frames, 2))
    for frame in range(frames):
        places[:, :, frame] = at_BD2
        beyond_BD2 = at_BD2 + move_BD2
        at_BD2 = np.clip(beyond_BD2, 0, 1)
        move_BD2 = np.where(at_BD2 == beyond_BD2, move_BD2, -move_BD2)
    return places


def measured_periods(scene: Scene) -> list[float]:
    """Frames after which a digit's place repeats itself: at the peak of the mean spectrum of rows
    and columns over WATCHED frames of 64 videos. inf: that is its lowest bin, so more than 2/3 of
    them."""
    D = len(scene.speeds)
    draws = uniform(0, _STREAM - 1, 64 * D * _DRAWS).reshape(64, D, _DRAWS)
    places = paths(draws, scene.speeds, WATCHED)
    centred = places - places.mean(axis=2, keepdims=True)
    power_DF = (np.abs(np.fft.rfft(centred, axis=2)) ** 2).sum(axis=(0, 3))
    peaks = [1 + int(power_F[1:].argmax()) for power_F in power_DF]
    return [WATCHED / peak if peak > 1 else float("inf") for peak in peaks]


def _sprites(source: str, side: int, paths: DataPaths, seed: int) -> dict[str, np.ndarray]:
    """Images uint8 (n, side, side) in splits: digits of 28 pixels, or means of squares of them."""
    if source == "blobs":
        noise = uniform(seed, _STREAM - 2, 300 * 7 * 7).reshape(300, 7, 7)
        blobs = (255 * (noise > 0.5)).astype(np.uint8)
        images = blobs.repeat(-(-side // 7), axis=1).repeat(-(-side // 7), axis=2)
        images = images[:, :side, :side]
        return {split: images[100 * i : 100 * (i + 1)] for i, split in enumerate(SPLITS)}
    name = SETS[source]
    with np.load(unpack(name, paths) / f"{name}.npz") as file:
        arrays = {key: file[key].reshape(-1, SIDE, SIDE) for key in file if key.startswith("x")}
    if "x" in arrays:  # sorted by class: each split has some of all
        n = np.arange(len(arrays["x"])) % 10
        parts = {"train": n < 7, "val": n == 7, "test": n > 7}
        found = {split: arrays["x"][part] for split, part in parts.items()}
    else:
        train, kept = arrays["x_train"], len(arrays["x_train"]) * 9 // 10
        found = {"train": train[:kept], "val": train[kept:], "test": arrays["x_test"]}
    by = SIDE // side
    means = {
        split: x.reshape(len(x), side, by, side, by).mean(axis=(2, 4)) for split, x in found.items()
    }
    return {split: np.rint(x).astype(np.uint8) for split, x in means.items()}


def faults(data: Mapping[str, Any]) -> Iterator[str]:
    """Lines about options of `cfg.data` that do not go together."""
    own = data["video"]
    if own["digit"] > own["canvas"]:
        yield f"data.video.digit={own['digit']} must fit data.video.canvas={own['canvas']}."
    if own["canvas"] < WINDOW:
        yield f"data.video.canvas={own['canvas']} must be at least {WINDOW}, the window of SSIM."
    if data["padded_length"] < 2:
        yield f"data.padded_length={data['padded_length']} must be at least 2 frames of a video."
    if own["canvas"] % 4:
        yield f"data.video.canvas={own['canvas']} must be a multiple of 4: it is halved twice."
    if SIDE % own["digit"] and data["source"] != "blobs":
        yield f"data.video.digit={own['digit']} must be 28, 14, 7, 4, 2 or 1, which divide 28."


def open_videos(data: Mapping[str, Any], paths: DataPaths) -> MovingDigits:
    """The videos that a checked `cfg.data` asks for."""
    own = data["video"]
    scene = Scene(
        own["canvas"], (own["fast"], own["slow"]), own["colours"], data["padded_length"],
        own["context"], own["horizon"],
    )  # fmt: skip
    sprites = _sprites(data["source"], own["digit"], paths, data["seed"])
    detail = (
        f"{data['source']} of {own['digit']} pixels at speed "
        f"{', '.join(f'{speed:g}' for speed in scene.speeds)} on {own['canvas']} x {own['canvas']}"
    )
    counts = {split: data[f"n_{split}"] for split in SPLITS}
    return MovingDigits(
        sprites, scene, source=data["source"], detail=detail, counts=counts, seed=data["seed"]
    )
