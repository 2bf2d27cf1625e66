"""The whole training step of a config, beside the FFTs and products that it cannot do without."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.bench.floor import COPY, FFTS, PRODUCT, copy_pass, fft_passes, matrix_product
from ssm_jax.bench.floor import product_seconds as at_full_speed
from ssm_jax.bench.layers import SPECTRAL_ARRAYS
from ssm_jax.bench.measure import PeakMemory, ratio, rounds, summary
from ssm_jax.data.catalog import CATALOG
from ssm_jax.data.dataset import Dataset, Provenance
from ssm_jax.data.examples import SPLITS, Images, Pairs
from ssm_jax.data.labelled import ImageDataset, PairDataset, TokenDataset
from ssm_jax.data.make_listops import VOCABULARY
from ssm_jax.data.ragged import Ragged
from ssm_jax.train import experiment as experiment_lib

# What a step of each Long Range Arena task computes, as changes of configs/lra/listops.py: the
# models of the official code of arXiv:2410.02035, their padded lengths, and the batch on an
# accelerator and on a CPU. Images are read as tokens: an embedding in place of a linear encoder.
# Retrieval's step is two sequences per pair.
LRA_SHAPES: dict[str, dict[str, Any]] = {
    "listops": {"batch": (32, 8)},
    "text": {
        "batch": (32, 4),
        "model.d_model": 256,
        "model.alpha": 5.0,
        "model.pool": "mean",
        "data.padded_length": 4096,
    },
    "retrieval": {"batch": (128, 8), "model.pool": "mean", "data.padded_length": 4000},
    "image": {
        "batch": (50, 4),
        "model.d_model": 512,
        "model.n_ssm": 512,
        "model.norm": "layer",
        "model.prenorm": False,
        "model.dropout": 0.1,
        "model.pool": "mean",
        "data.padded_length": 1024,
    },
    "pathfinder": {
        "batch": (50, 8),
        "model.d_model": 256,
        "model.pool": "mean",
        "data.padded_length": 1024,
    },
    "pathx": {
        "batch": (20, 1),
        "model.n_ssm": 128,
        "model.alpha": 5.0,
        "model.pool": "mean",
        "data.padded_length": 16384,
    },
}

# What else a layer needs: each as published, S5 with one set of modes and without a filter.
LAYER_CHANGES: dict[str, dict[str, Any]] = {
    "s4d": {},
    "s4": {
        "model.init": "legs",
        "model.discretization": "bilinear",
        "model.dt_transform": "exp",
    },
    "s5": {
        "model.init": "legs",
        "model.n_ssm": 1,
        "model.real_transform": "none",
        "model.dt_transform": "exp",
        "model.beta.learn": False,
    },
}


def shaped(cfg: ConfigDict, task: str, layer: str, *, official_batch: bool) -> ConfigDict:
    """The ListOps config with the model, length and batch of another task, and another layer.

    Raises:
      ValueError: for an unknown task.
    """
    if task not in LRA_SHAPES:
        raise ValueError(f"unknown task {task!r}; choose one of {', '.join(LRA_SHAPES)}.")
    changes = dict(LRA_SHAPES[task])
    batch = changes.pop("batch")[0 if official_batch else 1]
    cfg.update_from_flattened_dict({**changes, **LAYER_CHANGES[layer], "batch_size": batch})
    cfg.model.layer = layer
    cfg.name = f"{task}-shaped"
    return cfg


def random_rows(length: int, n: int) -> Ragged:
    """n sequences of random tokens that fill `length` with their end of sequence."""
    rng = np.random.default_rng(0)
    longest = length - 1
    return Ragged(
        rng.integers(3, 18, n * longest, dtype=np.uint8),
        np.arange(n + 1, dtype=np.int64) * longest,
        rng.integers(0, 10, n, dtype=np.uint8),
    )


def random_data(cfg: ConfigDict, n: int) -> Dataset:
    """n random examples of full length in the form of a config's task, in every split."""
    L, rows = cfg.data.padded_length, random_rows(cfg.data.padded_length, n)
    source = Provenance("random", "random inputs of full length", "0" * 64)
    numbers = dict.fromkeys(SPLITS, np.arange(n, dtype=np.int64))
    form = CATALOG[cfg.task].form
    if form == "images":
        pixels = np.random.default_rng(0).integers(0, 256, (n, L), dtype=np.uint8)
        return ImageDataset(cfg.task, Images(pixels, rows.targets), numbers, L, source)
    if form == "pairs":
        order = np.arange(n, dtype=np.int32)
        pairs = Pairs(rows.tokens, rows.offsets, order, order[::-1].copy(), rows.targets)
        return PairDataset(cfg.task, pairs, numbers, L, source, vocabulary=VOCABULARY)
    return TokenDataset(cfg.task, rows, numbers, L, source, vocabulary=VOCABULARY)


