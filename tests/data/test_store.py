"""A store is there whole or not at all, and damage is noticed."""

import dataclasses
import json
import os
import threading
import time

import numpy as np
import pytest
from small_examples import EXAMPLES, KIND, SPLITS, VOCABULARY, made_of
from small_listops import flip, folder_bytes

from ssm_jax.commands.data import table_of
from ssm_jax.data import store
from ssm_jax.data.examples import Ragged
from ssm_jax.data.manifest import read_manifest, seal, sha256_of_all
from ssm_jax.data.release import sha256_of

FILES = {
    "tokens": ("tokens", "offsets", "targets"),
    "wide tokens": ("tokens", "offsets", "targets"),
    "images": ("pixels", "targets"),
    "pairs": ("tokens", "offsets", "first", "second", "targets"),
}


def write(folder, name="tokens", header=None):
    store.write_store(
        folder, folder.parent / "tmp", made_of(name), header or {"task": "t", "source": "s"}
    )
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "a")


def seal_again(folder, **changes):
    """Have the manifest say that the files, and other entries, are what was written."""
    path = folder / "manifest.json"
    entries = {**json.loads(path.read_text()), **changes}
    for name, entry in entries["files"].items():
        entry |= {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
    entries["sha256"] = sha256_of_all(entries["files"])
    path.write_text(json.dumps({**entries, "entries_sha256": seal(entries)}))


def assert_equal_examples(a, b):
    assert type(a) is type(b)
    for field in dataclasses.fields(a):
        one, two = getattr(a, field.name), getattr(b, field.name)
        assert one.dtype == two.dtype, field.name
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_written_is_read(tmp_path, name):
    folder = write(tmp_path / "a", name)
    opened = store.Store(folder)
    manifest, content = opened.manifest, opened.content
    examples, splits = content.examples, content.splits
    assert_equal_examples(examples, EXAMPLES[name])
    assert splits.keys() == SPLITS.keys()
    for split, numbers in SPLITS.items():
        assert splits[split].dtype == np.int64
        np.testing.assert_array_equal(splits[split], numbers)
    assert manifest["splits"] == {"train": 6, "val": 3, "test": 3}
    assert (manifest["task"], manifest["kind"], manifest["n_classes"]) == ("t", KIND[name], 3)
    assert manifest["detail"] == f"small {name}"
    assert manifest["facts"] == {"sha256": {"a file": "its hash"}}
    assert tuple(manifest["vocabulary"]) == VOCABULARY[name]
    store.verify_store(folder)
    names = {f"{file}.npy" for file in (*FILES[name], *(f"split.{split}" for split in SPLITS))}
    assert {p.name for p in folder.iterdir()} == names | {"manifest.json"}
    assert not (tmp_path / "tmp").exists()


@pytest.mark.parametrize("name", EXAMPLES)
def test_arrays_are_mapped_and_not_loaded(tmp_path, name):
    examples = store.Store(write(tmp_path / "a", name)).content.examples
    for file in FILES[name]:
        assert isinstance(getattr(examples, file).base, np.memmap)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_same_data_give_the_same_bytes_and_other_data_another_hash(tmp_path, name):
    write(tmp_path / "a", name)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "leftover").write_text("from a writer that was killed")
    write(tmp_path / "b", name)
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")
    made = made_of(name)
    targets = (made.examples.targets + 1) % 3
    others = [
        dataclasses.replace(made, examples=dataclasses.replace(made.examples, targets=targets)),
        dataclasses.replace(made, splits={**SPLITS, "val": SPLITS["val"][::-1]}),
    ]
    for number, other in enumerate(others):
        store.write_store(
            tmp_path / f"c{number}", tmp_path / "tmp", other, {"task": "t", "source": "s"}
        )
    hashes = [read_manifest(tmp_path / k)["sha256"] for k in ("a", "b", "c0", "c1")]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


@pytest.mark.parametrize("stage", ["save", "replace"])
def test_a_writer_that_dies_leaves_no_store(tmp_path, monkeypatch, stage):
    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(*((store.np, "save", die) if stage == "save" else (store.os, stage, die)))
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["images", "pairs"])
def test_every_truncated_or_missing_array_is_named_with_both_sizes(tmp_path, name):
    for file in (*FILES[name], "split.val"):
        folder = write(tmp_path / file, name)
        path = folder / f"{file}.npy"
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(
            ValueError, match=rf"{file}.npy has {size - 1} bytes.* says {size}; delete .* again"
        ):
            store.Store(folder)
        path.unlink()
        with pytest.raises(ValueError, match=rf"{file}.npy has 0 bytes.*prepare it again"):
            store.Store(folder)
        with pytest.raises(ValueError, match=rf"{file}.npy has 0 bytes.*prepare it again"):
            store.verify_store(folder)


