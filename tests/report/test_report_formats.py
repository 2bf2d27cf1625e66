"""Every format says the same, whatever is in the names, and HTML needs nothing from elsewhere."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import fake_runs
import pytest

from ssm_jax.lra.published import ANCHORS, COLUMNS
from ssm_jax.report import FORMATS, collect, tabulate
from ssm_jax.report.formats import escape_latex

ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert('&amp;')</script> | `a``b` *b* _c_ \\x{y} $5 #1 50% ~^ \"q\" [d](e)\u202e"
VISIBLE = HOSTILE.replace("\u202e", "")  # what turns the order of letters around is left out
VOID = {"meta", "link", "img", "br", "hr", "input", "base"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runs(tmp_path):
    """Of all kinds: repeated, diverged, unfinished, reduced, hostile, damaged."""
    folder = tmp_path / "runs"
    fake_runs.finished(folder / "a", "lra/listops:s4d", 0, 0.6272)
    fake_runs.finished(folder / "b", "lra/listops:s4d", 1, 0.1 + 0.2)
    fake_runs.finished(folder / "b2", "lra/listops:s4d", 1, 0.4)
    fake_runs.diverged(folder / "c", "lra/listops:s4d", 2, 812)
    row = {"step": 50, "kind": "val", "loss": 1.0, "accuracy": 0.3}
    fake_runs.unfinished(folder / "d", "lra/text:s4d", 0, [row])
    data = {"source": "generated", "detail": HOSTILE, "sha256": "00" * 32}
    command = ["scripts/train.py", f"--config.notes={HOSTILE}", "a b"]
    hostile = {"notes": HOSTILE + "\nline", "data": data, "command": command}
    fake_runs.finished(folder / "e", f"lra/text:{HOSTILE}", 0, 0.5, **hostile)
    (folder / "f").mkdir()
    (folder / "f/summary.json").write_text("{")
    return folder


@pytest.fixture
def table(runs):
    return tabulate(*collect([runs]))


class Page(HTMLParser):
    """Checks that tags are closed in order, and keeps texts, tags and attributes."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""
        self.style = ""
        self.columns: list[int] = []  # cells of each row of a table
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "tr":
            self.columns.append(0)
        if tag in ("td", "th"):
            self.columns[-1] += int(dict(attrs).get("colspan", 1))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            self.style += data
        else:
            self.words += data


def test_html_is_well_formed_and_self_contained(table):
    source = FORMATS["html"](table)
    page = Page(source)
    assert source.startswith("<!DOCTYPE html>")
    assert not page.tags & {"script", "link", "img", "iframe", "base", "object", "form"}
    assert page.attributes == {
        "charset", "class", "colspan", "content", "data-column", "lang", "name", "scope",
    }  # fmt: skip
    assert "url(" not in page.style and "@import" not in page.style
    assert "prefers-color-scheme: dark" in page.style
    assert set(page.columns) == {9, 5}  # the table of results, and that of the data


def test_html_shows_hostile_text_as_it_is(table):
    words = Page(FORMATS["html"](table)).words
    assert words.count(VISIBLE) >= 4  # name, notes, detail, command
    assert f"{VISIBLE} line" in words and "\u202e" not in words


def test_latex_escapes_every_special_character():
    escaped = escape_latex(HOSTILE)
    named = r"\\(?:textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|"
    named += r"textasciigrave|textasteriskcentered)\{\}"
    plain = re.sub(named + r"|\\[{}$&#%_]|\{\[\}|\{\]\}", "", escaped)
    assert not set(plain) & set('\\{}$&#%_^~<>|"`*[]'), plain
    assert escape_latex("--config ±") == "-{}-config $\\pm$"


def test_latex_rows_have_all_their_columns(table):
    source = FORMATS["latex"](table)
    flat = re.sub(r"\\begin{tabular}\[t\]{@{}r@{}}.*?\\end{tabular}", "cell", source)
    grids = re.findall(r"\\begin{tabular}{([^\n]*)}\n(.*?)\\end{tabular}", flat, re.DOTALL)
    assert len(grids) == 1
    for columns, rows in grids:
        wanted = len(re.findall("[lrp]", re.sub(r">\{.*?\}p\{.*?\}", "p", columns))) - 1
        for line in rows.splitlines():
            if r"\\" in line and "multicolumn" not in line:
                assert len(re.findall(r"(?<!\\)&", line)) == wanted, line
    opened = re.findall(r"\\begin{(\w+)}", source)
    assert sorted(opened) == sorted(re.findall(r"\\end{(\w+)}", source))
    unescaped = re.sub(r"\\[{}\\]", "", source)
    assert unescaped.count("{") == unescaped.count("}")
    assert r"\toprule" in source and r"\bottomrule" in source


