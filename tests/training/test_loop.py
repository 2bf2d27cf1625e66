"""The laws of a whole run: exact resuming, selection, divergence, one writer, one result."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from flax import nnx
from tiny import assert_same_run, tiny_config, tiny_experiment

from ssm_jax.stop import EXIT_STOPPED, StopRequest
from ssm_jax.training import loop
from ssm_jax.training.checkpoint.io import list_steps, read_arrays, read_meta
from ssm_jax.training.checkpoint.manifest import ConfigMismatch
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.record import setup_digest
from ssm_jax.training.result import id_outside
from ssm_jax.training.run import OpenRun
from ssm_jax.training.step import TrainState, constants_as_arguments, make_train_step
from ssm_jax.training.workdir import Workdir, WorkdirBusy


@pytest.fixture
def stop_at(monkeypatch):
    """Makes runs stop as SIGTERM would, at given steps of the training loop, each once."""

    def install(*steps: int) -> None:
        left = set(steps)

        def poll(self: StopRequest, step: int) -> bool:
            if step in left:
                left.remove(step)
                self.requested = "SIGTERM"
            return self.requested is not None

        monkeypatch.setattr(StopRequest, "poll", poll)

    return install


# 8: within a logging window; 14: at a save; 20: where an evaluation is due; 60: at the last step.
@pytest.mark.parametrize("steps", [(8,), (14, 20, 41), (60,)])
def test_stopped_and_resumed_run_equals_an_undisturbed_one(
    experiment, reference, tmp_path, stop_at, steps, capsys
):
    stop_at(*steps)
    for _ in steps:
        assert loop.train_and_evaluate(experiment, tmp_path / "run") == loop.EXIT_STOPPED
    assert loop.train_and_evaluate(experiment, tmp_path / "run") == loop.EXIT_DONE
    assert_same_run(tmp_path / "run", reference)
    assert "compiled" not in capsys.readouterr().err, "the reference has compiled all of it"


def test_run_stopped_during_evaluations_equals_an_undisturbed_one(
    experiment, reference, tmp_path, monkeypatch
):
    """SIGTERM in the middle of the evaluations at steps 20 and 60 and of the final test."""
    means, stopped = OpenRun._means_of, []

    def interrupted(self, state, split, *other):
        key = (split, int(state.step))
        if key in (("val", 20), ("val", 60), ("test", json_best(reference))) and key not in stopped:
            stopped.append(key)
            self.stop.requested = "SIGTERM"
        return means(self, state, split, *other)

    monkeypatch.setattr(OpenRun, "_means_of", interrupted)
    for _ in range(3):
        assert loop.train_and_evaluate(experiment, tmp_path / "run") == loop.EXIT_STOPPED
    assert loop.train_and_evaluate(experiment, tmp_path / "run") == loop.EXIT_DONE
    assert len(stopped) == 3
    assert_same_run(tmp_path / "run", reference)


def json_best(path) -> int:
    return json.loads((path / "summary.json").read_text())["best"]["step"]


def test_finished_run_is_left_as_it_is(experiment, reference, capsys):
    before = {
        p: p.stat().st_mtime_ns for p in reference.rglob("*") if p.is_file() and p.name != "LOCK"
    }
    assert loop.train_and_evaluate(experiment, reference) == loop.EXIT_DONE
    after = {
        p: p.stat().st_mtime_ns for p in reference.rglob("*") if p.is_file() and p.name != "LOCK"
    }
    assert before == after
    assert "finished" in capsys.readouterr().err


def test_other_config_is_refused_and_named(data_dir, reference):
    other = tiny_experiment(data_dir, model__alpha=3.0, batch_size=4)
    with pytest.raises(ConfigMismatch) as error:
        loop.train_and_evaluate(other, reference)
    assert "model.alpha: checkpoint 1.0, asked for 3.0" in str(error.value)
    assert "batch_size: checkpoint 8, asked for 4" in str(error.value)
    assert "model.depth" not in str(error.value)


def test_other_data_is_refused(data_dir, reference):
    with pytest.raises(ConfigMismatch, match="data"):
        loop.train_and_evaluate(tiny_experiment(data_dir, data__seed=1), reference)


def test_second_writer_is_refused_and_may_come_back(experiment, tmp_path):
    with Workdir(tmp_path / "run"), pytest.raises(WorkdirBusy) as refused:
        loop.train_and_evaluate(experiment, tmp_path / "run")
    assert refused.value.exit_code == EXIT_STOPPED


def test_train_takes_no_name_for_a_config_and_refuses_before_it_writes(tmp_path):
    with pytest.raises(TypeError, match=r"cfg must be a ConfigDict, .* got 'listops_small'"):
        loop.train("listops_small", tmp_path / "run")
    with pytest.raises(ValueError, match="unknown wandb mode 'yes'"):
        loop.train(tiny_config(), tmp_path / "run", data_dir=str(tmp_path), wandb="yes")
    assert not any(tmp_path.iterdir())


def evaluated_by_hand(experiment: Experiment, state: TrainState, split: str) -> dict[str, float]:
    """Accuracy and loss over a whole split in one unpadded batch."""
    n = experiment.dataset.size(split)
    batch = experiment.dataset.gather(split, np.arange(n))
    model = nnx.merge(experiment.graphdef, state.params, state.stats)
    logits_BK = np.asarray(model(batch["inputs"], batch["lengths"]), np.float64)
    top_B = logits_BK.max(axis=1, keepdims=True)
    log_p_BK = logits_BK - top_B - np.log(np.exp(logits_BK - top_B).sum(axis=1, keepdims=True))
    return {
        "accuracy": float(np.mean(logits_BK.argmax(axis=1) == batch["targets"])),
        "loss": float(-np.mean(log_p_BK[np.arange(n), batch["targets"]])),
    }


def test_result_is_the_test_score_of_the_checkpoint_with_the_best_validation_score(
    experiment, reference
):
    rows = read_metrics(reference / "metrics.jsonl", "val")
    assert [row["step"] for row in rows] == [20, 40, 60]
    best = max(rows, key=lambda row: row["accuracy"])  # the first of equals
    summary = json.loads((reference / "summary.json").read_text())
    assert summary["best"] == {"step": best["step"], "value": best["accuracy"]}
    logged = {name: value for name, value in best.items() if name not in ("step", "kind")}
    assert summary["val"] == logged, "every metric of the checkpoint that was chosen"
    folder = reference / "checkpoints" / str(best["step"])
    arrays = read_arrays(folder, read_meta(folder)[1])
    target = experiment.abstract_state()
    names = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(target)[0]
    ]
    state = jax.tree.unflatten(jax.tree.structure(target), [arrays[name] for name in names])
    # 20 examples in batches of 8: the last batch is padded, and the padding must not count.
    for split, found in (("test", summary["test"]), ("val", best)):
        by_hand = evaluated_by_hand(experiment, state, split)
        assert found["accuracy"] == by_hand["accuracy"]
        assert found["loss"] == pytest.approx(by_hand["loss"], rel=1e-5)


def test_every_line_of_training_has_the_rates_of_its_update(experiment, reference):
    rows = read_metrics(reference / "metrics.jsonl", "train")
    groups = {row.group.name: row.group for row in experiment.rows if row.paths}
    assert {"A", "dt", "rest"} <= groups.keys()
    for row in rows:
        assert {name for name in row if name.startswith("lr/")} == {f"lr/{g}" for g in groups}
        for name, group in groups.items():
            factor = float(experiment.schedule(row["step"] - 1))
            assert row[f"lr/{name}"] == pytest.approx(group.lr * factor, rel=1e-5)


def test_one_digest_names_all_seeds_of_an_experiment(reference):
    """The config's digest has the seed in it, so it cannot tell that two runs are repetitions."""
    digests = {setup_digest(tiny_config(seed=seed)) for seed in (0, 1, 2222)}
    assert len(digests) == 1
    assert setup_digest(tiny_config(model__alpha=2.0)) not in digests
    for name in ("record.json", "summary.json"):
        document = json.loads((reference / name).read_text())
        assert {document["setup_digest"]} == digests


