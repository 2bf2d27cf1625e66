"""metrics.jsonl is that of an uninterrupted run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ssm_jax
from ssm_jax.training import logs
from ssm_jax.training.logs import MetricsLog, read_metrics

ROOT = Path(ssm_jax.__file__).parents[1]


def values(step: int) -> dict[str, float]:
    """Numbers with no short decimal form."""
    return {"loss": 1 / (step + 3), "accuracy": np.float32(0.1) * step}


def run(path: Path, start: int, stop: int) -> None:
    """Steps start+1..stop of a run with a train line each and an evaluation every other one."""
    with MetricsLog(path, start) as log:
        for step in range(start + 1, stop + 1):
            log.write("train", step, values(step))
            if step % 2 == 0:
                log.write("val", step, {"loss": np.sqrt(step)})


def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path):
    run(tmp_path / "whole", 0, 10)
    whole = (tmp_path / "whole").read_bytes()
    for killed in range(1, 10):
        for restored in range(killed + 1):
            path = tmp_path / f"{killed}-{restored}"
            run(path, 0, killed)
            run(path, restored, 10)
            assert path.read_bytes() == whole
    assert not list(tmp_path.glob("*.part"))


def test_work_done_again_after_a_restart_does_not_double_its_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    run(path, 0, 4)
    whole = path.read_bytes()
    with MetricsLog(path, 4) as log:
        log.write("val", 4, {"loss": np.sqrt(4)})
        assert path.read_bytes() == whole
        log.write("test", 4, {"loss": np.sqrt(4)})
    assert [row["kind"] for row in read_metrics(path)][-3:] == ["train", "val", "test"]


def test_a_torn_last_line_is_cut(tmp_path):
    run(tmp_path / "whole", 0, 4)
    whole = (tmp_path / "whole").read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1  # of the last line, which is of step 4
    for end in range(start + 1, len(whole)):
        path = tmp_path / "torn"
        path.write_bytes(whole[:end])
        assert read_metrics(path) == read_metrics(tmp_path / "whole")[:-1]
        with MetricsLog(path, 4):
            pass
        assert path.read_bytes() == whole[:start]


def test_a_broken_line_in_the_middle_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for broken in (b'{"step": 1, "ki\n', b"[1]\n", b'{"loss": 1.0}\n', b"\xff\n", b"\n"):
        text = b'{"step": 1, "kind": "train"}\n' + broken + b'{"step": 2, "kind": "train"}\n'
        path.write_bytes(text)
        for reader in (read_metrics, lambda p: MetricsLog(p, 1)):
            with pytest.raises(ValueError, match="line 2 of 3"):
                reader(path)
        assert path.read_bytes() == text


def test_a_fresh_start_leaves_nothing_of_an_older_run(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, 0) as log:
        log.write("val", 0, {"loss": 1.0})
    run(path, 0, 2)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 2]


def test_floats_come_back_to_the_bit(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**63, size=500).view(np.float64)
    numbers = [*bits[np.isfinite(bits)], 5e-324, -0.0, 1.7976931348623157e308, 0.1, 1e16, 2.0]
    singles = rng.normal(size=200).astype(np.float32)
    with MetricsLog(path, 0) as log:
        for number in [*numbers, *singles]:
            log.write("train", 1, {"x": number})
    back = np.array([row["x"] for row in read_metrics(path)])
    assert back.tobytes() == np.array([*numbers, *singles.astype(np.float64)]).tobytes()


def test_numbers_that_are_not_finite_stay_valid_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, 0) as log:
        log.write("train", 1, {"a": np.nan, "b": np.inf, "c": -np.float32(np.inf), "n": 3})

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    row = json.loads(path.read_text(), parse_constant=refuse)
    assert row == {"step": 1, "kind": "train", "a": "nan", "b": "inf", "c": "-inf", "n": 3}
    (back,) = read_metrics(path)
    assert np.isnan(back["a"]) and back["b"] == np.inf and back["c"] == -np.inf


def test_a_line_reaches_the_system_before_write_returns(tmp_path):
    path = tmp_path / "metrics.jsonl"
    code = (
        "import os, sys, pathlib; from ssm_jax.training.logs import MetricsLog\n"
        "MetricsLog(pathlib.Path(sys.argv[1]), 0).write('train', 1, {'loss': 0.5}); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 9
    assert read_metrics(path) == [{"step": 1, "kind": "train", "loss": 0.5}]


def test_flush_waits_for_the_disk(tmp_path, monkeypatch):
    synced = []
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    monkeypatch.setattr(logs.os, "fsync", synced.append)
    log.write("train", 1, {})
    assert not synced
    log.flush()
    assert len(synced) == 1
    log.close()
    log.close()
    assert len(synced) == 2


def test_steps_never_go_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    run(path, 0, 6)
    with MetricsLog(path, 4) as log:
        with pytest.raises(ValueError, match="step 3 of 'train' comes after step 4"):
            log.write("train", 3, {})
        log.write("train", 5, {})
        with pytest.raises(ValueError, match="step 4 of 'val' comes after step 5"):
            log.write("val", 4, {})
        log.write("val", 5, {})


@pytest.mark.parametrize("name", ["step", "kind"])
def test_a_value_may_not_hide_the_step_or_the_kind(name, tmp_path):
    with MetricsLog(tmp_path / "m", 0) as log, pytest.raises(ValueError, match=f"'{name}' is no"):
        log.write("train", 1, {name: 1.0})


def test_read_metrics_selects_a_kind_and_takes_a_missing_file_for_empty(tmp_path):
    run(tmp_path / "m", 0, 4)
    assert [row["step"] for row in read_metrics(tmp_path / "m", "val")] == [2, 4]
    assert read_metrics(tmp_path / "absent") == []
