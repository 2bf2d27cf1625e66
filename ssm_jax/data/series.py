"""Series of your own, as files have them: .npz, .npy, .csv; .ts and .arff of the UEA/UCR archive.

    .npz, .npy  x (n, L, C) or (n, L), real or whole (token ids); y as below; lengths (n,) and
                split (n,), if there are any. Or x_train, y_train, x_test, ... In an .npz each is
                an entry, in a folder a file x.npy, ... A lone .npy is x; (L,) is one series.
    .csv        a header, then a line per step. A file is a series, and a folder has many; or one
                file has many, with a column that tells them apart.
    .ts, .arff  NAME_TRAIN.ts and NAME_TEST.ts: series in lines, also of unequal lengths.

    S1/S1.pkl   and S2/S2.pkl ... in a folder: the recordings of PPG-DaLiA, see `ppg`.

Targets y belong to a series, (n,) or (n, K), or to its steps, (n, L) or (n, L, K). Arrays that are
neither compressed nor in Fortran's order are mapped, so a file may be larger than memory. In text
empty fields, ?, NA, N/A, NaN, null and none are missing numbers, in any letters.
"""

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ssm_jax.data.examples import SPLITS

WHOLE = 1 << 30  # bytes of a file that are hashed; of a larger one 64 blocks of 1 MiB


@dataclass(frozen=True)
class Columns:
    """The roles of the columns of .csv files, by name; of arrays, the names of x and y."""

    inputs: tuple[str, ...] = ()  # channels; (): all that have no other role
    target: tuple[str, ...] = ()
    id: str = ""  # tells series apart; "": a file is a series
    time: str = ""  # ascending in a series; not an input
    split: str = ""  # train, val or test
    x: str = "x"
    y: str = "y"  # "": targets are not looked at
    per_step: bool = False  # targets are wanted of each step, not of each series


@dataclass(frozen=True)
class Series:
    """n series of C channels one after the other, and what belongs to them.

    Series i is steps[starts[i] : starts[i] + lengths[i]].
    """

    steps: np.ndarray  # (T, C) real, or (T,) whole numbers: token ids; may be a map of a file
    starts: np.ndarray  # int64 (n,)
    lengths: np.ndarray  # int64 (n,)
    targets: np.ndarray | None  # (n,) or (n, K), or with `per_step` (T,) or (T, K)
    per_step: bool
    channels: tuple[str, ...]
    target_names: tuple[str, ...]
    where: Callable[[int, int], str]  # (series, step) -> file and row

    def __len__(self) -> int:
        return self.starts.size

    def of(self, number: int) -> slice:
        """The steps of a series."""
        return slice(self.starts[number], self.starts[number] + self.lengths[number])


@dataclass(frozen=True, eq=False)
class Lines:
    """Where series in text are: called with a series and a step of it, file and line in words."""

    files: Sequence[Path]
    file_of: np.ndarray  # (n,), the number of the file of each series
    numbers: np.ndarray  # the line of each step (T,), or of each series (n,), from 1 on
    starts: np.ndarray  # (n,), the first step of each series

    def __call__(self, number: int, step: int) -> str:
        name = self.files[self.file_of[number]]
        if len(self.numbers) == len(self.starts):  # with a step in each it is the same
            return f"{name} line {self.numbers[number]}, step {step}"
        return f"{name} line {self.numbers[self.starts[number] + step]}"


@dataclass(frozen=True)
class Found:
    """What was read: series by the split that files give, or under "" where none does."""

    parts: Mapping[str, Series]
    rows: Mapping[str, np.ndarray] | None  # numbers by split, where an array or column gives them
    files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()  # that a person should read


def read(path: Path, columns: Columns) -> Found:
    """The series of a file or folder; a ValueError names the file, row and column at fault."""
    from ssm_jax.data.array_files import read_npy, read_npz
    from ssm_jax.data.csv_files import read_csv
    from ssm_jax.data.ppg import read_ppg
    from ssm_jax.data.ts_files import read_archive

    kinds: dict[str, Callable[[list[Path], Columns], Found]] = {
        ".npz": read_npz, ".npy": read_npy, ".csv": read_csv, ".ts": read_archive,
        ".arff": read_archive, ".pkl": read_ppg,
    }  # fmt: skip
    kind, files = files_of(path)
    return kinds[kind](files, columns)


