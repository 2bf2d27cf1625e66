"""PPG-DaLiA, heart rate from a watch, as the JAX benchmark reads it: S1/S1.pkl to S15/S15.pkl.

Of each person acceleration (3), light through the skin, conductance and temperature, at 64 Hz, and
the heart rate every 2 s; each scaled to -1 .. 1 over the whole recording, acceleration by the least
and most of its three axes. A window has 780 s, and begins 78 s after the one before. The rate of
8 s is the target of their last step; the first one stands for three more at the start. 70 : 15 : 15
of the time of a person are for training, validation and testing, in one of six orders. The order is
drawn without a seed in the published code; here it goes in turn, so that all runs have one split.
Source: data_dir/process_ppg.py of Benjamin-Walker/log-neural-cdes.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ssm_jax.data.examples import SPLITS
from ssm_jax.data.series import Columns, Found, Lines, Series

PER_TARGET = 128  # steps of 1/64 s
WINDOW, STRIDE = 390, 39  # targets
CHANNELS = {"ACC": 2, "BVP": 1, "EDA": 16, "TEMP": 16}  # and steps for which a value stands
NAMES = ("ACC x", "ACC y", "ACC z", "BVP", "EDA", "TEMP")
ORDERS = (  # where training, validation and testing begin and end
    ((0, 0.7), (0.7, 0.85), (0.85, 1)),
    ((0, 0.7), (0.85, 1), (0.7, 0.85)),
    ((0.15, 0.85), (0, 0.15), (0.85, 1)),
    ((0.15, 0.85), (0.85, 1), (0, 0.15)),
    ((0.3, 1), (0, 0.15), (0.15, 0.3)),
    ((0.3, 1), (0.15, 0.3), (0, 0.15)),
)
_ARRAYS = {  # all that a pickle may call: what makes arrays, numbers and words
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def read_ppg(files: list[Path], columns: Columns) -> Found:
    """The windows of all people, and their splits."""
    people = [_person(path) for path in files]
    rows: dict[str, list[int]] = {split: [] for split in SPLITS}
    starts: list[int] = []
    places: list[tuple[int, int]] = []
    before = 0
    for number, (_, y) in enumerate(people):
        for split, (first, end) in zip(SPLITS, ORDERS[number % len(ORDERS)], strict=True):
            for k in range(int(first * len(y)), int(end * len(y)) - WINDOW + 1, STRIDE):
                rows[split].append(len(starts))
                starts.append(before + k * PER_TARGET)
                places.append((number, k * PER_TARGET + 1))
        before += len(y) * PER_TARGET
    for split in SPLITS:
        if not rows[split]:
            longest = max(len(y) for _, y in people) * PER_TARGET / 64
            raise ValueError(
                f"{files[0].parents[1]}: no window of 780 s fits {split}; the longest of "
                f"{len(files)} recordings has {longest:,.0f} s, of which validation gets 15 %."
            )
    targets = np.full(before, np.nan)
    targets[PER_TARGET - 1 :: PER_TARGET] = np.concatenate([y for _, y in people])
    of, firsts = np.array(places, np.int64).T
    begin = np.array(starts, np.int64)
    series = Series(
        np.concatenate([x for x, _ in people]), begin,
        np.full(len(starts), WINDOW * PER_TARGET, np.int64), targets, True, NAMES, ("heart rate",),
        where=Lines(files, of, firsts, begin),
    )  # fmt: skip
    return Found({"": series}, {s: np.array(n, np.int64) for s, n in rows.items()}, tuple(files))


def _person(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Channels (T, 6) of a recording, float32, and its targets (T / 128,)."""
    try:
        with path.open("rb") as file:
            found: Any = _Arrays(file, encoding="latin1").load()
        wrist, label = found["signal"]["wrist"], np.asarray(found["label"], np.float64)
        channels = [
            np.repeat(_scaled(np.asarray(wrist[name], np.float64)), times, axis=0)
            for name, times in CHANNELS.items()
        ]
        y = _scaled(np.concatenate([label[:1]] * 3 + [label]))
        T = min(len(channels[0]), len(y) * PER_TARGET) // PER_TARGET * PER_TARGET
        x = np.concatenate([c[:T] for c in channels], axis=1).astype(np.float32)
    except RefusedError as error:
        raise ValueError(f"{path} {error}") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(
            f"{path} is no recording of PPG-DaLiA ({type(error).__name__}: {error})."
        ) from error
    if x.shape[1] != len(NAMES) or not np.isfinite(x).all() or not np.isfinite(y).all():
        raise ValueError(f"{path} has {x.shape[1]} channels, or values that are not finite.")
    return x, y[: T // PER_TARGET]


def _scaled(x: np.ndarray) -> np.ndarray:
    """From -1 to 1."""
    return 2 * (x - x.min()) / (x.max() - x.min()) - 1


class RefusedError(Exception):
    """A pickle calls what no array needs."""


class _Arrays(pickle.Unpickler):
    """Reads arrays, words and numbers; a pickle that calls anything else is refused unrun."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise RefusedError(
                f"calls {module}.{name}, which no recording of PPG-DaLiA does; it was not run."
            )
        return super().find_class(module, name)