def test_markdown_rows_have_all_their_columns(table):
    lines = [line for line in FORMATS["md"](table).splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert bars == {10, 6}
    text = FORMATS["md"](table)
    assert r"\<script\>" in text and "<script>" not in re.sub(r"(`+).*?[^`]\1(?!`)", "", text)


@pytest.mark.parametrize("name", ["md", "latex", "html"])
def test_what_is_not_counted_is_told_in_every_format(table, name):
    shown = FORMATS[name](table)
    shown = Page(shown).words if name == "html" else re.sub(r"\\|[*`]|\{|\}", "", shown)
    for words in (
        "1 of 3 diverged",
        "seed 2: diverged at step 812",
        "runs/b2 (40.00 %) repeats runs/b (30.00 %)",
        "runs/d lra/text:s4d, seed 0: at step 50, best validation accuracy so far: 30.00 %",
        "runs/f/summary.json is no whole JSON file",
        "Not comparable with the published numbers",
        "46.36",  # mean of 62.72 and 30.00
        "± 207.87" if name != "latex" else r"$pm$ 207.87",  # 12.706 * 32.72 / 2
        "n = 2",
        "f8f8be073649a06e",
    ):
        assert words in shown, words


@pytest.mark.parametrize("name", FORMATS)
def test_published_rows_are_there_on_request(table, name):
    shown, without = FORMATS[name](table), FORMATS[name](table, published=False)
    for row in ANCHORS:
        assert row.model.replace("_", "\\_" if name == "latex" else "_") in shown
        assert row.source.partition(",")[0] in shown
        assert row.source.partition(",")[0] not in without
    assert re.search(r"59\.60 \(0\.07\)" if name != "csv" else "0.5960,0.0007", shown)


def test_csv_reads_back_as_the_same_numbers(table):
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](table), newline="")))
    assert all(None not in row and None not in row.values() for row in rows)
    ours = {row["path"]: row for row in rows if row["kind"] == "run"}
    assert {path: row["counted"] for path, row in ours.items()} == {
        "runs/a": "yes", "runs/b": "yes", "runs/b2": "no", "runs/c": "yes", "runs/d": "no",
        "runs/e": "yes",
    }  # fmt: skip
    assert float(ours["runs/a"]["accuracy"]) == 0.6272
    assert float(ours["runs/b"]["accuracy"]) == 0.1 + 0.2
    assert (ours["runs/c"]["status"], ours["runs/c"]["steps"]) == ("diverged", "812")
    assert ours["runs/c"]["accuracy"] == ""
    assert float(ours["runs/d"]["validation_accuracy"]) == 0.3
    assert ours["runs/e"]["notes"] == HOSTILE + "\nline" and ours["runs/e"]["detail"] == HOSTILE
    published = {(row["model"], row["task"]): row for row in rows if row["kind"] == "published"}
    assert len(published) == sum(len(row.scores) + 1 for row in ANCHORS)
    for row in ANCHORS:
        for task, score in row.scores.items():
            line = published[row.model, task]
            if score is None:
                assert (line["status"], line["accuracy"]) == ("failed", "")
            else:
                assert float(line["accuracy"]) == pytest.approx(float(score.mean) / 100)
                std = float(line["std"]) if line["std"] else None
                wanted = None if score.std is None else pytest.approx(float(score.std) / 100)
                assert std == wanted
        assert float(published[row.model, "average"]["accuracy"]) * 100 == pytest.approx(
            float(row.average)
        )


@pytest.mark.parametrize("name", FORMATS)
def test_order_of_arguments_changes_no_byte(runs, name):
    paths = sorted(runs.iterdir())
    made = {FORMATS[name](tabulate(*collect(order))) for order in (paths, paths[::-1], [runs])}
    assert len(made) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_without_a_result_a_report_says_so(tmp_path, name):
    fake_runs.unfinished(tmp_path / "d", "lra/text:s4d", 0, [])
    shown = FORMATS[name](tabulate(*collect([tmp_path])), published=False)
    assert ("No run has a result." in shown) == (name != "csv")
    assert "no evaluation" in shown or name == "csv"


def test_six_tasks_have_an_average_in_every_format(tmp_path):
    for number, task in enumerate(COLUMNS):
        fake_runs.finished(tmp_path / task, f"lra/{task}:s4d", 0, 0.5 + number / 10)
    table = tabulate(*collect([tmp_path]))
    for name in ("md", "latex", "html"):
        assert "75.00" in FORMATS[name](table, published=False)


def script(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/report.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done


def test_script_writes_what_the_ending_says(runs, tmp_path):
    done = script(runs, "--nopublished", f"--out={tmp_path / 'new/page.html'}")
    assert done.stdout == "" and all(s.startswith("warning: ") for s in done.stderr.splitlines())
    page = (tmp_path / "new/page.html").read_text()
    assert page == FORMATS["html"](tabulate(*collect([runs])), published=False)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    assert script(runs, "--format=csv").stdout.startswith("kind,model,task,")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no runs given"),
        (["nowhere"], "nowhere does not exist"),
        (["."], "holds no run"),
        ([".", "--format=pdf"], "not one of md, latex, csv, html"),
        (["copy.json", "--out=."], "--out=. is a folder"),
    ],
)
def test_script_refuses_in_one_line(tmp_path, arguments, words):
    if "copy.json" in arguments:
        fake_runs.write(tmp_path / "copy.json", fake_runs.summary("lra/text", 0, 0.5))
    done = script(*arguments, code=2)
    assert len(done.stderr.splitlines()) == 1 and words in done.stderr
