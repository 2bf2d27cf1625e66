"""Official files, whatever they hold: found, read in one pass, refused when damaged or hostile."""

import io
import os
import tarfile
from contextlib import closing

import pytest

from ssm_jax.data import release as releases
from ssm_jax.data.release import find_release, members

FILES = {f"box/{sub}/{i}.txt": f"{sub} {i}".encode() * (i + 1) for sub in "ab" for i in range(4)}


def unpack(root, files=FILES):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pack(path, files=FILES, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def name_of(path):
    """box/a/1.txt, wherever it is; no other file."""
    parts = path.split("/")
    return "/".join(parts[-3:]) if parts[-3:-2] == ["box"] else None


def read(path, wanted=name_of, count=None):
    release = find_release(path, "box")
    with closing(members(release, wanted, "reading", count=count)) as files:
        return [(name, file.read()) for name, _, file in files]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2"])
@pytest.mark.parametrize("root", ["", "lra_release/lra_release/", "./"])
def test_a_folder_and_an_archive_of_it_hold_the_same_files(tmp_path, mode, root):
    unpack(tmp_path / "unpacked" / root)
    other = {"other/x.txt": b"x", "other/box": b"no folder"}
    path = pack(tmp_path / "t", {**{root + n: d for n, d in FILES.items()}, **other}, mode)
    assert read(path) == read(tmp_path / "unpacked") == list(FILES.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t", "unpacked"]


def test_a_folder_is_read_by_name_and_an_archive_as_it_lies(tmp_path):
    backwards = dict(reversed(FILES.items()))
    assert read(unpack(tmp_path / "u", backwards)) == list(FILES.items())
    assert read(pack(tmp_path / "t.tar", backwards, "w")) == list(backwards.items())


def test_the_folder_itself_is_found_from_within(tmp_path, monkeypatch):
    unpack(tmp_path)
    monkeypatch.chdir(tmp_path / "box")
    assert len(read(type(tmp_path)("."))) == len(FILES)


def test_the_folders_of_the_last_level_are_not_listed(tmp_path, monkeypatch):
    unpack(tmp_path, {"1/2/3/4/5/x": b""})
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(
        releases.os, "scandir", lambda path: listed.append(path.name) or scandir(path)
    )
    with pytest.raises(FileNotFoundError, match="no folder box in "):
        find_release(tmp_path, "box")
    assert listed[1:] == ["1", "2", "3"]


def test_a_stamp_tells_sizes_apart(tmp_path):
    unpack(tmp_path)
    names = ("a/1.txt", "b/2.txt")

    def stamps():
        return [find_release(tmp_path, "box", files).stamp for files in ((), names)]

    before = stamps()
    assert before == ["8 files of 60", "files 6 9"]
    (tmp_path / "box/b/2.txt").write_bytes(b"longer than before")
    assert all(a != b for a, b in zip(stamps(), before, strict=True))
    (tmp_path / "box/b/2.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"b/2.txt is not in .*box; unpack"):
        find_release(tmp_path, "box", names)
    path = pack(tmp_path / "t.gz")
    assert find_release(path, "box", names).stamp == f"archive {path.stat().st_size}"


@pytest.mark.parametrize("where", ["folder", "archive"])
def test_reading_stops_after_the_count(tmp_path, where, capsys):
    path = unpack(tmp_path / "u") if where == "folder" else pack(tmp_path / "t.tar", mode="w")
    assert read(path, count=3) == list(FILES.items())[:3]
    assert "reading: " in capsys.readouterr().err  # the stage ended, it was not broken off


def test_what_follows_the_last_wanted_file_is_not_read(tmp_path):
    path = pack(tmp_path / "t.tar", {**FILES, "rest": b"x" * 100_000}, "w")
    with open(path, "r+b") as file:
        file.truncate(50_000)
    assert len(read(path, count=len(FILES))) == len(FILES)
    with closing(members(find_release(path, "box"), name_of, "reading")) as files:
        assert next(files)[0] == "box/a/0.txt"
    with pytest.raises(ValueError, match="is not a whole tar archive"):
        read(path)


@pytest.mark.parametrize("name", ["/box/a/1.txt", "../box/a/1.txt", "x/../../box/a/1.txt"])
def test_a_name_that_leaves_the_archive_is_passed_over(tmp_path, name):
    path = pack(tmp_path / "t.tar", {name: b"evil", "box/a/2.txt": b"good"}, "w")
    assert read(path) == [("box/a/2.txt", b"good")]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_a_wanted_member_that_is_no_file_is_refused(tmp_path, kind):
    info = tarfile.TarInfo("box/a/1.txt")
    info.type, info.linkname = kind, "/etc/passwd"
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(info)
    with pytest.raises(ValueError, match=r"t.tar:box/a/1.txt is not a regular file"):
        read(path)
    assert read(path, wanted=lambda name: None) == []


def test_a_circle_of_links_is_not_walked(tmp_path):
    unpack(tmp_path)
    (tmp_path / "box/a/circle").symlink_to(tmp_path / "box")
    assert read(tmp_path) == list(FILES.items())


@pytest.mark.parametrize("where", ["folder", "archive"])
def test_two_files_of_one_key_are_refused(tmp_path, where):
    path = unpack(tmp_path / "u") if where == "folder" else pack(tmp_path / "t.tar", mode="w")
    with pytest.raises(ValueError, match=rf"1.txt is in the {where} twice"):
        read(path, wanted=lambda name: "same")


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def test_a_cut_is_one_line_wherever_it_is(tmp_path):
    """No cut of a plain archive that misses a file reads as a shorter whole one."""
    path = pack(tmp_path / "t.tar", mode="w")
    whole = path.read_bytes()
    for size in range(0, 2 * 512 * len(FILES) + 1, 256):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"t.tar is not a whole tar archive \(.+\)\.$"):
            read(path)
    path.write_bytes(whole[: 2 * 512 * len(FILES) + 512])  # the first empty block is enough
    assert len(read(path)) == len(FILES)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_cut_of_a_compressed_archive_is_one_line(tmp_path, mode):
    noise = {"box/a/0.txt": os.urandom(50_000), "box/a/1.txt": os.urandom(50_000)}
    path = pack(tmp_path / "t", noise, mode)
    cut(path, path.stat().st_size * 3 // 4)
    with pytest.raises(ValueError, match="t is not a whole tar archive"):
        read(path)


@pytest.mark.parametrize("at", [10, 512 * 6 + 10])
def test_a_damaged_header_is_one_line(tmp_path, at):
    path = pack(tmp_path / "t.tar", mode="w")
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"t.tar is not a whole tar archive"):
        read(path)


def test_damage_shows_in_lines_too(tmp_path):
    """The readers of text take a file line by line, long after it was handed out."""
    path = pack(tmp_path / "t.tar", {"box/a/0.txt": b"line\n" * 40_000}, "w")
    cut(path, 100_000)
    with closing(members(find_release(path, "box"), name_of, "reading")) as files:
        for _, _, file in files:
            with pytest.raises(ValueError, match=r"t.tar is not a whole tar archive"):
                for _ in file:
                    pass
            break


@pytest.mark.parametrize("where", ["folder", "archive"])
def test_progress_is_told_in_bytes_while_one_file_is_read(tmp_path, monkeypatch, where):
    told = []
    show = releases.stage

    def spy(title, total, unit):
        told.append((title, total, unit))
        return show(title, total, unit)

    monkeypatch.setattr(releases, "stage", spy)
    monkeypatch.setattr("ssm_jax.progress._LINE_EVERY", 0.0)
    big = {"box/a/big.txt": bytes(3 << 20)}
    path = unpack(tmp_path / "u", big) if where == "folder" else pack(tmp_path / "t", big, "w")
    errors = io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    read(path)
    total = 3 << 20 if where == "folder" else path.stat().st_size
    assert told == [("reading", total, "bytes")]
    lines = errors.getvalue().splitlines()
    assert len(lines) >= 3 and lines[-1].startswith(f"reading: {total:,} bytes in")


@pytest.mark.parametrize("what", ["folder", "inside", "above", "file"])
def test_links_are_followed(tmp_path, what):
    unpack(tmp_path / "u")
    path = {"folder": "u/box", "inside": "u/box/a", "above": "u", "file": "u/box/a/1.txt"}[what]
    (tmp_path / path).rename(tmp_path / "aside")
    (tmp_path / path).symlink_to(tmp_path / "aside")
    assert read(tmp_path / "u") == list(FILES.items())


def test_a_wanted_link_to_nothing_is_named(tmp_path):
    unpack(tmp_path)
    (tmp_path / "box/a/1.txt").unlink()
    (tmp_path / "box/a/1.txt").symlink_to("gone")
    (tmp_path / "box/unwanted").symlink_to("gone")
    with pytest.raises(FileNotFoundError, match=r"1.txt is a link to gone, which is not there"):
        read(tmp_path)
    (tmp_path / "box/a/1.txt").unlink()
    assert len(read(tmp_path)) == len(FILES) - 1
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(FileNotFoundError, match=r"link is a link to gone, which is not there"):
        find_release(tmp_path / "link", "box")


def test_a_maze_of_links_is_left(tmp_path):
    """Twenty folders, each with two links to the next: a million ways to the last."""
    unpack(tmp_path)
    for i in range(20):
        (tmp_path / f"maze{i}").mkdir()
        for side in "lr":
            (tmp_path / f"maze{i}/{side}").symlink_to(tmp_path / f"maze{i + 1}")
    (tmp_path / "maze20").mkdir()
    (tmp_path / "box/way").symlink_to(tmp_path / "maze0")
    with pytest.raises(ValueError, match="is behind more than 1,000 links"):
        read(tmp_path)


def test_folders_that_are_too_deep_are_left(tmp_path):
    unpack(tmp_path)
    (tmp_path / "box" / "/".join("x" * 60)).mkdir(parents=True)
    with pytest.raises(ValueError, match="is more than 50 folders deep"):
        read(tmp_path)


def test_of_two_folders_the_nearer_one_is_read_and_of_two_as_near_none(tmp_path):
    unpack(tmp_path / "x/y")
    unpack(tmp_path / "far/far/far", {"box/b/9.txt": b"far"})
    assert read(tmp_path) == list(FILES.items())
    (tmp_path / "x/z").symlink_to(tmp_path / "x/y")  # the same one
    assert read(tmp_path) == list(FILES.items())
    unpack(tmp_path / "a/b")
    with pytest.raises(ValueError, match=r"there are 2 folders box in .*/a/b/box and .*/x/y/box;"):
        find_release(tmp_path, "box")
    assert read(tmp_path / "a") == list(FILES.items())


@pytest.mark.parametrize("name", ["a[1]b", "a*?", "ä ö", "~", "-x", "a\\b", "{x}", "$HOME", "a%d"])
def test_folders_and_archives_of_any_name_are_read(tmp_path, name):
    assert read(unpack(tmp_path / name / "u")) == list(FILES.items())
    assert read(pack(tmp_path / name / "t.tar", mode="w")) == list(FILES.items())