def test_test_split_is_read_once_after_training(experiment, tmp_path, monkeypatch):
    read = []
    eval_batches = Experiment.eval_batches

    def watched(self, split):
        read.append(split)
        return eval_batches(self, split)

    monkeypatch.setattr(Experiment, "eval_batches", watched)
    loop.train_and_evaluate(experiment, tmp_path / "run")
    assert read == ["val", "val", "val", "test"]


def test_metrics_are_read_after_the_next_step_is_dispatched(experiment, tmp_path, monkeypatch):
    order = []
    step_for, read = Experiment.step_for, OpenRun.read
    calls = iter(range(1, 1000))

    def step_watched(self, batch, *, training):
        compiled = step_for(self, batch, training=training)

        def step(*arguments):
            if training:
                order.append(("dispatch", next(calls)))
            return compiled(*arguments)

        return step

    def read_watched(self, step, metrics, state, progress):
        order.append(("read", step))
        return read(self, step, metrics, state, progress)

    monkeypatch.setattr(Experiment, "step_for", step_watched)
    monkeypatch.setattr(OpenRun, "read", read_watched)
    loop.train_and_evaluate(experiment, tmp_path / "run")
    position = {event: i for i, event in enumerate(order)}
    saved = {step for step in range(1, 61) if step % 14 == 0 or step % 20 == 0}
    for step in set(range(1, 60)) - saved:
        assert position["read", step] > position["dispatch", step + 1], step
    assert [step for kind, step in order if kind == "read"] == list(range(1, 61))


