"""Files of a user, read back against the arrays that they were written from."""

import io
import zipfile

import numpy as np
import pytest

from ssm_jax.data.series import Columns, read

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(5, 7, 2)), np.arange(5) % 2


def values(series, i):
    return np.asarray(series.steps[series.of(i)])


@pytest.mark.parametrize("form", ["npz", "compressed", "fortran", "folder"])
def test_arrays_come_back(tmp_path, form):
    path, x = tmp_path / "a.npz", X
    if form == "folder":
        path = tmp_path
        np.save(path / "x.npy", X)
        np.save(path / "y.npy", Y)
    elif form == "compressed":
        np.savez_compressed(path, x=X, y=Y)
    else:
        x = np.asfortranarray(X) if form == "fortran" else X
        np.savez(path, x=x, y=Y)
    part = read(path, Columns()).parts[""]
    assert (len(part), part.channels) == (5, ("channel 0", "channel 1"))
    for i in range(5):
        np.testing.assert_array_equal(values(part, i), X[i])
    np.testing.assert_array_equal(part.targets, Y)
    assert form not in ("npz", "folder") or isinstance(part.steps, np.memmap)


def test_lengths_and_splits_of_arrays(tmp_path):
    lengths, split = np.array([7, 3, 1, 5, 7]), np.array(["train", "test", "train", "val", "test"])
    np.savez(tmp_path / "a.npz", x=X, y=Y, lengths=lengths, split=split)
    found = read(tmp_path / "a.npz", Columns())
    np.testing.assert_array_equal(found.parts[""].lengths, lengths)
    assert {s: n.tolist() for s, n in found.rows.items()} == {
        "train": [0, 2], "val": [3], "test": [1, 4]
    }  # fmt: skip


def test_arrays_by_split(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=X[:3], y_train=Y[:3], x_test=X[3:], y_test=Y[3:])
    parts = read(tmp_path, Columns()).parts
    assert {s: len(p) for s, p in parts.items()} == {"train": 3, "test": 2}
    np.testing.assert_array_equal(values(parts["test"], 1), X[4])
    np.savez(tmp_path / "a.npz", x_test=X[3:])  # to predict
    parts = read(tmp_path, Columns()).parts
    np.testing.assert_array_equal(values(parts["test"], 1), X[4])


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("x_train x_test lengths", r"lengths(\.npy)? is not .* as lengths_train and lengths_test"),
        ("x lengths_train", r"lengths_train(\.npy)? is not read beside x; write it as lengths"),
        ("x_train x_validation", r"x_validation(\.npy)? is not read beside x_train; .* as x_val"),
    ],
)
def test_an_array_that_would_not_be_read_is_refused(tmp_path, folder, names, said):
    """What pads the series would be steps, and validation be drawn from training."""
    arrays = {name: np.full(5, 3) if "lengths" in name else X for name in names.split()}
    for name, array in arrays.items() if folder else ():
        np.save(tmp_path / f"{name}.npy", array)
    if not folder:
        np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=said):
        read(tmp_path, Columns())


def test_targets_of_steps_and_tokens(tmp_path):
    tokens = RNG.integers(0, 9, (4, 6))
    np.savez(tmp_path / "a.npz", x=tokens, y=RNG.normal(size=(4, 6, 3)))
    part = read(tmp_path / "a.npz", Columns(per_step=True)).parts[""]
    assert part.steps.ndim == 1 and part.per_step and part.targets.shape == (24, 3)
    np.testing.assert_array_equal(values(part, 2), tokens[2])


def write_csv(path, rows):
    path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")


def test_long_csv_with_roles(tmp_path):
    rows = [("who", "t", "a", "b", "kind", "part")]
    for i in range(3):
        rows += [(f"p{i}", t, X[i, t, 0], X[i, t, 1], "xy"[Y[i]], ["train", "test", "val"][i])
                 for t in range(4 + i)]  # fmt: skip
    write_csv(tmp_path / "a.csv", rows)
    columns = Columns(target=("kind",), id="who", time="t", split="part")
    found = read(tmp_path / "a.csv", columns)
    part = found.parts[""]
    assert part.channels == ("a", "b") and part.targets.tolist() == ["x", "y", "x"]
    assert part.lengths.tolist() == [4, 5, 6] and found.rows["val"].tolist() == [2]
    for i in range(3):
        np.testing.assert_array_equal(values(part, i), X[i, : 4 + i])
    assert part.where(1, 2).endswith("a.csv line 8")


