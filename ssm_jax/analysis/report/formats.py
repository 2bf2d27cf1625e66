"""A report as Markdown, as LaTeX and as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from decimal import Decimal

from ssm_jax.analysis.published import ANCHORS, COLUMNS, Score
from ssm_jax.analysis.report.blocks import (
    TITLE,
    Block,
    Grid,
    Heading,
    Items,
    Line,
    Span,
    Text,
    blocks_of,
)
from ssm_jax.analysis.report.result import Result
from ssm_jax.analysis.report.table import Table


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
