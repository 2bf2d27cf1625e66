"""Parameters set by the data before step 0: what is measured, what is set, and that it stays."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from tiny import newest, tiny_config, tiny_experiment

from ssm_jax import config as config_lib
from ssm_jax.analysis.timescale import SILENT
from ssm_jax.commands.train import train
from ssm_jax.config.check import check
from ssm_jax.config.load import load_config
from ssm_jax.kernels.arrays import real_steps
from ssm_jax.lra.variants import ARMS
from ssm_jax.models import SequenceClassifier
from ssm_jax.stop import StopRequest
from ssm_jax.trained import load
from ssm_jax.training import data_init, loop, plan, spectrum_match
from ssm_jax.training.checkpoint.manifest import ConfigMismatch, flatten
from ssm_jax.training.experiment import build
from ssm_jax.training.first_state import first_state

AC = {"model__dt_rule": "autocorrelation"}


def step_sizes(experiment, state) -> list[np.ndarray]:
    return [np.asarray(block.ssm.step_sizes()) for block in experiment.model(state).blocks]


def float64_input_of_first_layer(experiment, batch) -> np.ndarray:
    """Embedding and batch norm, in NumPy."""
    model = experiment.model(experiment.fresh_state())
    x = np.asarray(model.encoder.embedding[...], np.float64)[batch["inputs"]]
    u = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5)  # padded steps count: OC-15
    return u * (np.arange(x.shape[1]) < np.asarray(batch["lengths"])[:, None])[:, :, None]


def test_dt_is_that_of_the_eigenvalues_of_numpy(data_dir):
    experiment = tiny_experiment(data_dir, **AC, model__dt_kappa=0.5)
    state, found = data_init.initialized(experiment, experiment.fresh_state())
    batches = [
        experiment.dataset.gather("train", *experiment.order.batch(k))
        for k in range(experiment.order.steps_per_epoch)
    ]
    u_nLH = np.concatenate([float64_input_of_first_layer(experiment, b) for b in batches])
    n, L, H = u_nLH.shape
    largest, held_out = [], []
    for h in range(H):  # along the eigenvectors of one half, the mean square of the other half
        halves = [half.T @ half / len(half) for half in (u_nLH[::2, :, h], u_nLH[1::2, :, h])]
        largest.append(np.linalg.eigvalsh(u_nLH[:, :, h].T @ u_nLH[:, :, h] / n)[-1])
        v, w = (np.linalg.eigh(half)[1][:, -1] for half in halves)
        held_out.append((v @ halves[1] @ v + w @ halves[0] @ w) / 2)
    assert found[0]["of_sample"] == pytest.approx(np.mean(largest), rel=0.01)
    assert found[0]["lambda_max"] == pytest.approx(np.mean(held_out), rel=0.05)
    assert (found[0]["length"], found[0]["sequences"]) == (L, n)
    dt_H = step_sizes(experiment, state)[0]
    np.testing.assert_allclose(dt_H, 0.5 / np.sqrt(L * found[0]["lambda_max"]), rtol=1e-5)
    assert [row["layer"] for row in found] == ["blocks/0/ssm", "blocks/1/ssm"]


def test_a_layer_is_measured_behind_layers_that_are_already_set(data_dir):
    experiment = tiny_experiment(data_dir, **AC)
    state, found = data_init.initialized(experiment, experiment.fresh_state())
    model = experiment.model(state)
    batch = experiment.dataset.gather("train", *experiment.order.batch(0))
    seen = []

    class Spy(nnx.Module):
        def __call__(self, u_BLH, lengths_B=None, *, key=None):
            seen.append(u_BLH)
            return u_BLH

    encode = nnx.jit(lambda model, *batch: model.encode(*batch))
    x_BLH, lengths_B = encode(model, batch["inputs"], batch["lengths"])
    run = nnx.jit(lambda block, *inputs: block(*inputs, train=True, key=None))
    after_BLH = run(model.blocks[0], x_BLH, lengths_B)
    model.blocks[1].ssm = Spy()
    model.blocks[1](after_BLH, lengths_B, train=True, key=None)
    *_, second = data_init.layer_inputs(experiment.model(state), batch)
    real = np.asarray(real_steps(lengths_B, x_BLH.shape[1]))[:, :, None]
    np.testing.assert_allclose(second, seen[0] * real, atol=1e-5)
    # Measuring once more on the finished state finds the same numbers
    again = data_init.initialized(experiment, state)[1]
    assert again == found


def test_the_inputs_leave_the_model_as_it_is(data_dir):
    experiment = tiny_experiment(data_dir)
    model = experiment.model(experiment.fresh_state())
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model)))
    batch = experiment.dataset.gather("train", *experiment.order.batch(0))
    list(data_init.layer_inputs(model, batch))
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(model)))


@pytest.mark.parametrize("layer", ["s4d", "s4", "s5"])
@pytest.mark.parametrize("rule", ["autocorrelation", "fixed"])
@pytest.mark.parametrize("which", ["all", "first"])
def test_every_layer_can_be_set_and_nothing_else_is(data_dir, layer, rule, which):
    options = {"model__layer": layer, "model__beta__filter": False}
    if layer != "s4d":
        options |= {"model__init": "legs", "model__dt_transform": "exp"}
    if layer == "s4":
        options["model__discretization"] = "bilinear"
    usual = tiny_experiment(data_dir, **options)
    options |= {"model__dt_rule": rule, "model__dt_apply_to": which}
    experiment = tiny_experiment(data_dir, **options)
    state = experiment.fresh_state()
    if rule == "autocorrelation":
        state, found = data_init.initialized(experiment, state)
        expected = [row["dt"] for row in found]
    else:
        expected = [1e-3, 1e-3]
    drawn = step_sizes(usual, usual.fresh_state())
    for number, dt in enumerate(step_sizes(experiment, state)):
        if which == "first" and number:
            np.testing.assert_array_equal(dt, drawn[number])
        else:
            np.testing.assert_allclose(dt, expected[number], rtol=1e-5)
    ours, theirs = flatten(state), flatten(usual.fresh_state())
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        if not path.endswith("dt_raw"):
            np.testing.assert_array_equal(leaf, theirs[path], err_msg=path)


def test_averages_start_from_what_was_set(data_dir):
    experiment = tiny_experiment(data_dir, **AC, train__ema=0.9)
    state, _ = data_init.initialized(experiment, experiment.fresh_state())
    averages = {"params": state.params, "stats": state.stats}
    jax.tree.map(np.testing.assert_array_equal, averages, state.ema)


@pytest.mark.parametrize(
    ("task", "changed", "line"),
    [
        (
            "listops",
            {"model.discretization": "none", "model.init": "ring"},
            "model.discretization='none'",
        ),
        ("waves", {"train.select_metric": "loss"}, "task='waves'"),
    ],
)
def test_what_has_no_dt_to_set_is_refused_by_name(task, changed, line):
    cfg = config_lib.default(task)
    cfg.task, cfg.train.steps = task, 1
    cfg.update_from_flattened_dict({"model.dt_rule": "autocorrelation", **changed})
    with pytest.raises(ValueError, match="is not read with") as e:
        check(cfg)
    assert f"model.dt_rule='autocorrelation' is not read with {line}" in str(e.value)


def test_options_of_a_rule_that_is_not_chosen_are_refused():
    for options in (
        {"model__dt_kappa": 2.0},
        {"model__dt_apply_to": "first"},
        {"model__dt_rule": "fixed", "model__dt_kappa": 2.0},
    ):
        with pytest.raises(ValueError, match=r"is not read with model\.dt_rule="):
            check(tiny_config(**options))


def test_a_layer_of_a_file_without_dt_is_refused_by_name(tmp_path, monkeypatch):
    (tmp_path / "plain.py").write_text(
        "from flax import nnx\n\n\nclass Plain(nnx.Module):\n"
        "    def __init__(self, d_model, *, rngs):\n        pass\n\n"
        "    def __call__(self, u_BLH, lengths_B=None, *, key=None):\n        return u_BLH\n"
    )
    monkeypatch.chdir(tmp_path)
    cfg = config_lib.default(layer="plain.py:Plain")
    cfg.train.steps, cfg.model.dt_rule = 1, "autocorrelation"
    with pytest.raises(ValueError, match=r"dt_rule='autocorrelation' is not read") as error:
        check(cfg)
    assert "plain.py:Plain" in str(error.value)


def test_a_network_without_blocks_is_refused_by_name():
    with pytest.raises(ValueError, match=r"networks of blocks .* is a Linear"):
        next(data_init.layer_inputs(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), {}))


def test_inputs_that_are_zero_are_refused(data_dir):
    experiment = tiny_experiment(data_dir, **AC)
    state = experiment.fresh_state()
    silent = jax.tree.map(lambda leaf: leaf * 0, state.params)
    with pytest.raises(ValueError, match="blocks/0/ssm"):
        data_init.initialized(experiment, type(state)(**{**vars(state), "params": silent}))


def test_what_rounding_leaves_of_constant_inputs_is_refused(data_dir):
    """A batch norm in float32 makes some 1e-6 of channels that never change, and dt would be 40."""
    u_nLC = 1e-3 * np.random.default_rng(0).normal(size=(8, 16, 2))
    with pytest.raises(ValueError, match="behind the norm is 1e-06, which is rounding"):
        data_init._set_dt(None, u_nLC, 1.0, SILENT)
    for prenorm in (True, False):
        experiment = tiny_experiment(data_dir, **AC, model__prenorm=prenorm)
        state = experiment.fresh_state()
        faint = jax.tree.map(lambda leaf: leaf, state.params)
        table = faint["encoder"]["embedding"]
        # Every token is nearly the same, as all steps of a constant series are
        faint["encoder"]["embedding"] = jax.tree.map(lambda leaf: 10 + 1e-5 * leaf, table)
        state = type(state)(**{**vars(state), "params": faint})
        if prenorm:
            with pytest.raises(ValueError, match="blocks/0/ssm gets as input: their mean square"):
                data_init.initialized(experiment, state)
        else:
            assert data_init.initialized(experiment, state)[1][0]["dt"] < 0.01


def test_one_sequence_has_no_interval_and_no_nan():
    class Layer:
        def set_step_sizes(self, dt):
            self.dt = dt

    layer, u_nLC = Layer(), np.random.default_rng(0).normal(size=(1, 16, 2))
    found = data_init._set_dt(layer, u_nLC, 1.0)
    assert found["low"] is None and found["high"] is None
    # R of one sequence is x x^T, whose eigenvalue is the sum of squares.
    largest = np.square(u_nLC).sum(axis=1).mean()
    assert layer.dt == found["dt"] == pytest.approx((16 * largest) ** -0.5, rel=0.01)
    json.dumps(found, allow_nan=False)
    (line,) = data_init.describe([{"layer": "blocks/0/ssm", **found}])
    assert (
        "of one sequence it is the sum of squares) and L = 16: 1 training" in line
        and "nan" not in line
    )


def test_pairs_of_sequences_are_rows_of_their_own():
    from ssm_jax.models import PairClassifier

    model = PairClassifier(
        n_classes=2, vocab_size=5, d_model=4, depth=1, ssm={"d_state": 2}, rngs=nnx.Rngs(0)
    )
    tokens = np.arange(24).reshape(2, 2, 6) % 5
    (u,) = data_init.layer_inputs(model, {"inputs": tokens, "lengths": np.array([[6, 3], [2, 5]])})
    assert u.shape == (4, 6, 4)
    assert not np.asarray(u[1, 3:]).any() and np.asarray(u[1, :3]).any()
    assert isinstance(model, SequenceClassifier)


class KilledError(RuntimeError):
    """Stands for a kill: nothing after it is saved."""


@pytest.fixture(scope="module")
def measured_run(data_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("measured") / "run"
    loop.train(tiny_config(**AC, train__steps=14, train__eval_every=7), path, data_dir=data_dir)
    return path


def test_the_record_says_what_was_measured_and_load_needs_no_data(measured_run):
    record = json.loads((measured_run / "record.json").read_text())
    rows = record["measured"]
    assert [row["layer"] for row in rows] == ["blocks/0/ssm", "blocks/1/ssm"]
    for row in rows:
        assert row["low"] <= row["lambda_max"] <= row["of_sample"] <= row["high"]
        assert row["dt"] == pytest.approx(1 / np.sqrt(row["length"] * row["lambda_max"]))
    shutil.copytree(measured_run, copy := measured_run.parent / "copy")
    assert load(copy).cfg.model.dt_rule == "autocorrelation"


def killed_and_resumed(cfg, data_dir, path, monkeypatch, killed_at):
    polled = StopRequest.poll

    def kill(self, step):
        if step == killed_at:
            raise KilledError
        return polled(self, step)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(StopRequest, "poll", kill)
        loop.train(cfg, path, data_dir=data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(data_init, "lambda_max", None)
        patch.setattr(data_init, "spectrum_match", None)
        loop.train(cfg, path, data_dir=data_dir)


def assert_same(path, reference):
    for name in ("metrics.jsonl", "start/measured.json"):
        assert (path / name).read_bytes() == (reference / name).read_bytes()
    (_, ours), (_, theirs) = newest(path), newest(reference)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.tobytes() == theirs[name].tobytes(), name


@pytest.mark.parametrize("killed_at", [3, 10])
def test_killed_and_resumed_equals_undisturbed_and_measures_nothing(
    data_dir, measured_run, tmp_path, monkeypatch, killed_at
):
    cfg = tiny_config(**AC, train__steps=14, train__eval_every=7)
    killed_and_resumed(cfg, data_dir, tmp_path / "run", monkeypatch, killed_at)
    assert_same(tmp_path / "run", measured_run)


def test_a_run_from_a_fitted_spectrum_resumes_exactly(data_dir, tmp_path, monkeypatch, capsys):
    long = {"data__listops__longer_than": 70, "data__listops__shorter_than": 96}
    long |= {"data__padded_length": 96, "model__depth": 1, "model__spectrum_steps": 20}
    cfg = tiny_config(**long, train__steps=8, train__eval_every=8, checkpoint__every=4)
    loop.train(cfg, whole := tmp_path / "whole", data_dir=data_dir)
    killed_and_resumed(cfg, data_dir, tmp_path / "run", monkeypatch, 6)
    assert_same(tmp_path / "run", whole)
    (row,) = json.loads((whole / "record.json").read_text())["measured"]
    assert row["layer"] == "blocks/0/ssm" and row["after"] < row["before"]
    assert "dB from the spectrum of its" in " ".join(capsys.readouterr().err.split())
    started = first_state(build(cfg, data_dir=data_dir), whole).params
    usual = tiny_experiment(data_dir, **{**long, "model__spectrum_steps": 0}).fresh_state().params
    moved = [p for p, leaf in flatten(started).items() if (leaf != flatten(usual)[p]).any()]
    assert {path.rpartition("/")[2] for path in moved} == {*spectrum_match.FITTED}


def test_a_plan_needs_no_data_and_says_what_will_be_set(tmp_path):
    cfg = tiny_config(**AC, model__spectrum_steps=20)
    experiment = build(cfg, data_dir=tmp_path / "none", look_only=True)
    told = "\n".join(plan.describe(experiment))
    assert "dt of every layer = 1 / sqrt(L lambda_max)" in told
    assert "fitted to that of its input, once, in 20 steps" in told


@pytest.mark.parametrize("arm", ["s4d_ac", "s4d_re0"])
def test_an_arm_of_your_own_series_is_s4d_with_its_options(arm):
    usual, cfg = (config_lib.flatten(load_config(f"arrays:{name}")) for name in ("s4d", arm))
    changed = {key: value for key, value in cfg.items() if value != usual[key]}
    assert changed.pop("name") == f"classification:{arm}"
    assert changed == {f"model.{key}": value for key, value in ARMS[arm].items()}


def test_s5_has_no_taps_to_fit():
    options = {"model__layer": "s5", "model__init": "legs", "model__spectrum_steps": 9}
    with pytest.raises(ValueError, match=r"spectrum_steps=9 is not read with model\.layer='s5'"):
        check(tiny_config(**options))


def test_a_lost_first_state_is_measured_again(data_dir, measured_run, tmp_path):
    cfg = tiny_config(**AC, train__steps=14, train__eval_every=7)
    experiment = build(cfg, data_dir=data_dir)
    kept = flatten(first_state(experiment, measured_run))
    shutil.copytree(measured_run, run := tmp_path / "run")
    shutil.rmtree(run / "start")
    assert loop.train(cfg, run, data_dir=data_dir) is not None  # it is finished
    for path, leaf in flatten(first_state(experiment, run)).items():
        np.testing.assert_array_equal(leaf, kept[path], err_msg=path)


def test_parameters_of_another_run_are_kept_as_they_are(data_dir, measured_run, tmp_path, capsys):
    usual = loop.train(
        tiny_config(train__steps=7, train__eval_every=7), tmp_path / "a", data_dir=data_dir
    )
    assert usual is not None
    cfg = tiny_config(**AC, train__steps=7, train__eval_every=7)
    for match, layers in (("", []), ("blocks/0/", ["blocks/1/ssm"])):
        run = tmp_path / f"from{len(layers)}"
        options = {"init_from": tmp_path / "a", "init_match": match}
        loop.train(cfg, run, data_dir=data_dir, **options)
        record = json.loads((run / "record.json").read_text())
        assert [row["layer"] for row in record["measured"]] == layers
        told = " ".join(capsys.readouterr().err.split())
        assert ("is taken from the other run, and nothing is measured" in told) == (not layers)
        assert ("sqrt(L lambda_max), measured once" in told) == bool(layers)


def test_the_plan_of_a_run_that_continues_another_measures_nothing():
    cfg = tiny_config(**AC, model__spectrum_steps=20)
    cfg.parent = "config 0, step 7, state 0: continued"
    assert ["nothing is" in line for line in data_init.announce(cfg)] == [True, True]
    cfg.parent = "config 0, step 7, state 0: all"
    assert all(", unless" in line for line in data_init.announce(cfg))


def test_the_plan_of_a_dry_run_knows_the_other_run(data_dir, measured_run, monkeypatch, capsys):
    """The command without a folder, and with one that is there already."""
    monkeypatch.setattr(plan, "print_plan", lambda one: print("\n".join(plan.describe(one))))
    words = ["--dry_run", f"--data_dir={data_dir}", "--compiled=off"]
    for flag, said in (
        ("init_from", ", unless it is taken from the other run, = 1 / sqrt(L lambda_max)"),
        ("continue_from", "is taken from the other run, and nothing is measured"),
    ):
        for more in ([], [f"--workdir={measured_run}", "--fresh"]):
            assert train([f"--{flag}={measured_run}", *words, *more]) == 0
            assert said in capsys.readouterr().out


def test_another_rule_in_the_folder_of_a_run_is_told_by_its_names(data_dir, measured_run):
    """dt_rule is newer than the first runs: at its default it is no part of what names a run."""
    usual = tiny_config(train__steps=14, train__eval_every=7)
    with pytest.raises(ConfigMismatch) as refused:
        loop.train(usual, measured_run, data_dir=data_dir)
    line = "model.dt_rule: checkpoint autocorrelation, asked for log_uniform"
    assert line in str(refused.value) and "Choose a new --workdir" in str(refused.value)
