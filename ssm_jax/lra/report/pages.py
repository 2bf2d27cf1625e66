"""What a report says, as headings, texts, lists and tables that every format can show.

A report as Markdown, as LaTeX and as CSV.

A report as one HTML page that needs nothing from elsewhere.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import Literal, NamedTuple

from ssm_jax.lra.published import ANCHORS, COLUMNS, Published, Score
from ssm_jax.lra.report.results import Result
from ssm_jax.lra.report.table import OFFICIAL, Cell, Row, Table, outcome, percent

TITLE = "Long Range Arena"
AVERAGE, SOURCE = "Avg", "Source"


class Span(NamedTuple):
    """A piece of a line. Small and bad pieces stand a little apart from what is before them."""

    text: str
    kind: Literal["text", "strong", "code", "small", "bad"] = "text"


Line = tuple[Span, ...]


class Heading(NamedTuple):
    text: str


class Text(NamedTuple):
    line: Line


class Items(NamedTuple):
    lines: tuple[Line, ...]
    numbered: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: a head, and groups of rows with a title each, "" for none.

    The first column names the row. `numeric` tells a table of numbers, whose columns between the
    first and the last are aligned.
    """

    head: tuple[str, ...]
    groups: tuple[tuple[str, tuple[tuple[Line, ...], ...]], ...]
    numeric: bool


Block = Heading | Text | Items | Grid


def blocks_of(table: Table, *, published: bool) -> Iterator[Block]:
    """Everything in a table of results, in order.

    Args:
      table: of `tabulate`.
      published: whether the published rows stand below ours.
    """
    yield Text(
        text(
            "Test accuracy in percent: the mean over n seeds ± half of its 95 % interval (Student "
            "t). Runs that diverged are not in the mean and are always shown. Avg is given where "
            "all six tasks are there."
        )
    )
    if not table.rows:
        yield Text(text("No run has a result."))
    groups = [("These runs", tuple(_our_row(row) for row in table.rows))] if table.rows else []
    if published:
        groups.append(("Published", tuple(_published_row(row) for row in ANCHORS)))
    if groups:
        head = ("Model", *COLUMNS.values(), AVERAGE, SOURCE)
        yield Grid(head, tuple(groups), numeric=True)
    if any(row.marks for row in table.rows):
        yield Text(
            text(
                "* Not comparable with the published numbers: reduced, not as published, or not on "
                "the official data."
            )
        )
    if table.footnotes:
        yield Items(tuple(text(note) for note in table.footnotes), numbered=True)
    if published:
        yield Text(
            text(
                "Published: standard deviation over seeds in brackets where it is printed; x: "
                "fails to learn, which counts as 50 in the printed average; -: not printed, or not "
                "checked."
            )
        )
    if table.unfinished:
        yield Heading("Unfinished runs, not counted")
        yield Items(tuple(_named(run, outcome(run)) for run in table.unfinished))
    if table.remarks:
        yield Heading("Remarks")
        yield Items(tuple(text(line) for line in table.remarks))
    if table.rows:
        yield Heading("Seeds")
        yield Items(tuple(_seeds(*place) for place in _cells(table)))
        yield Heading("Data")
        yield Grid(
            ("Model", "Task", "Source", "sha256", "Detail"),
            (("", tuple(_data(*place) for place in _cells(table))),),
            numeric=False,
        )
        yield Heading("Runs")
        yield Items(
            tuple(
                _run(run)
                for _, _, cell in _cells(table)
                for run in (*cell.finished, *cell.diverged)
            )
        )


def text(words: str) -> Line:
    return (Span(words),)


def score(value: Score | None) -> str:
    """A published accuracy, as printed."""
    if value is None:
        return "x"
    return f"{value.mean}" if value.std is None else f"{value.mean} ({value.std})"


def _our_row(row: Row) -> tuple[Line, ...]:
    star = "*" if row.marks else ""
    name = (Span(row.label + star, "strong"), *(Span(mark, "small") for mark in row.marks))
    cells = [_cell(row.cells[key]) if key in row.cells else () for key in COLUMNS]
    average: Line = ()
    if row.average is not None:
        bad = (Span(f"{row.n_diverged} diverged", "bad"),) if row.n_diverged else ()
        average = (Span(percent(row.average), "strong"), *bad)
    source = "here, official data" if row.source == OFFICIAL else "here"
    return (name, *cells, average, text(source))


