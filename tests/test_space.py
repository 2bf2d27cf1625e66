"""The space of a search, as flags and search() write it."""

from __future__ import annotations

import re

import pytest

from ssm_jax.config.load import load_config, load_search
from ssm_jax.config.space import axis_of, points_of


@pytest.mark.parametrize(
    ("given", "kind", "values"),
    [
        ("0.1..10:log:3", float, (0.1, 1.0, 10.0)),
        ("0..1:5", float, (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("1..64:log:4", int, (1, 4, 16, 64)),
        ("12345..20001:3", int, (12345, 16173, 20001)),
        ("12345..99999:log:2", int, (12345, 99999)),
        ("0.12344..1.23456:3", float, (0.12344, 0.679, 1.23456)),
        ("0,0.5,1", float, (0.0, 0.5, 1.0)),
        ("s4d,s5", str, ("s4d", "s5")),
        ("true,false", bool, (True, False)),
        ([1, 2.5], float, (1.0, 2.5)),
    ],
)
def test_a_list_has_its_values_in_order(given, kind, values):
    axis = axis_of("model.alpha", given, kind)
    assert axis.values == values and all(type(value) is kind for value in axis.values)
    assert axis.holds(values[0]) and not axis.holds(7.5)


def test_a_range_has_its_ends_and_draws_have_few_digits():
    axis = axis_of("model.alpha", "1e-4..1e-2:log", float)
    assert (axis.low, axis.high, axis.log, axis.values) == (1e-4, 1e-2, True, ())
    assert axis.fit(0.000123456) == 0.0001235
    assert axis_of("a", "0.12344..1", float).fit(0.123441) == 0.12344, "it stays inside"
    whole = axis_of("model.depth", "2..4", int)
    assert list(points_of({"model.depth": whole})) == [{"model.depth": n} for n in (2, 3, 4)]


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ("10..1", float, "10 is not below 1"),
        ("0..1:log", float, "a logarithm needs numbers above 0"),
        ("1..2:lin", float, "write LOW..HIGH"),
        ("1..2:1", float, "two values at least"),
        ("1,x", float, "a finite number"),
        ("1,1.0", float, "names a value twice"),
        (["s4d", 3], str, "3 is no str"),
    ],
)
def test_what_does_not_fit_is_one_line(given, kind, words):
    with pytest.raises(ValueError, match=r"^search of model\.alpha=") as caught:
        axis_of("model.alpha", given, kind)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_grid_of_a_range_asks_for_its_values():
    with pytest.raises(ValueError, match=re.escape("say how many, 0..1:5, or list them")):
        list(points_of({"model.alpha": axis_of("model.alpha", "0..1", float)}))


def test_flags_replace_and_add_to_the_axes_of_a_file(tmp_path):
    path = tmp_path / "e.py"
    head = "from ssm_jax import config\n\ndef get_config(arg=''):\n    return config.default()\n"
    head = head.replace(
        "return config.default()", "cfg = config.default()\n    cfg.train.steps = 2\n    return cfg"
    )
    path.write_text(
        f"{head}\ndef search():\n    return {{'model.alpha': '1..2', 'model.depth': [2]}}\n"
    )
    cfg = load_config(str(path))
    axes = load_search(str(path), cfg, {"model.alpha": "3,4", "model.layer": "s4d,s5"})
    assert list(axes) == ["model.alpha", "model.depth", "model.layer"]
    assert axes["model.alpha"].values == (3.0, 4.0)
    wrong = {"model.alhpa": "1..2", "model.layer": "s4d,s6", "seed": "1,2", "model.dropout": "0..2"}
    with pytest.raises(ValueError) as caught:
        load_search(str(path), cfg, wrong, given=["model.depth"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    for word in ("did you mean model.alpha", "s6", "--seeds=N", "model.dropout=2.0", "leave one"):
        assert any(word in line for line in lines), word
    path.write_text(head)
    with pytest.raises(ValueError, match=r"nothing to search; write search\(\)"):
        load_search(str(path), cfg, {})