def test_a_target_that_changes_belongs_to_the_steps(tmp_path):
    write_csv(tmp_path / "a.csv", [("a", "y"), (1, 0.5), (2, ""), (3, 0.25)])
    part = read(tmp_path / "a.csv", Columns(target=("y",), per_step=True)).parts[""]
    assert part.per_step
    np.testing.assert_array_equal(part.targets[:, 0], [0.5, np.nan, 0.25])
    write_csv(tmp_path / "a.csv", [("a",), *zip(("N/A", "#N/A", "<NA>", "NULL", "?", "None"))])
    assert np.isnan(read(tmp_path / "a.csv", Columns()).parts[""].steps).all()


def test_a_folder_of_csv_with_labels(tmp_path):
    for i in range(3):
        write_csv(tmp_path / f"s{i}.csv", [("a", "b"), *X[i, : 5 - i].tolist()])
    write_csv(
        tmp_path / "labels.csv", [("file", "target"), *((f"s{i}.csv", i % 2) for i in range(3))]
    )
    part = read(tmp_path, Columns()).parts[""]
    assert part.targets.tolist() == [0, 1, 0] and part.lengths.tolist() == [5, 4, 3]


def test_ts_of_unequal_lengths_with_missing_values(tmp_path):
    head = "#a comment\n@problemName P\n@univariate false\n@classLabel true up down\n@data\n"
    (tmp_path / "P_TRAIN.ts").write_text(head + "1,2,3:4,5,?:up\n7,8:9,10:down\n")
    (tmp_path / "P_TEST.ts").write_text(head + "1,?,?:2,?,?:down\n")
    for name in ("P_TRAIN.ts", "P_TEST.ts", ""):
        parts = read(tmp_path / name, Columns()).parts
        np.testing.assert_array_equal(values(parts["train"], 0), [[1, 4], [2, 5], [3, np.nan]])
        np.testing.assert_array_equal(values(parts["train"], 1), [[7, 9], [8, 10]])
        assert values(parts["test"], 0).tolist() == [[1, 2]]  # what is filled up is cut off
        assert parts["train"].targets.tolist() == ["up", "down"]


