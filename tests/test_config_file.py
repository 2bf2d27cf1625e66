"""What an experiment file may sweep: the cells are read, and each fault is one line."""

from __future__ import annotations

import numpy as np
import pytest

from ssm_jax.config.load import load_config, load_sweep

FILE = """
import numpy as np
from ssm_jax import config

def get_config(arg=""):
    cfg = config.default()
    cfg.train.steps = 10
    return cfg

"""


@pytest.fixture
def read(tmp_path):
    """Reads a file with this sweep function."""

    def read(sweep: str, arg: str = ""):
        path = tmp_path / "e.py"
        path.write_text(FILE + sweep)
        spec = f"{path}:{arg}" if arg else str(path)
        return load_sweep(spec, load_config(spec))

    return read


def test_cells_have_the_types_of_the_options(read):
    cells = read(
        "def sweep():\n"
        "    return [{'model.alpha': a, 'model.depth': 2} for a in (1, 2.5, np.float64(3))]"
    )
    assert cells == [{"model.alpha": a, "model.depth": 2} for a in (1.0, 2.5, 3.0)]
    assert {type(cell["model.alpha"]) for cell in cells} == {float}
    assert np.float64 not in {type(cell["model.alpha"]) for cell in cells}


def test_a_sweep_may_yield_and_may_take_the_argument_of_the_config(read):
    text = "def sweep(arg):\n    yield {'model.alpha': len(arg) + 1}"
    assert read(text) == [{"model.alpha": 1.0}]
    assert read(text, "abc") == [{"model.alpha": 4.0}]
    assert read("def sweep():\n    yield {'model.alpha': 1}", "abc") == [{"model.alpha": 1.0}]


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ("", [["no function sweep()"]]),
        ("def sweep():\n    return 1 / 0", [["line 11", "ZeroDivisionError"]]),
        ("def sweep():\n    return {}", [["returns a dict, not a list"]]),
        ("def sweep():\n    return []", [["returns no cells"]]),
        ("def sweep():\n    return [3]", [["cell 1", "it is 3, not a dict"]]),
        ("def sweep():\n    return [{}]", [["cell 1", "not a dict of options"]]),
        (
            "def sweep():\n    return [{'model.alhpa': 1}, {'model.alhpa': 2}]",
            [["cell 1", "'model.alhpa' is no option; did you mean model.alpha?"]],
        ),
        ("def sweep():\n    return [{'seed': 1}]", [["cell 1", "--seeds=N"]]),
        (
            "def sweep():\n    return [{'model.depth': 2.0}, {'model.alpha': True}]",
            [
                ["cell 1", "model.depth=2.0 is a float, not a int"],
                ["cell 2", "model.alpha=True is a bool, not a float"],
            ],
        ),
        (
            "def sweep():\n    return [{'model.alpha': a} for a in (1, -1, -1)]",
            [["cell 2", "model.alpha=-1.0 is out of range"]],
        ),
        (
            "def sweep():\n    return [{'model.alpha': 1}, {'model.depth': 1}]",
            [["cell 2", "sets model.depth, and cell 1 sets model.alpha"]],
        ),
        (
            "def sweep():\n    return [{'model.alpha': 1}, {'model.alpha': 1.0}]",
            [["cell 2", "is cell 1 again"]],
        ),
    ],
)
def test_each_fault_of_a_sweep_is_one_line(read, sweep, words):
    with pytest.raises(ValueError) as refused:
        read(sweep)
    lines = str(refused.value).splitlines()
    assert len(lines) == len(words), lines
    for line, expected in zip(lines, words, strict=True):
        assert line.startswith("--config=") and line[-1] in ".?"
        for word in expected:
            assert word in line
