"""A store is there whole or not at all, and damage is noticed."""

import json

import numpy as np
import pytest
from small_listops import folder_bytes

from ssm_jax.data import store
from ssm_jax.data.ragged import Ragged

ROWS = {
    "train": Ragged.from_rows([(b"\x05\x06", 1), (b"\x07", 2), (b"\x08\x09\x0a", 0)]),
    "val": Ragged.from_rows([(b"\x0b", 7)]),
}


@pytest.fixture
def folder(tmp_path):
    store.write_store(tmp_path / "a", tmp_path / "tmp", ROWS, {"task": "t"})
    return tmp_path / "a"


def test_what_is_written_is_read(folder):
    manifest, splits = store.open_store(folder)
    assert manifest["task"] == "t"
    assert manifest["splits"] == {"train": 3, "val": 1}
    for split, rows in ROWS.items():
        assert list(splits[split].rows()) == list(rows.rows())
    store.verify_store(folder)
    assert not (folder.parent / "tmp").exists()


def test_the_same_data_give_the_same_bytes_and_other_data_another_hash(folder, tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "leftover").write_text("from a writer that was killed")
    store.write_store(tmp_path / "b", tmp_path / "tmp", ROWS, {"task": "t"})
    assert folder_bytes(folder) == folder_bytes(tmp_path / "b")
    other = {**ROWS, "val": Ragged.from_rows([(b"\x0b", 8)])}
    store.write_store(tmp_path / "c", tmp_path / "tmp", other, {"task": "t"})
    hashes = [store.read_manifest(tmp_path / name)["sha256"] for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("stage", ["save", "replace"])
def test_a_writer_that_dies_leaves_no_store(tmp_path, monkeypatch, stage):
    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(*((store.np, "save", die) if stage == "save" else (store.os, stage, die)))
    with pytest.raises(KeyboardInterrupt):
        store.write_store(tmp_path / "a", tmp_path / "tmp", ROWS, {})
    assert not (tmp_path / "a").exists()


def test_a_truncated_or_missing_file_is_named_with_both_sizes(folder):
    path = folder / "train.tokens.npy"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"train.tokens.npy has {size - 1} bytes.* says {size}"):
        store.open_store(folder)
    path.unlink()
    with pytest.raises(ValueError, match=r"train.tokens.npy has 0 bytes.*prepare it again"):
        store.open_store(folder)


def test_a_flipped_bit_is_found_by_verification(folder):
    path = folder / "train.tokens.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    store.open_store(folder)  # sizes are right
    with pytest.raises(ValueError, match=r"train.tokens.npy has changed"):
        store.verify_store(folder)


def test_offsets_that_do_not_fit_are_refused(folder):
    path = folder / "train.offsets.npy"
    np.save(path, np.array([0, 2, 2, 6], np.int64))
    with pytest.raises(ValueError, match=r"split 'train' .* no row may be empty"):
        store.open_store(folder)


def test_a_manifest_with_another_row_count_is_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["val"] = 2
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="has 1 rows, its manifest says 2"):
        store.open_store(folder)


@pytest.mark.parametrize("text", ["{", '{"format": 99}'])
def test_a_damaged_or_foreign_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest.json (is damaged|has format 99)"):
        store.open_store(folder)


def test_pickled_arrays_are_never_loaded(folder):
    path = folder / "val.targets.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name]["bytes"] = path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"split 'val' .* is damaged"):
        store.open_store(folder)


def test_a_lock_is_exclusive_and_free_again_after_its_holder(tmp_path):
    path = tmp_path / "sub" / ".lock"
    with (
        store.locked(path),
        pytest.raises(BlockingIOError, match=r"process \d+ is preparing the same data"),
        store.locked(path),
    ):
        pass
    path.write_text("999999\n")  # what a killed holder leaves behind
    with store.locked(path):
        pass