def planned_memory(cfg: ConfigDict) -> dict[str, Any]:
    """MiB per device that XLA plans for a training step of a config; nothing is computed."""
    experiment = experiment_lib.assemble(cfg, random_data(cfg, max(cfg.batch_size, 2)))
    step, compile_s = experiment_lib.timed_compile(experiment.compile_train_step)
    memory = step.memory_analysis()
    assert memory is not None, "this backend does not tell"
    return {
        "name": cfg.name,
        "layer": cfg.model.layer,
        "batch": cfg.batch_size,
        "length": cfg.data.padded_length,
        "accumulate": cfg.train.accumulate,
        "remat": cfg.model.remat,
        "activations": cfg.model.activations,
        "arguments_mib": round(memory.argument_size_in_bytes / 2**20, 1),
        "temporaries_mib": round(memory.temp_size_in_bytes / 2**20, 1),
        "compile_s": round(compile_s, 2),
        "config_digest": config_lib.digest(cfg),
    }


def measure_step(cfg: ConfigDict, n: int) -> dict[str, Any]:
    """n training steps of a config, each waited for.

    Returns:
      Milliseconds and MiB, the seconds to compile, and the ratio to the floor: for every block the
      FFTs, six spectral arrays at the speed of a copy, and the three products of its GLU at the
      speed of a large matrix product.

    Raises:
      FloatingPointError: a step was not finite.
    """
    B, L, H = cfg.batch_size, cfg.data.padded_length, cfg.model.d_model
    dataset = random_data(cfg, max(B, 2))
    experiment = experiment_lib.assemble(cfg, dataset)
    state = experiment.fresh_state()
    step, compile_s = experiment_lib.timed_compile(experiment.compile_train_step)
    batch = experiment.place_batch(dataset.gather("train", np.arange(B)))
    metrics: dict[str, Any] = {}

    def one_step():
        nonlocal state, metrics
        state, metrics = step(state, experiment.key, batch)
        return state, metrics

    with jax.set_mesh(experiment.mesh):
        with PeakMemory() as memory:
            jax.block_until_ready(one_step())
        functions = {
            FFTS: fft_passes(B, L, H),
            COPY: copy_pass(B, L, H),
            PRODUCT: matrix_product(),
            "step": one_step,
        }
        times = rounds(functions, n)
    if not bool(metrics["ok"]):
        raise FloatingPointError("a step of the benchmark was not finite; its time means nothing.")
    products = 3 * 2 * B * L * H * 2 * H
    times["floor"] = [
        cfg.model.depth * (fft + SPECTRAL_ARRAYS * copy + at_full_speed(products, product))
        for fft, copy, product in zip(times[FFTS], times[COPY], times[PRODUCT], strict=True)
    ]
    return {
        "name": cfg.name,
        "layer": cfg.model.layer,
        "batch": B,
        "length": L,
        "channels": H,
        "modes": cfg.model.d_state,
        "parameters": sum(row.size for row in experiment.rows),
        "step_ms": summary(times["step"]),
        "floor_ms": summary(times["floor"]),
        "over_floor": ratio(times, "step", "floor"),
        "peak_mib": memory.mib,
        "compile_s": round(compile_s, 2),
        "rounds": n,
        "config_digest": config_lib.digest(cfg),
    }
