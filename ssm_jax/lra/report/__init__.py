"""Results of runs on the Long Range Arena, beside the published ones.

table = tabulate(*collect([Path("runs")]))
print(FORMATS["md"](table, published=True))
"""

from ssm_jax.lra.report.formats import to_csv, to_html, to_latex, to_markdown
from ssm_jax.lra.report.results import Collection, Result, collect
from ssm_jax.lra.report.table import Cell, Row, Table, tabulate

FORMATS = {"md": to_markdown, "latex": to_latex, "csv": to_csv, "html": to_html}

__all__ = ["FORMATS", "Cell", "Collection", "Result", "Row", "Table", "collect", "tabulate"]
