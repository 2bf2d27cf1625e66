"""No death, damage or full disk may lead to wrong values, to a silent loss or to a torn step."""

from __future__ import annotations

import errno
import fcntl
import gc
import importlib.util
import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils
from orbax.checkpoint.experimental.v1._src.saving import execution

from ssm_jax.training.checkpoint import CheckpointStore
from ssm_jax.training.checkpoint import io as step_folder
from ssm_jax.training.checkpoint import manifest as meta
from ssm_jax.training.checkpoint.manifest import (
    CheckpointError,
    ConfigMismatch,
    Identity,
    Notes,
    SaveError,
    StateMismatch,
)
from ssm_jax.training.workdir import document_checksum

REPOSITORY = Path(__file__).parents[2]
SAVER = Path(__file__).with_name("saver.py")
_spec = importlib.util.spec_from_file_location("saver", SAVER)
saver = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(saver)


class Counter(NamedTuple):
    count: jax.Array
    key: jax.Array


def open_store(directory, **changes):
    options = {"keep": 2, "ranking": ("accuracy", "max")}
    identity = changes.pop(
        "identity", {"model.alpha": 1.0, "model.d_model": 8, "data.shape": [3, 4]}
    )
    fingerprint = changes.pop("data_fingerprint", "d1")
    run = Identity(identity, fingerprint)
    return CheckpointStore(directory, identity=run, **{**options, **changes})


def make_state(step):
    """A state with every kind of container and leaf that training has."""
    rng = np.random.default_rng(step)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = {
        "blocks": {0: {"A": normal(4, 3), "beta": normal(4)}, 1: {"A": normal(4, 3)}},
        "head": (normal(3, 5), [normal(5)]),
    }
    groups = {
        "blocks": {0: {"A": "ssm", "beta": "fixed"}, 1: {"A": "ssm"}},
        "head": ("rest", ["rest"]),
    }
    optimizer = optax.multi_transform(
        {
            "ssm": optax.adam(1e-3),
            "rest": optax.adamw(optax.cosine_decay_schedule(1e-3, 9)),
            "fixed": optax.set_to_zero(),
        },
        groups,
    )
    key = jnp.asarray(rng.integers(0, 2**32, 2), jnp.uint32)
    return {
        "params": params,
        "optimizer": optimizer.init(params),
        "counter": Counter(jnp.asarray(step, jnp.int32), key),
        "flags": jnp.asarray([True, False, step % 2 == 0]),
        "empty": jnp.zeros((0, 3), jnp.float32),
        "scale": jnp.asarray(rng.normal(), jnp.bfloat16),
    }


def abstract(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)


