"""Jobs in a real SLURM of one node, started here; `make slurm`, some minutes.

python -m pytest -m slurm -s tests/slurm
"""

from __future__ import annotations

import csv
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import Cluster, missing

from ssm_jax.launch import queue
from ssm_jax.training.logs import read_metrics

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/training"))
from tiny import assert_same_run  # noqa: E402

TINY, TINY_SWEEP = ROOT / "tests/training/tiny.py", ROOT / "tests/sweep/tiny_sweep.py"
LONG = (  # enough for SLURM to stop it on its way
    f"--config={TINY}",
    "--config.train.steps=1500",
    "--config.train.eval_every=500",
    "--config.checkpoint.every=50",
    "--config.log.diagnostics=true",
)
NAP = "--wrap=sleep 3"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM whose jobs find this package."""
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        python = Path(sys.executable).parent
        cluster.env |= {"PATH": f"{python}:{cluster.env['PATH']}", "PYTHONPATH": str(ROOT)}
        cluster.env |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        yield cluster


def call(cluster, folder, *words):
    """Call a command in a folder; show, and return, what it says."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=cluster.env,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    tell(f"$ {shlex.join(map(str, words))}\n{done.stdout}", folder)
    return done


def tell(text, folder):
    """Show a text, and add it to the file of $SLURM_TRANSCRIPT, without paths of this machine."""
    for path in (folder, ROOT, Path(sys.prefix).parent):
        text = text.replace(f"{path}/", "")
    print(f"\n{text}", end="")
    if name := os.environ.get("SLURM_TRANSCRIPT"):
        lines = [line.rstrip() for line in text.splitlines() if line.isascii()]  # no frames
        with Path(name).open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n\n")


@pytest.fixture
def run(cluster, tmp_path):
    return functools.partial(call, cluster, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory):
    """A run that nobody stops."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert call(cluster, folder, "ssm-jax", "train", *LONG, "--workdir=run").returncode == 0
    return folder / "run"


def until(found, seconds=300):
    """Wait for something to be true; what it is."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.2)
    return value


def steps_of(run):
    """The last step in the log of a run; 0 before it has one."""
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def number_of(done):
    return re.search(r"job (\d+):", done.stdout)[1]


def test_a_sweep_is_an_array_of_which_diverged_runs_fail_and_the_tables_come_last(run, tmp_path):
    words = (f"--config={TINY_SWEEP}", "--folder=runs/a")
    done = run("ssm-jax", "launch", "slurm", "--sweep", *words, "--at_once=2", "--follow")
    failed = re.findall(r"error: job \d+_(\d) has not completed; see (\S+)\.", done.stdout)
    assert done.returncode == 1 and [number for number, _ in failed] == ["1", "3"], done.stdout
    for _, log in failed:
        assert "diverged" in Path(log).read_text()
    together = ("ssm-jax", "sweep", words[0], "--folder=runs/b")
    assert run(*together).returncode == 0
    tables = [list(csv.reader((tmp_path / f"runs/{f}/sweep.csv").open())) for f in "ab"]
    assert tables[0] == tables[1], "an array makes what one command makes"


@pytest.mark.parametrize("how", ["preempted", "told before the time limit"])
def test_a_stopped_run_is_queued_again_and_ends_as_if_undisturbed(
    cluster, run, tmp_path, undisturbed, how
):
    launch = ("ssm-jax", "launch", "slurm", *LONG, "--workdir=runs/a")
    number = number_of(run(*launch))
    until(lambda: steps_of(tmp_path / "runs/a") > 60)
    preempt = ("sbatch", "--partition=urgent", "--ntasks=2", "--output=/dev/null", NAP)
    run(*(preempt if how == "preempted" else ("scancel", "--signal=TERM", "--batch", number)))
    again = run(*launch, "--follow")
    assert again.returncode == 0 and "not submitted again" in again.stdout, again.stdout
    job = cluster.call("scontrol", "show", "job", number)
    assert "Restarts=1" in job and "JobState=COMPLETED" in job
    said = (tmp_path / f"runs/a.slurm/{number}.log").read_text()
    tell(f"$ cat runs/a.slurm/{number}.log\n{said}", tmp_path)
    assert "Exited with exit code 75" in said and "going on from step" in said, said
    assert_same_run(tmp_path / "runs/a", undisturbed, evaluated=(0, 500, 1000, 1500))


