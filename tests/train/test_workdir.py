"""A run has one writer, one end, and files that are never half written; a signal only asks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.experimental import multihost_utils

from ssm_jax.train.workdir import StopRequest, Workdir, WorkdirBusy, write_json_atomic

REPOSITORY = Path(__file__).parents[2]
HOLD = """
import sys, time
from ssm_jax.train.workdir import Workdir
with Workdir(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
FORK = """
import os, sys, time
from ssm_jax.train.workdir import Workdir
with Workdir(sys.argv[1]):
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # not before the worker has run what follows a fork
        time.sleep(60)
    sys.stdin.read()
"""


def start(script, directory):
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(directory)],
        cwd=REPOSITORY,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    return process, process.stdout.readline().strip()


def test_a_second_writer_is_refused_with_the_name_of_the_first(tmp_path):
    process, answer = start(HOLD, tmp_path / "run")
    try:
        assert answer == "held"
        with pytest.raises(WorkdirBusy) as caught, Workdir(tmp_path / "run"):
            pass
        message = str(caught.value)
        assert f"process {process.pid} on {os.uname().nodename} since 20" in message
        assert "--workdir" in message and "\n" not in message
    finally:
        process.communicate("")
    with Workdir(tmp_path / "run"):  # free as soon as the first has ended
        pass


def test_the_lock_of_a_killed_process_is_no_obstacle(tmp_path):
    process, _ = start(HOLD, tmp_path)
    process.kill()
    process.communicate()
    assert json.loads((tmp_path / "LOCK").read_text())["pid"] == process.pid  # stale
    with Workdir(tmp_path):
        assert json.loads((tmp_path / "LOCK").read_text())["pid"] == os.getpid()
    assert (tmp_path / "LOCK").read_text() == ""


def test_a_forked_worker_does_not_hold_the_lock_on(tmp_path):
    process, child = start(FORK, tmp_path)
    try:
        process.kill()
        process.wait()
        with Workdir(tmp_path):
            os.kill(int(child), 0)  # the worker still lives
    finally:
        os.kill(int(child), signal.SIGKILL)
        process.communicate()


def test_one_process_cannot_enter_a_folder_twice(tmp_path):
    with Workdir(tmp_path), pytest.raises(WorkdirBusy), Workdir(tmp_path):
        pass


def test_a_run_is_done_when_it_says_so(tmp_path):
    with Workdir(tmp_path / "a" / "b") as workdir:
        assert not workdir.done
        workdir.mark_done({"accuracy": 0.5})
        assert workdir.done
    assert Workdir(tmp_path / "a" / "b").done  # seen without the lock
    assert json.loads((tmp_path / "a" / "b" / "DONE").read_text()) == {"accuracy": 0.5}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "summary.json"
    write_json_atomic(path, {"loss": 1.0})
    with pytest.raises(TypeError):
        write_json_atomic(path, {"loss": 2.0, "bad": object()})
    assert json.loads(path.read_text()) == {"loss": 1.0}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_signals_only_set_a_flag_and_the_old_handlers_return():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")):
        with StopRequest() as stop:
            assert not stop.poll(0) and stop.requested is None
            os.kill(os.getpid(), number)
            assert stop.poll(1) and stop.requested == name
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_second_interrupt_stops_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.poll(0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_several_processes_leave_the_signal_to_jax_and_stop_at_one_step(monkeypatch):
    """A Python handler would disable the notifier that makes all processes stop at one step."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: step == 3)
    with StopRequest() as stop:
        assert signal.getsignal(signal.SIGTERM) is before
        assert [stop.poll(step) for step in (1, 2, 3, 4)] == [False, False, True, True]
        assert stop.requested == "SIGTERM"
