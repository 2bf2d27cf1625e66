"""A report as Markdown, LaTeX, CSV, and as one HTML page that needs nothing from elsewhere.

Markdown and LaTeX are written from the elements of the page, which `ssm_jax.report.page` makes.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any
from xml.etree.ElementTree import Element

from ssm_jax import tables
from ssm_jax.lra.published import ANCHORS, COLUMNS, Score
from ssm_jax.pages import page_of
from ssm_jax.report import benchmark
from ssm_jax.report.page import elements, has_arena, title_of
from ssm_jax.report.results import Result
from ssm_jax.report.table import Table


def to_html(table: Table, *, published: bool = True) -> str:
    """A page: no script, nothing that is fetched."""
    return page_of(title_of(table), elements(table, published))


def to_markdown(table: Table, *, published: bool = True) -> str:
    """Markdown with GitHub's tables."""
    parts = map(_markdown, elements(table, published))
    return f"# {escape_markdown(title_of(table))}\n\n" + "\n".join(parts)


def _markdown(element: Element) -> str:
    if element.tag == "code":
        return _markdown_code(element.text or "")
    if element.tag == "table":
        return _markdown_table(element)
    if element.tag == "ol":
        items = (_markdown(item).removeprefix("- ") for item in element)
        return "".join(f"{number}. {item}" for number, item in enumerate(items, start=1))
    text = escape_markdown(element.text or "")
    for child in element:
        text += _markdown(child) + escape_markdown(child.tail or "")
    ways = {"h2": "## {}\n", "p": "{}\n", "li": "- {}\n", "strong": "**{}**", "small": ", {}"}
    return ways.get(element.tag, "{}").format(text)


def _markdown_table(table: Element) -> str:
    head, *rows = ([_markdown(cell) for cell in row] for row in table.iter("tr"))
    for row in rows:
        if len(row) < len(head):  # a title
            row[:] = [f"*{row[0]}*", *[""] * (len(head) - 1)]
    number = "---:" if table.get("class") == "numbers" else "---"
    return tables.to_markdown(head, rows, [":---", *[number] * (len(head) - 2), "---"])


def _markdown_code(words: str) -> str:
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
    pad = " " if words.startswith("`") or words.endswith("`") else ""
    return ticks + pad + words.replace("|", "\\|") + pad + ticks


def escape_markdown(words: str) -> str:
    return re.sub(r"([\\`*<>\[\]|&~#]|(?<!\w)_|_(?!\w))", r"\\\1", words)


def to_latex(table: Table, *, published: bool = True) -> str:
    """LaTeX to be put into a document: tables of booktabs between paragraphs."""
    parts = map(_latex, elements(table, published))
    return "% needs \\usepackage{array,booktabs} and a wide page\n" + "\n".join(parts)


_LATEX = {  # what is around the content of an element
    "h2": "\\paragraph{%s}\n",
    "p": "\\noindent %s\n",
    "ul": "\\begin{itemize}\n%s\\end{itemize}\n",
    "ol": "\\begin{enumerate}\n%s\\end{enumerate}\n",
    "li": "  \\item %s\n",
    "strong": "\\textbf{%s}",
    "code": "\\texttt{%s}",
    "small": "\n{\\scriptsize %s}",  # in a line of its own, see _latex_cell
}


def _latex(element: Element) -> str:
    if element.tag == "table":
        return _latex_table(element)
    text = escape_latex(element.text or "")
    for child in element:
        text += _latex(child) + escape_latex(child.tail or "")
    return _LATEX.get(element.tag, "%s") % text


def _latex_table(table: Element) -> str:
    head, *rows = table.iter("tr")
    if table.get("class") == "words":  # may be longer than a page: a list instead, with commas
        items = (", ".join(filter(None, map(_latex, row))) for row in rows)
        return _LATEX["ul"] % "".join(_LATEX["li"] % item for item in items)
    lines: list[list[str] | None] = [[_latex(name) for name in head]]
    for group in table.iter("tbody"):
        lines.append(None)
        for row in group:
            if len(row) < len(head):  # a title
                lines.append([rf"\multicolumn{{{len(head)}}}{{l}}{{\emph{{{_latex(row)}}}}}"])
            else:
                lines.append([_latex_cell(cell) for cell in row])
    words = r">{\raggedright\arraybackslash}p{%s\linewidth}"
    columns = words % 0.15 + "r" * (len(head) - 2) + words % 0.12
    size = "\\begin{center}\\footnotesize\\setlength{\\tabcolsep}{3pt}\n"
    return size + tables.to_latex(columns, lines) + "\\end{center}\n"


