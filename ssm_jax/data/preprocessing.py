"""The options of a user's series, and what maps them to what a model sees and back.

Decorrelated inputs are x times (R + eps I)^(-1/2), R = E[x x^T] over training: their
autocorrelation becomes I. This is the whitening of ZCA without its centring, along time. The paper
on initialization from the autocorrelation (arXiv:2411.19455) has a "decorrelated" sequential MNIST;
how it was made is not known to us, and this definition is ours. An eigenvalue r of R becomes
r / (r + eps), so the largest is near 1 and none is above. eps is a share of the mean power.
"""

import base64
import binascii
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssm_jax.data.series import Columns
from ssm_jax.options import rows
from ssm_jax.options.rows import COUNT, SIZE, Range

setting = functools.partial(rows.setting, since="0.2")
HEADS = ("classification", "regression", "per_step", "forecasting")


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


@dataclass(frozen=True)
class ArrayOptions:
    """The options of data.arrays; names of columns and channels are separated by commas."""

    set: str = setting(
        "", "a set by name: in a folder of the UEA/UCR archive; data.source=package: in a package"
    )
    x: str = setting("x", "the array of the series, in .npz and folders of .npy")
    y: str = setting("y", "the array of the targets")
    inputs: str = setting("", "columns that are channels; empty: all without another role")
    target: str = setting("", "columns of the target; in forecasting the channels to forecast")
    id: str = setting("", "column that tells the series of one .csv apart")
    time: str = setting("", "column with ascending times; it is no input")
    split_column: str = setting("", "column with train, val or test")
    split: str = setting(
        "auto",
        "examples by split; auto: as the files say, else random, in forecasting time; merged: all "
        "of the files, without repetitions, by the seed as in the benchmark of docs/benchmark.md",
        choices=("auto", "files", "random", "time", "merged"),
    )
    val: float = setting(0.1, "share for validation", Range(0, 0.5, above=True))
    test: float = setting(
        0.2, "share for testing, unless the files say", Range(0, 0.5, above=True),
        when={"data.arrays.split": ("auto", "random", "time", "merged")},
    )  # fmt: skip
    missing: str = setting(
        "refuse",
        "missing inputs; missing targets of steps do not count",
        choices=("refuse", "interpolate"),
    )
    standardize: str = setting(
        "training",
        "channels to mean 0 and standard deviation 1, over training; series: each series by itself",
        choices=("training", "series", "none"),
    )
    elapsed: bool = setting(
        False, "a first channel that rises from 0 to 1 - 1/L over the L steps of a series"
    )
    decorrelate: float = setting(
        0.0,
        "inputs of one length times (R + eps)^(-1/2), R their autocorrelation in training; this "
        "eps, a share of their power; 0: no",
        Range(0),
    )
    context: int = setting(96, "steps that a forecast sees", SIZE, unit="steps")
    horizon: int = setting(24, "steps that are forecast", SIZE, unit="steps")
    stride: int = setting(1, "from a window to the next", SIZE, unit="steps")
    relative: bool = setting(True, "a forecast is of the change from the last value")
    season: int = setting(24, "period of the seasonal-naive baseline; 0: none", COUNT, unit="steps")

    def columns(self, head: str) -> Columns:
        """The roles of columns; in forecasting the targets are channels."""
        inputs, target, y = _names(self.inputs), _names(self.target), self.y
        if head == "forecasting":
            inputs, target, y = tuple(dict.fromkeys((*inputs, *target))) if inputs else (), (), ""
        steps = head == "per_step"
        return Columns(inputs, target, self.id, self.time, self.split_column, self.x, y, steps)

    def channels(self) -> tuple[str, ...]:
        """The channels to forecast; (): all."""
        return _names(self.target)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """All that maps arrays of a user to what a model sees, and its outputs back; JSON can hold it.

    Channels and targets become (v - mean) / std in float64; where `by_series`, each series then
    gets mean 0 and standard deviation 1 of its own. Where there is a `decorrelation`, the steps of
    each channel are then multiplied by its matrix. With `elapsed` the share of the series that is
    over comes before the channels.
    """

    head: str
    channels: tuple[str, ...]
    mean: tuple[float, ...]  # of each channel; of tokens ()
    std: tuple[float, ...]
    targets: tuple[str, ...]
    target_mean: tuple[float, ...]  # in classification ()
    target_std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    vocab_size: int | None = None  # of tokens
    missing: str = "refuse"
    horizon: int = 0  # 0: no forecast
    relative: bool = False  # a forecast is added to the last value
    padded_length: int
    by_series: bool = False
    decorrelation: str = ""  # as `packed` has it; "": none
    elapsed: bool = False

    @classmethod
    def plain(
        cls,
        head: str,
        channels: tuple[str, ...],
        outputs: tuple[str, ...],
        *,
        vocab_size: int | None = None,
        padded_length: int,
    ) -> "Preprocessing":
        """One that leaves numbers as they are."""
        n_real = 0 if vocab_size is not None else len(channels)
        targets, classes = ((), outputs) if head == "classification" else (outputs, ())
        return cls(
            head=head,
            channels=channels,
            mean=(0.0,) * n_real,
            std=(1.0,) * n_real,
            targets=targets,
            target_mean=(0.0,) * len(targets),
            target_std=(1.0,) * len(targets),
            classes=classes,
            vocab_size=vocab_size,
            padded_length=padded_length,
        )

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "Preprocessing":
        """That which `dataclasses.asdict` and JSON made of one."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in found.items()
        }
        return cls(**fields)

    def inputs(self, x_LC: np.ndarray) -> np.ndarray:
        """One series as the model sees it, float32 (L, C), or the tokens (L,) themselves."""
        if self.vocab_size is not None:
            return x_LC
        x_LC = np.asarray(x_LC, np.float64)
        x_LC = (x_LC - np.array(self.mean)) / np.array(self.std)
        if self.by_series:
            there_LC = ~np.isnan(x_LC)
            n_C = np.maximum(there_LC.sum(axis=0), 1)
            mean_C = np.where(there_LC, x_LC, 0.0).sum(axis=0) / n_C
            x_LC = x_LC - mean_C
            with np.errstate(over="ignore"):
                spread_C = np.sqrt((np.where(there_LC, x_LC, 0.0) ** 2).sum(axis=0) / n_C)
            if np.isinf(spread_C).any():
                raise ValueError("a series has numbers too large; mend or leave it out.")
            # That of a constant channel may be a rounding error
            x_LC = x_LC / np.where(spread_C > 1e-14 * np.abs(mean_C), spread_C, np.inf)
        if np.isnan(x_LC).any():
            if self.missing != "interpolate":
                raise ValueError("a series has missing values; the model was trained without.")
            x_LC = interpolated(x_LC)
        if self.decorrelation:
            x_LC = decorrelated(x_LC, self.decorrelation)
        if self.elapsed:
            x_LC = np.column_stack([np.arange(len(x_LC)) / len(x_LC), x_LC])
        return x_LC.astype(np.float32)

    def scaled(self, y: np.ndarray) -> np.ndarray:
        """Targets (..., K) in standard deviations of training from its mean."""
        return ((y - np.array(self.target_mean)) / np.array(self.target_std)).astype(np.float32)

    def unscaled(self, y: np.ndarray) -> np.ndarray:
        """Outputs (..., K) in the units of the files, float64."""
        return np.asarray(y, np.float64) * np.array(self.target_std) + np.array(self.target_mean)


def interpolated(x_LC: np.ndarray) -> np.ndarray:
    """A standardized series with its missing values on lines between neighbours; 0 if all miss."""
    x_LC, t_L = x_LC.copy(), np.arange(len(x_LC))
    for c in np.flatnonzero(np.isnan(x_LC).any(axis=0)):
        there_L = ~np.isnan(x_LC[:, c])
        x_LC[~there_L, c] = (
            np.interp(t_L[~there_L], t_L[there_L], x_LC[there_L, c]) if there_L.any() else 0.0
        )
    return x_LC


LONGEST = 4_096  # steps: the matrix has 134 MB then


def autocorrelation_matrix(series: Iterable[np.ndarray], length: int) -> np.ndarray:
    """R_LL of series (L, C), the mean over series and channels, in float64."""
    R_LL, n, block = np.zeros((length, length)), 0, list[np.ndarray]()
    size = max(1, (1 << 22) // length)  # columns that are in memory at once

    def add() -> None:
        x_LM = np.concatenate(block, axis=1, dtype=np.float64)
        R_LL[...] += x_LM @ x_LM.T

    for x_LC in series:
        block.append(x_LC)
        n += x_LC.shape[1]
        if len(block) * x_LC.shape[1] >= size:
            add()
            block = []
    if block:
        add()
    return R_LL / n


def whitening(R_LL: np.ndarray, eps: float) -> np.ndarray:
    """(R + eps trace(R) / L I)^(-1/2), symmetric; a ValueError if R is 0."""
    power = np.trace(R_LL) / len(R_LL)
    if not power > 0:
        raise ValueError(
            "inputs that are 0 cannot be decorrelated: once standardized, those of training never "
            "change; use data.arrays.decorrelate=0."
        )
    values_L, vectors_LL = np.linalg.eigh(R_LL)
    scale_L = 1 / np.sqrt(np.maximum(values_L, 0) + eps * power)
    return (vectors_LL * scale_L) @ vectors_LL.T


def packed(W_LL: np.ndarray) -> str:
    """A symmetric matrix as text: its upper triangle in float32."""
    upper = W_LL[np.triu_indices(len(W_LL))].astype("<f4")
    return base64.b64encode(upper.tobytes()).decode("ascii")


@functools.lru_cache(maxsize=4)
def unpacked(text: str) -> np.ndarray:
    """The matrix (L, L) of `packed`, its numbers in float64; a ValueError if there is none."""
    try:
        upper = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the decorrelation of the inputs is damaged ({error}).") from None
    length = int((2 * upper.size) ** 0.5)
    if length * (length + 1) != 2 * upper.size:
        raise ValueError(f"the decorrelation of the inputs is damaged ({upper.size} numbers).")
    W_LL = np.zeros((length, length))
    W_LL[np.triu_indices(length)] = upper
    W_LL += np.triu(W_LL, 1).T
    W_LL.flags.writeable = False
    return W_LL


def decorrelated(x_LC: np.ndarray, text: str) -> np.ndarray:
    """One series times the matrix of `packed`, channel by channel, float64; a ValueError if it has
    another length."""
    W_LL = unpacked(text)
    if len(x_LC) != len(W_LL):
        raise ValueError(
            f"a series has {len(x_LC)} steps; the model has decorrelated inputs of {len(W_LL)}."
        )
    # Not by BLAS, whose rounding depends on its threads
    each = [np.einsum("ij,j->i", W_LL, np.ascontiguousarray(x_L)) for x_L in x_LC.T]
    return np.stack(each, axis=1)
