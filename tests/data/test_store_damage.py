"""Prepared data are what their hash says: whatever was done to them is named and refused."""

import json
import os
import pickle
import shutil
import threading
import time

import data_options
import numpy as np
import pytest
from small_examples import made_of, recipe_for
from small_listops import SMALL, flip, folder_of, generated

from ssm_jax.data import store
from ssm_jax.data import store as mapped
from ssm_jax.data.dataset import open_dataset
from ssm_jax.data.loader import Order, eval_batches, train_batches
from ssm_jax.data.manifest import seal
from ssm_jax.data.prepare import DataPaths, prepare
from ssm_jax.lra.catalog import open_data

OPTIONS = data_options.options(
    seed=3, n_train=170, n_val=50, n_test=30, padded_length=64,
    listops={"shorter_than": 60, "longer_than": 10, "max_depth": 10, "max_args": 10},
)  # fmt: skip


@pytest.fixture
def data_dir(small_data_dir, tmp_path):
    """A folder of its own with the small ListOps."""
    return shutil.copytree(small_data_dir, tmp_path / "data")


@pytest.fixture
def folder(data_dir):
    return folder_of(SMALL, data_dir)


def edited(change):
    """A damage that changes entries of the manifest."""

    def damage(folder):
        path = folder / "manifest.json"
        entries = json.loads(path.read_text())
        change(entries)
        path.write_text(json.dumps(entries, indent=2) + "\n")

    return damage


def header(old, new):
    """A damage that changes a word of the header of targets.npy and not its length."""

    def damage(folder):
        data = (folder / "targets.npy").read_bytes()
        assert data.count(old) == 1
        cut = new + b" " * (len(old) - len(new))
        (folder / "targets.npy").write_bytes(data.replace(old, cut)[: len(data)])

    return damage


def zeroed(folder):
    data = (folder / "targets.npy").read_bytes()
    (folder / "targets.npy").write_bytes(data[:128] + bytes(len(data) - 128))


def set_back(folder):
    """As `touch -r` does."""
    path = folder / "tokens.npy"
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swapped(folder):
    one, two = (folder / f"split.{split}.npy" for split in ("val", "test"))
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)


def dangling(folder):
    (folder / "targets.npy").unlink()
    (folder / "targets.npy").symlink_to("nowhere")


def instead(make):
    def damage(folder):
        (folder / "targets.npy").unlink()
        make(folder / "targets.npy")

    return damage


def of_another(folder):
    """The whole store of another recipe in this one's place."""
    data_dir = folder.parents[1]
    other = prepare(recipe_for(made_of("tokens"), task="listops"), data_dir)
    shutil.rmtree(folder)
    other.rename(folder)


def manifest_of_another(folder):
    other = prepare(recipe_for(made_of("tokens"), task="listops"), folder.parents[1])
    shutil.move(other / "manifest.json", folder / "manifest.json")
    shutil.rmtree(other)


def linked_and_flipped(folder):
    (folder / "targets.npy").rename(folder.parents[1] / "elsewhere.npy")
    (folder / "targets.npy").symlink_to(folder.parents[1] / "elsewhere.npy")
    flip(folder.parents[1] / "elsewhere.npy")


def sealed(change):
    """As `edited`, by somebody who also makes the seal again, or by a version without seals."""

    def again(entries):
        change(entries)
        entries["entries_sha256"] = seal(entries)

    return edited(again)