def bits(tree):
    """A state as comparable bytes, so that NaN equals NaN and -0.0 differs from 0.0."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(np.asarray(x).dtype, np.shape(x), np.asarray(x).tobytes()) for x in leaves]


# After a failed read Orbax closes its event loop under reads that go on; they complain on arriving.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TARGET = abstract(make_state(0))


def verify(directory):
    """Each step in a folder as (step, whether it is sound, why not)."""
    report = []
    for step in step_folder.list_steps(directory):
        path = directory / str(step)
        try:
            step_folder.read_arrays(path, step_folder.read_meta(path)[1])
            report.append((step, True, ""))
        except (CheckpointError, StateMismatch) as error:
            report.append((step, False, str(error)))
    return report


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def run_saver(*arguments, flags=""):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(REPOSITORY),
        "XLA_FLAGS": flags,
    }
    command = [sys.executable, str(SAVER), *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_every_leaf_and_container_comes_back_bit_equal(tmp_path):
    state = make_state(7)
    with open_store(tmp_path) as store:
        assert store.restore_newest(TARGET) is None
        store.save(7, state, Notes({"accuracy": 0.5}, {"step": 7, "value": 0.5}, {"steps": 1}))
    with open_store(tmp_path) as store:
        restored, meta = store.restore_newest(TARGET)
    assert bits(restored) == bits(state)
    assert isinstance(restored["counter"], Counter)
    assert (meta.step, meta.evaluated, meta.metrics) == (7, True, {"accuracy": 0.5})
    assert meta.best == {"step": 7, "value": 0.5}
    assert meta.extra == {"window": {"steps": 1}, "files": {}}
    assert verify(tmp_path) == [(7, True, "")]


def test_minus_zero_nan_payloads_and_denormals_survive(tmp_path):
    patterns = np.array(
        [0x80000000, 0x7FC00001, 0xFFC12345, 0x7F800001, 0x00000001, 0x807FFFFF, 0xFF800000],
        np.uint32,
    )
    values = jnp.asarray(patterns.view(np.float32))
    with open_store(tmp_path) as store:
        store.save(1, {"x": values, "zero": jnp.float32(-0.0)}, final=True)
        restored, _ = store.restore_newest({"x": values, "zero": jnp.float32(0.0)})
    np.testing.assert_array_equal(np.asarray(restored["x"]).view(np.uint32), patterns)
    assert math.copysign(1, restored["zero"]) == -1


def test_the_values_saved_are_those_at_the_time_of_save(tmp_path):
    """While the save runs, buffers are donated to the next step and NumPy leaves overwritten."""
    step = jax.jit(lambda x: x * 1.5 + 1, donate_argnums=0)
    x, host = step(jnp.arange(2**20, dtype=jnp.float32)), np.arange(2**20, dtype=np.float32)
    expected, host_expected = np.array(x), host.copy()
    with open_store(tmp_path) as store:
        store.save(1, {"x": x, "host": host})
        pointer, old = x.unsafe_buffer_pointer(), x
        x = step(x)
        assert old.is_deleted() and x.unsafe_buffer_pointer() == pointer  # donated in place
        host[:] = -1
        for _ in range(5):
            x = step(x)
        store.wait()
        restored, _ = store.restore_newest({"x": x, "host": host})
    np.testing.assert_array_equal(restored["x"], expected)
    np.testing.assert_array_equal(restored["host"], host_expected)


def test_leaves_return_to_the_sharding_of_the_target_on_fewer_devices(tmp_path):
    process = run_saver("mesh", tmp_path, flags="--xla_force_host_platform_device_count=4")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output == "sharded True replicated True equal True True\n"


def test_two_processes_save_one_checkpoint_and_agree_on_the_step(tmp_path):
    """Over jax.distributed; the second process is shown a broken step that the first can read."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    pair = [run_saver("pair", tmp_path, port, i) for i in range(2)]
    try:
        outputs = [process.communicate(timeout=90) for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert all(output.endswith("1 [2] True\n") for output, _ in outputs), outputs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2.corrupt"]


def test_kill_9_at_any_moment_leaves_a_good_step(tmp_path):
    """One run, killed with a save in flight, restarted and killed again after another delay."""
    reached = 0
    for delay in (0.0, 0.005, 0.02, 0.04, 0.06, 0.09, 0.15):
        process = run_saver("loop", tmp_path)
        try:
            lines = [int(process.stdout.readline()) for _ in range(3)]
            time.sleep(delay)
        finally:
            process.kill()
            _, errors = process.communicate()
        assert errors == ""  # neither noise nor a broken step on restarting
        assert lines[0] >= reached  # at most the save in flight was lost
        with saver.open_store(tmp_path) as store:
            assert all(sound for _, sound, _ in verify(tmp_path))
            restored, meta = store.restore_newest(saver.state_at(0))
            assert not list(tmp_path.glob(f"*{step_folder.TEMPORARY}*"))
        assert meta.step >= lines[-1] - 1  # save k waits for save k - 1
        assert bits(restored) == bits(saver.state_at(meta.step))
        reached = meta.step
    assert reached >= 10


def damages(file):
    size = file.stat().st_size
    yield "removed", None
    if size:
        yield "emptied", b""
        content = file.read_bytes()
        yield "halved", content[: size // 2]
        for place in {0, size // 3, size // 2, size - 1}:
            flipped = bytearray(content)
            flipped[place] ^= 1 << (place % 8)
            yield f"bit {place}", bytes(flipped)


def test_a_damaged_file_never_yields_wrong_values(tmp_path):
    """Each file of the newest step damaged in seven ways: that step or the older, bit-equal."""
    source = tmp_path / "source"
    with open_store(source) as store:
        store.save(1, make_state(1))
        store.save(2, make_state(2))
    expected = {step: bits(make_state(step)) for step in (1, 2)}
    files = [file.relative_to(source / "2") for file in files_of(source / "2")]
    walked_back = set()
    cases = 0
    for file in files:
        for name, content in damages(source / "2" / file):
            place = tmp_path / "damaged"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(source, place)
            if content is None:
                (place / "2" / file).unlink()
            else:
                (place / "2" / file).write_bytes(content)
            store = open_store(place)
            restored, meta = store.restore_newest(TARGET)
            assert bits(restored) == expected[meta.step], f"{file} {name}"
            left = sorted(path.name for path in place.iterdir())
            assert left == (["1", "2"] if meta.step == 2 else ["1", "2.corrupt"])
            assert [step for step, _ in store.broken] == ([] if meta.step == 2 else [2])
            if meta.step == 1:
                walked_back.add((file.parts[0], name))
            cases += 1
    assert cases > 60
    for damage in ("removed", "emptied", "halved", "bit 0"):  # the matrix does break things
        assert {("state", damage), ("meta", damage)} <= walked_back


def test_a_bit_flip_in_any_array_is_found(tmp_path):
    with open_store(tmp_path) as store:
        store.save(1, saver.state_at(1), final=True)
    data = max(files_of(tmp_path / "1"), key=lambda file: file.stat().st_size)
    content = data.read_bytes()
    found = 0
    for place in np.linspace(1000, len(content) - 1000, 12).astype(int):
        flipped = bytearray(content)
        flipped[place] ^= 16
        data.write_bytes(flipped)
        [(_, sound, reason)] = verify(tmp_path)
        assert not sound and reason
        found += "checksum differs" in reason
    data.write_bytes(content)
    assert verify(tmp_path) == [(1, True, "")]
    assert found > 0  # Orbax alone returned these without an error


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": "7"},
        {"step": True},
        {"identity": []},
        {"data_fingerprint": None},
        {"evaluated": 1},
        {"metrics": {"accuracy": "0.5"}},
        {"best": {"step": 7}},
        {"best": {"step": 7, "value": math.nan}},
        {"best": 7},
        {"extra": None},
        {"extra": {}},
        {"extra": {"window": {"loss": 1.0}}},
        {"extra": {"window": {"loss": "1.0", "steps": 1}}},
        {"extra": {"window": {}, "files": {"metrics.jsonl": {"bytes": -1, "hash": ""}}}},
        {"extra": {"window": {}, "files": {"../mine": {"bytes": 1, "hash": ""}}}},
        {"more": 1},
        {"leaves": None},
        {"leaves": {"x": {"shape": [-1], "dtype": "float32", "crc32": 0}}},
        {"leaves": {"x": {"shape": [1], "dtype": "float33", "crc32": 0}}},
        {"leaves": {"x": {"shape": [1], "dtype": None, "crc32": 0}}},
        {"leaves": {"x": [1]}},
    ],
    ids=str,
)
def test_a_document_that_no_save_makes_is_refused_though_its_checksum_is_right(change):
    """As another version of the program could have written it."""
    good = {
        "step": 7,
        "identity": {},
        "data_fingerprint": "d",
        "evaluated": True,
        "metrics": {"accuracy": math.nan},
        "best": {"step": 7, "value": 0.5},
        "extra": {"window": {}},
    }
    leaf = {"shape": [2, 0], "dtype": "bfloat16", "crc32": 1}
    document = meta.seal(meta.Meta(**good), {"x": leaf}, {})
    read, leaves = meta.unseal(document)
    assert (read.step, read.best, leaves) == (7, {"step": 7, "value": 0.5}, {"x": leaf})
    content = {key: value for key, value in document.items() if key != "crc32"}
    if "leaves" in change:
        content |= change
    else:
        content["meta"] = {**content["meta"], **change}
    with pytest.raises(CheckpointError, match="its meta document is sound but has"):
        meta.unseal({**content, "crc32": document_checksum(content)})


def test_an_empty_folder_and_two_broken_steps_are_passed_over_loudly(tmp_path, caplog):
    with open_store(tmp_path, keep=3) as store:
        for step in (1, 2, 3):
            store.save(step, make_state(step))
    shutil.rmtree(tmp_path / "2")
    (tmp_path / "2").mkdir()
    (tmp_path / "3" / "meta" / "data.json").write_text("{}")
    (tmp_path / "3.corrupt").mkdir()  # an earlier accident, which must not be lost
    with caplog.at_level(logging.WARNING), open_store(tmp_path, keep=3) as store:
        restored, meta = store.restore_newest(TARGET)
        assert meta.step == 1 and bits(restored) == bits(make_state(1))
        assert [step for step, _ in store.broken] == [3, 2]
        assert "step 3" in caplog.text and "step 2" in caplog.text
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["1", "2.corrupt", "3.corrupt", "3.corrupt-1"]
        store.save(2, make_state(2), final=True)  # the number is free again
        assert store.restore_newest(TARGET)[1].step == 2


def test_when_all_steps_are_broken_the_reasons_are_listed_and_nothing_is_renamed(tmp_path):
    with open_store(tmp_path) as store:
        store.save(1, make_state(1))
        store.save(2, make_state(2))
    for step in ("1", "2"):
        (tmp_path / step / "state" / "manifest.ocdbt").unlink()
    with open_store(tmp_path) as store:
        with pytest.raises(CheckpointError, match=r"(?s)step 2: .*step 1: .*--workdir"):
            store.restore_newest(TARGET)
        assert store.steps() == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "flags": jnp.zeros(3, jnp.int8)}, r"flags: .* bool\(3,\).* int8\(3,\)"),
        (lambda s: {**s, "flags": jnp.zeros(4, bool)}, r"flags: .* bool\(3,\).* bool\(4,\)"),
        (
            lambda s: {**s, "new": jnp.zeros(2, jnp.float32)},
            r"new: checkpoint has nothing.* float32\(2,\)",
        ),
        (lambda s: {k: s[k] for k in s if k != "scale"}, r"scale: .* bfloat16\(\).* nothing"),
    ],
    ids=["dtype", "shape", "missing", "extra"],
)
def test_another_state_is_refused_by_path_and_nothing_is_renamed(tmp_path, change, message):
    with open_store(tmp_path) as store:
        store.save(1, make_state(1), final=True)
        with pytest.raises(StateMismatch, match=message):
            store.restore_newest(change(make_state(1)))
        assert store.steps() == [1] and store.broken == []