def _cell(cell: Cell) -> Line:
    spans: list[Span] = []
    n, k = len(cell.finished), len(cell.diverged)
    if cell.mean is not None:
        spans.append(Span(percent(cell.mean), "strong"))
        if cell.half_width is not None:
            spans.append(Span(f" ± {percent(cell.half_width)}"))
    else:
        spans.append(Span("-"))
    if n:
        spans.append(Span(f"n = {n}", "small"))
    if cell.footnotes:
        word = "note" if len(cell.footnotes) == 1 else "notes"
        spans.append(Span(f"{word} {', '.join(map(str, cell.footnotes))}", "small"))
    if k:
        spans.append(Span(f"{k} of {n + k} diverged", "bad"))
    return tuple(spans)


def _published_row(row: Published) -> tuple[Line, ...]:
    cells = [text(score(row.scores[key])) if key in row.scores else text("-") for key in COLUMNS]
    return (text(row.model), *cells, text(str(row.average)), text(row.source))


def _cells(table: Table) -> Iterator[tuple[Row, str, Cell]]:
    for row in table.rows:
        for task, cell in row.cells.items():
            yield row, COLUMNS[task], cell


def _seeds(row: Row, task: str, cell: Cell) -> Line:
    runs = sorted((*cell.finished, *cell.diverged), key=lambda run: run.seed)
    listed = "; ".join(f"seed {run.seed}: {outcome(run)}" for run in runs)
    return (Span(f"{row.name}, {task}", "strong"), Span(f": {listed}"))


def _data(row: Row, task: str, cell: Cell) -> tuple[Line, ...]:
    run = (*cell.finished, *cell.diverged)[0]
    sha256 = (Span(run.sha256[:12], "code"),) if run.sha256 else ()
    source = run.source or "unknown"
    return (text(row.name), text(task), text(source), sha256, text(run.detail))


def _named(run: Result, rest: str) -> Line:
    return (Span(run.path, "code"), Span(f" {run.name}, seed {run.seed}: {rest}"))


def _run(run: Result) -> Line:
    """All that is needed to make a run again."""
    told = [outcome(run)]
    if run.majority_rate is not None:
        told.append(f"majority class {percent(run.majority_rate)} %")
    if run.steps is not None and run.status == "finished":
        told.append(f"{run.steps:,} steps")
    if run.parameters is not None:
        told.append(f"{run.parameters:,} parameters")
    if run.device:
        told.append(run.device)
    if run.config_digest:
        told.append(f"config {run.config_digest}")
    told.append(f"commit {run.commit or 'unknown'}")
    command = (Span(shlex.join(run.command), "code"),) if run.command else ()
    return (*_named(run, ", ".join(told)), *([Span(". ")] if command else []), *command)


def one_line(words: str) -> str:
    """Without line breaks and characters that show nothing."""
    return "".join(c for c in re.sub(r"\s+", " ", words) if c.isprintable())


def to_markdown(table: Table, *, published: bool = True) -> str:
    """The report as Markdown with GitHub's tables."""
    parts = [f"# {TITLE}\n"] + [_markdown(b) for b in blocks_of(table, published=published)]
    return "\n".join(parts)


def _markdown(block: Block) -> str:
    match block:
        case Heading(words):
            return f"## {words}\n"
        case Text(line):
            return f"{_markdown_line(line)}\n"
        case Items(lines, numbered):
            starts = (f"{i}." if numbered else "-" for i in range(1, len(lines) + 1))
            pairs = zip(starts, lines, strict=True)
            return "".join(f"{start} {_markdown_line(line)}\n" for start, line in pairs)
        case Grid(head, groups, numeric):
            rule = [":---", *(["---:" if numeric else "---"] * (len(head) - 2)), "---"]
            rows = [list(head), rule]
            for title, cells in groups:
                if title:
                    rows.append([f"*{title}*", *[""] * (len(head) - 1)])
                rows += [[_markdown_line(cell) for cell in row] for row in cells]
            return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _markdown_line(line: Line) -> str:
    return "".join(_markdown_span(span) for span in line)


def _markdown_span(span: Span) -> str:
    words = one_line(span.text)
    if span.kind == "code":
        ticks = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
        pad = " " * (words[:1] == "`" or words[-1:] == "`")
        return ticks + pad + words.replace("|", "\\|") + pad + ticks
    words = re.sub(r"([\\`*<>\[\]|&~#]|(?<!\w)_|_(?!\w))", r"\\\1", words)
    match span.kind:
        case "strong":
            return f"**{words}**"
        case "small" | "bad":
            return f", {words}"
    return words


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "*": r"\textasteriskcentered{}",
    "[": "{[}",  # or a row that begins with it were an argument of the line before
    "]": "{]}",
}


