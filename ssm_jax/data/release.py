"""The official files of a data set: an archive, or a folder somebody unpacked."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from ssm_jax.data.progress import stage

K = TypeVar("K", bound=Hashable)

DEPTH = 4  # folders between the given one and the one looked for, that included
_REPORT_EVERY = 1 << 20  # bytes; a redrawn bar costs more than a small member
_BUFFER = 1 << 16  # bytes
_BLOCK = 512  # bytes, of a tar archive


@dataclass(frozen=True)
class Release:
    """Where a release is.

    Attributes:
      path: the archive, or the folder that holds the files.
      is_archive: which of the two.
      stamp: sizes in bytes; tells two releases apart without reading them.
    """

    path: Path
    is_archive: bool
    stamp: str


def find_release(path: Path, folder: str, files: Iterable[str] = ()) -> Release:
    """Find a data set at a path the user gave.

    Args:
      path: the archive (.tar.gz or .tar), the folder, or one at most four levels above it.
      folder: name of the folder, `listops-1000`.
      files: names below the folder that must be there if it is unpacked; their sizes are the stamp.
        Without names the stamp counts all files below the folder, some 3 us each.

    Raises:
      FileNotFoundError: if it, or one of the files, is not there.
    """
    if path.is_file():
        return Release(path, True, f"archive {path.stat().st_size}")
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} does not exist; give the release's archive, or a folder above {folder}."
        )
    for found in folders_below(path):
        if found.name == folder:
            return Release(found, False, _stamp(found, tuple(files)))
    raise FileNotFoundError(
        f"no folder {folder} in {path}, nor in the {DEPTH} levels below it; "
        f"give a folder above {folder}, or the release's archive."
    )


def folders_below(path: Path) -> Iterator[Path]:
    """A folder and those at most DEPTH levels below it, level by level, in the order of names."""
    level = [path.absolute()]  # "." has no name
    for depth in range(DEPTH + 1):
        yield from level
        if depth < DEPTH:  # the folders of the last level may hold 200,000 images
            level = [child for parent in level for child in _folders(parent)]


def _folders(parent: Path) -> list[Path]:
    with os.scandir(parent) as entries:  # tells folders from files without asking for each
        return sorted(Path(entry.path) for entry in entries if entry.is_dir())


def _stamp(folder: Path, files: tuple[str, ...]) -> str:
    for name in files:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{name} is not in {folder}; unpack the release again.")
    if files:
        return f"files {' '.join(str((folder / name).stat().st_size) for name in files)}"
    sizes = [entry.stat().st_size for _, entry in _files_below(folder, folder.name)]
    return f"{len(sizes)} files of {sum(sizes)}"


def _files_below(folder: str | Path, name: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files in the order of their names; links to folders are not followed, they may be circles."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(entry.path, f"{name}/{entry.name}")
        elif entry.is_file():
            yield f"{name}/{entry.name}", entry


def members(
    release: Release, wanted: Callable[[str], K | None], title: str, *, count: int | None = None
) -> Generator[tuple[K, str, IO[bytes]], None, None]:
    """Go once through the files of a release; nothing is unpacked.

    Under `contextlib.closing` the archive and the progress bar are closed as soon as the reader
    fails or has enough.

    Args:
      release: from `find_release`.
      wanted: what to call a file, given its path with slashes, which ends alike in an archive and
        in a folder (`.../listops-1000/basic_val.tsv`); None for a file that is not wanted.
        Absolute paths and those with `..` are never wanted.
      title: of the progress bar, which counts bytes.
      count: stop after so many files; by default at the end.

    Yields:
      What `wanted` returned; where the file is, for messages; and the open file, to be read before
      the next is asked for. A folder's files come sorted by name, an archive's as they lie.

    Raises:
      ValueError: for a wanted link or device, two files called the same, a damaged archive; the
        last also while a file is read.
    """
    opened = _from_archive if release.is_archive else _from_folder
    seen: set[K] = set()
    with closing(opened(release.path, wanted, title, count)) as files:
        for key, where, file in files:
            if key in seen:
                kind = "archive" if release.is_archive else "folder"
                raise ValueError(f"{where} is in the {kind} twice; get the release again.")
            seen.add(key)
            with file:
                yield key, where, file


def _from_folder(
    folder: Path, wanted: Callable[[str], K | None], title: str, count: int | None
) -> Generator[tuple[K, str, IO[bytes]], None, None]:
    chosen = []
    for name, entry in _files_below(folder, folder.name):
        key = wanted(name)
        if key is not None:
            chosen.append((key, entry.path, entry.stat().st_size))
    chosen = chosen[:count]
    with stage(title, sum(size for *_, size in chosen), "bytes") as advance:
        report = _Reporter(advance)
        for key, path, size in chosen:
            with open(path, "rb", buffering=0) as raw:
                yield key, path, _buffered(raw, size, report.more)


def _from_archive(
    path: Path, wanted: Callable[[str], K | None], title: str, count: int | None
) -> Generator[tuple[K, str, IO[bytes]], None, None]:
    with open(path, "rb") as raw, stage(title, path.stat().st_size, "bytes") as advance:
        report = _Reporter(advance)
        found = 0

        def tell(_: int) -> None:
            report.until(raw.tell())

        with _opened(raw, path) as archive:
            while True:
                with _OneLine(path):
                    member = archive.next()
                if member is None:
                    break
                archive.members.clear()  # type: ignore[attr-defined]  # else 1 GB in 1.2 million
                tell(0)
                name = member.name
                key = wanted(name)
                if key is None or name.startswith("/") or ".." in name.split("/"):
                    continue
                where = f"{path}:{name}"
                file = archive.extractfile(member) if member.isreg() else None
                if file is None:
                    raise ValueError(f"{where} is not a regular file; get the release again.")
                found += 1
                yield key, where, _buffered(file, member.size, tell, path)
                if found == count:
                    return
            _check_end(archive, path)


def _opened(raw: IO[bytes], path: Path) -> tarfile.TarFile:
    with _OneLine(path):
        return tarfile.open(fileobj=raw, mode="r|*")


def _check_end(archive: tarfile.TarFile, path: Path) -> None:
    """A cut or damaged header ends the members as the two empty blocks at the archive's end do."""
    stream = archive.fileobj
    assert stream is not None
    with _OneLine(path):
        position = stream.tell()
        if position < archive.offset + _BLOCK or stream.read(_BLOCK).strip(b"\0"):
            raise tarfile.ReadError(f"it stops being one at byte {archive.offset:,}")


