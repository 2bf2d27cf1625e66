"""`ssm-jax spectrum`: a task's data, a file of one's own, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ssm_jax.analysis import lambda_max
from ssm_jax.commands import spectrum as command
from ssm_jax.data.dataset import read_sequences

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/spectrum.py"


@pytest.fixture
def spectrum(monkeypatch):
    """Runs the command in this process, from the project's folder."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *words: command.spectrum([str(word) for word in words])


def test_a_file_of_ones_own_is_read_and_drawn(tmp_path, spectrum, capsys):
    """A walk: power w^-2, so beta starts at 1."""
    steps = np.random.default_rng(0).normal(size=(60, 4096))
    np.save(tmp_path / "walk.npy", np.cumsum(steps, axis=1).astype(np.float32))
    out, figure = tmp_path / "a" / "walk.json", tmp_path / "b" / "walk.png"
    spectrum(
        f"--file={tmp_path / 'walk.npy'}", f"--out={out}", f"--figure={figure}", "--alphas=1,4"
    )
    result = json.loads(out.read_text())
    assert result["fit"]["gamma"] == pytest.approx(2.0, abs=0.15)
    assert result["beta"] == pytest.approx(result["fit"]["gamma"] / 2)
    assert (result["inputs"], result["sequences"], result["length"]) == ("real", 60, 4096)
    assert {1.0, 4.0, result["alpha"]} == {window["alpha"] for window in result["windows"]}
    assert result["layer"]["d_state"] == 64 and result["git"] and result["command"]
    correlation = result["autocorrelation"]
    assert correlation["length"] == 4096 and correlation["converged"]
    low, high = correlation["dt_interval"]
    assert low < correlation["dt"] < high
    assert correlation["dt"] < 1.5 * correlation["dt_limits"][0], "nearly constant"
    assert str(tmp_path) not in out.read_text()
    shown = capsys.readouterr().out
    assert f"{result['alpha']:.3g}*" in shown and "third-party" in shown
    assert "lambda_max of E[x x^T]" in shown and "1 / sqrt(L lambda_max)" in shown
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("filtered", [False, True])
def test_a_model_without_a_filter_gets_no_beta_to_start_from(tmp_path, spectrum, capsys, filtered):
    rows = np.cumsum(np.random.default_rng(0).normal(size=(2000, 2)), axis=0)
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header="a,b", comments="")
    words = [
        "--config=arrays:forecasting",
        f"--from={tmp_path / 'a.csv'}",
        f"--data_dir={tmp_path}",
    ]
    spectrum(
        *words, f"--config.model.beta.filter={filtered}", f"--config.model.beta.learn={filtered}"
    )
    shown = capsys.readouterr().out
    assert ("start: beta = gamma / 2" in shown) == filtered and "start: alpha" in shown
    assert ("none to set, as the model has no filter" in shown) != filtered


def test_a_task_of_tokens_is_read_one_hot(tmp_path, spectrum, capsys):
    spectrum(
        "--config=configs/listops_small.py", f"--data_dir={tmp_path}", "--n=200",
        "--config.data.n_train=200", "--config.data.n_val=20", "--config.data.n_test=20",
        "--config.data.listops.longer_than=62",
        "--config.data.listops.shorter_than=100", "--config.data.padded_length=128",
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert "one-hot of 18 tokens" in shown and "32 modes" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--n=3"], "--config is missing"),
        (["--from=walk.npy"], "an array of your own is --file=X.npy"),
        (["--config=configs/listops_small.py", "--band=1"], "--band=1.0 between 0 and 1"),
        (["--file=x.npy", "--alphas=0,1"], "greater than 0"),
        (["--file=x.npy", "--low=0"], "--low=0.0 does not fit: it must be greater than 0"),
        (["--file=x.npy", "--high=-1"], "--high=-1.0 does not fit: it must be greater than 0"),
        (["--file=x.npy", "--high=4"], "--high=4.0 does not fit: it must be at most pi"),
        (["--file=x.npy", "--low=1", "--high=0.5"], "--low=1.0 does not fit: it must be below"),
        (["--file=x.npy", "--alphas=()"], "greater than 0"),
        (["--file=x.npy", "--alphas=1e400,1"], "greater than 0"),
    ],
)
def test_wrong_options_are_one_line(spectrum, capsys, arguments, words):
    with pytest.raises(SystemExit) as refused:
        spectrum(*arguments)
    assert refused.value.code == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and words in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--file=README.md"], "must be a .npy"),
        (["--config=configs/lra/listops.py:s5"], "model.layer=s5"),
        (["--config=configs/waves.py"], "no sequences; give --file"),
    ],
)
def test_what_has_no_sequences_or_modes_is_refused(spectrum, arguments, words):
    with pytest.raises(ValueError, match=words):
        spectrum(*arguments)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3, 4, 5)), r"has the shape \(2, 3, 4, 5\)"),
        (np.zeros((2, 100), complex), "holds complex128; it must hold real numbers"),
        (np.zeros((2, 100)), "constant"),
        (np.zeros(10), "at least 64 samples"),
    ],
)
def test_arrays_without_a_spectrum_are_refused(tmp_path, spectrum, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=words):
        spectrum(f"--file={tmp_path / 'a.npy'}")


def test_of_a_file_larger_than_memory_only_the_rows_that_are_used_are_read(tmp_path):
    """20 GB in a file without content; memory of what is read, not of the file."""
    path = tmp_path / "large.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (305_176, 16_384))
    assert path.stat().st_size > 20e9
    tracemalloc.start()
    rows, _, detail = read_sequences(path, 40)
    whole = np.load(path, mmap_mode="r")
    found = lambda_max(whole[:: len(whole) // 100], max_steps=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 40 and "305,176 sequences" in detail
    assert found.mean == 0 and found.length == 16_384
    assert peak < 2**28


def test_a_missing_file_is_one_line_and_code_2():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--file=no.npy"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no.npy" in done.stderr
