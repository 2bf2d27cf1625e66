"""The denoising task, and the study of what the knobs do to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssm_jax.commands import studies as commands
from ssm_jax.config.load import load_config, load_sweep
from ssm_jax.stories.denoise import DENOISE
from ssm_jax.stories.denoise.run import (
    GRID,
    STORY,
    Shown,
    bias_of,
    gain_of,
    gains_figure,
    judge,
    response_of,
)
from ssm_jax.stories.denoise.task import Denoiser, Q, eval_sums, stripes, train_sums

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 32, 64
L = WIDTH * HEIGHT


@nnx.jit
def applied(model, inputs):
    return model(inputs)


@nnx.jit
def evaluated(model, batch):
    return eval_sums(model, batch)


@nnx.jit
def trained(model, batch):
    return train_sums(model, batch, None)


def denoiser(alpha=156.137, beta=0.0):
    """As after training: C of a size that lets something through."""
    model = Denoiser(width=WIDTH, d_state=16, alpha=alpha, beta=beta, rngs=nnx.Rngs(params=3))
    model.ssm.C_ri[...] = 10 * model.ssm.C_ri[...]
    return model


def images(n=3):
    rng = np.random.default_rng(0)
    return {
        "inputs": jnp.asarray(rng.uniform(-1, 1, (n, L, 3)), jnp.float32),
        "noise": jnp.asarray(rng.uniform(0, 1, (n, 3)), jnp.float32),
    }


def test_stripes_are_tones_along_columns_and_rows():
    amplitudes = np.array([0.5, 1.0, 0.0])
    both = stripes(jnp.asarray(amplitudes[None], jnp.float32), WIDTH, L)
    for row, column in ((0, 0), (3, 7), (63, 31)):
        at = row * WIDTH + column
        np.testing.assert_allclose(both["high"][0, at], np.cos(Q * column) * amplitudes, atol=1e-5)
        np.testing.assert_allclose(both["low"][0, at], np.cos(Q * row) * amplitudes, atol=1e-4)


def test_evaluation_by_a_loop_over_the_examples():
    model, batch = denoiser(), images()
    sums = evaluated(model, batch)
    output = np.asarray(applied(model, batch["inputs"]), float)
    clean = np.asarray(batch["inputs"], float)
    loss = np.mean((output - clean) ** 2, axis=(1, 2))
    np.testing.assert_allclose(sums["loss"], loss.sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["psnr"], np.sum(10 * np.log10(4 / loss)), rtol=1e-5)
    for name in ("low", "high"):
        n = np.asarray(stripes(batch["noise"], WIDTH, L)[name], float)
        disturbed = np.asarray(applied(model, jnp.asarray(clean + n, jnp.float32)), float)
        passed = np.sum((disturbed - output) ** 2, (1, 2)) / np.sum(n**2, (1, 2))
        np.testing.assert_allclose(sums[f"passed_{name}"], passed.sum(), rtol=1e-3)
        mse = np.mean((disturbed - clean) ** 2, (1, 2))
        np.testing.assert_allclose(sums[f"mse_{name}"], mse.sum(), rtol=1e-5)


def test_masked_examples_do_not_count():
    model, batch = denoiser(), images()
    masked = evaluated(model, {**batch, "mask": jnp.asarray([1.0, 0.0, 1.0])})
    kept = evaluated(model, {name: array[jnp.array([0, 2])] for name, array in batch.items()})
    for name, value in kept.items():
        np.testing.assert_allclose(masked[name], value, rtol=1e-5)
    assert masked["count"] == 2


def test_low_stripes_are_no_tone_and_high_ones_are_one_of_the_published_rows():
    """The shares of energy of docs/frequency-bias.md; a row that is held has the spectrum
    (sin(w / 2) / (w / 2))^2 at w = q + 2 pi k, which short steps hardly change."""
    width, rows = 128, 256
    both = stripes(jnp.ones((1, 3)), width, rows * width)
    angle_F = 2 * np.pi * np.arange(rows * width // 2 + 1) / (rows * width)

    def share(name, angle):
        energy_F = np.abs(np.fft.rfft(np.asarray(both[name], float)[0, :, 0])) ** 2
        return energy_F[abs(angle_F - angle) < 0.0011].sum() / energy_F.sum()

    angles = np.array([Q, 2 * np.pi - Q, 2 * np.pi + Q, 4 * np.pi - Q])
    low, held = [share("low", w) for w in angles / width], np.sinc(angles / 2 / np.pi) ** 2
    np.testing.assert_allclose(low, held, atol=0.01)
    np.testing.assert_allclose(low[:2], [0.44, 0.37], atol=0.01)
    assert share("high", Q) > 0.99


def test_training_sees_no_stripes():
    model, batch = denoiser(), images()
    other = {**batch, "noise": 100 * batch["noise"]}
    sums = [jax.device_get(trained(model, b)) for b in (batch, other)]
    assert sums[0] == sums[1]
    assert set(DENOISE.metrics) <= sums[0].keys()


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (156.137, 0.5)])
def test_what_passes_is_the_square_of_the_response_at_the_tone(alpha, beta):
    """A long steady tone in one colour: the operator's response gives the energy that leaves.

    The tone begins at the first pixel, so its beginning, some 1 / (3 dt) steps, is no steady state:
    the image is as long as that many times over, or the modes are damped within it.
    """
    model = denoiser(alpha, beta)
    # Faster damping: 3e4 / dt = 1e-4 per unit of time is e^-3 a step.
    model.ssm.A_re_raw[...] = jnp.full_like(model.ssm.A_re_raw[...], np.log(3e3))
    omega = Q
    t = np.arange(L)
    tone = np.zeros((1, L, 3), np.float32)
    tone[0, :, 1] = np.cos(omega * t)
    still, moving = (np.asarray(applied(model, x), float) for x in (np.zeros_like(tone), tone))
    moved = (moving - still)[0, 200:-200]
    energy = np.mean(np.sum(moved**2, axis=1)) / np.mean(tone[0, 200:-200, 1] ** 2)
    response = response_of(model, np.array([omega]), L)[0]
    np.testing.assert_allclose(energy, np.sum(np.abs(response[:, 1]) ** 2), rtol=0.02)
    expected = np.sqrt(np.mean(np.sum(np.abs(response) ** 2, axis=0)))
    np.testing.assert_allclose(gain_of(model, np.array([omega]), L), [expected], rtol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.1, 0.2, "reversed"),
        (0.2, 0.1, "weakened"),
        (1, 1e-5, "strengthened"),
        (1, 0.01, "unchanged"),
    ],
)
def test_a_verdict_is_a_comparison_with_the_reference(low, high, word):
    assert judge(low / high, reference=100.0) == word


def test_models_that_let_nothing_pass_have_no_verdict():
    """The study trained them and ended with a division by zero."""
    assert bias_of(3.0, 2.0) == 1.5 and bias_of(1.0, 0.0) == np.inf
    nothing = bias_of(0.0, 0.0)
    assert np.isnan(nothing) and judge(nothing, 100.0) == judge(5.0, nothing) == "-"
    assert judge(np.inf, 100.0) == "strengthened" and judge(100.0, np.inf) == "weakened"


def test_the_grid_is_what_the_config_sweeps_and_holds_the_story():
    cfg = load_config(str(ROOT / "configs/denoise.py"))
    assert load_sweep(str(ROOT / "configs/denoise.py"), cfg) == list(GRID)
    assert all(cell in GRID for cell in STORY)


def test_marks_are_named_within_the_axes():
    omega, ones = np.geomspace(1e-3, np.pi, 50), np.ones(50)
    one = Shown("alpha = 1", "reference", {}, outputs={}, start_F=ones, end_F=ones)
    figure = gains_figure(omega, {"low": Q / 128, "high": Q}, [one])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text().strip() for text in axes.texts] == ["low stripes", "high stripes"]
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)


def test_the_study_trains_its_cells_and_shows_them(tmp_path, compile_once):
    """Two seeds of four settings at the smoke size; the second call trains nothing."""
    words = [
        f"--config={ROOT / 'configs/denoise.py'}:smoke", "--seeds=2",
        f"--folder={tmp_path / 'study'}", f"--data_dir={tmp_path}",
        "--config.log.diagnostics=false", "--config.train.steps=2", "--config.train.eval_every=2",
    ]  # fmt: skip
    assert commands.denoise(words, ["scripts/denoise.py"]) == 0
    folder = tmp_path / "study"
    results = json.loads((folder / "results.json").read_text())
    assert results["cells"][0]["verdict"] == "reference"
    assert len(results["cells"]) == 4 and set(results["cells"][0]["seeds"]) == {"0", "1"}
    for cell in results["cells"]:
        each = [test["passed_high"] for test in cell["seeds"].values()]
        assert cell["mean"]["passed_high"] == pytest.approx(np.mean(each))
        low, high = (cell["mean"][f"passed_{name}"] for name in ("low", "high"))
        assert cell["bias"] == pytest.approx(low / high)
    assert str(tmp_path) not in json.dumps(results)
    for name in ("images.png", "gains.png", "table.md"):
        assert (folder / name).stat().st_size > 100
    metrics = folder / "alpha=1,beta=0,seed=0/metrics.jsonl"
    before = metrics.stat().st_mtime_ns
    command = [sys.executable, "scripts/denoise.py", *words]
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "8 of 8 runs were done before" in again.stderr
    assert metrics.stat().st_mtime_ns == before
    assert json.loads((folder / "results.json").read_text()) == results
