"""A report as Markdown, LaTeX, CSV, and as one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import Any

from ssm_jax import tables
from ssm_jax.lra.published import ANCHORS, COLUMNS, Score
from ssm_jax.lra.report.pages import Grid, Line, Lines, Span, parts_of
from ssm_jax.lra.report.results import Result
from ssm_jax.lra.report.table import Table

TITLE = "Long Range Arena"


def one_line(words: str) -> str:
    """Without line breaks and characters that show nothing."""
    return "".join(c for c in re.sub(r"\s+", " ", words) if c.isprintable())


@dataclass(frozen=True)
class Format:
    """How a format writes words, code, tables and, around the "|" of `ways`, all else by kind.

    %d is the number of a line; "all items" and "all numbered" go around the lines of such a list.
    """

    escape: Callable[[str], str]
    code: Callable[[str], str]
    grid: Callable[[Grid], str]
    ways: Mapping[str, str]

    def put(self, kind: str, text: str, number: int = 0) -> str:
        return self.ways.get(kind, "|").replace("%d", str(number)).replace("|", text)

    def line(self, line: Line) -> str:
        return "".join(
            self.put(kind, self.code(words) if kind == "code" else self.escape(words))
            for words, kind in line
        )

    def part(self, part: Lines | Grid) -> str:
        if isinstance(part, Grid):
            return self.grid(part)
        numbered = enumerate(map(self.line, part.lines), start=1)
        lines = "".join(self.put(part.kind, line, number) for number, line in numbered)
        return self.put(f"all {part.kind}", lines)


def to_markdown(table: Table, *, published: bool = True) -> str:
    """The report as Markdown with GitHub's tables."""
    return "\n".join([f"# {TITLE}\n", *map(MARKDOWN.part, parts_of(table, published))])


def _markdown_escape(words: str) -> str:
    return re.sub(r"([\\`*<>\[\]|&~#]|(?<!\w)_|_(?!\w))", r"\\\1", one_line(words))


def _markdown_code(words: str) -> str:
    words = one_line(words)
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
    pad = " " * (words[:1] == "`" or words[-1:] == "`")
    return ticks + pad + words.replace("|", "\\|") + pad + ticks


def _markdown_grid(grid: Grid) -> str:
    rules = [":---", *["---:" if grid.numeric else "---"] * (len(grid.head) - 2), "---"]
    rows = []
    for title, lines in grid.groups:
        rows += [[f"*{title}*", *[""] * (len(grid.head) - 1)]] if title else []
        rows += [[MARKDOWN.line(cell) for cell in row] for row in lines]
    return tables.to_markdown(grid.head, rows, rules)


MARKDOWN = Format(
    _markdown_escape,
    _markdown_code,
    _markdown_grid,
    {
        **{"strong": "**|**", "small": ", |", "bad": ", |"},
        **{"heading": "## |\n", "paragraph": "|\n", "items": "- |\n", "numbered": "%d. |\n"},
    },
)

