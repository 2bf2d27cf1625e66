"""Lines of .csv files, and what their fields say: numbers and times.

Empty fields, ?, NA, N/A, NaN, null and none are missing numbers, in any letters.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

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
