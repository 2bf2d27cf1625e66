"""A run that begins from another: what it takes, what it says, and that it resumes to the bit."""

from __future__ import annotations

import json
import re
import shutil

import jax
import numpy as np
import pytest
from tiny import newest, tiny_config, tiny_experiment

from ssm_jax.stop import StopRequest
from ssm_jax.training import loop
from ssm_jax.training.checkpoint.io import read_arrays, read_meta
from ssm_jax.training.checkpoint.manifest import CheckpointError, ConfigMismatch, flatten
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.parent import Begin, begin_from, begin_run, find_parent, first_state
from ssm_jax.training.runs.evaluate import analyze
from ssm_jax.training.workdir import Workdir


def step_of(path, step) -> dict[str, np.ndarray]:
    folder = path / "checkpoints" / str(step)
    return read_arrays(folder, read_meta(folder)[1])


def best_of(path) -> dict[str, np.ndarray]:
    return step_of(path, json.loads((path / "summary.json").read_text())["best"]["step"])


def started(data_dir, path, begin, **options) -> tuple[Experiment, dict[str, np.ndarray]]:
    """The first state of a run in a folder, by path."""
    cfg = tiny_config(**options)
    cfg.parent = find_parent(begin, path).state
    experiment = loop.build(cfg, data_dir=data_dir)
    with Workdir(path) as workdir:
        state = begin_run(experiment, workdir, begin)
    return experiment, {name: np.asarray(leaf) for name, leaf in flatten(state).items()}


def test_parameters_and_statistics_are_taken_and_the_rest_is_fresh(
    data_dir, reference, tmp_path, capsys
):
    experiment, first = started(data_dir, tmp_path / "run", Begin(reference, "best"))
    theirs = best_of(reference)
    fresh = {name: np.asarray(leaf) for name, leaf in flatten(experiment.fresh_state()).items()}
    taken = [n for n in first if n.startswith("params/") or n.endswith(("/mean", "/var"))]
    assert len(taken) > len(experiment.paths)
    for name, array in first.items():
        expected = theirs if name in taken else fresh
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    assert any(np.any(first[name] != fresh[name]) for name in taken)
    assert "nothing is left out." in capsys.readouterr().err


def test_a_regular_expression_says_what_is_taken_and_a_line_what_not(
    data_dir, reference, tmp_path, capsys
):
    begin = Begin(reference, "newest", match="^(encoder|blocks/0/ssm)/")
    experiment, first = started(data_dir, tmp_path / "run", begin)
    step, theirs = newest(reference)
    fresh = {name: np.asarray(leaf) for name, leaf in flatten(experiment.fresh_state()).items()}
    for path in experiment.paths:
        source = theirs if re.match("(encoder|blocks/0/ssm)/", path) else fresh
        np.testing.assert_array_equal(first[f"params/{path}"], source[f"params/{path}"])
    err = capsys.readouterr().err
    assert "begins from reference, step 60 (config" in err and "not asked for: " in err
    parent = json.loads((tmp_path / "run/start/parent.json").read_text())
    assert parent["step"] == step and parent["match"] == begin.match
    assert {p for p in experiment.paths if p in parent["taken"]} | parent["left"].keys() == {
        *experiment.paths
    }


def test_other_shapes_are_refused_with_the_expression_that_leaves_them(
    data_dir, reference, tmp_path
):
    begin = Begin(reference, "best")
    with pytest.raises(ValueError, match=r"blocks/0/ssm/A_im is .* here and .* there") as refused:
        started(data_dir, tmp_path / "a", begin, model__d_state=6)
    match = re.search(r"--init_match='([^']+)'", str(refused.value))[1]
    _, first = started(data_dir, tmp_path / "b", begin._replace(match=match), model__d_state=6)
    theirs = best_of(reference)
    assert first["params/blocks/0/ssm/A_im"].shape != theirs["params/blocks/0/ssm/A_im"].shape
    np.testing.assert_array_equal(first["params/blocks/0/ssm/D"], theirs["params/blocks/0/ssm/D"])
    deeper = begin._replace(match="")
    _, first = started(data_dir, tmp_path / "c", deeper, model__depth=3)
    parent = json.loads((tmp_path / "c/start/parent.json").read_text())
    assert parent["left"]["blocks/2/ssm/D"] == "not in the parent"


