"""Time that several padded lengths of a batch save in an epoch of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.measure import rounds, summary
from ssm_jax import config as config_lib
from ssm_jax.training import experiment as experiment_lib


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
