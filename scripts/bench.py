"""Time the training step of a config: compile time, seconds per step, peak memory.

    python scripts/bench.py --config=configs/lra/listops.py --config.batch_size=8 --steps=5

The batches are random tokens of full length, so no data are needed. Prints one JSON document; --out
keeps it. Peak memory is the growth of this process's resident set from before the model was built,
or on an accelerator the allocator's peak.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from ssm_jax import cli
from ssm_jax.options import Flag


def peak_bytes() -> int:
    """Largest resident set of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(cfg, steps: int, warmup: int) -> dict[str, Any]:
    """Time `steps` training steps, each waited for."""
    import jax
    import numpy as np

    from ssm_jax import config as config_lib
    from ssm_jax.data.dataset import Provenance, TokenDataset
    from ssm_jax.data.ragged import Ragged
    from ssm_jax.train import experiment as experiment_lib
    from ssm_jax.train.record import run_record

    rng = np.random.default_rng(0)
    longest = cfg.data.padded_length - 1
    n = max(cfg.batch_size, 2)
    offsets = np.arange(n + 1, dtype=np.int64) * longest
    rows = Ragged(
        rng.integers(3, 18, n * longest, dtype=np.uint8),
        offsets,
        rng.integers(0, 10, n, dtype=np.uint8),
    )
    random_tokens = Provenance("random", "random tokens of full length", "0" * 64)
    splits = dict.fromkeys(("train", "val", "test"), rows)
    dataset = TokenDataset("random", splits, cfg.data.padded_length, random_tokens)
    before = peak_bytes()
    experiment = experiment_lib.assemble(cfg, dataset)
    state = experiment.fresh_state()
    step, compile_s = experiment_lib.timed_compile(experiment.compile_train_step)
    batch = experiment.place_batch(dataset.gather("train", np.arange(cfg.batch_size)))
    seconds = []
    with jax.set_mesh(experiment.mesh):
        for _ in range(warmup + steps):
            start = time.perf_counter()
            state, metrics = step(state, experiment.key, batch)
            jax.block_until_ready((state, metrics))
            seconds.append(time.perf_counter() - start)
    if not bool(metrics["ok"]):
        raise FloatingPointError("a step of the benchmark was not finite; its time means nothing.")
    device = jax.local_devices()[0].memory_stats() or {}
    peak = device.get("peak_bytes_in_use", peak_bytes() - before)
    flat, digest = config_lib.flatten(cfg), config_lib.digest(cfg)
    record = run_record(flat, digest, cfg.seed, {}, ["scripts/bench.py", *sys.argv[1:]])
    counted = seconds[warmup:]
    return {
        "name": cfg.name,
        "batch_size": cfg.batch_size,
        "length": cfg.data.padded_length,
        "parameters": sum(row.size for row in experiment.rows),
        "compile_s": round(compile_s, 2),
        "step_s": {
            "median": round(statistics.median(counted), 4),
            "min": round(min(counted), 4),
            "max": round(max(counted), 4),
            "steps": steps,
        },
        "peak_mib": round(peak / 2**20),
        **{key: record[key] for key in ("command", "git", "versions", "devices", "started")},
    }


def main(argv: list[str]) -> int:
    flags = (
        Flag("steps", "counted steps", 5, int),
        Flag("warmup", "steps before them", 2, int),
        Flag("out", "file for the result", kind=Path),
    )
    cfg, values, _ = cli.load(argv, flags=flags, about=__doc__ or "")
    if values["steps"] < 1:
        cli.fail(f"--steps={values['steps']} measures nothing; use at least 1.")
    result = measure(cfg, values["steps"], values["warmup"])
    text = json.dumps(result, indent=2)
    print(text)
    if values["out"] is not None:
        values["out"].parent.mkdir(parents=True, exist_ok=True)
        values["out"].write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