@pytest.mark.parametrize("name", ["tokens", "images", "pairs"])
def test_a_flipped_bit_of_any_array_is_found_by_verification(tmp_path, name):
    for file in (*FILES[name], "split.test"):
        folder = write(tmp_path / file, name)
        store.verify_store(folder)
        flip(folder / f"{file}.npy")
        with pytest.raises(ValueError, match=rf"{file}.npy has changed"):
            store.verify_store(folder)


@pytest.mark.parametrize(
    ("name", "file", "array", "message"),
    [
        ("tokens", "offsets", lambda a: np.concatenate([a[:3], [0], a[4:]]), "must not decrease"),
        ("tokens", "targets", lambda a: a.astype(bool), "must be uint8"),
        ("pairs", "first", lambda a: a.view(np.float32), "int32 numbers"),
        ("pairs", "second", lambda a: np.where(a > 5, 12, a).astype(np.int32), r"outside 0\.\.11"),
        ("images", "pixels", lambda a: a.reshape(9, 48), r"\(9, 48\), \(12,\)"),
        ("images", "pixels", lambda a: a.view(np.int8), "must be uint8"),
        ("images", "split.val", lambda a: a + 3, r"'val' must hold .*, 0..11; got \[13\]"),
        ("images", "split.val", lambda a: a - 3, r"'val' must hold .*, 0..11; got \[-1\]"),
        ("images", "targets", lambda a: a + 1, "has the target 3; there are 3 classes"),
    ],
)
def test_arrays_of_the_right_size_that_do_not_fit_are_refused(tmp_path, name, file, array, message):
    folder = write(tmp_path / "a", name)
    path = folder / f"{file}.npy"
    size = path.stat().st_size
    np.save(path, array(np.load(path)))
    assert path.stat().st_size == size
    with pytest.raises(ValueError, match=rf"{file}.npy has changed .* and prepare it again"):
        store.Store(folder)
    seal_again(folder)
    with pytest.raises(ValueError, match=rf"{message}.*; delete .* and prepare it again"):
        store.Store(folder)


def test_a_manifest_with_another_row_count_is_refused(folder):
    seal_again(folder, splits={"train": 6, "val": 2, "test": 3})
    with pytest.raises(ValueError, match="has 3 rows, its manifest says 2"):
        store.Store(folder)


@pytest.mark.parametrize("text", ["{", '{"format": 99}', '{"format": 1, "splits": {}}'])
def test_a_damaged_or_foreign_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest.json (is damaged|has format \d+, this .* 2;)"):
        store.Store(folder)


def test_a_folder_without_a_manifest_is_no_store(folder):
    (folder / "manifest.json").unlink()
    for use in (store.Store, store.verify_store):
        with pytest.raises(FileNotFoundError, match=r"manifest.json is missing; delete .* again"):
            use(folder)


def test_pickled_arrays_are_never_loaded(folder):
    path = folder / "targets.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    seal_again(folder)
    with pytest.raises(ValueError, match=r"is damaged .*Python objects"):
        store.Store(folder)


def test_a_description_tells_sizes_steps_and_classes(tmp_path):
    """Of pairs the longer document counts, with its end of sequence."""
    made = made_of("pairs")
    steps = [1 + max(made.examples.documents.row(i).size for i in pair)
             for pair in zip(made.examples.first, made.examples.second, strict=True)]  # fmt: skip
    opened = store.Store(write(tmp_path / "a", "pairs"))
    lines = table_of(opened.facts()).splitlines()
    assert lines[0] == "small pairs"
    assert "81 token ids" in lines[1]
    for line, (split, numbers) in zip(lines[4:], SPLITS.items(), strict=True):
        found = [steps[i] for i in numbers]
        mean, median = f"{np.mean(found):.1f}", f"{np.median(found):.0f}"
        shares = [f"{100 * np.mean(made.examples.targets[numbers] == k):.1f}" for k in range(3)]
        assert line.split() == [split, str(len(found)), mean, median, str(max(found)), *shares]


def test_a_lock_is_exclusive_and_free_again_after_its_holder(tmp_path, capsys):
    path, order = tmp_path / "sub" / ".lock", []

    def second():
        with store.locked(path):
            order.append("second")

    thread = threading.Thread(target=second)
    with store.locked(path):
        thread.start()
        time.sleep(0.7)  # it looks twice
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"process {os.getpid()} is preparing the same data ({path}); waiting for it."
    path.write_text("999999\n")  # what a killed holder leaves behind
    with store.locked(path):
        pass


@pytest.mark.parametrize(
    ("tokens", "offsets", "message"),
    [
        ([1, 2, 3], [0, 2, 1, 3], "must not decrease"),
        ([1, 2, 3], [0, 1, 2], "3 targets need 4 offsets; got 3"),
        ([1, 2, 3], [0, 1, 2, 2], "from 0 to 3; they run from 0 to 2"),
    ],
)
def test_ragged_arrays_that_do_not_fit_are_refused(tokens, offsets, message):
    arrays = np.array(tokens, np.uint8), np.array(offsets, np.int64), np.zeros(3, np.uint8)
    with pytest.raises(ValueError, match=message):
        Ragged(*arrays)