class _OneLine:
    """Turns the errors of a damaged archive into one; without an archive, none."""

    def __init__(self, archive: Path | None) -> None:
        self._archive = archive

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._archive and isinstance(error, (tarfile.TarError, EOFError, OSError)):
            raise ValueError(f"{self._archive} is not a whole tar archive ({error}).") from error


class _Reporter:
    """Tells a stage how many bytes are done, a mebibyte at a time."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._told = self._done = 0

    def more(self, n: int) -> None:
        self.until(self._done + n)

    def until(self, done: int) -> None:
        self._done = done
        if done - self._told >= _REPORT_EVERY:
            self._advance(done - self._told)
            self._told = done


class _Reading(io.RawIOBase):
    """A file that reports what is read, and whose archive's damage is one line."""

    def __init__(self, file: IO[bytes], report: Callable[[int], None], archive: Path | None):
        self._file = file
        self._report = report
        self._archive = archive

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _OneLine(self._archive):
            n = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._report(n)
        return n


def _buffered(
    file: IO[bytes], size: int, report: Callable[[int], None], archive: Path | None = None
) -> IO[bytes]:
    if size > _BUFFER:
        return io.BufferedReader(_Reading(file, report, archive), _BUFFER)
    with _OneLine(archive):  # at once: 15 us less for each of 200,000 small images
        data = file.read()
    report(len(data))
    return io.BytesIO(data)