def test_blanks_around_a_field_are_no_part_of_it(tmp_path):
    """Else "up " is a class of its own, and "p " another series than "p"."""
    lines = ["who , a , kind ,part", "p,1,up ,train ", "p , 2 , up,train", "q,3, down,test"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    found = read(tmp_path / "a.csv", Columns(id="who", target=("kind",), split="part"))
    part = found.parts[""]
    assert (part.channels, part.targets.tolist()) == (("a",), ["up", "down"])
    assert part.lengths.tolist() == [2, 1] and found.rows["test"].tolist() == [1]


GOOD_CSV = {
    "mark and CRLF": "\ufeffa,b\r\n1,2\r\n3,4\r\n".encode(),
    "quotes and blanks": b'"a", "b"\n"1", 2\n\n 3,"4"\n',
    "semicolons": b"a;b\n1;2\n3;4",
    "tabs and old Mac": b"a\tb\r1\t2\r3\t4\r",
}


@pytest.mark.parametrize("form", GOOD_CSV)
def test_a_csv_may_be_written_in_many_ways(tmp_path, form):
    (tmp_path / "a.csv").write_bytes(GOOD_CSV[form])
    part = read(tmp_path / "a.csv", Columns()).parts[""]
    assert part.channels == ("a", "b") and values(part, 0).tolist() == [[1, 2], [3, 4]]


BAD_CSV = {
    b"a,b\n1,2\n3\n": "line 3 has 1 fields, the header 2",
    b"a,b\n1,1_000\n": "line 2, b: '1_000' is no number",
    b"a,b\n1,two\n": "line 2, b: 'two' is no number; give the column its role",
    b"a,a\n1,2\n": "two columns of one name",
    b"a,b\n": "no line of numbers",
    b"": "is empty; its first line must name the columns",
    b",a\n0,1\n": "a column without a name, which may number the lines",
    "a,b\n1,2\n".encode("utf-16"): "no text in UTF-8",
    b"a,b\n1,\x00\n": "line 2",
    b"a\n" + b"9" * 200_000 + b"\n": "line 2: field larger than field limit",
}


@pytest.mark.parametrize("text", BAD_CSV)
def test_a_bad_csv_is_refused_by_line_and_column(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text)
    with pytest.raises(ValueError, match=BAD_CSV[text]) as refused:
        read(tmp_path / "a.csv", Columns())
    assert len(str(refused.value).splitlines()) == 1


def test_roles_that_contradict_each_other_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, [("t", "a", "y", "part"), (0, 1, "u", "train"), (1, 2, "v", "test")])
    with pytest.raises(ValueError, match="line 3: the target v follows u within a series"):
        read(path, Columns(target=("y",), inputs=("a",)))
    for inputs in ("a,y", "a,a"):
        with pytest.raises(ValueError, match="is there twice, or is the target"):
            read(path, Columns(target=("y",), inputs=tuple(inputs.split(","))))
    for role, option in (("id", "id"), ("time", "time"), ("split", "split_column")):
        with pytest.raises(ValueError, match=rf"inputs=a,t: t is data\.arrays\.{option} too"):
            read(path, Columns(inputs=("a", "t"), **{role: "t"}))
    with pytest.raises(ValueError, match="line 3: part=test follows train within a series"):
        read(path, Columns(split="part", inputs=("a",)))
    write_csv(path, [("t", "a"), ("1 May", 1), ("2 May", 2)])
    with pytest.raises(ValueError, match="line 2, t: '1 May' is neither a number nor a date"):
        read(path, Columns(time="t"))
    write_csv(path, [("t", "a"), ("2026-01-31 23:00", 1), ("2026-02-01T00:00Z", 2)])
    assert len(read(path, Columns(time="t")).parts[""].steps) == 2


def test_hidden_files_are_passed_over_and_endings_may_be_capitals(tmp_path):
    write_csv(tmp_path / "A.CSV", [("a",), (1,), (2,)])
    (tmp_path / "._A.CSV").write_bytes(b"\0\5")
    assert values(read(tmp_path, Columns()).parts[""], 0).tolist() == [[1], [2]]


def test_unsorted_csv_is_refused(tmp_path):
    write_csv(tmp_path / "a.csv", [("i", "t", "a"), (1, 1, 0), (1, 0, 0)])
    with pytest.raises(ValueError, match="line 3: t=0 comes after 1"):
        read(tmp_path / "a.csv", Columns(id="i", time="t"))
    write_csv(tmp_path / "a.csv", [("i", "a"), (1, 0), (2, 0), (1, 0)])
    with pytest.raises(ValueError, match="line 4: i=1 comes again after line 2"):
        read(tmp_path / "a.csv", Columns(id="i"))
    with pytest.raises(ValueError, match="no column 'z' but i, a"):
        read(tmp_path / "a.csv", Columns(target=("z",)))


def test_what_is_no_array_of_series_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(FileNotFoundError, match="is not there"):
        read(path, Columns())
    np.savez(path)
    with pytest.raises(ValueError, match=r"a\.npz has no arrays; save them with numpy\.savez"):
        read(path, Columns())
    np.savez(path, data=X)
    with pytest.raises(ValueError, match=r"no array 'x' but data"):
        read(path, Columns())
    np.savez(path, x=np.array([{}, None], object))
    with pytest.raises(ValueError, match="Python objects"):
        read(path, Columns())
    np.savez(path, x=X, y=Y[:3])
    with pytest.raises(ValueError, match=r"5 series and targets of the shape \(3,\)"):
        read(path, Columns())
    np.savez(path, x=X, y=np.zeros((5, 0)))
    with pytest.raises(ValueError, match=r"5 series and targets of the shape \(5, 0\)"):
        read(path, Columns())
    np.savez(path, x=X, y=Y, lengths=np.array([9, 1, 1, 1, 1]))
    with pytest.raises(ValueError, match="whole numbers from 1 to 7"):
        read(path, Columns())
    np.savez(path, x=X, y=Y, lengths=np.full(5, 2.5))
    with pytest.raises(ValueError, match="whole numbers from 1 to 7, got float64"):
        read(path, Columns())
    np.savez(path, x=X, y=Y, split=np.array(["train", "test"]))
    with pytest.raises(ValueError, match=r"split has the shape \(2,\)"):
        read(path, Columns())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"is no \.npz that can be read"):
        read(path, Columns())


