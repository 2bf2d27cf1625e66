"""Copying: the examples, what scores 1 and what scores chance, and a run."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

import ssm_jax
from ssm_jax import config
from ssm_jax.config import check as config_check
from ssm_jax.config.load import load_config
from ssm_jax.data.prepare import DataPaths
from ssm_jax.tasks import find_task
from ssm_jax.tasks.copying import CopyingDataset
from ssm_jax.tasks.heads import last_steps_eval_sums
from ssm_jax.training import loop
from ssm_jax.training.experiment import build
from ssm_jax.training.runs.evaluate import evaluate_run
from ssm_jax.training.runs.tables import print_evaluation

COUNTS = {"train": 0, "val": 0, "test": 0}


def data_of(cfg):
    return find_task("copying").open_data(cfg.data.to_dict(), DataPaths(None))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_example_by_a_loop_over_the_words_of_philox(split):
    dataset = CopyingDataset(17, 5, 7, COUNTS, seed=11)
    batch = dataset.gather(split, np.array([3, 0]))
    assert batch["inputs"].dtype == batch["targets"].dtype == np.int32
    for b, number in enumerate((3, 0)):
        family = 4 + ("train", "val", "test").index(split)
        key, counter = np.array([11, number], np.uint64), np.array([0, 0, 0, family], np.uint64)
        words = np.random.Philox(key=key, counter=counter).random_raw(5)
        symbols = [1 + int(word) % 5 for word in words]
        blanks, markers = [0] * 7, [6] * 5
        assert batch["inputs"][b].tolist() == symbols + blanks + markers
        assert batch["targets"][b].tolist() == symbols


def test_examples_differ_by_split_seed_and_number_and_symbols_are_even():
    rows = {}
    for seed in (0, 1):
        dataset = CopyingDataset(120, 10, 10, COUNTS, seed)
        for split, n in (("train", 10_000), ("val", 1_000), ("test", 1_000)):
            assert dataset.size(split) == n
            rows[seed, split] = dataset.gather(split, np.arange(1_000))["targets"]
    found = np.concatenate(list(rows.values()))
    assert len(np.unique(found, axis=0)) == len(found)
    assert set(found.ravel().tolist()) == set(range(1, 9))
    share = np.bincount(found.ravel(), minlength=9)[1:] / found.size
    assert np.abs(share - 1 / 8).max() < 4 * math.sqrt(1 / 8 * 7 / 8 / found.size)


def test_the_two_specifications():
    s4, rtf = load_config("copying"), load_config("copying:rtf")
    for cfg, (L, M, A) in ((s4, (120, 10, 10)), (rtf, (2_048, 1_024, 64))):
        data = cfg.data
        assert (data.padded_length, data.copying.memorize, data.copying.tokens) == (L, M, A)
        assert not cfg.model.bidirectional and cfg.train.epochs == 50
        dataset = data_of(cfg)
        assert [dataset.size(s) for s in dataset.splits] == [10_000, 1_000, 1_000]
        assert dataset.facts("test") == {"chance_accuracy": 1 / (A - 2)}
    assert "100 blanks" in data_of(s4).provenance.detail


def test_all_right_is_1_and_a_constant_is_chance_and_padding_does_not_count():
    dataset = CopyingDataset(30, 10, 10, COUNTS, seed=0)
    batch = dataset.gather("val", np.arange(300))
    batch["mask"] = (np.arange(300) < 299).astype(np.float32)
    answers = np.random.default_rng(0).normal(size=(300, 30, 10)).astype(np.float32)
    answers[:, -10:] = 50 * np.eye(10, dtype=np.float32)[batch["targets"]]
    answers[299, -10:] = 0.0

    def says(logits):
        sums = last_steps_eval_sums(lambda *_, **__: logits, batch)
        return {name: float(total) / float(sums["count"]) for name, total in sums.items()}

    assert says(answers) == pytest.approx({"accuracy": 1.0, "loss": 0.0, "count": 1.0}, abs=1e-6)
    chance = says(np.broadcast_to(np.eye(10, dtype=np.float32)[3], answers.shape))
    right = (batch["targets"][:299] == 3).mean()
    assert chance["accuracy"] == pytest.approx(right, rel=1e-6)
    assert right == pytest.approx(1 / 8, abs=0.02)
    by_hand = math.log(9 + math.e) - right
    assert chance["loss"] == pytest.approx(by_hand, rel=1e-5)


def test_what_does_not_go_together_is_said_in_a_line():
    cfg = config.default("copying")
    cfg.train.steps, cfg.model.pool, cfg.data.padded_length = 1, "none", 19
    with pytest.raises(ValueError, match=r"padded_length=19 cannot hold .*memorize=10.* least 20"):
        config_check.check(cfg)
    cfg.data.padded_length, cfg.data.copying.tokens = 20, 2
    with pytest.raises(ValueError, match=r"copying\.tokens=2 is out of range.* at least 3"):
        config_check.check(cfg)
    cfg.data.copying.tokens = 3
    config_check.check(cfg)
    cfg.model.pool = "mean"
    with pytest.raises(ValueError, match="pool=mean leaves no steps; use none"):
        build(cfg, data_dir=None)
    with pytest.raises(ValueError, match="give no files"):
        find_task("copying").open_data(
            cfg.data.to_dict(), dataclasses.replace(DataPaths(None), files="x")
        )


def test_a_run_ends_with_its_chance_beside_it_and_can_be_used(tmp_path, capsys):
    cfg = load_config("copying:smoke")
    cfg.figures, cfg.log.diagnostics = False, False
    cfg.model.depth, cfg.model.d_model, cfg.model.d_state = 1, 4, 3
    cfg.train.steps, cfg.train.eval_every, cfg.data.padded_length = 4, 2, 24
    experiment = build(cfg, data_dir=tmp_path)
    assert loop.train_and_evaluate(experiment, tmp_path / "run") == loop.EXIT_DONE
    assert "(chance accuracy 0.1250)" in capsys.readouterr().err
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert 0 <= summary["test"]["accuracy"] <= 1 and summary["chance_accuracy"] == 1 / 8
    print_evaluation(evaluate_run(tmp_path / "run", data_dir=tmp_path))
    out = capsys.readouterr().out
    assert "chance_accuracy" in out and "0.125" in out
    batch = experiment.dataset.gather("test", np.arange(3))
    logits = ssm_jax.load(tmp_path / "run").predict(batch["inputs"])
    assert logits.shape == (3, 24, 10)
