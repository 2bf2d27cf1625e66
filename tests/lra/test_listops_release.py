"""Official files: found wherever they were unpacked, read row by row, refused when wrong."""

import hashlib
import random
import tarfile

import numpy as np
import pytest
from fake_listops import COUNTS, make_small, pack, release, unpack
from listops_oracle import decode

from ssm_jax.data.dataset import open_dataset
from ssm_jax.data.manifest import read_manifest
from ssm_jax.data.prepare import DataPaths, prepare
from ssm_jax.data.store import stores_of, unfinished
from ssm_jax.lra.catalog import open_data
from ssm_jax.lra.listops import Spec, find_release, listops, read_release
from tests.data import data_options


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    if "default" not in request.node.name:
        make_small(monkeypatch)


@pytest.fixture(scope="module")
def fake():
    return release()


def texts(splits):
    return {s: [(decode(tokens), v) for tokens, v in rows.rows()] for s, rows in splits.items()}


@pytest.mark.parametrize(
    "inner",
    ["", "listops-1000", "a/listops-1000", "lra_release/lra_release/listops-1000",
     "a/lra_release/lra_release/listops-1000"],
)  # fmt: skip
def test_a_folder_is_found_up_to_four_levels_down(tmp_path, fake, inner):
    rows, files = fake
    root = tmp_path / ("root" if inner else "listops-1000")
    unpack(root / inner, files)
    splits, hashes = read_release(find_release(root))
    assert texts(splits) == rows
    assert len(set(hashes.values())) == 3


def test_a_folder_five_levels_down_is_not_searched(tmp_path, fake):
    unpack(tmp_path / "a/b/c/d/listops-1000", fake[1])
    with pytest.raises(FileNotFoundError, match="no folder listops-1000 in "):
        find_release(tmp_path)


@pytest.mark.parametrize("root", ["lra_release/lra_release", "lra_release/lra_release/lra_release"])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_is_read_in_any_order_without_unpacking(tmp_path, fake, root, mode):
    rows, files = fake
    members = [(f"{root}/tsv_data/new_aan_pairs.train.tsv", b"0.0\t1\t2\ta\tb\n")]
    members += [(f"{root}/listops-1000/{name}", data) for name, data in reversed(files.items())]
    path = pack(tmp_path / "lra_release.gz", members, mode)
    splits, _ = read_release(find_release(path))
    assert texts(splits) == rows
    assert list(tmp_path.iterdir()) == [path]


def recipe_of(files, data_dir):
    return listops(Spec(), "official", DataPaths(data_dir, files))


def test_prepared_official_data_open_with_and_without_the_release(tmp_path, fake):
    rows, files = fake
    unpack(tmp_path / "lra" / "listops-1000", files)
    data_dir = tmp_path / "data"
    folder = prepare(recipe_of(tmp_path / "lra", data_dir), data_dir)
    options = data_options.options(source="official", seed=5)
    for path in (tmp_path / "lra", None):
        data = open_data("listops", options, DataPaths(data_dir, path))
        assert {s: data.size(s) for s in COUNTS} == COUNTS
        assert data.provenance.source == "official"
        assert "official LRA release" in data.provenance.detail
        for split, expected in rows.items():
            batch = data.gather(split, np.arange(len(expected)))
            ends = batch["lengths"] - 1
            tokens = [row[:end].astype(np.uint8).tobytes()
                      for row, end in zip(batch["inputs"], ends, strict=True)]  # fmt: skip
            found = list(zip(map(decode, tokens), batch["targets"].tolist(), strict=True))
            assert found == expected
    few = open_data("listops", {**options, "n_train": 5}, DataPaths(data_dir))
    assert few.size("train") == 5
    archive = pack(
        tmp_path / "lra.tar.gz", [(f"x/listops-1000/{n}", data) for n, data in files.items()]
    )
    other = prepare(recipe_of(archive, data_dir), data_dir)
    assert other != folder
    opened = [open_dataset(f, 2_048) for f in (folder, other)]
    assert opened[0].fingerprint == opened[1].fingerprint
    again = open_data("listops", options, DataPaths(data_dir))
    assert again.fingerprint == opened[0].fingerprint


def test_the_hashes_of_the_files_are_kept(tmp_path, fake):
    _, files = fake
    unpack(tmp_path / "listops-1000", files)
    folder = prepare(recipe_of(tmp_path, tmp_path / "data"), tmp_path / "data")
    manifest = read_manifest(folder)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert manifest["facts"]["read"] == hashes
    assert hashes["basic_train.tsv"] in manifest["detail"]