def test_divergence_stops_the_run_with_step_leaf_and_state(data_dir, tmp_path):
    experiment = tiny_experiment(
        data_dir, optim__groups__rest__lr=1e30, schedule__warmup_steps=2, train__steps=40
    )
    with pytest.raises(FloatingPointError) as error:
        loop.train_and_evaluate(experiment, tmp_path / "run")
    report = json.loads((tmp_path / "run/crash/report.json").read_text())
    assert f"at step {report['step']} " in str(error.value)
    assert report["non_finite"][0] in str(error.value)
    assert any(name.startswith("grad/") or name == "loss" for name in report["non_finite"])
    assert f"step {report['step'] - 1}," in report["last_finite_loss"]
    assert len(report["examples"]) == 8 and report["outside"] == ""
    rows = experiment.dataset.gather("train", np.arange(2), experiment.dataset.padded_length)
    wrong = {**rows, "targets": rows["targets"] + np.array([0, 99])}
    named = id_outside(experiment.dataset, wrong)
    assert "the target at example 1 must be in" in named
    step, arrays = newest_crash(tmp_path / "run/crash")
    assert step == report["step"] - 1
    assert int(arrays["step"]) == step
    for name, array in arrays.items():
        if name.startswith("params/"):
            assert np.isfinite(array).all(), name
    assert not (tmp_path / "run/DONE").exists()


def newest_crash(path):
    step = list_steps(path)[-1]
    return step, read_arrays(path / str(step), read_meta(path / str(step))[1])


def test_training_lowers_the_loss(reference):
    losses = [row["loss"] for row in read_metrics(reference / "metrics.jsonl", "train")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1


def test_train_step_compiles_once_over_steps_and_knobs(data_dir):
    """Neither a step nor other values of alpha and beta lead to another program."""
    one, other = (
        tiny_experiment(data_dir, model__alpha=a, model__beta__init=b, model__beta__learn=False)
        for a, b in ((1.0, 0.0), (3.0, -0.5))
    )
    assert one.graphdef == other.graphdef
    step = jax.jit(make_train_step(one.gradient(), one.tx))
    for experiment in (one, other):
        state = experiment.fresh_state()
        for k in range(3):
            batch = experiment.place_batch(experiment.dataset.gather("train", np.arange(k, k + 8)))
            state, _ = step(state, experiment.key, batch)
    assert step._cache_size() == 1


def test_seed_alone_decides_the_first_state(data_dir, experiment):
    same = experiment.fresh_state()
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(experiment.fresh_state()), strict=True):
        np.testing.assert_array_equal(a, b)
    other = tiny_experiment(data_dir, seed=1).fresh_state()
    C_ri, other_C_ri = (s.params["blocks"][0]["ssm"]["C_ri"] for s in (same, other))
    assert not np.array_equal(C_ri, other_C_ri)


def test_first_states_of_all_seeds_and_alphas_are_of_one_program(data_dir):
    """A sweep compiles it once; each is, bit for bit, that of the program with its own numbers."""
    texts = set()
    for options in ({}, {"seed": 1}, {"seed": 2, "model__alpha": 3.0}):
        found = tiny_experiment(data_dir, **options)
        texts.add(constants_as_arguments(found._first_state)[0])
        expected = jax.jit(found._first_state)()
        for a, b in zip(*map(jax.tree.leaves, (found.fresh_state(), expected)), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert len(texts) == 1


def test_batch_that_does_not_split_over_the_devices_is_refused(data_dir, monkeypatch):
    from ssm_jax.training import experiment as experiment_lib

    class Mesh:
        size = 3

    monkeypatch.setattr(experiment_lib, "batch_mesh", Mesh)
    with pytest.raises(ValueError, match="batch_size=8 does not split over 3 devices"):
        tiny_experiment(data_dir)


def test_parameters_without_a_group_are_refused(data_dir):
    with pytest.raises(ValueError, match="matches no group"):
        tiny_experiment(data_dir, optim__groups__rest__match="decoder")
