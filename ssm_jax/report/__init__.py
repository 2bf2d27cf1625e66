"""Results of runs, those on the Long Range Arena and on UEA's next to the published ones.

table = tabulate(*collect([Path("runs")]))
print(FORMATS["md"](table, published=True))
"""

from ssm_jax.report.formats import FORMATS
from ssm_jax.report.results import Collection, Result, collect
from ssm_jax.report.table import Cell, Row, Table, tabulate

__all__ = ["FORMATS", "Cell", "Collection", "Result", "Row", "Table", "collect", "tabulate"]