def latex_escape(words: str) -> str:
    """Words as LaTeX shows them, with any characters in them."""
    escaped = "".join(_LATEX.get(c, c) for c in one_line(words))
    return re.sub("-(?=-)", "-{}", escaped)  # two of them would be a dash


def to_latex(table: Table, *, published: bool = True) -> str:
    """The report as LaTeX to be put into a document: tables of booktabs between paragraphs."""
    parts = [_latex(block) for block in blocks_of(table, published=published)]
    head = "% needs \\usepackage{array,booktabs} and a wide page\n"
    return head + "\n".join(parts)


def _latex(block: Block) -> str:
    match block:
        case Heading(words):
            return f"\\paragraph{{{latex_escape(words)}}}\n"
        case Text(line):
            return f"\\noindent {_latex_line(line)}\n"
        case Items(lines, numbered):
            name = "enumerate" if numbered else "itemize"
            items = "".join(f"  \\item {_latex_line(line)}\n" for line in lines)
            return f"\\begin{{{name}}}\n{items}\\end{{{name}}}\n"
        case Grid(_, groups, False):  # a table of words may be longer than a page: a list instead
            listed = (_joined(row) for _, cells in groups for row in cells)
            return _latex(Items(tuple(listed)))
        case Grid(head, groups, _):
            first = r">{\raggedright\arraybackslash}p{0.15\linewidth}"
            columns = first + "r" * (len(head) - 2) + first.replace("0.15", "0.12")
            rows = [" & ".join(latex_escape(word) for word in head)]
            ends = [r" \\ \midrule"]
            for number, (title, cells) in enumerate(groups):
                if number:
                    ends[-1] = r" \\ \midrule"
                if title:
                    span = f"\\multicolumn{{{len(head)}}}{{l}}{{\\emph{{{latex_escape(title)}}}}}"
                    rows.append(span)
                    ends.append(r" \\")
                rows += [" & ".join(_latex_cells(row)) for row in cells]
                ends += [r" \\"] * len(cells)
            body = "".join(f"  {row}{end}\n" for row, end in zip(rows, ends, strict=True))
            return (
                "\\begin{center}\\footnotesize\\setlength{\\tabcolsep}{3pt}\n"
                f"\\begin{{tabular}}{{{columns}}}\n  \\toprule\n{body}  \\bottomrule\n"
                "\\end{tabular}\n\\end{center}\n"
            )


def _latex_line(line: Line) -> str:
    return "".join(_latex_span(span) for span in line)


def _joined(row: tuple[Line, ...]) -> Line:
    """A row as one line, with commas."""
    pieces = [piece for cell in row if cell for piece in (Span(", "), *cell)]
    return tuple(pieces[1:])


def _latex_cells(row: tuple[Line, ...]) -> Iterator[str]:
    """The cells of a row, in which each small piece has a line of its own."""
    for number, line in enumerate(row):
        beside = "".join(_latex_span(span) for span in line if span.kind not in ("small", "bad"))
        lines = [beside, *(_latex_span(span) for span in line if span.kind in ("small", "bad"))]
        if number == 0:  # a column of paragraphs
            yield r" \newline ".join(lines)
        elif len(lines) == 1:
            yield beside
        else:
            stacked = r" \\ ".join(lines)
            yield rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{stacked}\end{{tabular}}"


def _latex_span(span: Span) -> str:
    words = latex_escape(span.text)
    match span.kind:
        case "strong":
            return f"\\textbf{{{words}}}"
        case "code":
            return f"\\texttt{{{words}}}"
        case "small" | "bad":
            return f"{{\\scriptsize {words}}}"
    return words


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
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_HEAD, restval="", lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        for cell in row.cells.values():
            runs = (*cell.finished, *cell.diverged)
            writer.writerows(_csv_run(run, "yes") for run in runs)
    writer.writerows(_csv_run(run, "no") for run in (*table.unfinished, *table.repeated))
    if published:
        writer.writerows(_csv_published())
    return file.getvalue()


def _csv_run(run: Result, counted: str) -> dict[str, object]:
    same = {key: getattr(run, key) for key in CSV_HEAD if hasattr(run, key)}
    return {
        **{key: "" if value is None else value for key, value in same.items()},
        "kind": "run",
        "model": run.arm or "default",
        "counted": counted,
        "validation_accuracy": "" if run.validation is None else run.validation,
        "options": " ".join(run.options),
        "reduced": "yes" if run.reduced else "no",
        "command": " ".join(run.command),
    }


