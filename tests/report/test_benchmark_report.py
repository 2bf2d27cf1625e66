"""The benchmark's table: published rows beside ours, and no winner inside the noise."""

from __future__ import annotations

import csv
import io
import math
from xml.etree import ElementTree

import fake_runs
import numpy as np
import pytest
from scipy import stats

from ssm_jax.report import FORMATS, benchmark, collect, tabulate
from ssm_jax.spread import welch

SEEDS = (2345, 3456, 4567, 5678, 6789)


def table(tmp_path, **accuracies):
    """Runs on Heartbeat, by variant."""
    for variant, values in accuracies.items():
        for seed, value in zip(SEEDS, values, strict=False):
            name = f"uea/Heartbeat:{variant}"
            made = {"task": "classification", "selected_by": "val accuracy",
                    "val": {"accuracy": 0.7}, "command": ["x"], "setup": variant}  # fmt: skip
            fake_runs.finished(tmp_path / f"{variant}{seed}", name, seed, value, **made)
    return tabulate(*collect([tmp_path]))


def test_published_rows_are_beside_ours_with_source_spread_and_n(tmp_path):
    runs = table(tmp_path, s4d=(0.75, 0.77, 0.79, 0.76, 0.78), s4d_ft=(0.8,))
    text = FORMATS["md"](runs)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| s4d | 77.00 (1.41), n = 5 | here |" in lines
    assert "| s4d_ft | 80.00, n = 1 | here |" in lines
    assert "| PD-SSM | 80.0 (2.6) | P: IBM/expressive-sparse-state-space-model@8682e78 |" in lines
    assert "| D-LinOSS | 75.8 (4.9) | S: arXiv:2505.12171 |" in lines
    assert benchmark.NOT_MARKED in text and benchmark.MARKED not in text
    bare = FORMATS["md"](runs, published=False)
    assert "PD-SSM" not in bare and "| s4d | 77.00 (1.41), n = 5 | here |" in bare
    assert "s4d & 77.00 (1.41), n = 5 & here \\\\" in FORMATS["latex"](runs)
    source = "P: IBM/expressive-sparse-state-space-model@8682e78"
    assert f"PD-SSM & 80.0 (2.6) & {source} \\\\" in FORMATS["latex"](runs)
    page = FORMATS["html"](runs)
    page = page[page.index("<body") : page.index("</body>") + len("</body>")]
    rows = [
        [*filter(None, "".join(row.itertext()).split("\n"))]
        for row in ElementTree.fromstring(page).iter("tr")
    ]
    assert ["PD-SSM", "80.0 (2.6)", source] in rows
    assert ["s4d", "77.00 (1.41), n = 5", "here"] in rows


def test_a_spreadsheet_has_ours_and_the_published_numbers_of_the_same_sets(tmp_path):
    """By task and model, as fractions; no other set, and nothing of the Long Range Arena."""
    runs = table(tmp_path, s4d=(0.75, 0.77), s5=(0.8,))
    ppg = {"task": "per_step", "selected_by": "val mse", "val": {"mse": 0.1}, "setup": "p"}
    fake_runs.finished(tmp_path / "p", "uea/PPG:s4d", 2345, 0.0, test={"mse": 0.07}, **ppg)

    def read(runs, **options):
        lines = list(csv.DictReader(io.StringIO(FORMATS["csv"](runs, **options), newline="")))
        return [line for line in lines if line["kind"] == "run"], {
            (line["task"], line["model"]): line for line in lines if line["kind"] == "published"
        }

    ours, published = read(runs)
    assert [(r["task"], r["model"], r["seed"], r["accuracy"], r["counted"]) for r in ours] == [
        ("uea/Heartbeat", "s4d", "2345", "0.75", "yes"),
        ("uea/Heartbeat", "s4d", "3456", "0.77", "yes"),
        ("uea/Heartbeat", "s5", "2345", "0.8", "yes"),
    ]
    assert {r["validation_accuracy"] for r in ours} == {"0.7"}
    assert {task for task, _ in published} == {"uea/Heartbeat"} and len(published) == 13
    names = ("accuracy", "metric", "value", "std", "n", "source")
    row = published["uea/Heartbeat", "D-LinOSS"]
    assert [row[name] for name in names] == [
        "0.758", "accuracy", "0.758", "0.049", "5", "S: arXiv:2505.12171",
    ]  # fmt: skip
    assert published["uea/Heartbeat", "BD-LNCDE"]["std"] == ""
    assert read(runs, published=False) == (ours, {})
    _, published = read(tabulate(*collect([tmp_path])))
    row = published["uea/PPG", "LRU"]
    assert [row[name] for name in names[:4]] == ["", "mse", "0.1217", "0.0049"]
    assert len(published) == 13 + 11  # two of the published rows have no PPG


def test_only_what_is_beyond_the_noise_of_all_others_is_marked():
    def row(model, mean, std, n=5, **about):
        return benchmark.Row(model, {"PPG": benchmark.Score("", mean, std, n, **about)}, "")

    good, bad = row("good", 5.0, 0.1), row("bad", 7.0, 0.1)
    assert benchmark.ahead("PPG", [bad, good]) is good  # of errors the least
    for other in (row("near", 5.1, 0.3), row("single", 9.0, None), row("one", 9.0, 0.1, 1)):
        assert benchmark.ahead("PPG", [bad, good, other]) is None
    assert benchmark.ahead("PPG", [good, bad, row("changed", 1.0, 0.1, counts=False)]) is good
    assert benchmark.ahead("PPG", [good]) is None
    for rows in ([row("nan", math.nan, 0.1), good, bad], [good, bad, row("nan", math.nan, 0.1)]):
        assert benchmark.ahead("PPG", rows) is None


def test_the_noise_is_that_of_welch():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=5), 3 * rng.normal(size=8)
    low, high = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    width = welch((one.std(), 5), (other.std(), 8))
    assert width == pytest.approx((high - low) / 2, rel=1e-9)
    assert welch((0.0, 5), (0.0, 5)) == 0.0


def test_published_rows_are_whole():
    rows = benchmark.published()
    assert len({row.model for row in rows}) == len(rows) == 13
    means = {row.model: np.mean([row.scores[s].mean for s in list(benchmark.SETS)[:6]])
             for row in rows}  # fmt: skip
    # As printed by their authors
    for model, mean in {"D-LinOSS": 68.0, "PD-SSM": 67.0, "LinOSS-IM": 67.8, "LRU": 61.7}.items():
        assert means[model] == pytest.approx(mean, abs=0.06)