def test_another_config_or_data_is_refused_key_by_key_and_nothing_is_renamed(tmp_path):
    with open_store(tmp_path) as store:
        store.save(1, make_state(1))
    other = {"model.alpha": 3.0, "model.d_model": 8, "model.new": True}
    with open_store(tmp_path, identity=other) as store:
        with pytest.raises(ConfigMismatch) as caught:
            store.restore_newest(TARGET)
        message = str(caught.value)
        assert "model.alpha: checkpoint 1.0, asked for 3.0" in message
        assert "model.new: checkpoint nothing of that name, asked for True" in message
        assert "data.shape: checkpoint [3, 4], asked for nothing of that name" in message
        assert "d_model" not in message and "--workdir" in message and "options of the" in message
        assert store.steps() == [1]
    with open_store(tmp_path, data_fingerprint="d2") as store:
        with pytest.raises(ConfigMismatch, match="data: checkpoint d1, asked for d2"):
            store.restore_newest(TARGET)
        assert store.steps() == [1]


@pytest.mark.parametrize(
    ("mode", "values", "kept"),
    [
        ("max", {1: 0.2, 2: 0.9, 3: 0.5, 4: math.nan, 5: 0.9, 6: None, 7: None}, [2, 6, 7]),
        ("min", {1: 0.2, 2: 0.9, 3: -math.inf, 4: 0.1, 5: 0.3, 6: None, 7: 0.4}, [4, 6, 7]),
        ("max", {1: None, 2: None, 3: None, 4: None}, [3, 4]),
    ],
)
def test_the_newest_and_the_best_are_kept_across_restarts(tmp_path, mode, values, kept):
    x = {"x": jnp.zeros(2)}
    for step, value in values.items():
        with open_store(tmp_path, ranking=("accuracy", mode)) as store:
            store.save(step, x, Notes(None if value is None else {"accuracy": value}))
            store.wait()
            assert step == store.steps()[-1]  # the latest is never the one dropped
    with open_store(tmp_path, ranking=("accuracy", mode)) as store:
        assert store.steps() == kept
        assert store.ranked_steps()[:1] == (kept[:1] if len(kept) == 3 else [])
    with open_store(tmp_path, ranking=None) as store:
        assert store.ranked_steps() == []