@pytest.mark.parametrize(
    ("begin", "options", "message"),
    [
        ({"match": "no_such"}, {}, "no parameter of this model that matches 'no_such'"),
        ({"step": "13"}, {}, "the step 13 is not in .*; there are"),
        ({"whole": True}, {"train__steps": 60}, "is at step 60, and training ends at step 60"),
        ({"whole": True}, {"train__steps": 80, "model__alpha": 2.0}, r"model.alpha=2.0 \(there"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_nothing_is_left(
    data_dir, reference, tmp_path, begin, options, message
):
    with pytest.raises(ValueError, match=message):
        started(data_dir, tmp_path / "run", Begin(reference, "newest")._replace(**begin), **options)
    assert not (tmp_path / "run/start").exists() and not (tmp_path / "run/record.json").exists()


def test_flags_name_a_run_and_a_step(tmp_path):
    assert begin_from("a/b", "x", None) == Begin(tmp_path.__class__("a/b"), "best", "x", False)
    assert begin_from("a:40", "", None)[:2] == (tmp_path.__class__("a"), "40")
    assert begin_from(None, "", "a")[1:] == ("newest", "", True)
    assert begin_from(None, "", None) is None
    for given, message in {
        ("a", "(", None): "no regular expression",
        (None, "x", None): "goes with --init_from",
        ("a", "", "b"): "exclude each other",
    }.items():
        with pytest.raises(ValueError, match=message):
            begin_from(*given)


@pytest.fixture(scope="module")
def constant(data_dir):
    """60 steps at rates that do not depend on their number."""
    return tiny_experiment(data_dir, schedule__shape="constant", log__diagnostics=True)


def shared(monkeypatch, source: Experiment) -> None:
    """Let experiments of this model use the programs of another: nothing is compiled again."""
    step_for = Experiment.step_for

    def from_source(self, batch, *, training):
        self._compiled = source._compiled
        return step_for(source, batch, training=training)

    monkeypatch.setattr(Experiment, "step_for", from_source)


@pytest.fixture
def stops(monkeypatch):
    """Stops runs at given steps, each once."""
    left: list[int] = []

    def poll(self: StopRequest, step: int) -> bool:
        if step in left:
            left.remove(step)
            self.requested = "SIGTERM"
        return self.requested is not None

    monkeypatch.setattr(StopRequest, "poll", poll)
    return left


def test_a_run_of_40_steps_continued_to_60_is_one_of_60(
    data_dir, constant, tmp_path, monkeypatch, stops, capsys
):
    """At a constant rate: the same lines, the same bits; and stopped and resumed without parent."""
    shared(monkeypatch, constant)
    assert loop.train_and_evaluate(constant, tmp_path / "whole") == loop.EXIT_DONE
    rate = {"schedule__shape": "constant", "log__diagnostics": True}
    assert loop.train(tiny_config(train__steps=40, **rate), tmp_path / "a", data_dir=data_dir)
    longer = tiny_config(**rate)
    capsys.readouterr()
    stops += [46]
    found = loop.train(longer, tmp_path / "b", data_dir=data_dir, continue_from=tmp_path / "a")
    assert found is None
    said = capsys.readouterr().err
    assert "begins from a, step 40" in said and "the whole state" in said
    assert "learning rate of rest: 0.001 at the end of a, 0.001 from step 41 on" in said
    shutil.rmtree(tmp_path / "a")
    ways = {"data_dir": data_dir, "continue_from": tmp_path / "a"}
    summary = loop.train(longer, tmp_path / "b", **ways)
    parent = {key: summary["parent"][key] for key in ("run", "step", "whole", "asked")}
    assert parent == {"run": "a", "step": 40, "whole": True, "asked": "newest"}
    record = json.loads((tmp_path / "b/record.json").read_text())
    assert record["parent"]["state"] == record["config"]["parent"]
    whole = read_metrics(tmp_path / "whole/metrics.jsonl")
    kept = [
        row for row in whole if row["step"] > 40 or (row["step"] == 40 and row["kind"] == "val")
    ]
    rows = read_metrics(tmp_path / "b/metrics.jsonl")
    drift = [row for row in rows if row["kind"] == "diagnostics"]
    assert [row["step"] for row in drift] == [40, 60] and drift[0]["drift_im_max"] == 0
    rows, kept = ([r for r in found if r["kind"] != "diagnostics"] for found in (rows, kept))
    window = 42  # its line has the means over 40, 41 and 42, or what the new run has of them
    assert [r for r in rows if r["step"] != window] == [r for r in kept if r["step"] != window]
    (step, arrays), (same, expected) = newest(tmp_path / "b"), newest(tmp_path / "whole")
    assert step == same == 60
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.tobytes() == expected[name].tobytes(), name
    result, _ = analyze(tmp_path / "b", data_dir=data_dir, step="newest", gradient=False)
    assert result["all_layers"]["before"]["drift_im_max"] == 0
    with pytest.raises(ConfigMismatch, match="parent: checkpoint config"):
        loop.train_and_evaluate(constant, tmp_path / "b")
    shutil.rmtree(tmp_path / "b/start")
    with pytest.raises(CheckpointError, match=r"first state of the run.* is lost"):
        first_state(loop.build(tiny_config(parent="x", **rate), data_dir=data_dir), tmp_path / "b")


def test_other_rates_and_groups_keep_the_moments_and_the_schedule_counts_on(
    data_dir, reference, tmp_path, capsys
):
    options = {
        "train__steps": 80, "optim__groups__dt__schedule": "constant", "optim__clip_norm": 1.0,
        "optim__groups__rest__lr": 5e-4,
    }  # fmt: skip
    begin = Begin(reference, "newest", whole=True)
    experiment, first = started(data_dir, tmp_path / "run", begin, **options)
    _, theirs = newest(reference)
    for group in ("A", "dt", "rest"):
        name = f"opt_state/1/inner_states/{group}/inner_state/0/mu/"
        moments = [n for n in first if n.startswith(name)]
        assert moments
        for moment in moments:
            np.testing.assert_array_equal(first[moment], theirs[moment.replace("/1/", "/", 1)])
    counts = [int(a) for name, a in first.items() if name.endswith("/count")]
    assert counts and set(counts) == {60}
    rates = experiment.schedule(60) * 5e-4
    assert f"{float(rates):.3g} from step 61 on, a cosine that ends at step 80" in (
        capsys.readouterr().err
    )
    # Each count is an array of its own: the training step gives their memory away.
    leaves = jax.tree.leaves(first_state(experiment, tmp_path / "run"))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
