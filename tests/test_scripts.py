"""Every script starts, configs train, wrong input ends in one line, a killed run is exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssm_jax.commands.train import train

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
BENCHMARKS = ("benchmarks", "benchmarks.accuracy", "benchmarks.resume")  # python -m
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.py"))
TINY = "tests/training/tiny.py"


def script(name: str, *arguments: str, code: int = 0, timeout: float = 300, **env: str):
    """Run a script or benchmark in the project's folder; its exit code must be `code`."""
    program = ("-m", name) if name in BENCHMARKS else (f"scripts/{name}",)
    done = subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120", **env},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == code, f"{done.args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("name", [*SCRIPTS, *BENCHMARKS])
def test_script_starts(name):
    assert "--" in script(name, "--help").stdout


@pytest.mark.parametrize("config", CONFIGS)
def test_config_can_be_printed(config, capsys):
    with pytest.raises(SystemExit) as ended:
        train([f"--config={ROOT / config}", "--print_config"])
    assert not ended.value.code
    assert "model.beta.learn = " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir=x"], ["--config is missing"]),
        (
            ["--config=configs/listops_smal.py", "--workdir=x"],
            ["listops_smal", "configs/listops_small.py"],
        ),
        (["--config=configs/listops_small.py"], ["--workdir is missing"]),
        (
            ["--config=configs/listops_small.py", "--workdir=x", "--config.model.alhpa=2"],
            ["model.alhpa", "--config.model.alpha"],
        ),
        (["--config=configs/listops_small.py", "--workdir=x", "config.seed=1"], ["config.seed=1"]),
        (
            ["--config=configs/listops_small.py", "--workdir=x", "--config.model.alpha=-1"],
            ["model.alpha", "greater than 0"],
        ),
        (
            ["--config=configs/listops_small.py", "--workdir=x", "--from=/no/such/release"],
            ["/no/such/release"],
        ),
    ],
)
def test_wrong_input_is_one_line_and_code_2(arguments, words, tmp_path):
    done = script("train.py", *arguments, f"--data_dir={tmp_path / 'data'}", code=2)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]
    assert not (ROOT / "x").exists()


@pytest.mark.parametrize(
    ("argument", "choice"),
    [("--tasks=cifar", "listops, text"), ("--variants=s6", "s4d_ft, s4d, s4, s5")],
)
def test_a_benchmark_of_what_there_is_not_is_one_line_and_code_2(argument, choice):
    done = script("benchmarks", "--what=steps", argument, code=2)
    assert done.stderr.startswith(f"error: {argument}: choose from {choice}")
    assert done.stderr.count("\n") == 1


def test_evaluation_of_what_is_no_run_is_one_line_and_code_2(tmp_path):
    done = script("evaluate.py", f"--workdir={tmp_path}", code=2)
    assert len(done.stderr.splitlines()) == 1 and "holds no run" in done.stderr
    assert not list(tmp_path.iterdir())


def test_several_faults_are_a_line_each():
    done = script(
        "train.py", "--config=configs/listops_small.py", "--workdir=x",
        "--config.modle.alpha=2", "--config.seed=abc", "--wandb=perhaps", code=2,
    )  # fmt: skip
    assert len(done.stderr.strip().splitlines()) == 3


def test_dry_run_shows_shapes_groups_and_memory_and_leaves_nothing(data_dir, tmp_path):
    done = script(
        "train.py", f"--config={TINY}", "--dry_run", f"--data_dir={data_dir}",
        f"--workdir={tmp_path / 'run'}",
    )  # fmt: skip
    for word in ("blocks/0/ssm/C_ri", "(2, 8, 4, 2)", "batch/inputs", "weight decay", "MiB"):
        assert word in done.stdout, word
    assert not (tmp_path / "run").exists()


def test_smoke_run_of_the_official_listops_config_ends_with_figures(data_dir, tmp_path):
    """20 steps of two blocks at the full length."""
    run = tmp_path / "run"
    done = script(
        "train.py", "--config=configs/lra/listops.py:smoke", f"--workdir={run}",
        f"--data_dir={data_dir}",
    )  # fmt: skip
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 20
    assert summary["data"]["source"] == "generated"
    assert summary["examples"] == {"train": 48, "val": 8, "test": 8}
    assert "Smoke run" in summary["notes"] and "Smoke run" in done.stderr
    figures = sorted(path.name for path in (run / "figures").glob("*.png"))
    names = ("beta", "curves", "eigenvalues", "hankel", "poles", "response", "variation")
    assert figures == [f"{name}.png" for name in names]
    assert (run / "DONE").exists()
    assert not (run / "wandb").exists(), "off, unless it is asked for"


def test_wandb_offline_gets_the_metrics(data_dir, tmp_path):
    short = [f"--config={TINY}", f"--data_dir={data_dir}", "--config.train.steps=6"]
    script("train.py", *short, f"--workdir={tmp_path}", "--wandb=offline")
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.optimized
def test_run_killed_again_and_again_is_equal_to_the_bit(data_dir, tmp_path):
    """SIGKILL, SIGTERM, SIGKILL at moments spread over a run with dropout and saves in flight."""
    done = script(
        "benchmarks.resume", f"--config={TINY}", f"--folder={tmp_path / 'check'}", "--kills=3",
        f"--data_dir={data_dir}",
    )  # fmt: skip
    result = json.loads((tmp_path / "check/result.json").read_text())
    assert result["kills"] == 3
    assert result["metrics_equal"] and result["leaves_equal"] and result["test_equal"]
    assert "equal to the bit" in done.stdout


def test_prepared_data_are_what_training_opens(tmp_path):
    """prepare_data.py with the numbers of a config makes the store that the config finds."""
    data = tmp_path / "data"
    script(
        "prepare_data.py", "prepare", "listops", f"--data_dir={data}", "--n_train=100",
        "--n_val=20", "--n_test=20", "--longer_than=3", "--shorter_than=24",
    )  # fmt: skip
    done = script("train.py", f"--config={TINY}", f"--data_dir={data}", "--dry_run")
    assert "generating" not in done.stderr


def test_training_looks_for_data_where_they_are_prepared(tmp_path):
    """prepare_data.py puts them into $SSM_JAX_DATA_DIR where that is set."""
    elsewhere = str(tmp_path / "elsewhere")
    shown = script("train.py", "--help", SSM_JAX_DATA_DIR=elsewhere).stdout
    assert f"(default: {elsewhere})" in shown
