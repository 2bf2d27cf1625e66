"""A report as one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

from html import escape

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
from ssm_jax.analysis.report.formats import one_line
from ssm_jax.analysis.report.table import Table

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