def _csv_published() -> Iterator[dict[str, object]]:
    for row in ANCHORS:
        shared = {"kind": "published", "model": row.model, "source": row.source}
        scores = {key: row.scores[key] for key in COLUMNS if key in row.scores}
        for task, value in {**scores, "average": Score(row.average, None)}.items():
            numbers: dict[str, Decimal | str] = {"status": "failed"}
            if value is not None:
                std = "" if value.std is None else value.std.scaleb(-2)
                numbers = {"accuracy": value.mean.scaleb(-2), "std": std}
            yield {**shared, "task": task, **numbers}


# Where a table is wider than the screen its first column stays while the others are scrolled; on a
# narrow screen each row is a card, whose entries name their column.
STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #5b6470; --line: #d5dae0;
  --band: #f3f5f8; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --text: #e6e9ed; --soft: #9aa4b0;
  --line: #343b44; --band: #1e232a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 84rem; background: var(--back);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p, li { max-width: 60rem; overflow-wrap: anywhere; }
li { margin: .35rem 0; }
ul, ol { padding-left: 1.3rem; }
code { font: .85em ui-monospace, monospace; background: var(--band); padding: .1em .3em;
  border-radius: 3px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--text); }
tbody th { font-weight: normal; min-width: 9rem; }
tr > th:first-child { position: sticky; left: 0; background: var(--back); }
td code { white-space: nowrap; }
li code:nth-of-type(2) { display: block; margin-top: .2rem; }
tr.group > th:first-child { color: var(--soft); font-weight: 600; background: var(--band); }
.numbers td, .numbers thead th { text-align: right; white-space: nowrap; }
.numbers td:last-child, .numbers th:first-child, .numbers thead th:last-child { text-align: left; }
.numbers td:last-child { color: var(--soft); font-size: .85em; white-space: normal;
  min-width: 8.5rem; }
small { display: block; color: var(--soft); line-height: 1.3; white-space: nowrap; }
tbody th small { white-space: normal; }
small.bad { color: var(--bad); }
@media (max-width: 52rem) {
  body { padding: 1rem; }
  thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  table, tbody { display: block; }
  tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr));
    gap: .3rem .6rem; padding: .7rem 0; border-bottom: 1px solid var(--line); }
  th, td, .numbers td { border: 0; padding: 0; text-align: left; }
  th, .words td { grid-column: 1 / -1; }
  .numbers td:last-child { grid-column: span 2; font-size: inherit; }
  td small { white-space: normal; }
  .group { padding: 0; }
  .group th { padding: .4rem .6rem; }
  td::before { content: attr(data-column); display: block; color: var(--soft); font-size: .75rem; }
  td:empty { display: none; }
}
"""


def to_html(table: Table, *, published: bool = True) -> str:
    """The report as a page: no script, nothing that is fetched."""
    body = "".join(_block(block) for block in blocks_of(table, published=published))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{TITLE}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{TITLE}</h1>\n{body}</body>\n</html>\n"
    )


def _block(block: Block) -> str:
    match block:
        case Heading(words):
            return f"<h2>{escape(words)}</h2>\n"
        case Text(line):
            return f"<p>{_line(line)}</p>\n"
        case Items(lines, numbered):
            tag = "ol" if numbered else "ul"
            items = "".join(f"<li>{_line(line)}</li>\n" for line in lines)
            return f"<{tag}>\n{items}</{tag}>\n"
        case Grid():
            return _grid(block)


def _grid(grid: Grid) -> str:
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in grid.head)
    kind = "numbers" if grid.numeric else "words"
    parts = [f'<div class="wide"><table class="{kind}">\n']
    parts.append(f"<thead><tr>{head}</tr></thead>\n")
    for title, rows in grid.groups:
        parts.append("<tbody>\n")
        if title:
            span = f'<th colspan="{len(grid.head)}" scope="rowgroup">{escape(title)}</th>'
            parts.append(f'<tr class="group">{span}</tr>\n')
        for name, *cells in rows:
            columns = zip(grid.head[1:], cells, strict=True)
            shown = "".join(
                f'<td data-column="{escape(column)}">{_line(cell)}</td>' for column, cell in columns
            )
            parts.append(f'<tr><th scope="row">{_line(name)}</th>{shown}</tr>\n')
        parts.append("</tbody>\n")
    return "".join((*parts, "</table></div>\n"))


def _line(line: Line) -> str:
    return "".join(_span(span) for span in line)


def _span(span: Span) -> str:
    words = escape(one_line(span.text))
    match span.kind:
        case "strong":
            return f"<strong>{words}</strong>"
        case "code":
            return f"<code>{words}</code>"
        case "small":
            return f"<small>{words}</small>"
        case "bad":
            return f'<small class="bad">{words}</small>'
    return words