DAMAGES = {
    "zeroed": (zeroed, "targets.npy has changed"),
    "one bit": (lambda f: flip(f / "tokens.npy"), "tokens.npy has changed"),
    "one bit, times set back": (set_back, "tokens.npy has changed"),
    "one bit behind a link": (linked_and_flipped, "targets.npy has changed"),
    "cut short": (lambda f: os.truncate(f / "tokens.npy", 200), "tokens.npy has"),
    "longer": (lambda f: os.truncate(f / "tokens.npy", 10**6), "tokens.npy has"),
    "files swapped": (swapped, r"split\.\w+.npy has"),
    "header: shape": (header(b"(250,)", b"(25,)"), "has changed|which are not 378 bytes"),
    "header: huge": (header(b"'shape': (250,), }", b"'shape': (9**9,)}"), "targets.npy|damaged"),
    "header: type": (header(b"|u1", b"|i1"), "must be uint8|has changed"),
    "header: order": (header(b"False", b"True"), "by columns|has changed"),
    "header: magic": (header(b"\x93NUMPY\x01", b"\x93NUMPY\x03"), "cannot be read|has changed"),
    "header: no end": (header(b", }", b"(, "), "cannot be read|has changed"),
    "header: code": (header(b"(250,)", b"exec()"), "damaged|has changed"),
    "dangling link": (dangling, "targets.npy has"),
    "a folder": (instead(os.mkdir), "targets.npy has"),
    "a pipe": (instead(os.mkfifo), "targets.npy has"),
    "another recipe's": (of_another, "holds generated listops|that of another folder"),
    "another's manifest": (manifest_of_another, "holds generated small|holds gen"),
    "counts": (edited(lambda m: m["splits"].update(val=49)), "manifest says 49|has changed"),
    "classes": (edited(lambda m: m.update(n_classes=11)), "manifest.json has changed"),
    "provenance": (edited(lambda m: m.update(detail="official")), "manifest.json has changed"),
    "source": (edited(lambda m: m.update(source="official")), "holds official|has changed"),
    "parameters": (edited(lambda m: m["parameters"].update(seed=4)), "holds gen|has changed"),
    "parameters, sealed": (sealed(lambda m: m["parameters"].update(seed=4)), "holds|of another"),
    "seal": (edited(lambda m: m.update(entries_sha25=m.pop("entries_sha256"))), "has changed"),
    "fingerprint": (sealed(lambda m: m.update(sha256="0" * 64)), "manifest.json has changed"),
    "order of files": (
        sealed(lambda m: m.update(files=dict(reversed(m["files"].items())))), "has changed"
    ),
    "a file not listed": (edited(lambda m: m["files"].pop("targets.npy")), "lists offsets"),
    "another file listed": (
        edited(lambda m: m["files"].update({"../x": m["files"]["targets.npy"]})), "it lists"
    ),
    "classes as text": (edited(lambda m: m.update(n_classes="10")), "'n_classes' is '10'"),
    "no kind": (edited(lambda m: m.pop("kind")), "'kind' is None"),
    "bytes as text": (edited(lambda m: m["files"].update({"targets.npy": {}})), "'files' is"),
    "no object": (lambda f: (f / "manifest.json").write_text("[1]"), "holds no entries"),
    "deep": (lambda f: (f / "manifest.json").write_text("[" * 10**5), "manifest.json is damaged"),
    "empty": (lambda f: (f / "manifest.json").write_text(""), "manifest.json is damaged"),
    "no text": (lambda f: (f / "manifest.json").write_bytes(b"\xff"), "manifest.json is damaged"),
    "huge": (lambda f: os.truncate(f / "manifest.json", 1 << 30), "more than 16,777,216 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_refused_when_opened_and_by_verification(
    data_dir, folder, run_script, name
):
    """In one line that names the file, or the folder, and the command that prepares it again."""
    damage, message = DAMAGES[name]
    damage(folder)
    command = "ssm-jax prepare listops --source=generated"
    with pytest.raises(ValueError, match=message) as caught:
        open_data("listops", OPTIONS, DataPaths(data_dir))
    code, out, err = run_script("verify", "listops", f"--data_dir={data_dir}")
    assert (code, out, len(err)) == (2, "", 1)
    for line in (str(caught.value), err[0]):
        assert str(folder) in line and "\n" not in line
        assert f"delete {folder} and prepare it again: {command} --data_dir={data_dir}" in line
    code, out, _ = run_script("list", f"--data_dir={data_dir}")
    assert code == 0 and f"  {folder}: " in out


def test_a_lost_manifest_and_files_that_do_not_belong_are_named(data_dir, folder, run_script):
    (folder / "more.npy").write_bytes(b"")
    code, _, err = run_script("verify", "listops", f"--data_dir={data_dir}")
    assert code == 2 and len(err) == 1 and "more.npy is not in the list of " in err[0]
    (folder / "manifest.json").unlink()
    code, _, err = run_script("verify", "listops", f"--data_dir={data_dir}")
    assert code == 2 and len(err) == 1 and "manifest.json is missing; delete " in err[0]
    assert run_script("list", f"--data_dir={data_dir}")[0] == 0


def test_a_store_of_an_older_version_is_opened_and_has_its_fingerprint(data_dir, folder):
    """Its manifest has no seal and no stamp."""
    before = open_data("listops", OPTIONS, DataPaths(data_dir)).fingerprint
    edited(lambda m: [m.pop("entries_sha256"), m.pop("stamp")])(folder)
    assert open_data("listops", OPTIONS, DataPaths(data_dir)).fingerprint == before


@pytest.mark.parametrize("what", ["data", "task", "store", "array"])
def test_links_are_followed(data_dir, folder, run_script, what):
    path = {"data": data_dir, "task": folder.parent, "store": folder}
    path = path.get(what, folder / "targets.npy")
    aside = data_dir.with_name("aside")
    path.rename(aside)
    path.symlink_to(aside)
    data = open_data("listops", OPTIONS, DataPaths(data_dir))
    assert data.size("train") == 170
    code, out, _ = run_script("verify", "listops", f"--data_dir={data_dir}")
    assert code == 0 and f"{folder} is as it was written" in out
    if what in ("store", "array"):
        assert f"{path} is a link to {aside}" in out
    if what != "array":
        (shutil.rmtree if aside.is_dir() else os.unlink)(aside)
        with pytest.raises(FileNotFoundError, match=r"is a link to .*aside, which is not there"):
            open_data("listops", OPTIONS, DataPaths(data_dir))
        if what != "data":  # nothing was made in its place
            assert path.is_symlink() and not path.exists()


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path):
    (tmp_path / "listops").write_text("")
    with pytest.raises(OSError, match=r"listops is not a folder; move it away"):
        open_data("listops", OPTIONS, DataPaths(tmp_path))