def test_a_smaller_step_than_the_newest_is_saved_and_not_dropped_for_it(tmp_path):
    x = {"x": jnp.zeros(2)}
    with open_store(tmp_path) as store:
        store.save(9, x)
        store.save(3, x, final=True)
        assert store.steps() == [3, 9]
        with pytest.raises(ValueError, match="step 3 is already saved"):
            store.save(3, x)
        store.save(3, x, final=True)  # already there: checked


@pytest.mark.parametrize("fate", ["written", "failed", "killed"])
def test_a_step_is_replaced_or_stays(tmp_path, monkeypatch, fate):
    old, new = make_state(1), make_state(2)
    store = open_store(tmp_path)
    store.save(1, old, final=True)

    def write(path, arrays, meta):
        path.with_name(f"{path.name}{step_folder.TEMPORARY}").mkdir()
        assert not path.exists()  # the way is free for the new folder
        if fate == "failed":
            raise OSError(28, "No space left on device")

    if fate != "written":
        monkeypatch.setattr(step_folder, "write", write)
    store.save(1, new, Notes({"accuracy": 0.5}), replace=True)
    if fate != "killed":
        assert store.wait() == (fate == "written")
    store = open_store(tmp_path)
    restored, meta = store.restore_newest(TARGET)
    assert bits(restored) == bits(new if fate == "written" else old)
    assert meta.evaluated == (fate == "written")
    assert store.ranked_steps() == ([1] if fate == "written" else [])
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_an_evaluation_without_the_ranking_metric_is_an_error(tmp_path):
    with (
        open_store(tmp_path) as store,
        pytest.raises(ValueError, match=r"'accuracy'.* has only loss"),
    ):
        store.save(1, {"x": jnp.zeros(2)}, Notes({"loss": 1.0}))


