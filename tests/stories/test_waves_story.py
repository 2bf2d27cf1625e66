"""The wave task, and the study of the four official settings."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from ssm_jax.commands import runs as read
from ssm_jax.commands import studies
from ssm_jax.commands.studies import waves
from ssm_jax.config.load import load_config, load_sweep
from ssm_jax.stories.runs import FinishedRun, about, publish
from ssm_jax.stories.waves.run import SETTINGS, errors_of, waves_figure
from ssm_jax.stories.waves.task import WAVES, regression_sums

ROOT = Path(__file__).parents[2]


def test_sums_by_a_loop_over_examples_and_waves():
    amplitudes = np.random.default_rng(0).uniform(0, 1, (5, 4)).astype(np.float32)
    estimates = np.random.default_rng(1).uniform(0, 1, (5, 4)).astype(np.float32)
    mask = np.array([1, 1, 0, 1, 1], np.float32)
    batch = {"inputs": jnp.asarray(amplitudes), "mask": jnp.asarray(mask)}
    sums = regression_sums(lambda _: jnp.asarray(estimates), batch)
    loss, error, each = 0.0, 0.0, np.zeros(4)
    for b in range(5):
        for i in range(4):
            apart = float(mask[b]) * float(estimates[b, i] - amplitudes[b, i])
            loss += apart**2 / 4
            error += abs(apart) / 4
            each[i] += abs(apart)
    assert sums["loss"] == pytest.approx(loss, rel=1e-5)
    assert sums["error"] == pytest.approx(error, rel=1e-5)
    names = ("error_1", "error_16", "error_256", "error_4096")
    np.testing.assert_allclose([sums[name] for name in names], each, rtol=1e-5)
    assert sums["count"] == 4


def test_the_settings_are_those_that_the_config_sweeps():
    cfg = load_config(str(ROOT / "configs/waves.py"))
    by_alpha = sorted(SETTINGS, key=lambda cell: cell["model.alpha"])
    swept = load_sweep(str(ROOT / "configs/waves.py"), cfg)
    assert by_alpha == sorted(swept, key=lambda cell: cell["model.alpha"])


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("waves", "model.alpha=5"),
        ("denoise", "model.beta.init=0.5"),
        ("video", "model.beta.filter=true"),
        ("linoss", "model.alpha=5"),
        ("runoff", "model.alpha_real=2"),
    ],
)
def test_an_option_that_the_settings_set_is_refused(name, option, tmp_path, capsys):
    config = "linoss:waves" if name == "linoss" else f"{name}:smoke"
    with pytest.raises(SystemExit):
        getattr(studies, name)(
            [f"--config={config}", f"--config.{option}", f"--folder={tmp_path / 'study'}"]
        )
    assert f"--config.{option.partition('=')[0]} is given and is" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_runs_that_end_early_are_drawn_as_far_as_they_go(tmp_path):
    """With train.patience the study trained all of its runs and ended in a traceback."""
    runs, ends = [], iter((3, 1, 2, 3, 3, 3, 2, 3))
    for cell in SETTINGS:
        for seed in range(2):
            path = tmp_path / f"{len(runs)}"
            path.mkdir()
            lines = [
                {"step": 5 * n, "kind": "val"} | {f"error_{w}": len(runs) + w / n for w in WAVES}
                for n in range(1, next(ends) + 1)
            ]
            (path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
            runs.append(FinishedRun(cell, seed, path.name, path, {}))
    steps, errors = errors_of(runs)
    assert steps.tolist() == [5, 10, 15] and len(errors) == 4
    low = errors["low: alpha = 0.01, beta = -1"]["4,096"]
    np.testing.assert_array_equal(low, [[4098, 2050, np.nan], [4099, 2051, 3 + 4096 / 3]])
    (axes, *_) = waves_figure(steps, errors, "").axes
    means = [line.get_ydata() for line in axes.lines if line.get_linewidth() == 2]
    np.testing.assert_array_equal(means[0], [0.5 + 1, np.nan, np.nan])
    (tmp_path / "3/metrics.jsonl").unlink()  # a curve less would go unseen
    with pytest.raises(ValueError, match=r"3.metrics\.jsonl has no errors of 3, .* remove .*3 and"):
        errors_of(runs)


def test_a_study_says_in_what_its_runs_differ(tmp_path):
    """A study that went on at another commit, or whose runs stopped early, showed the commit and
    the steps of its first run as those of all, and was silent on a lost best checkpoint."""
    first = {"steps": 6, "git": {"commit": "a"}, "data": {}, "versions": {}, "devices": {}}
    lost = {"steps": 3, "best": {"step": 2}, "best_lost": {"step": 3}}
    summaries = first, first | {"git": {"commit": "b"}} | lost
    runs = [FinishedRun({}, i, f"seed={i}", tmp_path, s) for i, s in enumerate(summaries)]
    job = SimpleNamespace(folder=tmp_path, argv=["waves"])
    assert publish(job, about(runs), "", [{"alpha": 1.0}], {"alpha": "{alpha:g}"}, "title") == 0
    said = [
        "the runs have 2 different steps; the first run's is shown.",
        "the runs have 2 different git; the first run's is shown.",
        "seed=1: the best checkpoint, of step 3, was lost; the next best, of step 2, is tested.",
    ]
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["remarks"], results["steps"], results["git"]["commit"]) == (said, 6, "a")
    table = (tmp_path / "table.md").read_text()
    assert table.splitlines()[-5::2] == [f"Note: {line}" for line in said]


def test_the_study_trains_the_four_settings_and_shows_them(tmp_path, compile_once, capsys):
    folder = tmp_path / "study"
    config = f"--config={ROOT / 'configs/waves.py'}:smoke"
    assert waves([config, f"--folder={folder}", "--config.log.diagnostics=false"]) == 0
    results = json.loads((folder / "results.json").read_text())
    found = [(cell["setting"], cell["alpha"], cell["beta"]) for cell in results["cells"]]
    assert found == [
        ("baseline", 1, 0),
        ("low", 0.01, -1),
        ("middle", 10, 0.5),
        ("high", 100, 1),
    ]
    for cell in results["cells"]:
        name = f"alpha={cell['alpha']:g},beta={cell['beta']:g},seed=0"
        config = json.loads((folder / name / "record.json").read_text())["config"]
        assert (config["model.alpha"], config["model.beta.init"]) == (cell["alpha"], cell["beta"])
    assert (folder / "errors.png").stat().st_size > 1000
    assert read.evaluate([str(folder / name)]) == 0
    shown, test = (
        capsys.readouterr().out,
        json.loads((folder / name / "summary.json").read_text())["test"],
    )
    assert f"{test['error_4096']:.4g}" in shown and "error_4096" in shown
    assert (folder / "table.md").read_text().count("\n") == 6
