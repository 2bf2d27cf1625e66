"""A report as Markdown, LaTeX, CSV, and as one HTML page that needs nothing from elsewhere."""

import abc
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssm_jax import tables
from ssm_jax.lra.published import ANCHORS, COLUMNS, Score
from ssm_jax.lra.report.results import Result
from ssm_jax.lra.report.table import Grid, Line, Span, Table, parts_of

TITLE = "Long Range Arena"


def one_line(words: str) -> str:
    """Words without line breaks and characters that show nothing."""
    return "".join(c for c in re.sub(r"\s+", " ", words) if c.isprintable())


class Format(abc.ABC):
    """Writes a table of results; a subclass says how its format writes words, code and tables.

    `ways` has the rest: what goes around "|", by the kind of a piece or a line, where %d is the
    number of the line, and around all lines of "all items" and "all numbered".
    """

    ways: Mapping[str, str]
    page = "|"
    between = "\n"  # the parts of a report

    def __call__(self, table: Table, *, published: bool = True) -> str:
        parts = self.between.join(map(self.part, parts_of(table, published)))
        return self.page.replace("|", parts)

    @abc.abstractmethod
    def escape(self, words: str) -> str: ...

    def code(self, words: str) -> str:
        return self.escape(words)

    @abc.abstractmethod
    def grid(self, grid: Grid) -> str: ...

    def part(self, part: Grid | tuple[str, Sequence[Line]]) -> str:
        if isinstance(part, Grid):
            return self.grid(part)
        kind, lines = part
        numbered = enumerate(map(self.line, lines), start=1)
        return self.put(f"all {kind}", "".join(self.put(kind, line, n) for n, line in numbered))

    def line(self, line: Line | Span) -> str:
        if isinstance(line, str):
            return self.escape(line)
        if not isinstance(line, Span):
            return "".join(map(self.line, line))
        return self.put(line.kind, (self.code if line.kind == "code" else self.escape)(line.text))

    def put(self, kind: str, text: str, number: int = 0) -> str:
        return self.ways.get(kind, "|").replace("%d", str(number)).replace("|", text)


class Markdown(Format):
    """Markdown with GitHub's tables."""

    page = f"# {TITLE}\n\n|"
    ways = {  # noqa: RUF012
        **{"strong": "**|**", "small": ", |", "bad": ", |"},
        **{"heading": "## |\n", "paragraph": "|\n", "items": "- |\n", "numbered": "%d. |\n"},
    }

    def escape(self, words: str) -> str:
        return re.sub(r"([\\`*<>\[\]|&~#]|(?<!\w)_|_(?!\w))", r"\\\1", one_line(words))

    def code(self, words: str) -> str:
        words = one_line(words)
        ticks = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
        pad = " " * (words[:1] == "`" or words[-1:] == "`")
        return ticks + pad + words.replace("|", "\\|") + pad + ticks

    def grid(self, grid: Grid) -> str:
        inner = len(grid.head) - 2
        rows = []
        for title, lines in grid.groups:
            rows += [[f"*{title}*", *[""] * (inner + 1)]] if title else []
            rows += [[self.line(cell) for cell in row] for row in lines]
        rules = [":---", *["---:" if grid.numeric else "---"] * inner, "---"]
        return tables.to_markdown(grid.head, rows, rules)