def test_an_orbax_that_keeps_several_processes_from_writing_is_refused_in_a_line(monkeypatch):
    monkeypatch.delattr(execution, "_check_directory_consistency")
    with pytest.raises(SaveError, match=rf"Orbax {ocp.__version__} cannot write in one of several"):
        step_folder._write_alone.__wrapped__()


@pytest.mark.parametrize("where", ["at once", "in the background", "without a word"])
def test_failed_saves_are_logged_survived_and_then_stop_the_run(
    tmp_path, monkeypatch, caplog, where
):
    x = {"x": jnp.zeros(2)}
    real = step_folder.write

    class Response:
        def result(self):
            if where == "in the background":
                raise OSError(28, "No space left on device")

    def fail(path, arrays, meta):
        path.with_name(f"{path.name}{step_folder.TEMPORARY}").mkdir()
        if where == "at once":
            raise OSError(28, "No space left on device")
        return Response()

    with open_store(tmp_path) as store:
        for first in (10, 20):
            store.save(first, x, final=True)
            monkeypatch.setattr(step_folder, "write", fail)
            store.save(first + 1, x)
            assert not store.wait()
            store.save(first + 2, x)
            monkeypatch.setattr(step_folder, "write", real)
        assert [record.levelname for record in caplog.records].count("ERROR") >= 3
        assert "step 11 was not written" in caplog.text
        store.save(30, x, final=True)  # a success in between: counted anew
        assert store.steps() == [20, 30]
        monkeypatch.setattr(step_folder, "write", fail)
        with pytest.raises(CheckpointError, match="step 31 was not written"):
            store.save(31, x, final=True)
        store.save(32, x)
        with pytest.raises(CheckpointError, match=r"3 saves in a row failed.*step 30"):
            store.save(33, x, final=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["20", "30"]
        with pytest.raises(CheckpointError, match="was not written"):
            store.close()
        monkeypatch.setattr(step_folder, "write", real)
        store.save(35, x)


def test_a_final_save_is_read_back(tmp_path, monkeypatch):
    real = step_folder.write

    class Damaging:
        def __init__(self, path, response):
            self.path, self.response = path, response

        def result(self):
            self.response.result()
            largest = max(files_of(self.path), key=lambda file: file.stat().st_size)
            content = bytearray(largest.read_bytes())
            content[len(content) // 2] ^= 1
            largest.write_bytes(content)

    monkeypatch.setattr(step_folder, "write", lambda path, *rest: Damaging(path, real(path, *rest)))
    with open_store(tmp_path) as store, pytest.raises(CheckpointError, match="checksum differs"):
        store.save(1, {"x": jnp.ones(10_000)}, final=True)


def test_a_full_disk_is_survived_and_older_steps_stay(tmp_path):
    """Files limited to 100 kB by the kernel, in a process that saves 0.5 MB."""
    process = run_saver("full", tmp_path, 100_000, 2)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "last False" in output and "steps [1, 4]" in output
    assert errors.count("was not written") == 2
    assert verify(tmp_path) == [(1, True, ""), (4, True, "")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "4"]


def test_a_disk_that_stays_full_stops_the_run(tmp_path):
    process = run_saver("full", tmp_path, 100_000, 5)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "stopped 3 saves in a row failed" in output and "step 1" in output
    assert verify(tmp_path) == [(1, True, "")]


def test_remains_of_dead_saves_are_removed_on_opening(tmp_path):
    (tmp_path / f"5{step_folder.TEMPORARY}" / "state").mkdir(parents=True)
    (tmp_path / f"3{step_folder.TEMPORARY}-dropped").mkdir()
    (tmp_path / "notes").mkdir()
    assert open_store(tmp_path).steps() == []
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_saving_and_restoring_say_nothing(tmp_path, caplog, capfd, recwarn):
    with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, logger="absl"):
        with open_store(tmp_path) as store:
            store.save(1, make_state(1))
            store.save(2, make_state(2), final=True)
            store.restore_newest(TARGET)
        logging.getLogger("absl").info("others are still heard")
    assert [record.getMessage() for record in caplog.records] == ["others are still heard"]
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("name", ["[test]", "back\\slash", "*", "a?", "gs:", "\udcff", "new\nline"])
def test_a_folder_of_any_name_keeps_its_steps(name, tmp_path):
    """Orbax and TensorStore read names as patterns and as addresses."""
    for other in ("t", "aa", "x"):  # what the patterns would find
        (tmp_path / other).mkdir()
    state = {"a": jnp.arange(5.0), "b": {"c": jnp.ones((2, 2))}}
    with open_store(tmp_path / name / "checkpoints", ranking=None) as store:
        store.save(1, state)
        store.save(2, state, final=True)
    with open_store(tmp_path / name / "checkpoints", ranking=None) as store:
        restored, meta_of = store.restore_newest(state)
    assert meta_of.step == 2 and np.array_equal(restored["a"], state["a"])
    assert step_folder.list_steps(tmp_path / name / "checkpoints") == [1, 2]
    del store
    gc.collect()
    links = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
    assert not [link for link in links if link.startswith(str(tmp_path))], "left open"


def test_ctrl_c_while_a_step_is_read_is_no_damage(tmp_path, monkeypatch):
    """Orbax makes an error of its own of a KeyboardInterrupt."""

    def interrupted(*_):
        try:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)
        except BaseException as error:
            raise ValueError("incompatible handler") from error
        raise ValueError("incompatible handler")

    monkeypatch.setattr(ocp.v1, "load_checkpointables", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            step_folder._load(tmp_path / "1", {})
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_late_answers_to_a_failed_save_are_not_printed(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    step_folder._silence()
    for text in ("Event loop is closed", "a bug"):
        error = RuntimeError(text)
        sys.unraisablehook(types.SimpleNamespace(exc_type=RuntimeError, exc_value=error))
    assert [str(found.exc_value) for found in told] == ["a bug"]


def test_leaves_that_tensorstore_cannot_read_are_not_printed_one_by_one(caplog):
    """Of a damaged folder asyncio printed a hundred tracebacks beside the one line."""
    step_folder._silence()
    for text in ('NOT_FOUND: Error opening "cast" driver: Error opening "zarr3" driver', "a bug"):
        logging.getLogger("asyncio").error("never retrieved", exc_info=ValueError(text))
    assert [str(record.exc_info[1]) for record in caplog.records] == ["a bug"]


def test_without_a_way_round_a_name_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(step_folder.os.path, "isdir", lambda path: False)
    with pytest.raises(ValueError, match=r"choose a name without \* \? \[ \] : "):
        open_store(tmp_path / "[a]")


@pytest.mark.parametrize("lacking", ["locks", "sync of folders"])
def test_file_systems_without_locks_and_syncs_keep_steps_too(lacking, tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    module, name = (fcntl, "lockf") if lacking == "locks" else (step_folder.os, "fsync")
    context = tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT
    monkeypatch.setattr(tensorstore_utils, "_DEFAULT_OCDBT_TS_CONTEXT", dict(context))
    monkeypatch.setattr(module, name, unsupported)
    state = {"a": jnp.arange(5.0)}
    with open_store(tmp_path / "run", ranking=None) as store:
        store.save(1, state, final=True)
        assert np.array_equal(store.restore_newest(state)[0]["a"], state["a"])
    changed = tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT
    assert changed["file_io_sync"] is False and changed["file_io_locking"] == {"mode": "lockfile"}
    monkeypatch.delattr(tensorstore_utils, "_DEFAULT_OCDBT_TS_CONTEXT")  # another Orbax
    refused = pytest.raises(SaveError, match=r"cannot lock files or sync folders, and Orbax")
    with open_store(tmp_path / "other", ranking=None) as store, refused:
        store.save(1, state)
