"""The study of LinOSS under alpha: what it measures, and that it trains and shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ssm_jax.commands.studies import linoss
from ssm_jax.config.load import load_config, load_sweep
from ssm_jax.stories.linoss import SETS
from ssm_jax.stories.linoss import run as study
from ssm_jax.stories.runs import FinishedRun

ROOT = Path(__file__).parents[2]


def test_the_arms_of_a_set_differ_in_alpha_alone():
    for name in SETS:
        cfg = load_config(f"linoss:{name}")
        assert [*study.SETTINGS] == load_sweep(f"linoss:{name}", cfg)
        assert cfg.model.layer == "linoss" or cfg.model.waves.oscillators
        assert cfg.model.linoss.scheme == "im" and cfg.log.diagnostics
    assert [cell["model.alpha"] for cell in study.SETTINGS] == [0.3, 1, 3, 10]


def test_variation_is_of_the_start_and_of_the_tested_checkpoint(tmp_path):
    """Against a loop over the bands of every channel of two layers."""
    rng = np.random.default_rng(0)
    (tmp_path / "diagnostics").mkdir()
    kept = {}
    for step in (0, 20, 40):
        kept[step] = arrays = {"edges": np.arange(5.0)}
        for layer in "ab":
            arrays[f"{layer}:variation"] = rng.uniform(0, 1, (1, 3, 4)).astype(np.float32)
            arrays[f"{layer}:drift_im"] = rng.uniform(0, 1, (2, 5))
        np.savez(tmp_path / f"diagnostics/{step}.npz", **arrays)
    summary = {"test": {"accuracy": 0.5}, "best": {"step": 20}}
    run = FinishedRun({"model.alpha": 1.0}, 0, "a", path=tmp_path, summary=summary)
    found = study.with_variation(run).summary["test"]
    assert found["accuracy"] == 0.5 and summary["test"] == {"accuracy": 0.5}
    for when, step in (("before", 0), ("after", 20)):
        low = high = 0.0
        for layer in "ab":
            for channel in kept[step][f"{layer}:variation"][0]:
                low += sum(map(float, channel[:3])) / 6
                high += float(channel[3]) / 6
        assert found[f"low_{when}"] == pytest.approx(low)
        assert found[f"high_{when}"] == pytest.approx(high)
    turned = sorted(x for layer in "ab" for x in kept[20][f"{layer}:drift_im"].ravel())
    assert found["moved"] == pytest.approx((turned[9] + turned[10]) / 2)
    whole = (path := tmp_path / "diagnostics/0.npz").read_bytes()
    for left in (b"", b"no zip", whole[:300], whole[:-100], None):
        path.unlink() if left is None else path.write_bytes(left)
        with pytest.raises(ValueError, match=r"0\.npz, whose variation .* remove .* trained anew"):
            study.with_variation(run)


def test_the_table_names_the_metrics_that_it_has():
    """It said accuracy and points whatever the task measures."""
    for metrics, heads in (
        (("error", "accuracy"), ["test accuracy, in waves error", "to alpha = 1, points"]),
        (("accuracy",), ["test accuracy", "to alpha = 1, points"]),
        (("mse",), ["test mse", "to alpha = 1"]),
    ):
        assert [*study.columns_of(metrics)][2:4] == heads
    assert [*study.COLUMNS] == [*study.columns_of(("error", "accuracy"))]


def test_the_docs_say_how_far_training_moved_the_variation():
    """They had one factor for a set, 1.7, where the arms of alpha = 10 are at 2.9 in the figure."""
    cells = json.loads((ROOT / "results/linoss/story.json").read_text())["cells"]
    said = " ".join((ROOT / "docs/benchmark.md").read_text().split())

    def factors(band, cells):
        tests = [test for cell in cells for test in cell["seeds"].values()]
        return [test[f"{band}_after"] / test[f"{band}_before"] for test in tests]

    by_set = [[cell for cell in cells if cell["set"] == name] for name in SETS]
    halves = [np.median(factors(band, arms)) for band in ("low", "high") for arms in by_set]
    assert f"half of the runs changed V by a factor of at most {max(halves):.1f}." in said
    low, high = (
        max((np.median(factors(band, [c])), c["alpha"], c["set"]) for c in cells)
        for band in ("low", "high")
    )
    assert low[1:] == high[1:] == (10, "waves")
    assert f"where V is least: {low[0]:.1f} low and {high[0]:.1f} high." in said


def test_a_study_without_diagnostics_is_refused_before_it_trains(tmp_path, capsys):
    words = ["--config=linoss:waves,smoke", f"--folder={tmp_path / 'study'}"]
    with pytest.raises(SystemExit):
        linoss([*words, "--config.log.diagnostics=false"])
    assert "log.diagnostics=False leaves out the total variation" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config=waves:smoke"], "model.waves.oscillators=False is an S4D"),
        (["--config=listops_small"], "model.layer=s4d must be linoss"),
        (["--config=linoss:smnist,smoke", "--config.model.layer=dlinoss"], "model.layer=dlinoss"),
    ],
)
def test_a_study_of_another_layer_is_refused_before_it_trains(tmp_path, capsys, words, said):
    with pytest.raises(SystemExit):
        linoss([*words, f"--folder={tmp_path / 'study'}"])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_the_study_trains_and_shows_what_alpha_changes(tmp_path, compile_once, monkeypatch):
    monkeypatch.setattr(study, "SETTINGS", ({"model.alpha": 1.0}, {"model.alpha": 10.0}))
    folder = tmp_path / "study"
    config = "--config=linoss:waves,smoke"
    assert linoss([config, f"--folder={folder}", "--seeds=2"]) == 0
    results = json.loads((folder / "results.json").read_text())
    name = "waves_smoke"
    assert [(c["set"], c["alpha"]) for c in results["cells"]] == [(name, 1), (name, 10)]
    usual, wide = results["cells"]
    assert usual["against_1"] is None and wide["metric"] == "error"
    heads = (folder / "table.md").read_text().splitlines()[0].strip("| ").split(" | ")
    assert heads[2:4] == ["test error", "to alpha = 1"]
    gaps = [wide["seeds"][seed]["error"] - usual["seeds"][seed]["error"] for seed in "01"]
    assert wide["against_1"]["mean"] == pytest.approx(np.mean(gaps))
    assert wide["against_1"]["half_width"] == pytest.approx(
        12.706 * abs(np.diff(gaps)[0]) / 2, 1e-3
    )
    # Poles at ten times the angle: more of the variation is at high frequencies.
    for seed in "01":
        share = [
            c["seeds"][seed]["high_before"] / c["seeds"][seed]["low_before"] for c in (wide, usual)
        ]
        assert share[0] > share[1] > 0
    assert list(results["data"]) == list(results["steps"]) == [name]
    assert (folder / "alpha.png").stat().st_size > 1000
    assert (folder / "table.md").read_text().count("\n") == 4
