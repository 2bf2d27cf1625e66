"""The benchmarks of a layer and of a training step measure what they name."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from benchmarks import peers
from benchmarks.__main__ import main
from benchmarks.large_file import _peaks, measure_lambda_max, measure_large_file
from benchmarks.layers import kernel_flops, layer_seconds, measure_layer
from benchmarks.startup import AGAIN, OFF, TRAIN, measure_start
from benchmarks.steps import CPU_BATCHES, measure_buckets, measure_step, planned_memory, random_data
from benchmarks.streams import measure_stream
from ssm_jax.config.load import load_config
from ssm_jax.layers import LAYERS


def config(arg="") -> ConfigDict:
    return load_config("configs/lra/listops.py" + arg)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_measured_beside_its_floors(kind):
    row = measure_layer(kind, batch=2, length=64, channels=8, modes=4, n=3)
    assert (row["layer"], row["length"], row["rounds"]) == (kind, 64, 3)
    assert row["layer_ms"]["min"] > 0
    assert row["floor_ms"]["min"] > row["fft_floor_ms"]["min"] > 0
    assert row["over_fft"] > row["over_floor"] > 0


def test_a_layer_is_timed_beside_a_peer_and_in_its_other_form(monkeypatch):
    kind, options, size = "s4d", {"bidirectional": False, "beta": None}, (2, 24, 4, 3)
    forms = [peers.of_ours(kind, options, *size, mode=mode)() for mode in ("conv", "scan")]
    for one, other in zip(*map(jax.tree.leaves, forms), strict=True):  # outputs and gradients
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(one).max())

    def many(*size):
        call = peers.of_ours(kind, options, *size)
        return lambda: jax.block_until_ready([call() for _ in range(40)])

    monkeypatch.setitem(peers.PEERS, "discretax", (many, kind, options))
    row = peers.measure_beside("discretax", *size, 3)
    assert (row["layer"], row["peer"], row["length"], row["modes"]) == (kind, "discretax", 24, 3)
    assert row["blocks_ms"]["min"] > 0
    assert row["speed_up"] > 3 and row["least_speed_up"] > 3
    assert row["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("layer", ["s4d", "s4", "s5"])
def test_a_step_of_a_stream_is_measured(layer):
    row = measure_stream(layer, 4, 3, 1)
    assert (row["layer"], row["channels"], row["modes"], row["blocks"]) == (layer, 4, 3, 4)
    assert row["stream_us"]["min"] > row["scan_us"]["min"] > 0


def test_a_start_of_a_command_is_measured_to_its_end():
    row = measure_start("--help", "", 1)
    assert row["started"] == "ssm-jax --help" and row["rounds"] == 1
    assert row["wall_s"]["min"] > 0 and row["processor_s"]["min"] > 0
    with pytest.raises(ValueError, match=r"train --config=nowhere: error: .*nowhere"):
        measure_start("train --config=nowhere", "", 1)


def test_the_memory_of_a_training_on_a_file_is_watched(monkeypatch):
    monkeypatch.setattr("benchmarks.large_file.LENGTH", 100)
    monkeypatch.setattr("benchmarks.large_file.TRAIN", "train --config=nowhere --from=series")
    with pytest.raises(ValueError, match=r"train --config=nowhere --from=series: error: .*nowhere"):
        list(measure_large_file(1e-4))
    held = "x = bytearray(64 << 20); import time; time.sleep(1)"
    peaks = _peaks(subprocess.Popen([sys.executable, "-c", held]))
    assert 64 <= peaks["own_mib"] < 100 and peaks["mapped_mib"] > 0


def test_the_eigenvalue_of_a_file_of_holes_is_that_of_its_rows(monkeypatch):
    monkeypatch.setattr("benchmarks.large_file.EIGENVALUE", 64)
    monkeypatch.setattr("benchmarks.large_file.ROWS", 20)
    (row,) = measure_lambda_max(64 * 4 * 100 / 1e9)
    assert (row["sequences"], row["length"], row["converged"]) == (100, 64, True)
    assert row["lambda_max"] == pytest.approx(row["exact"], rel=2e-3)


@pytest.mark.slow
def test_a_second_start_finds_what_the_first_compiled():
    off, kept = (measure_start(TRAIN, programs, 1)["processor_s"] for programs in (OFF, AGAIN))
    assert kept["min"] < 0.7 * off["min"]


MINE = """
import jax.numpy as jnp
from flax import nnx


