"""What docs/models.md shows runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from small_models import CAUSAL, trained

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text()


def test_its_examples_run(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished[0], "runs/mine")
    trained(depth=1, **CAUSAL).save("causal.safetensors")
    program = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    found: dict = {}
    exec(program.replace('load("runs/mine", 1200)', ""), found)
    assert found["names"].shape == (3,) and found["shares"].shape == (5, 3)
    assert found["logits"].shape == (3,)


def test_its_command_trains_a_model_that_has_steps():
    given = {name: False for name in re.findall(r"--config\.model\.(\S+)=false", PAGE)}
    assert given == CAUSAL
    trained(depth=1, **given).stream()
