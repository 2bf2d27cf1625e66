"""Results of runs on the Long Range Arena, next to the published ones.

table = tabulate(*collect([Path("runs")]))
print(FORMATS["md"](table, published=True))
"""

from collections.abc import Callable, Mapping

from ssm_jax.lra.report.formats import Html, Latex, Markdown, to_csv
from ssm_jax.lra.report.results import Collection, Result, collect
from ssm_jax.lra.report.table import Cell, Row, Table, tabulate

FORMATS: Mapping[str, Callable[..., str]] = {
    "md": Markdown(),
    "latex": Latex(),
    "csv": to_csv,
    "html": Html(),
}

__all__ = ["FORMATS", "Cell", "Collection", "Result", "Row", "Table", "collect", "tabulate"]
