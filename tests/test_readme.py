"""What README.md says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_tables_are_those_that_the_results_make():
    done = subprocess.run([sys.executable, "scripts/update_readme.py", "--check"], cwd=ROOT)
    assert done.returncode == 0, "run scripts/update_readme.py"


def test_python_examples_run():
    """In turn, as a reader types them."""
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 2
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