class TestNotes:
    """A store that was compared is not read again while its files are the same."""

    @pytest.fixture(autouse=True)
    def noted(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(store, "_NOTED", 0)
        monkeypatch.setattr(store, "_RACY", -1.0)
        self.cache = tmp_path / "cache" / "ssm_jax" / "compared"
        self.compared = []
        sha256 = mapped.MappedFile.sha256
        monkeypatch.setattr(
            mapped.MappedFile, "sha256", lambda f: self.compared.append(f.path.name) or sha256(f)
        )

    def compares(self, folder):
        self.compared.clear()
        store.Store(folder)
        return len(self.compared)

    def test_once_for_each_state_of_the_files(self, folder):
        assert [self.compares(folder) for _ in range(3)] == [6, 0, 0]
        (note,) = self.cache.iterdir()
        for damaged in (note.read_bytes()[:-1], b"", note.read_bytes() + b" ", b"\0" * 9):
            note.write_bytes(damaged)
            assert [self.compares(folder) for _ in range(2)] == [6, 0]
        os.utime(folder / "tokens.npy")
        assert [self.compares(folder) for _ in range(2)] == [6, 0]
        set_back(folder)
        with pytest.raises(ValueError, match=r"tokens.npy has changed"):
            store.Store(folder)
        shutil.copy(folder / "offsets.npy", folder / "x")
        (folder / "x").replace(folder / "offsets.npy")

    def test_an_edited_manifest_has_no_note(self, folder):
        self.compares(folder)
        edited(lambda m: m["files"]["tokens.npy"].update(sha256="0" * 64))(folder)
        with pytest.raises(ValueError, match=r"manifest.json has changed"):
            store.Store(folder)

    def test_not_where_it_cannot_be_written_and_not_for_what_was_just_written(
        self, folder, monkeypatch
    ):
        monkeypatch.setattr(store, "_RACY", 60.0)
        assert [self.compares(folder) for _ in range(2)] == [6, 6]
        monkeypatch.setattr(store, "_RACY", -1.0)
        self.cache.parent.parent.write_text("no folder")
        assert [self.compares(folder) for _ in range(2)] == [6, 6]
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        monkeypatch.setenv("HOME", "nowhere")
        assert [self.compares(folder) for _ in range(2)] == [6, 6]

    def test_many_at_once_do_not_tear_it(self, folder):
        errors = []

        def go():
            try:
                for _ in range(20):
                    store.Store(folder)
                    for note in self.cache.glob("*"):
                        note.unlink(missing_ok=True) if note.is_file() else None
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert [self.compares(folder) for _ in range(2)][1] == 0
        assert len([p for p in self.cache.iterdir() if p.is_file()]) == 1


class TestWhileOpen:
    """What is done to the files of a data set that is in use."""

    def test_what_is_put_in_their_place_changes_nothing(self, folder):
        data = open_dataset(folder, 64)
        before = data.gather("train", np.arange(170))
        for path in folder.iterdir():
            path.with_name("new").write_bytes(b"x" * path.stat().st_size)
            path.with_name("new").replace(path)
        shutil.rmtree(folder)
        data.check_unchanged()
        after = data.gather("train", np.arange(170))
        assert all((after[key] == before[key]).all() for key in before)

    def test_a_pickled_data_set_holds_copies(self, folder):
        data = open_dataset(folder, 64)
        copy = pickle.loads(pickle.dumps(data))
        copy.check_unchanged()
        assert copy.fingerprint == data.fingerprint
        assert (copy.gather("val", [3])["inputs"] == data.gather("val", [3])["inputs"]).all()

    @pytest.mark.parametrize("damage", [zeroed, set_back])
    def test_no_number_is_made_of_files_that_are_written_to(self, folder, damage):
        data = open_dataset(folder, 64)
        assert len(list(eval_batches(data, "val", 25, (64,)))) == 2
        time.sleep(0.02)  # two ticks of the kernel's clock
        damage(folder)
        with pytest.raises(ValueError, match=r"s.npy has changed since it was written"):
            eval_batches(data, "val", 25, (64,))

    def test_no_batch_is_made_of_them(self, folder):
        """Up to a few are ahead, gathered before."""
        data = open_dataset(folder, 64)
        order = Order(data.lengths("train"), 25, 0, (64,))
        whole = [data.gather("train", *order.batch(step))["targets"] for step in range(12)]
        batches = train_batches(data, "train", order, 0)
        next(batches)
        time.sleep(0.02)
        zeroed(folder)
        with pytest.raises(ValueError, match=r"targets.npy has changed since it was written"):
            for step, batch in zip(range(1, 12), batches, strict=False):
                np.testing.assert_array_equal(batch["targets"], whole[step])

    def test_a_touch_is_no_change(self, folder):
        data = open_dataset(folder, 64)
        os.utime(folder / "tokens.npy", ns=(1, 1))
        (folder / "targets.npy").chmod(0o400)
        data.check_unchanged()


def test_data_are_opened_and_prepared_from_a_folder_that_can_only_be_read(
    data_dir, folder, monkeypatch
):
    def no(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(store, "locked", no)
    monkeypatch.setattr("ssm_jax.data.prepare.locked", no)
    assert prepare(generated(SMALL, data_dir), data_dir) == folder
    assert open_data("listops", OPTIONS, DataPaths(data_dir)).size("val") == 50