@pytest.mark.parametrize("compressed", [False, True])
def test_an_array_that_is_not_as_long_as_it_says_is_refused(tmp_path, compressed):
    """Not after taking the memory that it asks for."""
    header = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)}
    np.lib.format.write_array_header_1_0(header, about)
    way = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(tmp_path / "a.npz", "w", way) as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(64))
    with pytest.raises(ValueError, match="and is not that long"):
        read(tmp_path / "a.npz", Columns())


@pytest.mark.parametrize("at", [150, 400, -60])
def test_a_flipped_byte_of_a_compressed_array_is_refused_or_harmless(tmp_path, at):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=X)
    content = bytearray(path.read_bytes())
    content[at] ^= 255
    path.write_bytes(content)
    try:
        found = read(path, Columns()).parts[""]
    except ValueError as error:
        assert "a.npz" in str(error)
    else:
        np.testing.assert_array_equal(found.steps, X.reshape(-1, 2))


def test_one_series_and_words_of_bytes(tmp_path):
    np.savez(tmp_path / "a.npz", x=X[0, :, 0], y=X[0, :, 1])
    part = read(tmp_path / "a.npz", Columns(per_step=True)).parts[""]
    assert len(part) == 1 and part.per_step
    np.testing.assert_array_equal(part.targets[:, 0], X[0, :, 1])
    words = np.array([b"train", b"test", b"val", b"train", b"test"])
    np.savez(tmp_path / "a.npz", x=X, y=Y[:, None], split=words)
    found = read(tmp_path / "a.npz", Columns())
    assert found.rows["train"].tolist() == [0, 3] and found.parts[""].targets.shape == (5,)


def test_labels_of_files_that_are_not_there_or_twice_are_refused(tmp_path):
    write_csv(tmp_path / "s.csv", [("a",), (1,)])
    for row, said in (("gone.csv", "gone.csv is not in the folder"), ("s.csv", "comes twice")):
        write_csv(tmp_path / "labels.csv", [("file", "target"), ("s.csv", 1), (row, 2)])
        with pytest.raises(ValueError, match=f"line 3: .*{said}"):
            read(tmp_path, Columns())
    write_csv(tmp_path / "labels.csv", [("file", "target", "split"), ("s.csv", 1, "test")])
    assert read(tmp_path, Columns()).rows["test"].tolist() == [0]


def test_the_split_of_a_folder_is_in_the_column_that_is_named(tmp_path):
    """A name that is nowhere, or in the series alone, would leave the split to chance."""
    for i, split in enumerate(("train", "test", "val")):
        write_csv(tmp_path / f"s{i}.csv", [("a", "part"), (i, split), (i, split)])
    labels = [("file", "target"), *((f"s{i}.csv", i) for i in range(3))]
    write_csv(tmp_path / "labels.csv", labels)
    found = read(tmp_path, Columns(split="part"))
    assert {split: rows.tolist() for split, rows in found.rows.items()} == {
        "train": [0], "test": [1], "val": [2]
    }  # fmt: skip
    assert found.parts[""].channels == ("a",) and found.parts[""].targets.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="has no column 'prat' but a, part"):
        read(tmp_path, Columns(split="prat"))
    write_csv(
        tmp_path / "labels.csv", [(*row, "part" * (not i) or "val") for i, row in enumerate(labels)]
    )
    assert read(tmp_path, Columns(split="part")).rows["val"].tolist() == [0, 1, 2]
    write_csv(tmp_path / "labels.csv", [(*row, "split" * (not i)) for i, row in enumerate(labels)])
    assert read(tmp_path, Columns(inputs=("a",))).rows is None
    write_csv(tmp_path / "labels.csv", [(*row, row[1]) for row in labels])
    with pytest.raises(ValueError, match="file, target, each once; it has file, target, target"):
        read(tmp_path, Columns(inputs=("a",)))


