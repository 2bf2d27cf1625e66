"""Every dimension letter in the package is in the legend."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from ssm_jax import dims

PACKAGE = Path(dims.__file__).parent
ROW = re.compile(r"^\| ([A-Z](?:, [A-Z])*) +\|", re.M)
SUFFIX = re.compile(r"(?!d_).+_((?:\d*[A-Z])+\d*)")  # d_D is the derivative by a matrix D


def letters() -> Iterator[tuple[str, str]]:
    """(letter, where it stands) of the arguments and variables of all functions."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.Lambda):
                continue
            for node in ast.walk(function):
                name = getattr(node, "arg", None) or ""
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    name = node.id
                if found := SUFFIX.fullmatch(name):
                    where = f"{name} in {file.relative_to(PACKAGE)}"
                    yield from ((letter, where) for letter in re.sub(r"\d", "", found[1]))


def test_the_legend_is_complete():
    legend = {letter for row in ROW.findall(dims.__doc__) for letter in row.split(", ")}
    assert {"B", "L", "H", "N"} <= legend
    assert not {where for letter, where in letters() if letter not in legend}
