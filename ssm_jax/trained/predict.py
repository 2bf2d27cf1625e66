"""Predictions of a network for NumPy arrays, in batches of few shapes."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from ssm_jax.data.preprocessing import Preprocessing
from ssm_jax.data.series import channel_called
from ssm_jax.layers.base import StateSpaceLayer

SHORTEST = 16  # steps that a batch has at least


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities in float64."""
    exp = np.exp(np.asarray(logits, np.float64) - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def layers_of(network: nnx.Module) -> list[StateSpaceLayer]:
    """The state space layers of ours in a network."""
    return [m for _, m in nnx.iter_modules(network) if isinstance(m, StateSpaceLayer)]


def has_filter(layer: StateSpaceLayer) -> bool:
    """Whether a layer's filter does anything."""
    return bool((np.asarray(layer.beta[...]) != 0).any())


def plain(network: nnx.Module) -> Any:
    """A copy whose layers without a filter do as if made without: at any length, and compiled."""
    network = nnx.merge(*nnx.split(network))
    for layer in layers_of(network):
        if not has_filter(layer):
            layer.horizon, layer.filtered = None, False
    return network


class Predictor:
    """The predictions of a network, see `Trained.predict`; compiled when they are first asked for.

    Filters act on the circle of twice `padded_length`, whatever the length of a batch is: no series
    may be longer. Where there is none, any may.
    """

    def __init__(
        self,
        network: nnx.Module,
        preprocessing: Preprocessing | None,
        padded_length: int,
        *,
        paired: bool = False,
    ) -> None:
        network = plain(network)
        self.preprocessing, self.padded_length, self.paired = preprocessing, padded_length, paired
        self.bounded = any(layer.horizon is not None for layer in layers_of(network))
        # A network of somebody else may not know what padding is.
        self.pads = "lengths" in inspect.signature(type(network).__call__).parameters
        encoder = getattr(network, "encoder", None)
        self.vocab_size = encoder.num_embeddings if isinstance(encoder, nnx.Embed) else None
        graphdef, self._numbers = nnx.split(network)

        def call(numbers: Any, *inputs: Any) -> Any:
            return nnx.merge(graphdef, numbers)(*inputs)

        self._call = jax.jit(call)

    def __call__(
        self, x: np.ndarray | Sequence[Any], batch_size: int
    ) -> np.ndarray | list[np.ndarray]:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        series = [self.series(number, one) for number, one in enumerate(x)]
        if not series:
            raise ValueError("there is no series to predict.")
        found: list[np.ndarray | None] = [None] * len(series)
        for length, numbers in self.batches(series, batch_size):
            outputs = self.run([series[number] for number in numbers], length, batch_size)
            for number, output in zip(numbers, outputs, strict=True):
                found[number] = self.result(series[number], output)
        rows = [row for row in found if row is not None]
        return np.stack(rows) if len({row.shape for row in rows}) == 1 else rows

    def series(self, number: int, x: Any) -> np.ndarray:
        """One series as the network sees it: float32 (L, C), tokens (L,), or a pair of these."""
        if self.paired:
            if len(x) != 2:
                raise ValueError(f"series {number} has {len(x)} sequences; give pairs.")
            parts = [self._tokens(number, np.asarray(part)) for part in x]
            length = max(map(len, parts))
            pair = np.full((2, length + 1), -1, np.int32)  # with the lengths in front
            for row, part in zip(pair, parts, strict=True):
                row[0], row[1 : 1 + len(part)] = len(part), part
            return pair
        found, p, first = np.asarray(x), self.preprocessing, 0
        if p is not None and p.head == "forecasting" and found.ndim:
            first = max(0, len(found) - self.padded_length)
        if self.vocab_size:
            return self._tokens(number, found[first:])
        return self._real(number, found[first:], first)

    def _real(self, number: int, x: np.ndarray, first: int) -> np.ndarray:
        p = self.preprocessing
        x_LC = x[:, None] if x.ndim == 1 else x
        channels = x_LC.shape[-1] if p is None else len(p.channels)
        real = x.dtype.kind in "biuf" and x_LC.ndim == 2
        if not real or x_LC.shape[1] != channels or not len(x_LC):
            alone = (
                " One series alone is x[None]." if x_LC.shape[0] == channels > 1 == x.ndim else ""
            )
            raise ValueError(
                f"series {number} is {x.dtype} of the shape {x.shape}; it must be real numbers "
                f"(L, {channels}), L >= 1.{alone}"
            )

        def refuse(wrong_LC: np.ndarray) -> None:
            for step, channel in np.argwhere(wrong_LC)[:1].tolist():
                raise ValueError(
                    f"series {number} is not finite at step {first + step}, channel {channel}; "
                    "mend or leave it out."
                )

        refuse(np.isinf(x_LC))  # before a mean over the series is infinite too
        if p is not None and p.missing == "refuse" and np.isnan(x_LC).any():
            step, channel = np.argwhere(np.isnan(x_LC))[0].tolist()
            raise ValueError(
                f"series {number}: a series has missing values, the first at step {first + step}, "
                f"{channel_called(p.channels[channel])}; the model was trained without."
            )
        try:
            u_LC = x_LC.astype(np.float32) if p is None else p.inputs(x_LC)
        except ValueError as error:
            raise ValueError(f"series {number}: {error}") from error
        refuse(~np.isfinite(u_LC[:, u_LC.shape[1] - channels :]))
        self._check_length(number, len(u_LC))
        return u_LC

    def _tokens(self, number: int, x: np.ndarray) -> np.ndarray:
        if x.ndim != 1 or x.dtype.kind not in "iu" or not x.size:
            raise ValueError(
                f"series {number} is {x.dtype} of the shape {x.shape}; it must be token ids (L,), "
                "L >= 1."
            )
        if x.min() < 0 or (self.vocab_size and x.max() >= self.vocab_size):
            raise ValueError(
                f"series {number} has the token {x.min() if x.min() < 0 else x.max()}; the model "
                f"knows 0..{(self.vocab_size or 0) - 1}."
            )
        self._check_length(number, len(x))
        return x.astype(np.int32)

    def _check_length(self, number: int, length: int) -> None:
        if self.bounded and length > self.padded_length:
            raise ValueError(
                f"series {number} has {length:,} steps; the filters of this model act on a circle "
                f"of 2 x {self.padded_length:,} steps, so it takes at most {self.padded_length:,}. "
                "Cut it, or train with a longer data.padded_length or --config.model.beta.filter="
                "false."
            )

    def steps(self, series: np.ndarray) -> int:
        return series.shape[1] - 1 if self.paired else len(series)

    def bucket(self, length: int) -> int:
        """The length of the batch for a series: a power of two, or the longest of training."""
        if not self.pads:
            return length
        power = max(SHORTEST, 1 << (length - 1).bit_length())
        return min(power, self.padded_length) if length <= self.padded_length else power

    def batches(
        self, series: Sequence[np.ndarray], batch_size: int
    ) -> Iterator[tuple[int, list[int]]]:
        """The length of each batch, and the numbers of its series."""
        lengths = [self.bucket(self.steps(one)) for one in series]
        for length in sorted(set(lengths)):
            numbers = [number for number, own in enumerate(lengths) if own == length]
            for start in range(0, len(numbers), batch_size):
                yield length, numbers[start : start + batch_size]

    def run(self, series: Sequence[np.ndarray], length: int, batch_size: int) -> np.ndarray:
        """The outputs of the network for series of at most this length."""
        n = len(series)
        B = min(batch_size, 1 << (n - 1).bit_length())  # few shapes for few series, too
        lengths = np.ones((B, 2) if self.paired else (B,), np.int32)
        if self.paired:
            inputs = np.zeros((B, 2, length), np.int32)
            for b, pair in enumerate(series):
                lengths[b] = pair[:, 0]
                inputs[b, :, : pair.shape[1] - 1] = np.maximum(pair[:, 1:], 0)
        else:
            inputs = np.zeros((B, length, *series[0].shape[1:]), series[0].dtype)
            for b, one in enumerate(series):
                lengths[b], inputs[b, : len(one)] = len(one), one
        return np.asarray(self._call(self._numbers, inputs, *((lengths,) if self.pads else ())))[:n]

    def result(self, series: np.ndarray, output: np.ndarray) -> np.ndarray:
        """What the network says of a series in the user's units."""
        p = self.preprocessing
        if p is None or p.head == "classification":
            return output
        last = series[-1] if p.head == "forecasting" and p.relative else None
        return in_units(p, output[: len(series)] if p.head == "per_step" else output, last)


def in_units(p: Preprocessing, output: np.ndarray, last_C: np.ndarray | None) -> np.ndarray:
    """Outputs (..., K), of a forecast (..., horizon K), in the user's units; classes as they are.

    `last_C`, (..., C), is the last step that a relative forecast starts from.
    """
    if p.head == "classification":
        return output
    if p.head == "forecasting":
        output = output.reshape(*output.shape[:-1], p.horizon, len(p.targets))
        if last_C is not None:
            output = output + last_C[..., None, [p.channels.index(name) for name in p.targets]]
    return p.unscaled(output)
