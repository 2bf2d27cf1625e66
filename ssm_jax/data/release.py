"""The official files of a data set: an archive, a folder somebody unpacked, or prepared by TFDS."""

import contextlib
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from ssm_jax.data.archive import GET_AGAIN, Limits, counted, shown, tar_members
from ssm_jax.files import parse_json
from ssm_jax.progress import stage

K = TypeVar("K", bound=Hashable)
Files = Generator[tuple[K, str, IO[bytes]], None, None]

DEPTH = 4  # folders between the given one and the one looked for, that included
_MOST_LINKS = 1_000  # to folders, followed in one
_DEEPEST = 50  # folders in each other


def sha256_of(path: Path) -> str:
    """The sha256 of a file; 0.1 to 0.5 s for 100 MB."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Release:
    """An archive, or the folder that holds the files."""

    path: Path
    is_archive: bool
    stamp: str  # sizes in bytes, which tell two releases apart without reading them


def find_release(path: Path, folder: str, files: Collection[str] = ()) -> Release:
    """Find a data set at a path the user gave: an archive, or the nearest folder of this name.

    `files` are names below the folder that must be there if it is unpacked; their sizes are the
    stamp. Without names the stamp counts all files below the folder, some 3 us each.
    """
    if path.is_file():
        return Release(path, True, f"archive {path.stat().st_size}")
    if not path.is_dir():
        raise not_there(path, f"give the release's archive, or a folder above {folder}.")
    found = nearest(path, lambda below: below.name == folder, f"folders {folder}")
    if found is not None:
        return Release(found, False, stamp_of(found, files, "the release"))
    raise FileNotFoundError(
        f"no folder {folder} in {path}, nor in the {DEPTH} levels below it; "
        f"give a folder above {folder}, or the release's archive."
    )


def stamp_of(folder: Path, files: Collection[str], what: str) -> str:
    """The sizes of files in a folder, or of all; if one is missing `what` is to be unpacked."""
    for name in files:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{name} is not in {folder}; unpack {what} again.")
    if files:
        return " ".join(["files", *(str((folder / name).stat().st_size) for name in files)])
    sizes = [e.stat().st_size for _, e in files_below(folder, folder.name) if e.is_file()]
    return f"{len(sizes)} files of {sum(sizes)}"


def find_tfds(name: str, config: str, folders: Iterable[Path]) -> Release | None:
    """The newest version of the data set `tfds.builder(f"{name}/{config}")` in the folders of TFDS,
    or its own; None: there is none. Of formats only array_record is read without TensorFlow: if it
    is in another, a ValueError says how to prepare it.
    """
    for folder in folders:
        found = {}
        for above in ((), ("*",), (config, "*"), (name, config, "*")):
            for path in folder.glob("/".join([*filter(None, above), "dataset_info.json"])):
                with contextlib.suppress(ValueError, OSError):
                    info = parse_json(path.read_bytes())
                    if (info["name"], info.get("configName", "")) == (name, config):
                        version = tuple(map(int, info["version"].split(".")))
                        found[version] = path.parent, info
        if not found:
            continue
        path, info = found[max(found)]
        formats = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", ())]
        if "array_record" not in formats:
            asked = f"{name}/{config}".rstrip("/")
            raise ValueError(
                f"{shown(path)} is in the format {shown(formats[0])}, which only TensorFlow reads; "
                f"prepare it again: tfds.builder({asked!r}, file_format='array_record')"
                ".download_and_prepare()."
            )
        sizes = [f"{s['name']} {s.get('numBytes')}" for s in info.get("splits", ())]
        return Release(path, False, f"tfds {info['version']} {' '.join(sizes)}")
    return None


def not_there(path: Path, remedy: str) -> FileNotFoundError:
    """The error for a path the user gave at which there is nothing that can be read."""
    what = "is neither a file nor a folder" if path.exists() else "does not exist"
    if path.is_symlink() and not path.exists():
        what = f"is a link to {shown(os.readlink(path))}, which is not there"
    return FileNotFoundError(f"{shown(path)} {what}; {remedy}")


def nearest(path: Path, fits: Callable[[Path], bool], what: str) -> Path | None:
    """The folder that fits, of a folder and those at most DEPTH levels below it; links count, and
    two at one level that are not links to one are a ValueError."""
    level = [path.absolute()]  # "." has no name
    seen: set[Path] = set()  # a circle of links is followed once
    for depth in range(DEPTH + 1):
        found: dict[Path, Path] = {}
        for folder in filter(fits, level):
            found.setdefault(folder.resolve(), folder)
        if len(found) > 1:
            one, two, *_ = found.values()
            raise ValueError(
                f"there are {len(found)} {what} in {shown(path)}, such as {shown(one)} and "
                f"{shown(two)}; give one of them."
            )
        if found or depth == DEPTH:  # the folders of the last level may hold 200,000 images
            return next(iter(found.values()), None)
        parents = [folder for folder in level if folder.resolve() not in seen]
        seen.update(folder.resolve() for folder in parents)
        level = []
        for parent in parents:
            with os.scandir(parent) as entries:  # tells folders without asking for each
                level += sorted(Path(entry.path) for entry in entries if entry.is_dir())
    return None


def files_below(folder: str | Path, name: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files in the order of their names, each with its path from `name` on.

    Links are followed, but not into a folder that they are in: that would be a circle. A link to
    nothing comes as if it were a file. A ValueError for a maze of links, or too deep a folder.
    """
    links = itertools.count(1)

    def below(folder: str | Path, name: str, above: frozenset) -> Iterator[tuple[str, Any]]:
        at = os.stat(folder)
        inner = above | {(at.st_dev, at.st_ino)}
        if len(inner) > _DEEPEST:
            raise ValueError(f"{shown(folder)} is more than {_DEEPEST} folders deep.")
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if not entry.is_dir():
                if entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
                    yield f"{name}/{entry.name}", entry
                continue
            at = entry.stat()
            if (at.st_dev, at.st_ino) not in inner:
                if entry.is_symlink() and next(links) > _MOST_LINKS:
                    raise ValueError(f"{shown(folder)} is behind more than {_MOST_LINKS:,} links.")
                yield from below(entry.path, f"{name}/{entry.name}", inner)

    return below(folder, name, frozenset())


