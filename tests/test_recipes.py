"""The claims of `make listops` and `make quickstart`, at their full size: `make slow`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = "--config=configs/listops_small.py"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_small_listops_is_twice_as_good_as_the_majority_class_in_three_minutes(seed, tmp_path):
    start = time.monotonic()
    subprocess.run(
        [
            sys.executable, "scripts/train.py", CONFIG, f"--config.seed={seed}",
            f"--data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}",
        ],
        cwd=ROOT,
        check=True,
    )  # fmt: skip
    assert time.monotonic() - start < 180
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["test"]["accuracy"] >= 2 * summary["majority_rate"]


@pytest.mark.slow
def test_small_listops_killed_twelve_times_is_equal_to_the_bit(tmp_path):
    subprocess.run(
        [
            sys.executable, "-m", "benchmarks.resume", CONFIG, "--kills=12",
            f"--data_dir={tmp_path / 'data'}", f"--folder={tmp_path / 'check'}",
        ],
        cwd=ROOT,
        check=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_spoilt_in_every_way_ends_in_its_result_or_in_a_line_with_a_way_on(tmp_path):
    subprocess.run(
        [
            sys.executable, "-m", "benchmarks.resume", "--config=tests/training/tiny.py",
            "--what=damage", "--config.log.diagnostics=true", "--config.log.gradient=false",
            f"--data_dir={tmp_path / 'data'}", f"--folder={tmp_path / 'spoilt'}",
        ],
        cwd=ROOT,
        check=True,
    )  # fmt: skip


@pytest.mark.slow
def test_quickstart_shows_the_bias_strengthened_weakened_and_reversed_in_three_minutes(tmp_path):
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "scripts/denoise.py", f"--folder={tmp_path / 'quickstart'}"],
        cwd=ROOT,
        check=True,
    )
    assert time.monotonic() - start < 180
    results = json.loads((tmp_path / "quickstart/results.json").read_text())
    verdicts = [cell["verdict"] for cell in results["cells"]]
    assert verdicts == ["reference", "strengthened", "weakened", "reversed"]