class Latex(Format):
    """LaTeX to be put into a document: tables of booktabs between paragraphs."""

    page = "% needs \\usepackage{array,booktabs} and a wide page\n|"
    ways = {  # noqa: RUF012
        **{"strong": r"\textbf{|}", "code": r"\texttt{|}"},
        **dict.fromkeys(("small", "bad"), r"{\scriptsize |}"),
        **{"heading": "\\paragraph{|}\n", "paragraph": "\\noindent |\n"},
        **dict.fromkeys(("items", "numbered"), "  \\item |\n"),
        "all items": "\\begin{itemize}\n|\\end{itemize}\n",
        "all numbered": "\\begin{enumerate}\n|\\end{enumerate}\n",
    }
    special = {  # noqa: RUF012
        **{c: f"\\{c}" for c in "{}$&#%_"},
        **{"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
        **{"`": r"\textasciigrave{}", "*": r"\textasteriskcentered{}", "±": r"$\pm$", '"': "''"},
        **{"[": "{[}", "]": "{]}"},  # else a row that begins with it is an argument of \\
    }

    def escape(self, words: str) -> str:
        escaped = "".join(self.special.get(c, c) for c in one_line(words))
        return re.sub("-(?=-)", "-{}", escaped)  # two of them would be a dash

    def grid(self, grid: Grid) -> str:
        head, groups, numeric = grid
        if not numeric:  # a table of words may be longer than a page: a list instead, with commas
            rows = (row for _, group in groups for row in group)
            items = (", ".join(self.line(cell) for cell in row if cell) for row in rows)
            return self.put("all items", "".join(self.put("items", item) for item in items))
        words = r">{\raggedright\arraybackslash}p{%s\linewidth}"
        columns = words % 0.15 + "r" * (len(head) - 2) + words % 0.12
        lines: list[list[str] | None] = [[self.escape(word) for word in head]]
        for title, group in groups:
            lines.append(None)
            if title:
                title = f"{{\\emph{{{self.escape(title)}}}}}"
                lines.append([f"\\multicolumn{{{len(head)}}}{{l}}{title}"])
            for row in group:
                lines.append([self.cell(cell, stacked=i > 0) for i, cell in enumerate(row)])
        size = "\\begin{center}\\footnotesize\\setlength{\\tabcolsep}{3pt}\n"
        return size + tables.to_latex(columns, lines) + "\\end{center}\n"

    def cell(self, line: Line, stacked: bool) -> str:
        """A cell, in which each small piece has a line; the first column has paragraphs."""
        small = [s for s in line if isinstance(s, Span) and s.kind in ("small", "bad")]
        large = line if isinstance(line, str) else tuple(s for s in line if s not in small)
        lines = [self.line(part) for part in (large, *small)]
        if not stacked:
            return r" \newline ".join(lines)
        text = r" \\ ".join(lines)
        return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{text}\end{{tabular}}" if small else text


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
    others = [run for runs in table.others for run in runs]
    rows += [_csv_run(run, "no") for run in (*table.unfinished, *table.repeated, *others)]
    rows += _csv_published() if published else []
    return tables.to_csv(CSV_HEAD, ([row.get(name) for name in CSV_HEAD] for row in rows))


def _csv_run(run: Result, counted: str) -> dict[str, Any]:
    return {
        **vars(run),
        "kind": "run",
        "model": run.variant or "default",
        "task": run.task or run.other,
        "counted": counted,
        "validation_accuracy": run.validation,
        "options": " ".join(run.options),
        "reduced": "yes" if run.reduced else "no",
        "command": " ".join(run.command),
    }


def _csv_published() -> Iterator[dict[str, Any]]:
    for row in ANCHORS:
        scores = {key: row.scores[key] for key in COLUMNS if key in row.scores}
        for task, score in {**scores, "average": Score(row.average, None)}.items():
            line = {"kind": "published", "model": row.model, "source": row.source, "task": task}
            if score is None:
                yield {**line, "status": "failed"}
            else:
                std = None if score.std is None else score.std.scaleb(-2)
                yield {**line, "accuracy": score.mean.scaleb(-2), "std": std}


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
PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{TITLE}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{TITLE}</h1>
|</body>
</html>
"""


class Html(Format):
    """A page: no script, nothing that is fetched."""

    page = PAGE
    between = ""
    ways = {  # noqa: RUF012
        **{"strong": "<strong>|</strong>", "code": "<code>|</code>"},
        **{"small": "<small>|</small>", "bad": '<small class="bad">|</small>'},
        **{"heading": "<h2>|</h2>\n", "paragraph": "<p>|</p>\n"},
        **dict.fromkeys(("items", "numbered"), "<li>|</li>\n"),
        **{"all items": "<ul>\n|</ul>\n", "all numbered": "<ol>\n|</ol>\n"},
    }

    def escape(self, words: str) -> str:
        return html.escape(one_line(words))

    def grid(self, grid: Grid) -> str:
        head = "".join(f'<th scope="col">{word}</th>' for word in grid.head)
        body = ""
        for title, rows in grid.groups:
            span = f'<th colspan="{len(grid.head)}" scope="rowgroup">{title}</th>'
            body += "<tbody>\n" + f'<tr class="group">{span}</tr>\n' * bool(title)
            for name, *cells in rows:
                columns = zip(grid.head[1:], map(self.line, cells), strict=True)
                row = "".join(f'<td data-column="{name}">{cell}</td>' for name, cell in columns)
                body += f'<tr><th scope="row">{self.line(name)}</th>{row}</tr>\n'
            body += "</tbody>\n"
        return (
            f'<div class="wide"><table class="{"numbers" if grid.numeric else "words"}">\n'
            f"<thead><tr>{head}</tr></thead>\n{body}</table></div>\n"
        )
