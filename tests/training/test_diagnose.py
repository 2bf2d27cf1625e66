"""Diagnostics of a run: what is written, that it is exact, and that analyze.py reads it."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from flax import nnx
from running import products_for_a_gpu
from test_scripts import script
from tiny import tiny_experiment

from ssm_jax.analysis.bands import BANDS, band_edges
from ssm_jax.analysis.hankel import summary
from ssm_jax.layers import LAYERS, S4D
from ssm_jax.training import loop
from ssm_jax.training.diagnose import Diagnostics, cut, numbers_of, write_arrays
from ssm_jax.training.logs import read_metrics
from ssm_jax.training.runs.tables import _states, print_analysis


def read_arrays(folder):
    """The arrays of all steps, by step."""
    steps = sorted(int(path.stem) for path in folder.glob("*.npz"))
    return {step: dict(np.load(folder / f"{step}.npz")) for step in steps}


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    loop.train_and_evaluate(tiny_experiment(data_dir, log__diagnostics=True), path)
    return path


def test_step_0_and_every_evaluation_have_a_line_and_their_arrays(run):
    rows = read_metrics(run / "metrics.jsonl", "diagnostics")
    arrays = read_arrays(run / "diagnostics")
    assert [row["step"] for row in rows] == list(arrays) == [0, 20, 40, 60]
    for row in rows:
        found = arrays[row["step"]]
        assert numbers_of(found) == {k: v for k, v in row.items() if k not in ("step", "kind")}
        np.testing.assert_array_equal(found["edges"], band_edges(24))
        assert found["blocks/1/ssm:variation"].shape == (2, 8, BANDS)
        values = found["blocks/1/ssm:hankel"]
        assert values.shape == (8, 8) and (np.diff(values) <= 0).all()
        assert 1 <= row["states_99_median/blocks/1/ssm"] <= row["states_99_9_median"] <= 8
        assert sum(row[f"gradient_share_{k + 1}"] for k in range(BANDS)) == pytest.approx(1)
        assert all(np.isfinite(v) for k, v in row.items() if k != "kind")
    assert rows[0]["drift_im_max"] == 0 == rows[0]["beta_max"]
    assert rows[-1]["drift_im_max"] > 0 and rows[-1]["beta_max"] > 0


def test_without_diagnostics_every_other_number_is_the_same(run, data_dir, tmp_path):
    off = tiny_experiment(data_dir, log__diagnostics=False)  # tiny.py's own value
    loop.train_and_evaluate(off, tmp_path / "off")
    kept = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] != "diagnostics"]
    assert read_metrics(tmp_path / "off/metrics.jsonl") == kept
    assert not (tmp_path / "off/diagnostics").exists()


def test_equal_arrays_are_equal_bytes_and_a_restart_cuts_them(tmp_path):
    arrays = {"edges": np.arange(3.0), "blocks/0/ssm:beta": np.ones(2, np.float32)}
    for folder in ("a", "b"):
        for step in (0, 10, 20):
            write_arrays(tmp_path / folder, step, arrays)
    files = [sorted((tmp_path / folder).iterdir()) for folder in ("a", "b")]
    assert [f.name for f in files[0]] == ["0.npz", "10.npz", "20.npz"]
    for a, b in zip(*files, strict=True):
        assert a.read_bytes() == b.read_bytes()
    cut(tmp_path / "a", 10)
    assert list(read_arrays(tmp_path / "a")) == [0, 10]
    cut(tmp_path / "a", 0)
    assert not read_arrays(tmp_path / "a")
    assert not read_arrays(tmp_path / "none")


def test_analyze_explains_a_checkpoint_and_leaves_the_run_as_it_is(run, data_dir, tmp_path, capsys):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    out = tmp_path / "out"
    checkpoint = run / "checkpoints/60"
    done = script("analyze.py", str(checkpoint), f"--out={out}", f"--data_dir={data_dir}")
    result = json.loads((out / "analysis.json").read_text())
    assert result["step"] == 60
    row = read_metrics(run / "metrics.jsonl", "diagnostics")[-1]
    for name, value in result["all_layers"]["after"].items():
        assert value == pytest.approx(row[name], rel=1e-3, abs=1e-6), name
    assert [layer["layer"] for layer in result["layers"]] == ["blocks/0/ssm", "blocks/1/ssm"]
    counted = result["layers"][1]["after"]["hankel"]
    assert counted["states"] == 8 and counted["unstable"] == 0 and counted["median"][0] == 1
    assert counted["states_99"][1] == row["states_99_median/blocks/1/ssm"]
    assert "Hankel singular values" in done.stdout and (out / "hankel.png").exists()
    assert "Total variation" in done.stdout and "Gradient by Im a" in done.stdout
    assert (out / "poles.png").stat().st_size > 10_000
    assert before == {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert "Filter: beta" in done.stdout
    for layer in result["layers"]:  # as layers without a filter have it
        layer["before"]["beta"] = layer["after"]["beta"] = [0.0, 0.0, 0.0]
    print_analysis(result)
    printed = capsys.readouterr().out
    assert "Filter: beta" not in printed and "Gradient by Im a" in printed


def test_a_layer_that_is_one_system_has_one_count():
    """S5 and its kin; and none where a pole is on the unit circle, as with LinOSS imex."""
    values = np.array([[4.0, 2.0, 1.0, 0.001], [2.0, 1.0, 1.0, 1.0]])
    one, two, none = summary(values[:1]), summary(values), summary(values * np.nan)

    def shown(before, after):
        return [*_states({"before": {"hankel": before}, "after": {"hankel": after}})]

    assert shown(one, one) == ["4", "3 > 3", "3 > 3", "0 of 1 > 0 of 1"]
    assert shown(one, summary(values[:1] * np.nan))[1:] == ["3 > -", "3 > -", "0 of 1 > 1 of 1"]
    assert shown(two, none)[1:3] == ["3 / 3.5 / 4 > -", "3 / 3.5 / 4 > -"]


def test_analyze_without_a_run_is_one_line(tmp_path):
    for path, words in ((tmp_path / "none", "no folder"), (tmp_path, "record.json")):
        done = script("analyze.py", str(path), code=2)
        assert len(done.stderr.strip().splitlines()) == 1 and words in done.stderr


def test_the_gradient_of_diagnostics_is_the_same_on_every_platform(data_dir, monkeypatch):
    """Its products are in full also where those of training are not."""
    experiment, found = tiny_experiment(data_dir, log__diagnostics=True), []
    monkeypatch.setattr(
        experiment, "compile", lambda f, *shapes: found.extend(products_for_a_gpu(f, *shapes))
    )
    assert callable(Diagnostics(experiment, experiment.fresh_state)._gradient)
    assert len(found) > 3 and set(found) == {"HIGHEST, HIGHEST"}


class Dropping(S4D):
    """A layer of somebody's that draws by Flax's means."""

    def __init__(self, d_model, **options):
        super().__init__(d_model, **options)
        self.drop = nnx.Dropout(0.5)

    def __call__(self, u_BLH, lengths_B=None, *, key=None):
        return self.drop(super().__call__(u_BLH, lengths_B), rngs=key)


def test_the_gradient_of_diagnostics_is_without_the_dropout_of_flax(data_dir, monkeypatch):
    monkeypatch.setitem(LAYERS, "s4d", Dropping)
    experiment = tiny_experiment(data_dir, log__diagnostics=True)
    monkeypatch.setattr(experiment, "compile", jax.eval_shape)
    assert callable(Diagnostics(experiment, experiment.fresh_state)._gradient)
