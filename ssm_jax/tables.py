"""Tables: rows of cells, written as Markdown, CSV, LaTeX or for a terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Columns = Mapping[str, str | Callable[[Any], str]]


def cells(columns: Columns, items: Iterable[Any]) -> list[list[str]]:
    """A row of cells for each item.

    `columns` has, by head, a function of an item, or a format string for items that are mappings,
    such as "{steps:,}" or "{times[median]:.1f} s".
    """
    ways = [way.format_map if isinstance(way, str) else way for way in columns.values()]
    return [[way(item) for way in ways] for item in items]


def to_markdown(
    head: Iterable[str], rows: Iterable[Sequence[str]], rules: Sequence[str] = ()
) -> str:
    """A table in GitHub's Markdown; `rules` are the cells under the head, else all are `---`.

    A bar in a cell ends no column: it gets the backslash that it lacks.
    """
    names = list(head)
    lines = (names, rules or ["---"] * len(names), *rows)
    texts = ([re.sub(r"(?<!\\)\|", r"\|", cell) for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in texts)


def to_csv(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table with a line for each row; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def to_latex(columns: str, rows: Iterable[Sequence[str] | None]) -> str:
    """A tabular with the rules of booktabs: `columns` are its letters, None is a rule."""
    lines = ""
    for row in rows:
        lines = f"{lines[:-1]} \\midrule\n" if row is None else f"{lines}  {' & '.join(row)} \\\\\n"
    return (
        f"\\begin{{tabular}}{{{columns}}}\n  \\toprule\n{lines}  \\bottomrule\n\\end{{tabular}}\n"
    )


def to_screen(
    head: Iterable[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str | None = None,
    words: Container[int] = (),
    no_wrap: bool = False,
    plain: bool = False,
) -> Table:
    """A table for rich's Console, of texts or what else it shows, numbers at the right.

    `words` are the numbers of the columns at the left, which never wrap; with `no_wrap` the others
    are cut rather than wrapped. With `plain` the line below the head is the only one.
    """
    from rich import box, table  # here: whoever writes Markdown needs none of it

    lines = box.SIMPLE_HEAD if plain else box.HEAVY_HEAD
    made = table.Table(title=title, title_justify="left", box=lines)
    for i, name in enumerate(head):
        left = i in words
        made.add_column(name, justify="left" if left else "right", no_wrap=left or no_wrap)
    for row in rows:
        made.add_row(*row)
    return made