def _latex_cell(cell: Element) -> str:
    """A cell, in which each small piece has a line; the first column has paragraphs."""
    lines = _latex(cell).split("\n")
    if cell.tag == "th":
        return r" \newline ".join(lines)
    stack = r" \\ ".join(lines)
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{stack}\end{{tabular}}" if lines[1:] else stack


_SPECIAL: dict[str, str | int | None] = {
    **{character: f"\\{character}" for character in "{}$&#%_"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "*": r"\textasteriskcentered{}",
    "±": r"$\pm$",
    '"': "''",
    "[": "{[}",  # else a row that begins with it is an argument of \\
    "]": "{]}",
}


def escape_latex(words: str) -> str:
    escaped = words.translate(str.maketrans(_SPECIAL))
    return re.sub("-(?=-)", "-{}", escaped)  # two of them would be a dash


CSV_HEAD = (
    "kind", "model", "task", "seed", "status", "counted", "accuracy", "std", "n", "loss",
    "validation_accuracy", "metric", "value", "validation_value",
    "majority_rate", "steps", "parameters", "name", "options", "reduced",
    "notes", "source", "detail", "sha256", "setup", "config_digest", "commit", "device", "path",
    "command",
)  # fmt: skip


def to_csv(table: Table, *, published: bool = True) -> str:
    """One line for each run and, if wanted, for each published number beside it; accuracies: 0..1.

    `steps` are all of a finished run, those so far of an unfinished one, and the first that is not
    finite of one that diverged. `task` is "average" for the printed average of a published row, and
    uea/SET for the sets of docs/benchmark.md, of which published are those that have runs; `std`
    and `n` are those of a published mean.
    """
    cells = [cell for row in table.rows for cell in row.cells.values()]
    others = [run for runs in table.others for run in runs]
    rows = [_csv_run(run, "yes") for runs in (*(c.runs for c in cells), others) for run in runs]
    rows += [_csv_run(run, "no") for run in (*table.unfinished, *table.repeated)]
    if published and has_arena(table):
        rows += _csv_published()
    if published:
        rows += _csv_benchmark({about[0] for run in others if (about := benchmark.named(run))})
    return tables.to_csv(CSV_HEAD, ([row.get(name) for name in CSV_HEAD] for row in rows))


def _csv_run(run: Result, counted: str) -> dict[str, Any]:
    about = benchmark.named(run)
    task, model = (f"uea/{about[0]}", about[1]) if about else (run.task or run.other, run.variant)
    accuracies = run.scores.get("accuracy", (run.validation, run.accuracy))
    return {
        **vars(run),
        "kind": "run",
        "model": model or "default",
        "task": task,
        "counted": counted,
        "accuracy": accuracies[1],
        "validation_accuracy": accuracies[0],
        "validation_value": run.scores.get(run.metric, (None,))[0],
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


def _csv_benchmark(sets: set[str]) -> Iterator[dict[str, Any]]:
    for row in benchmark.published():
        for name in filter(sets.__contains__, row.scores):
            score, metric = row.scores[name], benchmark.metric_of(name)
            mean, std = (
                None if number is None else Decimal(str(number)).scaleb(-2)
                for number in (score.mean, score.std)
            )
            line = {"kind": "published", "model": row.model, "source": row.source, "n": score.n}
            line |= {"task": f"uea/{name}", "metric": metric, "value": mean, "std": std}
            yield {**line, "accuracy": mean if metric == "accuracy" else None}


FORMATS: Mapping[str, Callable[..., str]] = {
    "md": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "html": to_html,
}
