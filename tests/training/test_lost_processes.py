"""Runs of two processes of which one is lost, is not there, or does not fit the other.

.venv/bin/python -m pytest -m slow tests/training/test_lost_processes.py        # ten minutes
"""

import resource
import signal
import time
from pathlib import Path

import pytest
from tiny import tiny_config

from benchmarks.processes import (
    LOSSES,
    apart,
    codes,
    free_port,
    lose,
    rows_of,
    saved_steps,
    start,
    together,
    wait_for_step,
)
from ssm_jax.stop import EXIT_STOPPED, EXIT_STORAGE
from ssm_jax.training.workdir import Workdir

pytestmark = pytest.mark.slow

TINY = Path(__file__).with_name("tiny.py")
SMALL = {"model.depth": 1, "train.steps": 120, "train.eval_every": 30, "log.every": 5}
# All that reads data or draws at the start and at evaluations, and an end before the last step
ALL = {
    "model.dt_rule": "autocorrelation", "model.spectrum_steps": 5, "data.padded_length": 80,
    "data.listops.longer_than": 40, "data.listops.shorter_than": 80, "train.ema": 0.9,
    "train.patience": 1, "train.eval_every": 5, "log.diagnostics": True, "figures": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def words(data_dir):
    def words_of(options):
        given = [f"--config.{name}={value}" for name, value in options.items()]
        return [f"--config={TINY}", f"--data_dir={data_dir}", *given]

    return words_of


def alone(folder, words):
    """The folder of a run by one process with four devices."""
    folder.mkdir()
    with together(folder, [*words, f"--workdir={folder / 'run'}"], 1) as one:
        assert codes(one) == [0], (folder / "0.txt").read_text()
    return folder / "run"


@pytest.fixture(scope="module")
def reference(tmp_path_factory, words):
    return alone(tmp_path_factory.mktemp("alone") / "small", words(SMALL))


@pytest.mark.parametrize(("number", "index"), LOSSES, ids=lambda x: getattr(x, "name", x))
def test_the_others_end_within_a_minute_and_the_command_goes_on(
    number, index, words, reference, tmp_path
):
    found = lose(tmp_path / "lost", words(SMALL), number, index, 60)
    assert found["code_of_the_others"] == EXIT_STOPPED
    asked = number == signal.SIGTERM
    assert found["code"] == {signal.SIGKILL: -9, signal.SIGSTOP: None}.get(number, EXIT_STOPPED)
    assert found["seconds_to_end"] < 60
    every = tiny_config()["checkpoint"]["every"]
    assert found["saved"] >= found["reached"] - (0 if asked else 2 * every)
    log = (tmp_path / "lost/0.txt").read_text()
    assert f"going on from step {found['saved']} of 120" in log
    assert found["codes_at_the_end"] == [0, 0], log
    assert apart(tmp_path / "lost/run", reference) < 1e-6


def test_what_reads_data_and_draws_is_the_same_in_two(words, tmp_path):
    reference = alone(tmp_path / "alone", words(ALL))
    run = tmp_path / "run"
    with together(tmp_path, [*words(ALL), f"--workdir={run}"]) as both:
        assert codes(both) == [0, 0], (tmp_path / "0.txt").read_text()
    assert apart(run, reference) < 1e-6
    assert rows_of(run)[-1]["step"] < tiny_config()["train"]["steps"]  # it ended early
    names = [
        sorted(p.relative_to(r).as_posix() for p in r.rglob("*.png")) for r in (run, reference)
    ]
    assert names[0] == names[1] and len(names[0]) == 7


def test_one_alone_says_who_is_missing(words, tmp_path):
    for index, said in ((0, "not all of the 2 processes"), (1, "process 0 does not answer")):
        log, begun = tmp_path / f"{index}.txt", time.monotonic()
        process = start(log, free_port(), index, [*words(SMALL), "--workdir=x", "--wait_s=3"])
        assert process.wait(60) == EXIT_STOPPED
        assert said in log.read_text().splitlines()[-1] and time.monotonic() - begun < 40


def test_another_experiment_or_a_folder_in_use_ends_both_with_one_code(words, tmp_path):
    port, run = free_port(), f"--workdir={tmp_path / 'run'}"
    logs = [tmp_path / f"{index}.txt" for index in range(2)]
    other = ["--config.seed=1"]
    both = [start(logs[i], port, i, [*words(SMALL), run, *other[:i]]) for i in range(2)]
    assert codes(both) == [2, 2]
    assert "here is another experiment or other data" in logs[1].read_text()
    with Workdir(tmp_path / "run"), together(tmp_path, [*words(SMALL), run]) as both:
        assert codes(both) == [EXIT_STOPPED] * 2
    assert "is being written by process" in logs[0].read_text()


def test_a_full_disk_of_process_0_ends_both_and_keeps_what_was_saved(words, reference, tmp_path):
    run = tmp_path / "run"
    options = [*words(SMALL), f"--workdir={run}"]
    with together(tmp_path, options) as both:
        wait_for_step(run, 20, both)
        _, hard = resource.prlimit(both[0].pid, resource.RLIMIT_FSIZE)
        resource.prlimit(both[0].pid, resource.RLIMIT_FSIZE, (4096, hard))
        assert codes(both) == [EXIT_STORAGE] * 2, (tmp_path / "0.txt").read_text()
    assert saved_steps(run)
    with together(tmp_path, options) as both:
        assert codes(both) == [0, 0]
    assert apart(run, reference) < 1e-6