class Twice(nnx.Module):
    def __init__(self, d_model, *, d_state=64, rngs):
        assert d_state == 3
        self.factor = nnx.Param(jnp.full((d_model,), 2.0))

    def __call__(self, u_BLH, lengths_B=None, *, key=None):
        return self.factor[...][None, None, :] * u_BLH
"""


def test_a_layer_in_a_file_is_measured_by_its_name(tmp_path, monkeypatch, capsys):
    """As the other process is sent it, which need not start where the file is."""

    def elsewhere(function, *arguments, first=None):
        sent = pickle.dumps(arguments)
        monkeypatch.chdir("/")
        return function(*pickle.loads(sent))

    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchmarks.measure.in_fresh_process", elsewhere)
    size = ["--lengths=32", "--batch=1", "--channels=4", "--modes=3", "--rounds=1"]
    assert main(["--kinds=mine.py:Twice", *size]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (row["layer"], row["channels"]) == ("mine.py:Twice", 4)
    assert row["layer_ms"]["min"] > 0
    monkeypatch.chdir(tmp_path)
    for kinds, text in (
        ("s4d,s6", r"--kinds=s4d,s6: choose from s4d, s4, s5"),
        ("mine.py:Thrice", "the file defines no Thrice"),
        ("gone.py:L", "there is no file gone.py"),
    ):
        with pytest.raises(ValueError, match=text):
            main([f"--kinds={kinds}", *size])


def test_a_peer_that_is_not_here_is_named_before_anything_is_measured(monkeypatch):
    monkeypatch.setitem(peers.NEEDED, "lindermanlab", ("json", "no_such_module"))
    message = r"--peers=lindermanlab: lindermanlab needs the module no_such_module on PYTHONPATH"
    with pytest.raises(ValueError, match=message):
        main(["--what=peers", "--peers=lindermanlab"])


def test_the_floor_of_a_layer_has_all_its_parts():
    """Two rounds; by hand: 4 spectra and the kernel's, six copies, products at 2 * 2048^3 flops per
    time of the large product."""
    times = {
        "fft_floor": [1.0, 2.0],
        "kernel_ffts": [0.25, 0.5],
        "copy": [0.1, 0.2],
        "product": [2.0, 1.0],
    }
    flops = 2**34 / 8  # an eighth of the large product
    np.testing.assert_allclose(layer_seconds(times, flops), [2.1, 3.825])
    times["gate_product"] = [0.4, 0.8]
    np.testing.assert_allclose(layer_seconds(times, flops, 2 * flops), [2.2, 4.025])
    # three products of an (L, 2N) with a (2N, 1) matrix for each channel and direction
    assert kernel_flops(100, 3, 5) == 3 * (2 * 100 * 10) * 3 * 2


@pytest.mark.parametrize(
    ("task", "arm"), [("listops", "s4d_ft"), ("retrieval", "s4"), ("image", "s5")]
)
def test_a_training_step_is_measured_beside_its_floor(task, arm):
    cfg = load_config(f"configs/lra/{task}.py:{arm}")
    cfg.update_from_flattened_dict({"model.depth": 1, "model.d_model": 8, "model.s5.n_blocks": 1})
    cfg.model.n_ssm = 1
    cfg.model.d_state, cfg.data.padded_length, cfg.batch_size = 4, 64, 2
    row = measure_step(cfg, 2)
    assert (row["name"], row["layer"]) == (f"lra/{task}:{arm}", arm.removesuffix("_ft"))
    assert (row["batch"], row["length"], row["channels"]) == (2, 64, 8)
    assert row["over_floor"] > 0 and row["step_ms"]["min"] > 0


@pytest.mark.parametrize("task", CPU_BATCHES)
def test_shapes_are_those_of_the_published_models(task):
    """Length, channels and batch of each task, and the sets of eigenvalues (OC-6)."""
    cfg = load_config(f"configs/lra/{task}.py")
    published = {
        "listops": (2048, 128, 1, 32),
        "text": (4096, 256, 1, 32),
        "retrieval": (4000, 128, 1, 64),  # pairs: 128 sequences
        "image": (1024, 512, 512, 50),
        "pathfinder": (1024, 256, 1, 50),
        "pathx": (16384, 128, 128, 20),
    }
    model = cfg.model
    found = (cfg.data.padded_length, model.d_model, model.n_ssm, cfg.batch_size)
    assert found == published[task]
    assert CPU_BATCHES[task] <= 8


def test_every_task_has_a_batch_for_a_cpu():
    files = Path("configs/lra").glob("*.py")
    assert sorted(CPU_BATCHES) == sorted(file.stem for file in files)


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
