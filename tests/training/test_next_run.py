"""A run that begins from another: what it takes, what it says, and that it resumes to the bit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx
from tiny import newest, tiny_config, tiny_experiment

from ssm_jax import config as config_lib
from ssm_jax.config import cli
from ssm_jax.stop import StopRequest
from ssm_jax.trained import load
from ssm_jax.training import loop
from ssm_jax.training import parent as parent_lib
from ssm_jax.training.checkpoint.io import read_arrays, read_meta
from ssm_jax.training.checkpoint.manifest import CheckpointError, ConfigMismatch, flatten
from ssm_jax.training.experiment import Experiment
from ssm_jax.training.first_state import begin_run, first_state
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.parent import Begin, begin_from, config_of_run, find_parent, idle_with
from ssm_jax.training.runs.evaluate import analyze, evaluate_run
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
    """Also what the command says of their initialization is nothing, then, and is said to be."""
    begin = Begin(reference, "best")
    experiment, first = started(data_dir, tmp_path / "run", begin, model__alpha=2.5)
    theirs = best_of(reference)
    fresh = {name: np.asarray(leaf) for name, leaf in flatten(experiment.fresh_state()).items()}
    taken = [n for n in first if n.startswith("params/") or n.endswith(("/mean", "/var"))]
    assert len(taken) > len(experiment.paths)
    for name, array in first.items():
        expected = theirs if name in taken else fresh
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    assert any(np.any(first[name] != fresh[name]) for name in taken)
    err = capsys.readouterr().err
    assert "nothing is left out." in err and "warning: model.alpha: they act at" in err


def test_the_timescale_of_a_run_that_takes_all_parameters_is_said_to_be_idle():
    asked = ["model.dt_rule", "model.lru.r_max", "model.dropout"]
    assert idle_with(Begin(Path("run"), "best"), asked) == asked[:2]
    assert idle_with(Begin(Path("run"), "best", match="decoder"), asked) == []
    beta = ["model.beta.init"]
    assert idle_with(Begin(Path("run"), "best"), beta) == []
    assert idle_with(Begin(Path("run"), "best"), beta, learns_beta=True) == beta


@pytest.mark.parametrize(
    "options",
    [
        {"model__real_transform": "relu"},
        {"model__dt_transform": "exp"},
        {"model__beta__unit": "rad"},
    ],
)
def test_arrays_of_layers_that_mean_other_numbers_are_refused(
    data_dir, reference, tmp_path, options
):
    begin = Begin(reference, "best")
    with pytest.raises(ValueError, match=r"mean other numbers with model\.") as refused:
        started(data_dir, tmp_path / "a", begin, **options)
    match = re.search(r"--init_match='([^']+)'", str(refused.value))[1]
    experiment, first = started(data_dir, tmp_path / "b", begin._replace(match=match), **options)
    fresh = {name: np.asarray(leaf) for name, leaf in flatten(experiment.fresh_state()).items()}
    theirs = best_of(reference)
    for path in experiment.paths:
        expected = fresh if "/ssm/" in path else theirs
        np.testing.assert_array_equal(first[f"params/{path}"], expected[f"params/{path}"])


def test_a_run_goes_on_with_its_classes_and_says_so_of_other_data(monkeypatch, capsys):
    """Reversed, the outputs of the decoder would mean the opposite."""
    experiment = SimpleNamespace(
        identity=SimpleNamespace(options={}),
        dataset=SimpleNamespace(fingerprint="new"),
        built_from={"preprocessing": {"classes": ["aaa", "zzz"]}},
        total_steps=2,
    )
    record = {"config": {}, "data": {"fingerprint": "old"}}
    monkeypatch.setattr(parent_lib, "read_record", lambda path: record)
    begin = Begin(Path("run"), "newest", whole=True)
    parent_lib._check_whole(experiment, begin, SimpleNamespace(step=1))
    assert "the data are not those of run" in capsys.readouterr().err
    record["built_from"] = {"preprocessing": {"classes": ["slow", "fast"]}}
    with pytest.raises(ValueError, match="its classes, slow, fast, and the data have aaa, zzz"):
        parent_lib._check_whole(experiment, begin, SimpleNamespace(step=1))


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
    assert not (tmp_path / "a").exists()  # nothing was begun, and nothing is left
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
    assert begin_from(None, "", "a/checkpoints/7")[1:] == ("7", "", True)
    assert begin_from(None, "", "a")[1:] == ("newest", "", True)
    assert begin_from(None, "", None) is None
    for given, message in {
        ("a", "(", None): "no regular expression",
        (None, "x", None): "goes with --init_from",
        ("a", "", "b"): "exclude each other",
    }.items():
        with pytest.raises(ValueError, match=message):
            begin_from(*given)


def test_without_a_config_it_is_that_of_the_other_run(reference, tmp_path):
    shutil.copytree(reference, tmp_path / "b")
    for run, workdir in ((reference, None), (tmp_path / "gone", tmp_path / "b")):

        def of_run(given, run=run, workdir=workdir):
            return config_of_run(run, workdir)

        argv = ["--config.train.steps=80", "--config.optim.lr=0.01"]
        cfg = cli.load(argv, flags=(), about=None, base=of_run).cfg
        expected = tiny_config(log__diagnostics=True)
        config_lib.override(expected, {"train.steps": 80, "optim.lr": 0.01})
        expected.changed = "lr = 0.01, steps = 80"
        assert config_lib.flatten(cfg) == config_lib.flatten(expected)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        config_of_run(tmp_path / "gone", tmp_path / "neither")


def test_a_damaged_first_state_is_made_again_from_the_parent_or_is_a_line(
    data_dir, reference, tmp_path, capsys
):
    begin = Begin(reference, "best")
    experiment, first = started(data_dir, tmp_path / "run", begin)
    for path in (tmp_path / "run/start/0").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"first state of the run.* is lost"):
        begin_run(experiment, Workdir(tmp_path / "run"), None)
    capsys.readouterr()
    _, again = started(data_dir, tmp_path / "run", begin)
    assert "was damaged, and was made again from reference" in capsys.readouterr().err
    for name, array in first.items():
        assert array.tobytes() == again[name].tobytes(), name
    other = tiny_config(parent="config of another")
    with pytest.raises(ValueError, match=r"begins from another one \(config of another\)"):
        begin_run(loop.build(other, data_dir=data_dir), Workdir(tmp_path / "new"), begin)


@pytest.fixture(scope="module")
def constant(data_dir):
    """60 steps at rates that do not depend on their number."""
    return tiny_experiment(data_dir, schedule__shape="constant", log__diagnostics=True)


def shared(monkeypatch, source: Experiment) -> None:
    """Let experiments of this model use the programs of another: nothing is compiled again."""
    compiled_once = Experiment.compiled_once

    def from_source(self, *asked):
        self._compiled = source._compiled
        return compiled_once(source, *asked)

    monkeypatch.setattr(Experiment, "compiled_once", from_source)


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
    ways = {"data_dir": str(data_dir), "continue_from": tmp_path / "a"}
    found = loop.train(longer, tmp_path / "b", **ways)
    assert found is None
    said = capsys.readouterr().err
    assert "begins from a, step 40" in said and "the whole state" in said
    assert "learning rate of rest: 0.001 at the end of a, 0.001 from step 41 on" in said
    shutil.rmtree(tmp_path / "a")
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


ALL = {
    "train__steps": 100, "train__eval_every": 5, "train__patience": 3, "train__ema": 0.9,
    "optim__freeze": "^encoder/", "schedule__shape": "constant", "train__select_metric": "loss",
    "log__diagnostics": True, "optim__groups__rest__lr": 0.02, "log__every": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(data_dir, reference, tmp_path_factory):
    """Average, patience, freezing and a parent at once, undisturbed; its folder and experiment."""
    path, built = tmp_path_factory.mktemp("all") / "whole", []
    with pytest.MonkeyPatch.context() as patch:
        build = loop.build
        patch.setattr(loop, "build", lambda *a, **k: built.append(build(*a, **k)) or built[-1])
        loop.train(tiny_config(**ALL), path, data_dir=data_dir, init_from=reference)
    return path, built[0]


def test_training_ends_when_patience_does(whole):
    path, experiment = whole
    rows = read_metrics(path / "metrics.jsonl", "val")
    losses = [row["loss"] for row in rows]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 20, "else patience had no part in it"
    for n in range(3, len(losses) - 1):  # and not one evaluation sooner
        assert min(losses[n - 2 : n + 1]) < min(losses[: n - 2])
    summary = json.loads((path / "summary.json").read_text())
    assert summary["best"] == {"step": rows[best]["step"], "value": losses[best]}
    assert (summary["steps"], summary["planned_steps"]) == (rows[-1]["step"], 100)
    assert summary["selected_by"] == "val loss" and experiment.total_steps == 100
    logged, last = [row["step"] for row in read_metrics(path / "metrics.jsonl", "train")], rows[-1]
    assert last["step"] % 4, "else its line is due"
    assert logged == [*range(4, last["step"], 4), last["step"]], "the last steps have a line too"


def test_the_average_is_evaluated_beside_and_the_frozen_is_the_parents(whole, reference):
    path, experiment = whole
    theirs = best_of(reference)
    summary = json.loads((path / "summary.json").read_text())
    arrays = best_of(path)
    state = jax.tree.unflatten(
        jax.tree.structure(experiment.abstract_state()),
        [arrays[name] for name in flatten(experiment.abstract_state())],
    )
    means = experiment.means(jax.device_put(state, experiment.replicated).averaged(), "test")
    assert summary["test"] == summary["test"] | {f"ema_{k}": v for k, v in means.items()}
    assert means["loss"] != summary["test"]["loss"]
    for row in read_metrics(path / "metrics.jsonl", "val"):
        assert {"loss", "ema_loss", "accuracy", "ema_accuracy"} <= row.keys()
    averages = flatten(state.ema)
    assert experiment.frozen
    for name in experiment.frozen:
        assert averages[f"params/{name}"].tobytes() == theirs[f"params/{name}"].tobytes()
        assert arrays[f"params/{name}"].tobytes() == theirs[f"params/{name}"].tobytes()


def test_a_parameter_that_thaws_takes_no_steps_above_its_rate(data_dir, whole, tmp_path, capsys):
    """By a constant gradient Adam moves each parameter by its rate, from its first step on."""
    begin, rate = Begin(whole[0], "newest", whole=True), ALL["optim__groups__rest__lr"]
    options = {**ALL, "train__steps": 200, "optim__freeze": ""}
    experiment, first = started(data_dir, tmp_path / "run", begin, **options)
    assert "moments anew, as the parent lacks some: group rest" in capsys.readouterr().err
    state, theirs = first_state(experiment, tmp_path / "run"), newest(whole[0])[1]
    ones = jax.tree.map(np.ones_like, state.params)
    params, opt_state = jax.tree.map(np.zeros_like, state.params), state.opt_state
    for _ in range(3):
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = experiment.tx.update(ones, opt_state, params)
        for path, update in flatten(updates["encoder"]).items():
            np.testing.assert_allclose(update, -rate, rtol=1e-4, err_msg=path)
    kept = [n for n in first if re.search("inner_states/(A|dt)/.*/(mu|nu|count)", n)]
    assert kept and all(first[name].tobytes() == theirs[name].tobytes() for name in kept)


@pytest.mark.parametrize("at", [(3, 10), (17, None)])
def test_all_of_it_stopped_and_resumed_equals_the_undisturbed_run(
    whole, data_dir, reference, tmp_path, monkeypatch, stops, at
):
    """Stopped within a window, where an evaluation is due, and at the last step."""
    path, experiment = whole
    shared(monkeypatch, experiment)
    last = json.loads((path / "summary.json").read_text())["steps"]
    stops += [step or last for step in at]
    ways = {"data_dir": data_dir, "init_from": reference}
    for _ in at:
        assert loop.train(tiny_config(**ALL), tmp_path / "run", **ways) is None
    assert loop.train(tiny_config(**ALL), tmp_path / "run", **ways)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (path / "metrics.jsonl").read_bytes()
    for name in ("test", "best", "steps", "parent"):
        found, expected = (
            json.loads((p / "summary.json").read_text())[name] for p in (tmp_path / "run", path)
        )
        assert found == expected, name
    (step, arrays), (same, expected) = newest(tmp_path / "run"), newest(path)
    assert step == same == last and arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.tobytes() == expected[name].tobytes(), name


def test_the_average_may_choose_and_is_then_what_readers_get(
    whole, data_dir, reference, tmp_path, monkeypatch, capsys
):
    shared(monkeypatch, whole[1])
    cfg = tiny_config(**ALL, train__select_ema=True)
    summary = loop.train(cfg, tmp_path / "run", data_dir=data_dir, init_from=reference)
    shown = set(re.findall(r"^((?:val|test).*?) \d+/", capsys.readouterr().err, re.MULTILINE))
    assert shown == {"val", "val (ema)", "test (ema)", "test (raw)"}, "which is the average"
    rows = {row["step"]: row for row in read_metrics(tmp_path / "run/metrics.jsonl", "val")}
    values = {step: row["ema_loss"] for step, row in rows.items()}
    best = min(values, key=values.__getitem__)
    assert summary["best"] == {"step": best, "value": values[best]}
    assert summary["selected_by"] == "val ema_loss"
    assert {"loss", "raw_loss"} <= summary["test"].keys()
    assert summary["val"]["loss"] == values[best]
    result = evaluate_run(tmp_path / "run", data_dir=data_dir)
    assert result["loss"] == pytest.approx(summary["test"]["loss"], rel=1e-5)
    assert result["loss"] != pytest.approx(summary["test"]["raw_loss"], rel=1e-5)
    theirs = best_of(tmp_path / "run")
    params, _ = nnx.state(load(tmp_path / "run").network, nnx.Param, ...)
    for name, leaf in flatten(nnx.to_pure_dict(params)).items():
        np.testing.assert_array_equal(leaf, theirs[f"ema/params/{name}"])
    _, first = started(data_dir, tmp_path / "next", Begin(tmp_path / "run", "best"))
    np.testing.assert_array_equal(first["params/decoder/bias"], theirs["ema/params/decoder/bias"])
