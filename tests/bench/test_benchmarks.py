"""The benchmarks of a layer and of a training step measure what they name."""

import pytest
from ml_collections import ConfigDict

from ssm_jax.bench.buckets import measure_buckets
from ssm_jax.bench.layers import measure_layer
from ssm_jax.bench.steps import (
    LAYER_CHANGES,
    LRA_SHAPES,
    measure_step,
    planned_memory,
    random_data,
    shaped,
)
from ssm_jax.cli import load_config


def config(arg="") -> ConfigDict:
    return load_config("configs/lra/listops.py" + arg)


@pytest.mark.parametrize("kind", ["s4d", "s4", "s5"])
def test_a_layer_is_measured_beside_its_floors(kind):
    row = measure_layer(kind, batch=2, length=64, channels=8, modes=4, n=3)
    assert (row["layer"], row["length"], row["rounds"]) == (kind, 64, 3)
    assert row["layer_ms"]["min"] > 0
    assert row["floor_ms"]["min"] > row["fft_floor_ms"]["min"] > 0
    assert row["over_fft"] > row["over_floor"] > 0


@pytest.mark.parametrize("kind", ["s4d", "s4", "s5"])
def test_a_training_step_is_measured_beside_its_floor(kind):
    cfg = config()
    cfg.update_from_flattened_dict(
        {"model.depth": 1, "model.d_model": 8, "model.d_state": 4, "data.padded_length": 64}
    )
    cfg.update_from_flattened_dict({**LAYER_CHANGES[kind], "model.layer": kind, "batch_size": 2})
    row = measure_step(cfg, 2)
    assert (row["layer"], row["batch"], row["length"], row["channels"]) == (kind, 2, 64, 8)
    assert row["over_floor"] > 0 and row["step_ms"]["min"] > 0


@pytest.mark.parametrize("task", LRA_SHAPES)
def test_shapes_are_those_of_the_published_models(task):
    """Length, channels and batch of each task, and the sets of eigenvalues (OC-6)."""
    cfg = shaped(config(), task, "s4d", official_batch=True)
    published = {
        "listops": (2048, 128, 1, 32),
        "text": (4096, 256, 1, 32),
        "retrieval": (4000, 128, 1, 128),
        "image": (1024, 512, 512, 50),
        "pathfinder": (1024, 256, 1, 50),
        "pathx": (16384, 128, 128, 20),
    }
    model = cfg.model
    found = (cfg.data.padded_length, model.d_model, model.n_ssm, cfg.batch_size)
    assert found == published[task]
    assert shaped(config(), task, "s4d", official_batch=False).batch_size <= 8


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="unknown task 'cifar'; choose one of listops, text"):
        shaped(config(), "cifar", "s4d", official_batch=True)


@pytest.mark.parametrize(
    ("task", "shape", "filled"),
    [
        ("listops", (3, 64), [64, 64, 64]),
        ("retrieval", (3, 2, 64), [[64, 64]] * 3),
        ("image", (3, 64, 1), None),
    ],
)
def test_random_inputs_have_the_form_of_the_task_and_fill_its_length(task, shape, filled):
    cfg = config()
    cfg.task, cfg.data.padded_length = task, 64
    batch = random_data(cfg, 3).gather("train", [0, 1, 2])
    assert batch["inputs"].shape == shape
    assert filled == (batch["lengths"].tolist() if "lengths" in batch else None)


def small(**changes) -> ConfigDict:
    cfg = config(":smoke")
    cfg.update_from_flattened_dict({"model.d_model": 8, "model.d_state": 4})
    cfg.update_from_flattened_dict({key.replace("__", "."): v for key, v in changes.items()})
    return cfg


def test_planned_memory_falls_with_parts_and_blocks_computed_again():
    plain, spared = (
        planned_memory(small(train__accumulate=parts, model__remat=remat))["temporaries_mib"]
        for parts, remat in ((1, False), (4, True))
    )
    assert 0 < spared < plain / 2


def test_an_epoch_in_buckets_is_timed_length_by_length(tmp_path):
    """120 expressions of 4..23 tokens in batches of 4; the sums are those of the counts."""
    cfg = small(data__buckets=2, data__n_train=120, data__padded_length=24)
    cfg.data.listops.longer_than, cfg.data.listops.shorter_than = 3, 24
    row = measure_buckets(cfg, tmp_path, 2)
    assert set(row["batches"]) == set(row["step_ms"]) == {"12", "24"}
    assert sum(row["batches"].values()) == 30 and min(row["batches"].values()) > 0
    medians = {length: times["median"] for length, times in row["step_ms"].items()}
    seconds = sum(row["batches"][length] * medians[length] for length in medians) / 1e3
    assert abs(row["epoch_s"] - seconds) <= 0.05
    assert abs(row["plain_epoch_s"] - 30 * medians["24"] / 1e3) <= 0.05
    with pytest.raises(ValueError, match=r"needs --config\.data\.buckets=2 or more"):
        measure_buckets(small(), tmp_path, 1)
