"""Wave regression: how much of each of four waves is in their sum.

    x(t) = sum_i a_i cos(w_i t),    w = 1, 16, 256, 4096 rad/s,    0 <= t < 2 pi

Only the amplitudes are data. The official code (waves_gen.py, arXiv:2410.02035) stores signals,
2.5 GB for training and as much for testing. Its step is 1e-4 s, here it is 2 pi / L, which at the
official L = 62,832 is 2.3e-6 less: so all waves end where they began.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.data.dataset import Dataset, Provenance
from ssm_jax.data.draws import uniform
from ssm_jax.data.examples import spread
from ssm_jax.data.prepare import DataPaths
from ssm_jax.options import arguments_of
from ssm_jax.stories.waves.model import WaveRegressor
from ssm_jax.tasks.task import Batch, Sums

WAVES = (1, 16, 256, 4096)  # rad/s, and periods in a sequence
LEVELS = np.arange(1, 11) / 10  # of each amplitude in training
DRAWN = 10_000  # examples for validation, and for testing
STREAMS = {"val": 1, "test": 2}


class WaveDataset(Dataset):
    """Amplitudes: in training all of the grid {0.1, .., 1.0}^4, else uniform in [0, 1)^4.

    `gather` returns "inputs", float32 (B, 4), which are the targets as well.
    """

    def __init__(self, length: int, counts: Mapping[str, int], seed: int) -> None:
        """Of sequences of L = `length` samples; `counts` of 0 are 10,000 examples.

        Fewer for training are spread over the grid.

        Raises:
          ValueError: the fastest wave is not below Nyquist, or more than the grid is asked for.
        """
        if length <= 2 * WAVES[-1]:
            raise ValueError(
                f"data.padded_length={length} puts the wave of {WAVES[-1]} rad/s beyond Nyquist; "
                f"use more than {2 * WAVES[-1]}."
            )
        grid = np.stack(np.meshgrid(*(LEVELS,) * len(WAVES), indexing="ij"), axis=-1)
        rows = grid.reshape(-1, len(WAVES))
        try:
            kept = spread(np.arange(len(rows)), counts["train"])
        except ValueError as error:
            raise ValueError(f"data.n_train={counts['train']}: {error}") from None
        self._amplitudes = {"train": rows[kept].astype(np.float32)}
        for split, stream in STREAMS.items():
            n = counts[split] or DRAWN
            drawn = uniform(seed, stream, n * len(WAVES)).reshape(n, -1)
            self._amplitudes[split] = drawn.astype(np.float32)
        digest = hashlib.sha256()
        for rows in self._amplitudes.values():
            digest.update(rows.tobytes())
        detail = f"amplitudes of waves of {', '.join(map(str, WAVES))} rad/s, seed {seed}"
        super().__init__("waves", length, Provenance("generated", detail, digest.hexdigest()))

    def size(self, split: str) -> int:
        if split not in self.splits:
            raise self.no_split(split)
        return len(self._amplitudes[split])

    def lengths(self, split: str) -> np.ndarray:
        return np.full(self.size(split), self.padded_length, np.int64)

    def shapes(self, batch_size: int, length: int) -> dict[str, tuple[tuple[int, ...], type]]:
        del length
        return {"inputs": ((batch_size, len(WAVES)), np.float32)}

    def gather(
        self, split: str, indices: np.ndarray, length: int | None = None
    ) -> dict[str, np.ndarray]:
        return {"inputs": self._amplitudes[split][self.check(split, indices)]}

    def steps_of(self, batch: Mapping[str, Any]) -> int:
        return self.padded_length


def open_waves(options: Mapping[str, Any], place: DataPaths) -> WaveDataset:
    """The amplitudes that a config asks for; no files are read.

    Raises:
      ValueError: for a source other than "generated", or files.
    """
    if options["source"] != "generated" or place.files is not None:
        raise ValueError("waves are generated: leave data.source at generated, and give no files.")
    counts = {split: options[f"n_{split}"] for split in ("train", "val", "test")}
    return WaveDataset(options["padded_length"], counts, options["seed"])


def build_regressor(
    dataset: WaveDataset, options: Mapping[str, Any], rngs: nnx.Rngs
) -> WaveRegressor:
    own = arguments_of(WaveRegressor, options, "waves")
    return WaveRegressor(waves=WAVES, length=dataset.padded_length, **own, rngs=rngs)


def regression_sums(model: Any, batch: Batch) -> Sums:
    """Squared error per wave, absolute error of each wave (error_16, ..) and their mean (error)."""
    amplitudes_BF = batch["inputs"]
    apart_BF = model(amplitudes_BF) - amplitudes_BF
    error_BF = jnp.abs(apart_BF)
    mask_B = batch.get("mask", jnp.ones_like(error_BF[:, 0]))
    each = {f"error_{wave}": error_BF[:, i] for i, wave in enumerate(WAVES)}
    means = {"loss": jnp.mean(apart_BF**2, axis=1), "error": jnp.mean(error_BF, axis=1), **each}
    sums = {name: jnp.sum(value_B * mask_B) for name, value_B in means.items()}
    return {**sums, "count": jnp.sum(mask_B)}


def train_sums(model: Any, batch: Batch, key: Array | None) -> Sums:
    """In training."""
    del key
    return regression_sums(model, batch)
