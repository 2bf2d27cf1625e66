"""Generation over the cores: the same whatever the workers and whatever was there before."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_shards import Traces

from ssm_jax.data.examples import Ragged
from ssm_jax.lra import listops_generator, shards
from ssm_jax.lra.listops_generator import SHARD_ROWS, Spec

ROOT = Path(__file__).resolve().parents[2]
SHORT = Spec(n_train=2_100, n_val=300, n_test=200, shorter_than=60, longer_than=10)


def generate(spec, folder, workers=1):
    return listops_generator.generate(spec, folder, workers=workers, advance=lambda n: None)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for split in a:
        for part in ("tokens", "offsets", "targets"):
            np.testing.assert_array_equal(getattr(a[split], part), getattr(b[split], part))


def test_the_result_does_not_depend_on_the_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(listops_generator, "_IN_PROCESS_TOKENS", 0)
    alone = generate(SHORT, tmp_path / "1")
    assert_same(alone, generate(SHORT, tmp_path / "2", workers=2))
    assert_same(alone, generate(SHORT, tmp_path / "3", workers=3))
    assert list(alone) == ["train", "val", "test"]
    assert [len(rows) for rows in alone.values()] == [2_100, 300, 200]


def test_no_expression_occurs_twice_and_the_first_stays(tmp_path):
    """Short expressions repeat often; the splits are the first distinct ones in shard order."""
    spec = Spec(n_train=900, n_val=50, n_test=50, shorter_than=8, longer_than=3)
    splits = generate(spec, tmp_path)
    rows = [row for split in splits.values() for row in split.rows()]
    assert len({tokens for tokens, _ in rows}) == len(rows) == 1_000
    drawn = [
        row
        for path in sorted(tmp_path.glob("*.npz"))
        for row in Ragged(**shards.finish(spec, tmp_path, int(path.stem))).rows()
    ]
    assert len(drawn) > 1_000
    assert rows == list(dict.fromkeys(drawn))[:1_000]


def test_finished_shards_are_kept_and_damaged_ones_are_drawn_again(tmp_path, monkeypatch):
    whole = generate(SHORT, tmp_path)
    files = sorted(tmp_path.glob("*.npz"))
    assert len(files) == 3
    original = files[0].read_bytes()
    files[0].write_bytes(original[:-100])
    files[1].unlink()
    drawn = []
    generate_shard = listops_generator.generate_shard
    monkeypatch.setattr(
        listops_generator,
        "generate_shard",
        lambda spec, k: drawn.append(k) or generate_shard(spec, k),
    )
    assert_same(whole, generate(SHORT, tmp_path))
    assert drawn == [0, 1]
    assert shards.load(SHORT, tmp_path, 0) is not None


def test_asking_for_more_than_there_are_is_an_error(tmp_path):
    """[op d d] with 4 operators: 400 expressions, and 10 digits."""
    spec = Spec(n_train=500, shorter_than=9, longer_than=0, max_depth=2, max_args=2)
    with pytest.raises(ValueError, match=r"only 4\d\d distinct ListOps expressions"):
        generate(spec, tmp_path)


def test_a_worker_that_fails_is_reported_in_one_line(tmp_path):
    spec = Spec(shorter_than=60, longer_than=10)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a ListOps worker failed: NotADirectoryError"):
        shards.run_workers(spec, tmp_path / "file", range(3), 2, lambda n: None)


def test_progress_counts_every_expression_once(tmp_path, monkeypatch):
    monkeypatch.setattr(listops_generator, "_IN_PROCESS_TOKENS", 0)
    for expected_drawn in (3, 0):  # a second time all shards are there
        told = []
        listops_generator.generate(SHORT, tmp_path, workers=2, advance=told.append)
        assert sum(told) == 3 * SHARD_ROWS, expected_drawn


def run(script, folder):
    """Start a script of a user, without a guard, that imports JAX; Traces is known in it."""
    script = (
        "import signal, sys, jax\n"
        # A shell that starts the tests in the background has them ignore Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from small_shards import Traces\n"
        "from ssm_jax.lra.shards import fill\n"
        "print('started', flush=True)\n"
        f"fill({script}, Path({str(folder / 'shards')!r}), range(4), 2, lambda n: None)\n"
        "print('finished', 'main' if __spec__ is None and __file__ else 'spoilt')\n"
    )
    path = folder / "script.py"
    path.write_text(script)
    return subprocess.Popen(
        [sys.executable, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as of a terminal
    )


def traces(folder):
    """What the shards that are there say: {process: whether it had imported something heavy}."""
    found = {}
    for path in folder.glob("shards/*.npz"):
        arrays = shards.load(Traces(), path.parent, int(path.stem))
        if arrays is not None:
            found[int(arrays["process"][0])] = bool(arrays["heavy"].any())
    return found


def test_workers_import_no_jax_though_the_caller_did_and_do_not_run_its_script(tmp_path):
    process = run("Traces(0.5)", tmp_path)
    out, err = process.communicate(timeout=120)
    assert (out, err) == ("started\nfinished main\n", "")
    found = traces(tmp_path)
    assert found and process.pid not in found and not any(found.values())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_caller_however_it_ends(tmp_path, number):
    """Killed, or by a Ctrl-C that reaches all processes of the group: one traceback, of one."""
    process = run("Traces(60.0)", tmp_path)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("shards/*.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = list(traces(tmp_path))
    assert workers
    time.sleep(0.2)  # in the midst of the next shards
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert err.count("Traceback") == (number == signal.SIGINT)
    assert "KeyboardInterrupt" in err or number == signal.SIGKILL
    while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(alive(worker) for worker in workers)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_worker_that_is_killed_is_an_error_and_not_waited_for(tmp_path):
    with pytest.raises(ValueError, match="a Traces worker failed: it was killed"):
        shards.fill(Traces(end=True), tmp_path, range(4), 2, lambda n: None)


def test_a_worker_loads_neither_jax_nor_the_data_libraries():
    code = (
        "import sys, ssm_jax.lra.shards;"
        "print([m for m in ('jax', 'grain', 'tensorflow_datasets', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("damage", ["bit", "header", "encrypted"])
def test_no_damage_of_a_shard_gets_into_the_data_or_stops_them(tmp_path, damage):
    """A header that says too long a header cuts the array, and a cut one has no checksum read."""
    arrays = shards.finish(SHORT, tmp_path, 0)
    path = tmp_path / "000000.npz"
    data = bytearray(path.read_bytes())
    at = data.index(b"\x93NUMPY\x01\x00v\x00")
    if damage == "header":
        data[at + 8] = ord("V")
    if damage in ("header", "bit"):
        data[at + 1_000] ^= 1
    else:
        data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert shards.load(SHORT, tmp_path, 0) is None
    again = shards.finish(SHORT, tmp_path, 0)
    assert all((again[name] == arrays[name]).all() for name in arrays)
