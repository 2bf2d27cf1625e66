import json

import pytest

from benchmarks import accelerator

EXACT = dict.fromkeys(("conv", "scan", "prefill", "step"), 1e-7)


@pytest.fixture
def calls(monkeypatch):
    """What is measured, in the place of what takes minutes."""
    made = []

    def measure(name, found):
        def call():
            made.append(name)
            if isinstance(found, Exception):
                raise found
            return found

        return call

    found = {
        "a": {**EXACT, "name": "as its config has it"},
        "b": {**EXACT, "scan": 0.5},
        "c": RuntimeError("out of memory\nat 0x0"),
    }
    items = [("layers", name, measure(name, value)) for name, value in found.items()]
    monkeypatch.setattr(accelerator, "items", lambda *_: items)
    monkeypatch.setattr(accelerator, "_train_until", lambda *_: made.append("listops"))
    return made


def command(folder, *more):
    code = accelerator.main([f"--folder={folder}", *more])
    return code, json.loads((folder / "results.json").read_text())


def test_every_measurement_is_kept_and_broken_bounds_are_an_exit_code(calls, tmp_path, capsys):
    code, found = command(tmp_path)
    assert code == 1 and calls == ["a", "b", "c", "listops"]
    assert {row["name"]: row["faults"] for row in found["rows"]} == {
        "a": [],
        "b": ["scan is off by 5.0e-01 (at most 0.0001)"],
        "c": ["RuntimeError: out of memory"],
    }
    assert "the CPU takes its place" in capsys.readouterr().out
    assert len(found["git"]["commit"]) == 40


def test_the_next_call_measures_what_is_missing_or_was_wrong(calls, tmp_path):
    command(tmp_path)
    calls.clear()
    command(tmp_path)
    assert calls == ["b", "c", "listops"]
    calls.clear()
    command(tmp_path, "--again", "--only=layers")
    assert calls == ["a", "b", "c"]


def test_results_of_other_code_are_measured_again(calls, tmp_path, capsys):
    _, found = command(tmp_path, "--only=layers")
    found["git"]["commit"] = "0" * 40
    (tmp_path / "results.json").write_text(json.dumps(found))
    calls.clear()
    command(tmp_path, "--only=layers")
    assert calls == ["a", "b", "c"] and "other code" in capsys.readouterr().out


def test_without_time_nothing_begins_and_it_says_so(calls, tmp_path, capsys):
    assert accelerator.main([f"--folder={tmp_path}", "--minutes=0", "--only=layers"]) == 0
    assert not calls and "the same command goes on from here" in capsys.readouterr().out


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no part layer; layers, training"):
        accelerator.main([f"--folder={tmp_path}", "--only=layer"])


@pytest.mark.parametrize(
    ("part", "row", "said"),
    [
        ("training", {"drift": {"here": float("nan")}}, "drift by nan"),
        ("steps", {"over_bytes": 2.5}, "2.5 times"),
        ("layers", {**EXACT, "step": float("nan")}, "step is off by nan"),
    ],
)
def test_what_is_beyond_its_bound_is_said(part, row, said):
    (fault,) = accelerator.faults(part, row, on_cpu=False)
    assert said in fault
