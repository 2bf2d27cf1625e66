"""Paths that people give are taken as they are, or refused at once with what to do."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest

from ssm_jax import files
from ssm_jax.config.argv import convert
from ssm_jax.files import (
    check_writable,
    local_path,
    naming,
    os_fault,
    parse_json,
    replace_atomically,
)

NAMES = (
    "[test]", "exp [v2] a", "back\\slash", "with space", "'q'", '"q"', "100%", "ü日本", "-dash",
    "new\nline", "dot.", "a:b", "*", "?", "{a,b}", "#h", "$HOME", "a=b,c", "gs:", "~", "\udcff",
    "x" * 255,
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_legal_name_is_taken_as_it_is(name, tmp_path):
    assert convert(f"{tmp_path}/{name}/a", Path) == tmp_path / name / "a"
    (tmp_path / name).mkdir()
    check_writable(tmp_path / name / "run", "folder")


@pytest.mark.parametrize("text", ["gs://b/x", "s3://b", "file:///tmp/x", "HTTPS://h/x", "a+b://x"])
def test_addresses_are_no_paths(text):
    with pytest.raises(ValueError, match=r"mount it|give the path, /tmp/x"):
        local_path(text)


def test_a_leading_tilde_is_a_home_and_any_other_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/runs") == Path("/home/me/runs")
    for text in ("./~x", "~nobody-of-this-name"):
        path = local_path(text)
        assert path == tmp_path / text.removeprefix("./")
        assert local_path(path) == path, "nobody downstream expands it again"


def refused(path: Path, kind) -> int | None:
    with pytest.raises(OSError) as caught:
        check_writable(path, kind)
    line = os_fault(caught.value)
    assert str(path)[:100] in line and "\n" not in line
    return caught.value.errno


def test_what_cannot_be_written_is_refused_with_its_path(tmp_path, monkeypatch):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    (tmp_path / "to folder").symlink_to(folder)
    (tmp_path / "to file").symlink_to(file)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for path in (folder, folder / "a/b", tmp_path / "to folder", tmp_path / "to folder/a"):
        check_writable(path, "folder")
    for path in (file, folder / "a", tmp_path / "to file", folder / "a/b.json"):
        check_writable(path, "file")
    assert refused(file, "folder") == errno.ENOTDIR
    assert refused(folder, "file") == errno.EISDIR
    assert refused(file / "a", "file") == errno.ENOTDIR
    assert refused(tmp_path / "dangling", "folder") == errno.ENOENT
    assert refused(tmp_path / "round", "folder") == errno.ELOOP
    assert refused(tmp_path / ("a" * 256), "folder") == errno.ENAMETOOLONG
    assert refused(tmp_path / ("a/" * 1950), "folder") == errno.ENAMETOOLONG
    assert refused(Path("/dev/null"), "file") == errno.EINVAL
    assert refused(Path("/proc/x.py"), "file") == errno.EACCES, "it says yes to root"
    with pytest.raises(OSError) as caught:
        files.replace_atomically(Path("/proc/x.py"), "")
    assert caught.value.filename == "/proc/x.py", "not a hidden file that nobody knows"
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    assert refused(folder / "a", "file") == errno.EACCES


def test_read_only_and_full_places_are_told_apart(tmp_path, monkeypatch):
    room = os.statvfs(tmp_path)
    values = {"f_blocks": room.f_blocks, "f_bfree": room.f_bfree, "f_flag": os.ST_RDONLY}
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    monkeypatch.setattr(files.os, "statvfs", lambda _: type("Room", (), values))
    assert refused(tmp_path, "folder") == errno.EROFS
    monkeypatch.setattr(files.os, "access", lambda *_: True)
    values["f_bfree"] = 0
    assert refused(tmp_path, "folder") == errno.ENOSPC


def test_json_has_words_for_numbers_that_are_not_finite(tmp_path):
    """Python writes NaN, which JSON has not: a page in a browser cannot read it."""
    written = {"kge": [math.nan, 0.5], "of": ({"best": -math.inf},), "n": 3, "ok": True}
    files.write_json(tmp_path / "sweep.json", written)
    text = (tmp_path / "sweep.json").read_text()
    read = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert read == {"kge": ["nan", 0.5], "of": [{"best": "-inf"}], "n": 3, "ok": True}
    assert math.isnan(float(read["kge"][0])), "pandas and float read the words"


def test_an_error_of_the_system_is_one_line_with_path_and_advice():
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError), naming(Path("/a/b")):
        raise error
    assert os_fault(error) == (
        "/a/b: No space left on device; make room there, or choose another place."
    )
    numpy_error = OSError("4096 requested and 0 written")
    with pytest.raises(OSError), naming(Path("/a/b.npz")):
        raise numpy_error
    assert os_fault(numpy_error) == "/a/b.npz: 4096 requested and 0 written"
    renamed = OSError(errno.EISDIR, os.strerror(errno.EISDIR), "/a/.b.1.tmp", None, "/a/b")
    assert os_fault(renamed) == "/a/b: Is a directory; give a file."
    assert os_fault(FileNotFoundError("no data; prepare them.")) == "no data; prepare them."


@pytest.mark.parametrize("text", ["[" * 100_000, b'{"a":' * 100_000, "{", b"\xff", "9" * 5000])
def test_a_damaged_document_of_any_kind_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    """Also where it is a link; the content is on the disk before it has the name."""
    path, link = tmp_path / "a", tmp_path / "link"
    link.symlink_to(path)
    done = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(files.os, "fsync", lambda n: done.append("fsync") or fsync(n))
    monkeypatch.setattr(files.os, "replace", lambda *p: done.append("replace") or replace(*p))
    for content, expected in (
        (b"1", b"1"),
        ("ü\udcff", b"\xc3\xbc\xff"),
        (lambda file: file.write(b"3"), b"3"),
    ):
        replace_atomically(link, content)
        assert path.read_bytes() == expected and link.is_symlink()
    assert done == ["fsync", "replace", "fsync"] * 3

    def broken(file):
        file.write(b"half")
        raise ValueError

    def full(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ValueError):
        replace_atomically(path, broken)
    with pytest.raises(OSError, match=f"'{path}'"):
        replace_atomically(path, full)
    with pytest.raises(FileNotFoundError):
        replace_atomically(tmp_path / "none/a", b"")
    assert path.read_bytes() == b"3" and sorted(p.name for p in tmp_path.iterdir()) == ["a", "link"]