_LATEX = {
    **{c: f"\\{c}" for c in "{}$&#%_"},
    **{"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"`": r"\textasciigrave{}", "*": r"\textasteriskcentered{}", "±": r"$\pm$", '"': "''"},
    **{"[": "{[}", "]": "{]}"},  # or a row that begins with it were an argument of the line before
}


def latex_escape(words: str) -> str:
    """Words as LaTeX shows them, with any characters in them."""
    escaped = "".join(_LATEX.get(c, c) for c in one_line(words))
    return re.sub("-(?=-)", "-{}", escaped)  # two of them would be a dash


def to_latex(table: Table, *, published: bool = True) -> str:
    """The report as LaTeX to be put into a document: tables of booktabs between paragraphs."""
    head = "% needs \\usepackage{array,booktabs} and a wide page\n"
    return head + "\n".join(map(LATEX.part, parts_of(table, published)))


def _latex_grid(grid: Grid) -> str:
    head, groups, numeric = grid
    if not numeric:  # a table of words may be longer than a page: a list instead, with commas
        joined = [
            tuple(piece for cell in row if cell for piece in (Span(", "), *cell))[1:]
            for _, rows in groups
            for row in rows
        ]
        return LATEX.part(Lines("items", joined))
    first = r">{\raggedright\arraybackslash}p{0.15\linewidth}"
    columns = first + "r" * (len(head) - 2) + first.replace("0.15", "0.12")
    lines: list[list[str] | None] = [[latex_escape(word) for word in head]]
    for title, rows in groups:
        lines.append(None)
        if title:
            lines.append([f"\\multicolumn{{{len(head)}}}{{l}}{{\\emph{{{latex_escape(title)}}}}}"])
        lines += [[_latex_cell(cell, stacked=i > 0) for i, cell in enumerate(row)] for row in rows]
    size = "\\begin{center}\\footnotesize\\setlength{\\tabcolsep}{3pt}\n"
    return size + tables.to_latex(columns, lines) + "\\end{center}\n"


def _latex_cell(line: Line, stacked: bool) -> str:
    """A cell, in which each small piece has a line of its own; the first column has paragraphs."""
    small = [span for span in line if span.kind in ("small", "bad")]
    lines = [LATEX.line(part) for part in (tuple(s for s in line if s not in small), *zip(small))]
    if not stacked:
        return r" \newline ".join(lines)
    text = r" \\ ".join(lines)
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{text}\end{{tabular}}" if small else text


LATEX = Format(
    latex_escape,
    latex_escape,
    _latex_grid,
    {
        **{"strong": r"\textbf{|}", "code": r"\texttt{|}"},
        **{"small": r"{\scriptsize |}", "bad": r"{\scriptsize |}"},
        **{"heading": "\\paragraph{|}\n", "paragraph": "\\noindent |\n"},
        **{"items": "  \\item |\n", "numbered": "  \\item |\n"},
        "all items": "\\begin{itemize}\n|\\end{itemize}\n",
        "all numbered": "\\begin{enumerate}\n|\\end{enumerate}\n",
    },
)

CSV_HEAD = (
    "kind", "model", "task", "seed", "status", "counted", "accuracy", "std", "loss",
    "validation_accuracy", "majority_rate", "steps", "parameters", "name", "options", "reduced",
    "notes", "source", "detail", "sha256", "setup", "config_digest", "commit", "device", "path",
    "command",
)  # fmt: skip


def to_csv(table: Table, *, published: bool = True) -> str:
    """One line for each run and, if wanted, for each published number; accuracies are 0..1.

    `steps` are all of a finished run, those so far of an unfinished one, and the first that is not
    finite of one that diverged. `task` is "average" for the printed average of a published row.
    """
    cells = [cell for row in table.rows for cell in row.cells.values()]
    rows = [_csv_run(run, "yes") for cell in cells for run in cell.runs]
    rows += [_csv_run(run, "no") for run in (*table.unfinished, *table.repeated)]
    rows += [_csv_run(run, "no") | {"task": run.other} for runs in table.others for run in runs]
    rows += _csv_published() if published else []
    return tables.to_csv(CSV_HEAD, ([row.get(name) for name in CSV_HEAD] for row in rows))


def _csv_run(run: Result, counted: str) -> dict[str, Any]:
    return {
        **vars(run),
        "kind": "run",
        "model": run.arm or "default",
        "counted": counted,
        "validation_accuracy": run.validation,
        "options": " ".join(run.options),
        "reduced": "yes" if run.reduced else "no",
        "command": " ".join(run.command),
    }


def _csv_published() -> Iterator[dict[str, Any]]:
    for row in ANCHORS:
        shared = {"kind": "published", "model": row.model, "source": row.source}
        scores = {key: row.scores[key] for key in COLUMNS if key in row.scores}
        for task, value in {**scores, "average": Score(row.average, None)}.items():
            numbers: dict[str, Decimal | str | None] = {"status": "failed"}
            if value is not None:
                std = None if value.std is None else value.std.scaleb(-2)
                numbers = {"accuracy": value.mean.scaleb(-2), "std": std}
            yield {**shared, "task": task, **numbers}


# Where a table is wider than the screen its first column stays while the others are scrolled; on a
# narrow screen each row is a card, whose entries name their column.
STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #5b6470; --line: #d5dae0;
  --band: #f3f5f8; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --text: #e6e9ed; --soft: #9aa4b0;
  --line: #343b44; --band: #1e232a; --bad: #ff8a80; } }
body { margin: 0 auto; padding: 1.5rem; max-width: 84rem; background: var(--back);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
p, li { max-width: 60rem; overflow-wrap: anywhere; }
code { font: .85em ui-monospace, monospace; background: var(--band); overflow-wrap: anywhere; }
li code:nth-of-type(2) { display: block; margin-top: .2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
tbody th { font-weight: normal; min-width: 9rem; }
tr > th:first-child { position: sticky; left: 0; background: var(--back); }
tr.group > th:first-child { color: var(--soft); font-weight: 600; background: var(--band); }
.numbers td, .numbers thead th { text-align: right; white-space: nowrap; }
.numbers td:last-child, .numbers th:first-child, .numbers thead th:last-child { text-align: left;
  white-space: normal; min-width: 8.5rem; }
small { display: block; color: var(--soft); line-height: 1.3; }
small.bad { color: var(--bad); }
@media (max-width: 52rem) {
  thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  table, tbody { display: block; }
  tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr)); gap: .5rem; }
  th, td, .numbers td { border: 0; text-align: left; }
  th, .words td { grid-column: 1 / -1; }
  td::before { content: attr(data-column); display: block; color: var(--soft); font-size: .75rem; }
  td:empty { display: none; }
}
"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}</body>
</html>
"""


def to_html(table: Table, *, published: bool = True) -> str:
    """The report as a page: no script, nothing that is fetched."""
    body = "".join(map(HTML.part, parts_of(table, published)))
    return PAGE.format(title=TITLE, style=STYLE, body=body)


def _html_escape(words: str) -> str:
    return escape(one_line(words))


def _html_grid(grid: Grid) -> str:
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in grid.head)
    body = ""
    for title, rows in grid.groups:
        span = f'<th colspan="{len(grid.head)}" scope="rowgroup">{escape(title)}</th>'
        body += f'<tbody>\n<tr class="group">{span}</tr>\n' if title else "<tbody>\n"
        for name, *cells in rows:
            columns = zip(grid.head[1:], map(HTML.line, cells), strict=True)
            row = "".join(f'<td data-column="{escape(name)}">{cell}</td>' for name, cell in columns)
            body += f'<tr><th scope="row">{HTML.line(name)}</th>{row}</tr>\n'
        body += "</tbody>\n"
    return (
        f'<div class="wide"><table class="{"numbers" if grid.numeric else "words"}">\n'
        f"<thead><tr>{head}</tr></thead>\n{body}</table></div>\n"
    )


HTML = Format(
    _html_escape,
    _html_escape,
    _html_grid,
    {
        **{"strong": "<strong>|</strong>", "code": "<code>|</code>"},
        **{"small": "<small>|</small>", "bad": '<small class="bad">|</small>'},
        **{"heading": "<h2>|</h2>\n", "paragraph": "<p>|</p>\n"},
        **{"items": "<li>|</li>\n", "numbered": "<li>|</li>\n"},
        **{"all items": "<ul>\n|</ul>\n", "all numbered": "<ol>\n|</ol>\n"},
    },
)
