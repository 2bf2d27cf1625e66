"""Profiling leaves the numbers of a run alone and says where its time went."""

from __future__ import annotations

import json
import time

import pytest
from tiny import tiny_config

from ssm_jax.training import loop
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.profile import WARM_UP, Profile


def test_parts_count_each_second_once(tmp_path):
    profile = Profile(tmp_path)
    start = time.perf_counter()
    with profile.part("evaluation"):
        time.sleep(0.02)
        with profile.part("device"):
            time.sleep(0.05)
        time.sleep(0.01)
    found, whole = profile._now(), time.perf_counter() - start
    assert 0.03 <= found["evaluation"] <= whole - 0.05 and found["device"] >= 0.05
    assert sum(found.values()) == pytest.approx(whole, abs=0.01)


def test_a_profiled_run_has_the_numbers_of_another_and_a_slow_input_shows(
    experiment, reference, data_dir, tmp_path, monkeypatch, capsys
):
    """Each batch takes 20 ms longer: so says the part `input`, of the run and of a step."""
    step_for, train_batches = Experiment.step_for, Experiment.train_batches

    def shared(self, batch, *, training):
        return step_for(experiment, batch, training=training)

    def slow(self, start):
        for batch in train_batches(self, start):
            time.sleep(0.02)
            yield batch

    monkeypatch.setattr(Experiment, "step_for", shared)
    monkeypatch.setattr(Experiment, "train_batches", slow)
    cfg = tiny_config(log__diagnostics=True)
    loop.train(cfg, tmp_path / "run", data_dir=data_dir, profile=5)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (
        reference / "metrics.jsonl"
    ).read_bytes()
    found = json.loads((tmp_path / "run/profile/profile.json").read_text())
    assert found["steps"] == {"first": WARM_UP + 1, "last": WARM_UP + 5, "traced": 5}
    assert 0.02 <= found["seconds_per_step"]["input"] < 1 / found["steps_per_second"] < 1
    parts = found["run"]["parts"]
    assert parts["input"] >= 60 * 0.02 and parts["evaluation"] > 0 and parts["checkpoint"] > 0
    assert sum(parts.values()) == pytest.approx(found["run"]["seconds"])
    assert found["operations"] and found["operations"][0]["seconds"] > 0
    assert list((tmp_path / "run/profile").rglob("*.xplane.pb"))
    err = capsys.readouterr().err
    assert "of 60 steps went" in err and "(mean of 4 .. 8)" in err and "Operations" in err


def test_a_run_that_is_too_short_says_so(experiment, data_dir, tmp_path, monkeypatch, capsys):
    step_for = Experiment.step_for
    monkeypatch.setattr(
        Experiment,
        "step_for",
        lambda self, b, *, training: step_for(experiment, b, training=training),
    )
    cfg = tiny_config(train__steps=3, train__eval_every=3, schedule__warmup_steps=0)
    loop.train(cfg, tmp_path / "run", data_dir=data_dir, profile=5)
    assert "the run took 3 steps, and the first 3 are not traced" in capsys.readouterr().err
    assert not (tmp_path / "run/profile").exists()