def files_of(path: Path) -> tuple[str, list[Path]]:
    """The files that a file or folder stands for, and how their names end, ".csv"."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; give a file or folder with --from=PATH.")
    if path.is_dir() and (people := people_of(path)):
        return ".pkl", people
    files = [path]
    if path.is_dir():  # but for what editors and systems hide there
        files = sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".")
    known = {".npz", ".npy", ".csv", ".ts", ".arff"}
    suffixes = sorted({p.suffix.lower() for p in files} & known)
    if len(suffixes) != 1:
        found = " and ".join(suffixes) or "none of them"
        raise ValueError(
            f"{path} must hold files of one kind, .npz, .npy, .csv, .ts or .arff; got {found}."
        )
    files = [p for p in files if p.suffix.lower() == suffixes[0]]
    if path.is_file() and suffixes[0] in (".ts", ".arff"):
        name = re.sub(r"_(TRAIN|TEST)\Z", "", path.stem)
        twins = [path.with_name(f"{name}_{part}{path.suffix}") for part in ("TRAIN", "TEST")]
        files = [p for p in twins if p.is_file()] if name != path.stem else [path]
    return suffixes[0], files


def people_of(folder: Path) -> list[Path]:
    """The files S1/S1.pkl, S2/S2.pkl, ... of a folder, by number; [] where it has none."""
    found = [p / f"{p.name}.pkl" for p in folder.glob("S*") if p.name[1:].isdigit()]
    return sorted((p for p in found if p.is_file()), key=lambda p: int(p.stem[1:]))


def sha256_of_files(files: Sequence[Path]) -> str:
    """A hash of names and contents; of more than 1 GiB it sees 64 blocks, evenly spread."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode(errors="surrogateescape"))
        with path.open("rb") as file:
            if size <= WHOLE:
                while block := file.read(1 << 22):
                    digest.update(block)
            else:
                for start in np.linspace(0, size - (1 << 20), 64).astype(int).tolist():
                    file.seek(start)
                    digest.update(file.read(1 << 20))
    return digest.hexdigest()


def words_of(array: np.ndarray) -> list[str]:
    """The entries of an array as words."""
    return [w.decode(errors="replace") if isinstance(w, bytes) else str(w) for w in array.tolist()]


def numbered_channels(channels: int) -> tuple[str, ...]:
    """The names of channels that have none of their own."""
    return tuple(f"channel {c}" for c in range(channels))


def channel_called(name: str) -> str:
    """A channel in a sentence; the name of one without a name says what it is."""
    return name if name.startswith("channel ") else f"channel {name}"


def rows_of_splits(words: Sequence[str], name: str) -> dict[str, np.ndarray]:
    """Numbers of the entries "train", "val" and "test"; "valid" and "validation" are val."""
    ours = {**{s: s for s in SPLITS}, "valid": "val", "validation": "val"}
    found: dict[str, list[int]] = {split: [] for split in SPLITS}
    for number, word in enumerate(words):
        if word.lower() not in ours:
            raise ValueError(f"{name} has {word!r} in entry {number}; use train, val or test.")
        found[ours[word.lower()]].append(number)
    return {split: np.array(numbers, np.int64) for split, numbers in found.items()}


# In small letters, what databases and spreadsheets write in the place of a value
NO_VALUE = ("", "?", "na", "n/a", "#n/a", "<na>", "nan", "null")
MISSING = (*NO_VALUE, "none")  # of numbers; None may well be a class


def numbers_of(
    words: Sequence[str], names: Sequence[str], place: str, hint: str = ""
) -> list[float]:
    """The numbers that some words are, by the names of their columns."""
    if "_" not in "".join(words):  # Python reads 1_0 as 10
        with suppress(ValueError):
            return [float(word) for word in words]
    found = []
    for name, word in zip(names, words, strict=True):
        try:
            found.append(float(word.replace("_", "?")))
        except ValueError:
            if word.strip().lower() not in MISSING:
                if re.fullmatch(r"\s*[-+]?\d+,\d+\s*", word):
                    hint = "; write decimals with a point"
                raise ValueError(f"{place}, {name}: {word!r} is no number{hint}.") from None
            found.append(np.nan)
    return found


def lines_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a .csv that are not empty, by number, from 1; all as long as the first.

    Fields end at commas, semicolons or tabs, whichever the header has most of; blanks around them
    are no part of a name or a class.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        n = 0
        try:
            ends = max(",;\t", key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=ends, skipinitialspace=True)
            for line in filter(None, reader):
                n = n or len(line)
                if len(line) != n:
                    raise ValueError(
                        f"{path} line {reader.line_num} has {len(line)} fields, the header {n}."
                    )
                yield reader.line_num, [word.strip() for word in line]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8 ({error}); save it as such.") from None
        except csv.Error as error:
            raise ValueError(f"{path} line {reader.line_num}: {error}.") from None


def time_of(word: str, place: str) -> float:
    """A number, or the seconds since 1970 of an ISO 8601 date, UTC unless it says other."""
    with suppress(ValueError):
        return float(word)
    try:
        time = datetime.fromisoformat(word.strip())
    except ValueError:
        raise ValueError(
            f"{place}: {word!r} is neither a number nor a date such as 2026-11-29 or "
            "2026-11-29T10:05:00."
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
