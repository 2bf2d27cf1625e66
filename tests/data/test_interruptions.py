"""Preparing ListOps: interrupted anywhere it ends in the same bytes, and it never half exists."""

import errno
import signal
import subprocess
import time

import numpy as np
import pytest
from small_listops import SMALL, arguments_of, folder_bytes, folder_of, generated

from ssm_jax.data import builder, store
from ssm_jax.data import prepare as recipe
from ssm_jax.lra import shards
from ssm_jax.lra.listops import Spec


def test_of_two_preparations_at_once_one_waits(tmp_path, start_script):
    """As the jobs of a sweep, which begin at the same time."""
    folder = folder_of(SMALL, tmp_path)
    with store.locked(folder.with_name(f".{folder.name}.lock")):
        process = start_script(*arguments_of(SMALL, tmp_path))
        line = process.stderr.readline()
        assert "is preparing the same data" in line and process.poll() is None
        assert not folder.exists()
    assert process.wait(60) == 0 and folder.is_dir()
    process.communicate()


def written(work):
    """When each finished shard was."""
    return {p.name: p.stat().st_mtime_ns for p in work.glob("shards/*.npz")}


def test_a_killed_generation_goes_on_from_its_finished_shards(
    tmp_path, monkeypatch, start_script, run_script
):
    """kill -9 in the midst of the shards, with two workers; no finished shard is drawn again."""
    spec = Spec(n_train=4_600, n_val=200, n_test=200, longer_than=60)
    folder = folder_of(spec, tmp_path / "a")
    work = folder.with_name(f".{folder.name}.work")
    process = start_script(*arguments_of(spec, tmp_path / "a"), "--workers=2")
    deadline = time.monotonic() + 60
    while not list(work.glob("shards/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = written(work)
    assert finished and len(finished) < 5
    assert not folder.exists()
    shown = run_script("list", f"--data_dir={tmp_path / 'a'}")[1]
    assert f"{work}: unfinished; the command that began it goes on" in shown
    times = {}

    def look(*arguments):
        times.update(written(work))
        write_store(*arguments)

    write_store = recipe.write_store
    monkeypatch.setattr(recipe, "write_store", look)
    recipe.prepare(generated(spec, tmp_path / "a"), tmp_path / "a")
    assert len(times) == 5 and times.items() >= finished.items()
    assert store.unfinished(tmp_path / "a", "listops") == []
    whole = recipe.prepare(generated(spec, tmp_path / "b"), tmp_path / "b")
    assert folder_bytes(folder) == folder_bytes(whole)


def test_killed_at_many_moments_it_ends_in_the_same_bytes(small_data_dir, tmp_path, start_script):
    """kill -9 after 0.1 s, 0.12 s, ...: in the imports, the shards, the store."""
    folder = folder_of(SMALL, tmp_path)
    kills = 0
    for delay in 0.1 * 1.2 ** np.arange(36):  # until one is long enough
        process = start_script(*arguments_of(SMALL, tmp_path))
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            if folder.exists():
                store.verify_store(folder)
            continue
        process.communicate()
        break
    assert kills >= 2
    assert process.returncode == 0
    whole = folder_of(SMALL, small_data_dir)
    assert folder_bytes(folder) == folder_bytes(whole)
    recipe.prepare(generated(SMALL, tmp_path), tmp_path)  # sweeps up if a kill fell after the store
    assert {p.name for p in folder.parent.iterdir()} == {folder.name, f".{folder.name}.lock"}


def test_an_interrupt_leaves_no_store_and_says_how_to_go_on(tmp_path, start_script):
    spec = Spec(n_train=20_000)
    process = start_script(*arguments_of(spec, tmp_path), "--workers=2")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("listops/.*/shards/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on" in err and "Traceback" not in err
    assert not folder_of(spec, tmp_path).exists()


def half(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_tfds(data_set):
    """As array_record fails, in a folder of its own."""
    folder = data_set.data_path
    folder.with_name(f"incomplete.X_{folder.name}").mkdir(parents=True)
    raise RuntimeError("Failed to finalize: write() failed: No space left on device; at byte 7")


@pytest.mark.parametrize("stage", ["shard", "tfds", "store"])
def test_a_full_disk_leaves_nothing_half_written_and_the_same_command_goes_on(
    small_data_dir, tmp_path, monkeypatch, run_script, stage
):
    folder = folder_of(SMALL, tmp_path)
    with monkeypatch.context() as full:
        if stage == "tfds":
            full.setattr(builder.SequenceBuilder, "download_and_prepare", half_tfds)
        else:
            module, name = {"shard": (shards.np, "savez"), "store": (store.np, "save")}[stage]
            full.setattr(module, name, half)
        tfds = ["--tfds"] if stage == "tfds" else []
        code, _, err = run_script(*arguments_of(SMALL, tmp_path), *tfds)
    assert code == 2
    assert [line for line in err if line.startswith("error: ")] == [err[-1]]
    assert err[-1] == (
        f"error: {folder}: not prepared (No space left on device); make room, then run "
        "the same command again: it goes on from there."
    )
    left = {p.name for p in tmp_path.rglob("*") if not p.name.startswith(".")}
    if stage == "tfds":  # the store was whole before
        assert not list((tmp_path / "tfds/ssm_jax_listops" / folder.name).iterdir())
    else:
        assert stage == "store" or left <= {"listops", "shards", "000000.npz"}
        assert not folder.exists() and "store" not in left
    recipe.prepare(generated(SMALL, tmp_path), tmp_path, tfds=stage == "tfds")
    assert folder_bytes(folder) == folder_bytes(folder_of(SMALL, small_data_dir))
