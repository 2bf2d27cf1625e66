"""A small experiment with everything in it: dropout, evaluations, saves within an epoch."""

from __future__ import annotations

import json
from pathlib import Path

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.training.checkpoint.io import list_steps, read_arrays, read_meta
from ssm_jax.training.experiment import Experiment, build


def tiny_config(**overrides) -> ConfigDict:
    """60 steps of 8 short expressions; overrides are by dotted key with __ for the dot."""
    cfg = config_lib.default()
    cfg.name = "tiny"
    cfg.batch_size = 8
    cfg.data.n_train, cfg.data.n_val, cfg.data.n_test = 100, 20, 20
    cfg.data.listops.longer_than, cfg.data.listops.shorter_than = 3, 24
    cfg.data.padded_length = 24
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 2, 8, 4
    cfg.model.dropout, cfg.model.pool = 0.1, "last"
    cfg.train.steps, cfg.train.eval_every = 60, 20
    cfg.schedule.warmup_steps = 5
    cfg.checkpoint.every, cfg.log.every = 14, 3
    cfg.figures, cfg.log.diagnostics = False, False
    cfg.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    return cfg


def tiny_experiment(data_dir: Path, **overrides) -> Experiment:
    return build(tiny_config(**overrides), data_dir=data_dir)


def newest(path):
    """The newest checkpoint's step and arrays."""
    step = list_steps(path / "checkpoints")[-1]
    folder = path / "checkpoints" / str(step)
    return step, read_arrays(folder, read_meta(folder)[1])


def assert_same_run(path, reference, evaluated=(0, 20, 40, 60)):
    arrays_of = [sorted((p / "diagnostics").iterdir()) for p in (path, reference)]
    assert [f.name for f in arrays_of[0]] == sorted(f"{step}.npz" for step in evaluated)
    for file, reference_file in zip(*arrays_of, strict=True):
        assert file.read_bytes() == reference_file.read_bytes()
    assert (path / "metrics.jsonl").read_bytes() == (reference / "metrics.jsonl").read_bytes()
    results = [json.loads((p / "summary.json").read_text()) for p in (path, reference)]
    assert results[0]["test"] == results[1]["test"]
    assert results[0]["best"] == results[1]["best"]
    (step, arrays), (reference_step, reference_arrays) = newest(path), newest(reference)
    assert step == reference_step
    assert arrays.keys() == reference_arrays.keys()
    for name, array in arrays.items():
        assert array.tobytes() == reference_arrays[name].tobytes(), name


def get_config(arg: str = "") -> ConfigDict:
    """So that this file is itself a config for scripts/train.py."""
    del arg
    return tiny_config()