def test_without_the_release_and_without_its_data_the_error_says_how_to_give_it(tmp_path):
    paths = DataPaths(tmp_path / "data")
    with pytest.raises(FileNotFoundError, match=r"; run: ssm-jax prepare listops .* --from=PATH$"):
        open_data("listops", data_options.options(source="official"), paths)
    with pytest.raises(FileNotFoundError, match=r"give them with --from=PATH \(the LRA release"):
        prepare(listops(Spec(), "official", paths), paths.data_dir)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_row_count_is_refused_with_both_numbers(tmp_path, fake, change):
    files = dict(fake[1])
    lines = files["basic_val.tsv"].splitlines(keepends=True)
    files["basic_val.tsv"] = b"".join(lines[:-1] if change < 0 else [*lines, lines[-1]])
    unpack(tmp_path / "listops-1000", files)
    with pytest.raises(
        ValueError, match=rf"basic_val.tsv has {4 + change} rows, the official file has 4"
    ):
        read_release(find_release(tmp_path))


def test_the_official_counts_are_the_default(tmp_path, fake):
    data_dir = tmp_path / "data"
    unpack(tmp_path / "listops-1000", fake[1])
    with pytest.raises(ValueError, match=r"test.tsv has 3 rows, the official file has 2,000"):
        open_data("listops", data_options.options(source="official"), DataPaths(data_dir, tmp_path))
    assert stores_of(data_dir, "listops") == unfinished(data_dir, "listops") == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"( ( [MAX 3 ) ] )", "1 fields"),
        (b"( ( [MAX 3 ) ] )\t3\t4", "3 fields"),
        (b"( ( [MAX 3 ) ] )\tx", "must be a digit"),
        (b"( ( [MAX 3 ) ] )\t12", "must be a digit"),
        (b"( ( [AVG 3 ) ] )\t3", "unknown token"),
        (b"( ( [MAX 3 ) )\t3", "brackets open"),
        (b"\t3", "not one whole"),
        (b"( ( [MAX 3 ) ] )\t4", "the target is 4, but the expression's value is 3"),
        (b"", "1 fields"),
        (b"1 " * 600_000 + b"\t1", "characters or more"),
    ],
)
def test_a_malformed_row_is_refused_with_file_and_line(tmp_path, fake, row, message):
    files = dict(fake[1])
    lines = files["basic_train.tsv"].splitlines()
    lines[7] = row
    files["basic_train.tsv"] = b"\n".join(lines) + b"\n"
    unpack(tmp_path / "listops-1000", files)
    with pytest.raises(ValueError, match=rf"basic_train.tsv line 8: .*{message}"):
        read_release(find_release(tmp_path))


def test_a_file_without_its_header_is_refused(tmp_path, fake):
    files = {**fake[1], "basic_test.tsv": fake[1]["basic_test.tsv"].partition(b"\n")[2]}
    unpack(tmp_path / "listops-1000", files)
    with pytest.raises(ValueError, match=r"basic_test.tsv line 1: expected the header"):
        read_release(find_release(tmp_path))


def test_missing_paths_and_files_are_named(tmp_path, fake):
    with pytest.raises(FileNotFoundError, match="nothing-here does not exist"):
        find_release(tmp_path / "nothing-here")
    files = {name: data for name, data in fake[1].items() if name != "basic_val.tsv"}
    unpack(tmp_path / "lra" / "listops-1000", files)
    with pytest.raises(FileNotFoundError, match=r"basic_val.tsv is not in .*listops-1000"):
        find_release(tmp_path / "lra")
    path = pack(tmp_path / "lra.tar.gz", [(f"listops-1000/{n}", d) for n, d in files.items()])
    with pytest.raises(
        FileNotFoundError, match=r"listops-1000/basic_val.tsv is not in the archive"
    ):
        read_release(find_release(path))


def test_hostile_names_and_links_are_not_read(tmp_path, fake):
    _, files = fake
    for name in ("/listops-1000/basic_train.tsv", "../listops-1000/basic_train.tsv"):
        path = pack(tmp_path / "evil.tar.gz", [(name, files["basic_train.tsv"])])
        with pytest.raises(FileNotFoundError, match=r"basic_train.tsv is not in the archive"):
            read_release(find_release(path))
    link = tarfile.TarInfo("listops-1000/basic_train.tsv")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = pack(tmp_path / "evil.tar.gz", [(link, b"")])
    with pytest.raises(ValueError, match="is not a regular file"):
        read_release(find_release(path))
    assert list(tmp_path.iterdir()) == [path]


def test_an_archive_with_a_file_twice_is_refused(tmp_path, fake):
    data = fake[1]["basic_train.tsv"]
    path = pack(
        tmp_path / "a.tar", [(f"{r}/listops-1000/basic_train.tsv", data) for r in "ab"], "w"
    )
    with pytest.raises(ValueError, match="in the archive twice"):
        read_release(find_release(path))


def test_a_truncated_or_foreign_archive_is_refused(tmp_path, fake):
    noise = random.Random(0).randbytes(100_000)  # so that the file's second half is needed
    members = [("x", noise), *((f"listops-1000/{n}", data) for n, data in fake[1].items())]
    path = pack(tmp_path / "a.tar.gz", members)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="is not a whole tar archive"):
        read_release(find_release(path))
    path.write_bytes(b"no archive at all")
    with pytest.raises(ValueError, match="is not a whole tar archive"):
        read_release(find_release(path))