def test_a_file_without_a_step_is_refused(tmp_path):
    """It was left out, so that the predictions of the files after it had the number before."""
    for i, rows in enumerate([[(1,)], [], [(3,)]]):
        write_csv(tmp_path / f"s{i}.csv", [("a",), *rows])
    with pytest.raises(ValueError, match=r"s1\.csv has a header and no line of numbers"):
        read(tmp_path, Columns())


def test_labels_have_no_targets_where_steps_have_them_or_none_are_looked_at(tmp_path):
    """So that a forecast, or numbers of steps, can have a split by files."""
    for i in range(2):
        write_csv(tmp_path / f"s{i}.csv", [("a", "y"), (1, i), (2, 0.5)])
    write_csv(tmp_path / "labels.csv", [("file", "split"), ("s1.csv", "train"), ("s0.csv", "test")])
    for columns in (Columns(target=("y",), per_step=True), Columns(y="", inputs=("a",))):
        found = read(tmp_path, columns)
        assert found.rows["train"].tolist() == [1] and found.rows["test"].tolist() == [0]
        assert (found.parts[""].targets is None) != columns.per_step
    with pytest.raises(ValueError, match="must have the columns file, target, each once"):
        read(tmp_path, Columns(inputs=("a",)))
    np.savez(tmp_path / "a.npz", x=X, y=np.array([{}]))
    assert read(tmp_path / "a.npz", Columns(y="")).parts[""].targets is None


def test_numbers_of_a_ts_that_are_none_are_refused_by_line(tmp_path):
    head = "@targetLabel true\n@data\n1,2:0.5\n"
    (tmp_path / "a.ts").write_text(head + "3,4:1.5\n")
    assert read(tmp_path / "a.ts", Columns()).parts[""].targets.tolist() == [0.5, 1.5]
    (tmp_path / "a.ts").write_text(head + "3,4:much\n")
    with pytest.raises(ValueError, match="line 4, target: 'much' is no number"):
        read(tmp_path / "a.ts", Columns())


def test_an_archive_that_is_written_otherwise_is_read_or_refused(tmp_path):
    """A class that comes first was a step, and channels without quotes were one missing value."""
    (tmp_path / "a.ts").write_text("@problemName\ta\n@classLabel\ttrue up down\n@data\n1,2:up\n")
    part = read(tmp_path / "a.ts", Columns()).parts[""]
    assert part.targets.tolist() == ["up"] and values(part, 0).tolist() == [[1], [2]]
    first, second = "@attribute y {0,1}\n", "@attribute a numeric\n@attribute b numeric\n"
    (tmp_path / "a.arff").write_text(f"@relation a\n{first}{second}@data\n0,1,2\n")
    with pytest.raises(ValueError, match="the classes must be the last attribute"):
        read(tmp_path / "a.arff", Columns())
    rel = f"@relation a\n@attribute r relational\n{second}@end r\n{first}@data\n"
    (tmp_path / "a.arff").write_text(rel + '"1,2\\n3,4",1\n')
    assert values(read(tmp_path / "a.arff", Columns()).parts[""], 0).tolist() == [[1, 3], [2, 4]]
    (tmp_path / "a.arff").write_text(rel + "1,2\\n3,4,1\n")
    with pytest.raises(ValueError, match="line 8: the channels of a series must be in quotes"):
        read(tmp_path / "a.arff", Columns())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1.0,2.0\n3.0,4.0\n", r"a\.csv has numbers in its first line \(1\.0, 2\.0\)"),
        ("a;b\n0,5;1\n", "line 2, a: '0,5' is no number; write decimals with a point"),
    ],
)
def test_what_a_csv_lacks_is_said(tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read(tmp_path / "a.csv", Columns())
    (tmp_path / "a.csv").write_text("0,1\n1.0,2.0\n")  # as pandas names columns
    assert read(tmp_path / "a.csv", Columns()).parts[""].steps.tolist() == [[1, 2]]


def test_a_folder_of_arrays_of_other_names_says_what_to_do(tmp_path):
    for name in ("s0", "s1"):
        np.save(tmp_path / f"{name}.npy", X[0])
    with pytest.raises(ValueError, match=r"has s0\.npy, s1\.npy and no x\.npy: .*arrays\.x=NAME"):
        read(tmp_path, Columns())
