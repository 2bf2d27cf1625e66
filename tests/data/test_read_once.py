"""What is kept of text files is what they hold, and is of those files as they are now."""

import os

import numpy as np
import pytest

from ssm_jax import config as config_lib
from ssm_jax.data import read_once as module
from ssm_jax.data.arrays import open_arrays
from ssm_jax.data.read_once import read_once
from ssm_jax.data.series import Columns, read

RNG = np.random.default_rng(0)
TS = "@classlabel true a b\n@data\n"


def long_csv(folder):
    lines = ["who,t,a,b,kind,part"]
    for i in range(4):
        lines += [f"p{i},{t},{RNG.normal()},{RNG.normal()},{'xy'[i % 2]},{['train', 'test'][i % 2]}"
                  for t in range(3 + i)] + [""] * (i == 1)  # fmt: skip
    (folder / "a.csv").write_text("\n".join(lines))
    return folder / "a.csv", Columns(target=("kind",), id="who", time="t", split="part")


def csv_folder(folder):
    for i in range(3):
        (folder / f"s{i}.csv").write_text(f"a,b\n{i},2.5\n\n4,NaN\n" + "7,8\n" * i)
    (folder / "labels.csv").write_text("file,target\ns2.csv,0.5\ns0.csv,1.5\ns1.csv,2\n")
    return folder, Columns()


def per_step_csv(folder):
    (folder / "a.csv").write_text("a,y\n1,2\n3,4\n5,\n")
    return folder / "a.csv", Columns(target=("y",), per_step=True)


def archive(folder):
    (folder / "Set_TRAIN.ts").write_text(TS + "1,2,?:3,4,5:a\n6,7:8,9:b\n")
    (folder / "Set_TEST.ts").write_text(TS + "1,2:3,4:b\n")
    return folder / "Set_TRAIN.ts", Columns()


def equal(one, other):
    assert one.files == other.files and one.parts.keys() == other.parts.keys()
    assert (one.rows is None) == (other.rows is None)
    for split, rows in (one.rows or {}).items():
        np.testing.assert_array_equal(rows, other.rows[split])
    for split, part in one.parts.items():
        same = other.parts[split]
        for name, value in vars(part).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(same, name), err_msg=name)
                assert value.dtype == getattr(same, name).dtype, name
            elif name != "where":
                assert value == getattr(same, name), name
        steps = [(i, step) for i, n in enumerate(part.lengths.tolist()) for step in range(n)]
        assert [part.where(*at) for at in steps] == [same.where(*at) for at in steps]


@pytest.mark.parametrize("make", [long_csv, csv_folder, per_step_csv, archive])
def test_what_was_read_is_found_again_without_reading(make, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    path, columns = make(tmp_path / "mine")
    before = sorted(tmp_path.rglob("*"))
    direct = read(path, columns)
    equal(direct, read_once(path, columns, tmp_path / "data/arrays", keep=False))
    assert sorted(tmp_path.rglob("*")) == before, "a look writes nothing"
    equal(direct, read_once(path, columns, tmp_path / "data/arrays"))
    assert sorted((tmp_path / "mine").iterdir()) == [p for p in before if p.parent != tmp_path]

    def fails(*args):
        raise AssertionError("it was read again")

    monkeypatch.setattr(module, "read", fails)
    monkeypatch.chdir(tmp_path)
    found = read_once(path, columns, tmp_path / "data/arrays", keep=False)
    equal(direct, found)
    assert all(isinstance(part.steps, np.memmap) for part in found.parts.values())
    monkeypatch.chdir(tmp_path / "mine")  # a place in the file is said as the file was asked for
    near = read_once(path.relative_to(tmp_path / "mine"), columns, tmp_path / "data/arrays")
    assert all(not part.where(0, 0).startswith("/") for part in near.parts.values())


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path, kept = tmp_path / "a.csv", tmp_path / "kept"
    path.write_text("a,b\n1,2\n3,4\n")
    first = read_once(path, Columns(), kept)
    stamp = path.stat()
    path.write_text("a,b\n1,2\n3,9\n")  # as long as before, and of the same time
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    second = read_once(path, Columns(), kept)
    assert second.parts[""].steps.tolist() == [[1, 2], [3, 9]]
    assert first.parts[""].steps.tolist() == [[1, 2], [3, 4]], "the old map is what it was"
    assert len(list(kept.iterdir())) == 1, "what was read of the old file is gone"
    assert read_once(path, Columns(inputs=("b",)), kept).parts[""].steps.tolist() == [[2], [9]]
    path.write_text("a,b\n1,2\n3,x\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="line 3, b: 'x' is no number"):
            read_once(path, Columns(), kept)


def test_a_new_file_in_the_folder_is_seen(tmp_path):
    folder, columns = csv_folder(tmp_path)
    read_once(folder, columns, tmp_path / "kept")
    (folder / "s3.csv").write_text("a,b\n1,1\n")
    with pytest.raises(ValueError, match=r"has no line for s3\.csv"):
        read_once(folder, columns, tmp_path / "kept")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_what_was_kept_and_is_damaged_is_read_again(damage, tmp_path):
    path, columns = long_csv(tmp_path)
    direct = read_once(path, columns, tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        at = content.index(np.asarray(direct.parts[""].steps)[2].tobytes())
        content[at] ^= 1
    elif damage == "other":
        np.savez(file, about=np.frombuffer(b"[1]", np.uint8))
        content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "empty": b""}.get(damage, content))
    equal(read(path, columns), read_once(path, columns, tmp_path / "kept"))


def test_a_folder_that_cannot_be_written_to_costs_time_alone(tmp_path):
    path, columns = long_csv(tmp_path)
    (tmp_path / "kept").write_text("a file")
    equal(read(path, columns), read_once(path, columns, tmp_path / "kept"))


def test_labels_are_a_part_of_the_data(tmp_path):
    """Else a run would go on with other targets, in the scale and classes of the old ones."""
    folder, _ = csv_folder(tmp_path)
    for i in range(3, 12):
        (folder / f"s{i}.csv").write_text("a,b\n1,2\n")
    data = config_lib.default("regression").data.to_dict() | {"padded_length": 0}
    data["arrays"]["missing"] = "interpolate"
    found = []
    for more in (0, 100):
        lines = [f"s{i}.csv,{i + more}" for i in range(12)]
        (folder / "labels.csv").write_text("\n".join(["file,target", *lines]))
        found.append(open_arrays("regression", data, folder, tmp_path / "kept"))
    assert found[0].fingerprint != found[1].fingerprint
    means = [dataset.preprocessing.target_mean[0] for dataset in found]
    assert means[1] == pytest.approx(means[0] + 100)
    with pytest.raises(ValueError, match=r"labels\.csv was written to"):
        found[0].check_unchanged()
