"""Tables: the cells are those of the items, in every form."""

import csv
import io

from rich.console import Console

from ssm_jax import tables

HEAD = ("layer", "L")
ROWS = [["s4d", "1,024"], ["s4", "64"]]


def test_cells_are_made_by_functions_and_by_format_strings():
    columns = {"layer": "{layer}", "L": lambda row: f"{row['length']:,}", "ms": "{ms[median]:.1f}"}
    items = [{"layer": "s4d", "length": 1024, "ms": {"median": 2.04}}]
    assert tables.cells(columns, items) == [["s4d", "1,024", "2.0"]]


def test_markdown_has_a_rule_under_the_head():
    assert tables.to_markdown(HEAD, ROWS).splitlines() == [
        "| layer | L |",
        "| --- | --- |",
        "| s4d | 1,024 |",
        "| s4 | 64 |",
    ]
    assert tables.to_markdown(HEAD, (), (":---", "---:")).splitlines()[1] == "| :--- | ---: |"


def test_csv_keeps_every_digit_and_leaves_what_is_missing_empty():
    text = tables.to_csv(("a", "b, c", "d"), [(0.1 + 0.2, None, 'say "x"')])
    head, row = csv.reader(io.StringIO(text, newline=""))
    assert head == ["a", "b, c", "d"] and row[1:] == ["", 'say "x"']
    assert float(row[0]) == 0.1 + 0.2


def test_latex_rules_end_the_row_above_them():
    assert tables.to_latex("lr", [HEAD, None, *ROWS]).splitlines() == [
        r"\begin{tabular}{lr}",
        r"  \toprule",
        r"  layer & L \\ \midrule",
        r"  s4d & 1,024 \\",
        r"  s4 & 64 \\",
        r"  \bottomrule",
        r"\end{tabular}",
    ]


def test_a_screen_sets_words_at_the_left_and_numbers_at_the_right():
    console = Console(width=40, file=io.StringIO())
    console.print(tables.to_screen(HEAD, ROWS, title="Layers", words=(0,), plain=True))
    lines = [line.strip() for line in console.file.getvalue().splitlines()]
    assert lines[0] == "Layers"
    assert [line.split() for line in lines[-3:-1]] == [["s4d", "1,024"], ["s4", "64"]]
    assert console.file.getvalue().splitlines()[-2].rstrip().endswith("   64")