def members(
    release: Release,
    wanted: Callable[[str], K | None],
    title: str,
    limits: Limits = Limits(),  # noqa: B008
    *,
    count: int | None = None,
) -> Files[K]:
    """Read once through the files of a release, or `count` of them; nothing is unpacked.

    Under `contextlib.closing` the archive and the progress bar, called `title`, are closed as soon
    as the reader fails or has enough. Yielded are what `wanted` calls a file; where it is, for
    messages; and the open file, to be read before the next is asked for. A folder's files come
    sorted by name, an archive's as they lie. `wanted` gets a path with slashes, which ends alike in
    both (`.../listops-1000/basic_val.tsv`), and returns None for a file that is not wanted, as
    absolute paths and those with `..` never are.

    A ValueError for a wanted link or device in an archive, two files called the same, and what is
    damaged or beyond the limits; a FileNotFoundError for a wanted link to nothing in a folder.
    """
    read = _from_archive if release.is_archive else _from_folder
    seen: set[K] = set()
    with closing(read(release.path, wanted, title, limits, count)) as files:
        for key, where, file in files:
            if key in seen:
                kind = "archive" if release.is_archive else "folder"
                raise ValueError(f"{where} is in the {kind} twice; {GET_AGAIN}")
            seen.add(key)
            with file:
                yield key, where, file


def _from_folder(
    folder: Path, wanted: Callable[[str], K | None], title: str, limits: Limits, count: int | None
) -> Files[K]:
    chosen: list[tuple[K, str, int]] = []
    check = counted(limits)
    for name, entry in files_below(folder, folder.name):
        if len(chosen) == count:
            break
        if (key := wanted(name)) is not None:
            if not entry.is_file():
                raise not_there(Path(entry.path), "bring back what it leads to, or unpack again.")
            chosen.append((key, entry.path, entry.stat().st_size))
            check(shown(entry.path), chosen[-1][2])
    with stage(title, sum(size for *_, size in chosen), "bytes") as advance:
        for key, path, _ in chosen:
            with open(path, "rb", buffering=0) as raw:
                yield key, shown(path), io.BufferedReader(_Told(raw, advance))


class _Told(io.RawIOBase):
    """A file that tells how much of it is read."""

    def __init__(self, raw: io.FileIO, advance: Callable[[int], None]) -> None:
        self._raw, self._advance = raw, advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = self._raw.readinto(buffer) or 0
        self._advance(n)
        return n


def _from_archive(
    path: Path, wanted: Callable[[str], K | None], title: str, limits: Limits, count: int | None
) -> Files[K]:
    check, found = counted(limits), itertools.count(1)
    with open(path, "rb") as raw, stage(title, path.stat().st_size, "bytes") as advance:
        for tar, member in tar_members(raw, path, limits, advance):
            key = wanted(member.name)
            if key is None or member.name.startswith("/") or ".." in member.name.split("/"):
                continue
            where = f"{shown(path)}:{shown(member.name)}"
            # A file with holes has a size that no byte of the archive stands for.
            file = None if member.issparse() or not member.isreg() else tar.extractfile(member)
            if file is None:
                raise ValueError(f"{where} is not a regular file; {GET_AGAIN}")
            check(where, member.size)
            yield key, where, file
            if next(found) == count:
                return


def tables(
    release: Release, folder: str, names: Mapping[str, str], title: str, limits: Limits
) -> Files[str]:
    """As `members`, the files with these names in a folder, each called by its key (a split)."""
    splits = {f"{folder}/{name}": split for split, name in names.items()}
    missing = dict(names)

    def wanted(path: str) -> str | None:
        return splits.get("/".join(path.split("/")[-2:]))

    # 7 GB of other tasks may follow.
    with closing(members(release, wanted, title, limits, count=len(names))) as files:
        for split, where, file in files:
            del missing[split]
            yield split, where, file
    for name in missing.values():
        raise FileNotFoundError(f"{folder}/{name} is not in the archive {release.path}.")


def wrong_rows(where: str, found: int, expected: int, most: int) -> str:
    """A line about a table with another number of rows than the official one."""
    more = " or more" if found == most else ""
    return f"{where} has {found:,} rows{more}, the official file has {expected:,}"
