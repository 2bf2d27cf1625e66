"""What README.md says is so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SCRIPT = (ROOT / "scripts/update_readme.py").read_text()


def update(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/update_readme.py", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


def test_tables_and_figures_are_those_that_the_results_make():
    done = update(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_two_tables_are_in_the_readme_and_every_table_in_the_docs():
    def tables(page: Path) -> list[str]:
        return re.findall(r"<!-- results:(\w+) -->", page.read_text())

    assert tables(ROOT / "README.md") == ["denoise", "lra"]
    made = re.findall(r'^    "(\w+)": \w+\.\w+,$', SCRIPT, re.MULTILINE)
    found = {name for page in (ROOT / "docs").glob("*.md") for name in tables(page)}
    assert len(made) > 10 and found == set(made)


def test_a_stale_table_or_figure_is_named_and_a_new_figure_gets_its_stamp(tmp_path):
    for name in ("ssm_jax", "scripts", "results", "docs", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", tmp_path)
    page, numbers = tmp_path / "docs/results.md", tmp_path / "results/theory/one_pole.json"
    page.write_text(page.read_text().replace("| baseline |", "| base |"))
    numbers.write_text(numbers.read_text() + " ")
    run = tmp_path / "ssm_jax/plots/run.py"
    run.write_text(run.read_text().replace("by frequency band", "band by band"))
    done = update(tmp_path, "--check")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "results.md is out of date; run scripts/update_readme.py",
        "results/diagnostics/variation.png does not fit the code that it was stamped with",
        "results/theory/one_pole.png does not fit the numbers that it was stamped with",
    ]
    picture = tmp_path / "results/theory/one_pole.png"
    picture.write_bytes(picture.read_bytes() + b" ")  # drawn anew
    done = update(tmp_path, "--accept=diagnostics/variation.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert update(tmp_path, "--check").returncode == 0


def test_python_examples_run():
    """In turn, as a reader types them."""
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 1
    names: dict = {}
    for example in examples:
        exec(example, names)
        assert names["y_BLH"].shape == (4, 1024, 128)
    assert names["k_HL"].shape == (128, 1024)
    assert names["y_BH"].shape == (4, 128)


def test_files_and_targets_that_it_names_exist():
    for name in re.findall(r"(?:configs|scripts)/[\w/]+\.py", README):
        assert (ROOT / name).exists(), name
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert target in targets, target