PLAYED = """\
#!/bin/bash
[ "$SLURM_RESTART_COUNT" ] && exit 0
trap 'echo told after $SECONDS s; exit 75' TERM
while :; do sleep 0.5; done
"""


def test_the_time_limit_comes_with_a_warning_of_two_minutes(cluster, tmp_path):
    """The command is played: SLURM counts limits in minutes."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssm-jax").write_text(PLAYED)
    (tmp_path / "bin/ssm-jax").chmod(0o755)
    real = shutil.which("ssm-jax", path=cluster.env["PATH"])
    words = (f"--config={TINY}", "--workdir=runs/a", "--time=4", "--follow")
    cluster.env["PATH"] = f"{tmp_path}/bin:{cluster.env['PATH']}"
    try:
        assert call(cluster, tmp_path, real, "launch", "slurm", *words).returncode == 0
    finally:
        cluster.env["PATH"] = cluster.env["PATH"].partition(":")[2]
    (log,) = (tmp_path / "runs/a.slurm").glob("*.log")
    tell(f"$ cat runs/a.slurm/{log.name}\n{log.read_text()}", tmp_path)
    after = int(re.search(r"told after (\d+) s", log.read_text())[1])
    assert 30 <= after <= 150, "120 s before the limit, and up to 60 s earlier"


def test_two_tasks_are_two_processes_of_one_run(cluster, run, tmp_path):
    """Each has one device of two; process 0 alone writes."""
    words = (f"--config={TINY}", "--workdir=runs/a", "--processes=2", "--follow")
    assert run("ssm-jax", "launch", "slurm", *words).returncode == 0
    assert run("ssm-jax", "train", *words[:1], "--workdir=runs/alone").returncode == 0
    both, alone = (read_metrics(tmp_path / f"runs/{name}/metrics.jsonl") for name in ("a", "alone"))
    assert len(both) == len(alone) > 3
    for row, other in zip(both, alone, strict=True):
        for key, value in other.items():
            close = pytest.approx(value, abs=1e-6) if isinstance(value, float) else value
            assert row[key] == close, row
    record = json.loads((tmp_path / "runs/a/record.json").read_text())
    assert record["devices"]["count"] == record["devices"]["processes"] == 2
    (log,) = (tmp_path / "runs/a.slurm").glob("*.log")
    tell(f"$ cat runs/a.slurm/{log.name}\n{log.read_text()}", tmp_path)
    assert "process 1 of 2 on" in log.read_text()


def test_a_cancelled_job_does_not_come_back(cluster, run, tmp_path):
    number = number_of(run("ssm-jax", "launch", "slurm", *LONG, "--workdir=runs/a"))
    until(lambda: steps_of(tmp_path / "runs/a") > 60)
    cluster.call("scancel", number)
    until(lambda: not cluster.call("squeue", "--noheader"), 30)
    job = cluster.call("scontrol", "show", "job", number)
    assert "JobState=CANCELLED" in job and "Restarts=0" in job, job
    assert "ExitCode=75:0" in job, "it was saved, and not queued again all the same"


def test_wrong_input_is_not_repeated(cluster, run, tmp_path):
    (tmp_path / "runs/a").mkdir(parents=True)
    words = (f"--config={TINY}", "--workdir=runs/a")
    assert run("ssm-jax", "launch", "slurm", *words, "--nosubmit").returncode == 0
    (tmp_path / "runs/a/mine.txt").write_text("not of a run")
    done = run("ssm-jax", "launch", "slurm", *words, "--follow")
    assert done.returncode == 1
    job = cluster.call("scontrol", "show", "job", number_of(done))
    assert "Restarts=0" in job and "ExitCode=2:0" in job


def test_what_sbatch_refuses_is_one_line_and_leaves_nothing(run, tmp_path):
    words = (f"--config={TINY}", "--workdir=runs/a", "--options=--partition=none")
    done = run("ssm-jax", "launch", "slurm", *words)
    assert done.returncode == 2 and "invalid partition specified: none" in done.stdout
    assert len(done.stdout.splitlines()) == 1 and not (tmp_path / "runs/a.slurm").exists()


def test_the_numbers_of_jobs_of_another_cluster_are_not_ours(cluster, run, tmp_path, monkeypatch):
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.env[name])
    number = cluster.call("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 30")
    assert queue.states_of([queue.Job(number, "wrap", "")]).keys() == {number}
    assert not queue.states_of([queue.Job(number, "ssm-a", "")])
    assert not queue.states_of([queue.Job("99999", "ssm-a", "")])
    cluster.call("scancel", number)
