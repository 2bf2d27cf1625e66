"""The whole training step of a config, next to its floor; and of batches of several lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.layers import COPY, kernel_flops, layer_seconds, passes
from benchmarks.measure import PeakMemory, ratio, rounds, summary
from ssm_jax import config as config_lib
from ssm_jax.accelerators import program
from ssm_jax.data.dataset import LabelledDataset, Provenance
from ssm_jax.data.examples import SPLITS, Content, Examples, Images, Pairs, Ragged
from ssm_jax.lra.catalog import CATALOG
from ssm_jax.lra.listops import VOCABULARY
from ssm_jax.models.gate import GATES
from ssm_jax.training import experiment as experiment_lib
from ssm_jax.training.plan import timed_compile

# The batches of the Long Range Arena tasks that two CPU cores step through in seconds; Retrieval's
# count pairs.
CPU_BATCHES = {"listops": 8, "text": 4, "retrieval": 4, "image": 4, "pathfinder": 8, "pathx": 1}


def random_rows(length: int, n: int) -> Ragged:
    """n sequences of random tokens that fill `length` with their end of sequence."""
    rng = np.random.default_rng(0)
    longest = length - 1
    return Ragged(
        rng.integers(3, 18, n * longest, dtype=np.uint8),
        np.arange(n + 1, dtype=np.int64) * longest,
        rng.integers(0, 10, n, dtype=np.uint8),
    )


def random_data(cfg: ConfigDict, n: int) -> LabelledDataset:
    """n random examples of full length in the form of a config's task, in every split."""
    L, rows = cfg.data.padded_length, random_rows(cfg.data.padded_length, n)
    source = Provenance("random", "random inputs of full length", "0" * 64)
    numbers = dict.fromkeys(SPLITS, np.arange(n, dtype=np.int64))
    form = CATALOG[cfg.task].form
    examples: Examples = rows
    if form == "images":
        pixels = np.random.default_rng(0).integers(0, 256, (n, L), dtype=np.uint8)
        examples = Images(pixels, rows.targets)
    elif form == "pairs":
        order = np.arange(n, dtype=np.int32)
        examples = Pairs(rows.tokens, rows.offsets, order, order[::-1].copy(), rows.targets)
    vocabulary = () if form == "images" else VOCABULARY
    content = Content(examples, numbers, source.detail, {}, vocabulary, n_classes=10)
    return LabelledDataset(cfg.task, content, L, source)


def on_random_data(cfg: ConfigDict) -> experiment_lib.Experiment:
    """The experiment of a config on one batch of random data.

    Epochs of one batch are none: training is long enough for any schedule instead.
    """
    cfg = cfg.copy_and_resolve_references()
    cfg.train.epochs, cfg.train.steps = 0.0, 10**7
    return experiment_lib.Experiment(cfg, random_data(cfg, max(cfg.batch_size, 2)))


def planned_memory(cfg: ConfigDict) -> dict[str, Any]:
    """MiB per device that XLA plans for a training step of a config; nothing is computed."""
    step, compile_s = timed_compile(on_random_data(cfg).compile_step)
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
      Milliseconds and MiB, the seconds to compile, and the ratio to the floor: for every block that
      of an S4D layer of its size (layers.py) and the three products of its gate, forward and
      backward; and the bytes that the program moves, with the ratio to the time of copying as many.

    Raises:
      FloatingPointError: a step was not finite.
    """
    B, L, H = cfg.batch_size, cfg.data.padded_length, cfg.model.d_model
    experiment = on_random_data(cfg)
    dataset = experiment.dataset
    assert isinstance(dataset, LabelledDataset)
    state = experiment.fresh_state()
    step, compile_s = timed_compile(experiment.compile_step)
    batch = experiment.place_batch(dataset.gather("train", np.arange(B)))
    metrics: dict[str, Any] = {}

    def one_step():
        nonlocal state, metrics
        state, metrics = step(state, experiment.key, batch)
        return state, metrics

    with jax.set_mesh(experiment.mesh):
        with PeakMemory(step) as memory:
            jax.block_until_ready(one_step())
        sequences = B * (2 if dataset.paired else 1)
        times = rounds({**passes(sequences, L, H, cfg.model.precision), "step": one_step}, n)
    if not bool(metrics["ok"]):
        raise FloatingPointError("a step of the benchmark was not finite; its time means nothing.")
    model = cfg.model
    gate = 3 * 2.0 * sequences * L * H * GATES[model.gate] * H
    block = layer_seconds(times, kernel_flops(L, H, model.d_state), gate)
    times["floor"] = [model.depth * seconds for seconds in block]
    moved, copied = program.read(step.as_text()).moved, 2 * 8 * sequences * H * (L + 1)
    times["bytes"] = [moved / copied * seconds for seconds in times[COPY]]
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
        "moved_mib": round(moved / 2**20),
        "over_bytes": ratio(times, "step", "bytes"),
        "peak_mib": memory.mib,
        "peak_by": memory.by,
        "compile_s": round(compile_s, 2),
        "rounds": n,
        "config_digest": config_lib.digest(cfg),
    }


def measure_buckets(cfg: ConfigDict, data_dir: Path, n: int) -> dict[str, Any]:
    """Time a training step at each padded length, and count the batches of each in the first epoch.

    Args:
      cfg: with data.buckets > 1; its data are opened.
      data_dir: where they are prepared.
      n: timed steps of each length, the lengths in turns.

    Returns:
      "step_ms" and "batches" by length; "epoch_s" with these lengths and "plain_epoch_s" if every
      batch had the longest, both from the median steps; and their ratio "speed_up".

    Raises:
      ValueError: for data.buckets = 1.
    """
    if cfg.data.buckets == 1:
        raise ValueError("--what=buckets needs --config.data.buckets=2 or more.")
    experiment = experiment_lib.build(cfg, data_dir=data_dir)
    order, epoch = experiment.order, experiment.order.steps_per_epoch
    lengths = np.array([order.batch(step)[1] for step in range(epoch)])
    state = experiment.fresh_state()
    steps = {}
    with jax.set_mesh(experiment.mesh):
        for length in experiment.padded_lengths:
            # Where the epoch has no such batch, any that fits: time depends on the length alone.
            first = int(np.argmin(np.where(lengths <= length, length - lengths, lengths.max() + 1)))
            numbers = order.batch(first)[0]
            batch = experiment.place_batch(experiment.dataset.gather("train", numbers, length))
            step = experiment.compile_step(length)

            def one_step(step=step, batch=batch):
                nonlocal state
                state, metrics = step(state, experiment.key, batch)
                return metrics

            jax.block_until_ready(one_step())
            steps[str(length)] = one_step
        times = rounds(steps, n)
    medians = {length: summary(found)["median"] for length, found in times.items()}
    batches = {length: int((lengths == int(length)).sum()) for length in steps}
    seconds = sum(batches[length] * medians[length] for length in steps) / 1e3
    plain = epoch * medians[str(experiment.dataset.padded_length)] / 1e3
    return {
        "name": cfg.name,
        "layer": cfg.model.layer,
        "batch": cfg.batch_size,
        "data": experiment.dataset.provenance.detail,
        "step_ms": {length: summary(found) for length, found in times.items()},
        "batches": batches,
        "epoch_s": round(seconds, 1),
        "plain_epoch_s": round(plain, 1),
        "speed_up": round(plain / seconds, 2),
        "rounds": n,
        "config_digest": config_lib.digest(cfg),
    }
