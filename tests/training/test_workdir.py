"""A run has one writer, one end, and files that are never half written; a signal only asks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest
from jax.experimental import multihost_utils

from ssm_jax import lock as lock_lib
from ssm_jax import stop as stop_lib
from ssm_jax.files import write_json
from ssm_jax.stop import StopRequest
from ssm_jax.training.workdir import Workdir, WorkdirBusy, WorkdirLost

REPOSITORY = Path(__file__).parents[2]
HOLD = """
import sys, time
from ssm_jax.training.workdir import Workdir
with Workdir(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
FORK = """
import os, sys, time
from ssm_jax.training.workdir import Workdir
with Workdir(sys.argv[1]):
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # not before the worker has run what follows a fork
        time.sleep(60)
    sys.stdin.read()
"""


def start(script, directory, **pipes):
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(directory)],
        cwd=REPOSITORY,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        **pipes,
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


def test_a_lock_that_cannot_be_written_leaves_no_descriptor(tmp_path, monkeypatch):
    """A stale number in `_held` would have the next fork close another's file."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(lock_lib.os, "pwrite", full)
    with pytest.raises(OSError, match=f"{tmp_path}/LOCK") as caught, Workdir(tmp_path):
        pass
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert not lock_lib._held and os.listdir("/proc/self/fd") == before
    with Workdir(tmp_path):
        assert len(lock_lib._held) == 1


def test_a_file_system_that_goes_away_is_told_of_by_the_folder(tmp_path, monkeypatch):
    """As when the server of a network mount dies: closing the lock fails as well."""
    gone = errno.ENOTCONN
    close = os.close

    def failing(descriptor):
        close(descriptor)
        raise OSError(gone, os.strerror(gone))

    with pytest.raises(OSError, match="not connected") as raised, Workdir(tmp_path):
        monkeypatch.setattr(lock_lib.os, "close", failing)
        raise OSError(gone, os.strerror(gone))
    monkeypatch.undo()
    assert raised.value.filename == str(tmp_path)
    with Workdir(tmp_path):
        pass


def test_only_a_finished_run_can_be_entered_where_nothing_can_be_written(tmp_path, monkeypatch):
    with Workdir(tmp_path) as workdir:
        pass

    def read_only(self):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self.path))

    monkeypatch.setattr(lock_lib.Lock, "acquire", read_only)
    with pytest.raises(OSError, match="Read-only"), workdir:
        pass
    write_json(workdir.done_mark, {})
    with workdir:
        workdir.confirm()


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_run_whose_folder_is_lost_is_told_so(how, tmp_path):
    path = tmp_path / "run"
    with Workdir(path) as workdir:
        workdir.confirm()
        if how == "moved":
            path.rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(path)
        if how == "replaced":
            path.mkdir()
            (path / "LOCK").touch()
        with pytest.raises(WorkdirLost, match="deleted, moved or taken over"):
            workdir.confirm()
        assert path.exists() == (how == "replaced")


@pytest.fixture
def no_flock(monkeypatch):
    """A file system that has no locks."""

    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock_lib.fcntl, "flock", flock)
    monkeypatch.setattr(lock_lib, "BEAT_S", 0.02)


def lease(folder, number, **content):
    """A lease of a process of another host, or of what `content` says."""
    other = {"host": "elsewhere", "pid": 1, "since": "2020", "boot": "", "namespace": ""}
    path = folder / f"LOCK.lease-{number}"
    path.write_text(json.dumps(other | {"beat": 0} | content))
    return path


@pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EINVAL"])
def test_without_locks_a_lease_keeps_the_second_writer_out(
    name, tmp_path, no_flock, monkeypatch, capsys
):
    number = getattr(errno, name)

    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock_lib.fcntl, "flock", flock)
    with Workdir(tmp_path) as workdir:
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{tmp_path}: this file system has no locks ({os.strerror(number)})" in line
        with pytest.raises(WorkdirBusy, match=f"process {os.getpid()} on"), Workdir(tmp_path):
            pass
        path, text = tmp_path / "LOCK.lease-1", (tmp_path / "LOCK.lease-1").read_text()
        for _ in range(200):
            if path.read_text() != text:
                break
            time.sleep(0.01)
        assert json.loads(path.read_text())["beat"] > 0
        workdir.confirm()
    with Workdir(tmp_path):
        assert (tmp_path / "LOCK.lease-2").exists() and not path.exists()


def test_another_error_of_the_lock_is_no_reason_to_do_without(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(lock_lib.fcntl, "flock", flock)
    with pytest.raises(OSError, match="LOCK"), Workdir(tmp_path):
        pass
    assert not list(tmp_path.glob("LOCK.lease*"))


@pytest.mark.parametrize("started", ["", "1"], ids=["ended", "number used again"])
def test_the_lease_of_a_dead_process_of_this_host_is_taken_over_at_once(
    started, tmp_path, no_flock, monkeypatch
):
    monkeypatch.setattr(lock_lib, "BEAT_S", 1e6)  # whoever waited would wait for ever
    pid = os.getpid()
    if not started:
        process = subprocess.Popen(["true"])
        pid, started = process.pid, "12"
        process.wait()
    lease(tmp_path, 4, **lock_lib._this_place(), pid=pid, started=started)
    with Workdir(tmp_path):
        assert [path.name for path in tmp_path.glob("LOCK.lease*")] == ["LOCK.lease-5"]


def test_the_lease_of_another_host_is_taken_over_after_missed_beats(tmp_path, no_flock, capsys):
    lease(tmp_path, 4)
    start = time.monotonic()
    with Workdir(tmp_path):
        assert time.monotonic() - start >= lock_lib.BEAT_S * lock_lib.LOST_BEATS
        assert [path.name for path in tmp_path.glob("LOCK.lease*")] == ["LOCK.lease-5"]
    assert "process 1 on elsewhere since 2020; waiting" in capsys.readouterr().err


@pytest.mark.parametrize("flock", [True, False])
def test_the_lease_of_a_living_process_of_another_host_is_kept(flock, tmp_path, request):
    """Also by a host on which the same file system does have locks."""
    if not flock:
        request.getfixturevalue("no_flock")
    lock_lib_beat, lock_lib.BEAT_S = lock_lib.BEAT_S, 0.2
    try:
        path = lease(tmp_path, 4)
        writer = threading.Timer(0.1, lambda: lease(tmp_path, 4, beat=1))
        writer.start()
        with pytest.raises(WorkdirBusy, match="process 1 on elsewhere"), Workdir(tmp_path):
            pass
        writer.join()
        assert json.loads(path.read_text())["beat"] == 1
    finally:
        lock_lib.BEAT_S = lock_lib_beat


def test_of_many_that_take_over_one_wins(tmp_path, no_flock, monkeypatch):
    monkeypatch.setattr(lock_lib, "BEAT_S", 0.05)
    lease(tmp_path, 4)
    won, refused = [], []

    def contend():
        candidate = lock_lib.Lock(tmp_path / "LOCK")
        try:
            candidate.acquire()
            won.append(candidate)
        except lock_lib.Held:
            refused.append(candidate)

    threads = [threading.Thread(target=contend) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 11)
    assert won[0].valid()
    won[0].release()


WITHOUT_LOCKS = (
    """
import errno, fcntl, sys
from ssm_jax import lock
def flock(*_): raise OSError(errno.ENOSYS, "no")
fcntl.flock, lock.BEAT_S = flock, 0.02
"""
    + HOLD
)


def test_a_process_that_has_lost_its_lease_ends(tmp_path):
    process, _ = start(WITHOUT_LOCKS, tmp_path, stderr=subprocess.PIPE)
    lease(tmp_path, 2)
    assert process.wait(20) == 74
    _, err = process.communicate()
    assert "LOCK.lease-1 was lost to another" in err and "Traceback" not in err


def test_a_run_is_done_when_it_says_so(tmp_path):
    with Workdir(tmp_path / "a" / "b") as workdir:
        assert not workdir.done
        write_json(workdir.done_mark, {"accuracy": 0.5})
        assert workdir.done
    assert Workdir(tmp_path / "a" / "b").done  # seen without the lock
    assert json.loads((tmp_path / "a" / "b" / "DONE").read_text()) == {"accuracy": 0.5}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(TypeError):
        write_json(path, {"loss": 2.0, "bad": object()})
    assert json.loads(path.read_text()) == {"loss": 1.0}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("number", stop_lib.SIGNALS)
def test_signals_only_set_a_flag_and_the_old_handlers_return(number):
    before = [signal.getsignal(n) for n in stop_lib.SIGNALS]
    with StopRequest() as stop:
        assert not stop.poll(0) and stop.requested is None
        os.kill(os.getpid(), number)
        assert stop.poll(1) and stop.requested == number.name
    assert [signal.getsignal(n) for n in stop_lib.SIGNALS] == before


def test_a_lost_connection_stops_nothing_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.poll(0)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


BEFORE = """
import atexit, os, sys
from ssm_jax import stop
number, when = int(sys.argv[1]), sys.argv[2]
if when == "end":
    atexit.register(os.kill, os.getpid(), number)
stop.catch_signals()
if when == "start":
    os.kill(os.getpid(), number)
stop.end(7)
"""


@pytest.mark.parametrize("number", stop_lib.SIGNALS)
@pytest.mark.parametrize(("when", "code"), [("start", 75), ("end", 7)])
def test_a_signal_before_and_after_a_run_leaves_no_traceback(number, when, code):
    command = [sys.executable, "-c", BEFORE, str(int(number)), when]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "")
    said = f"{number.name}: stopped; the same command goes on.\n"
    assert done.stderr == (said if when == "start" else "")


DURING = """
import os, runpy, signal, sys

class Sent:  # when the first module of ours other than these is imported, or the first of others
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in ("ssm_jax", "ssm_jax.commands", "ssm_jax.stop"):
            if name.startswith("ssm_jax.") or name in ("numpy", "jax", "ml_collections"):
                os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Sent)
if sys.argv[1].endswith(".py"):
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    from ssm_jax.commands import main
    main()
"""


@pytest.mark.parametrize("name", ["train", "sweep", "denoise", "waves"])
@pytest.mark.parametrize("way", ["scripts/{}.py", "{}"])
def test_commands_that_train_catch_signals_before_their_imports(name, way):
    command = [sys.executable, "-c", DURING, way.format(name)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    said = "SIGTERM: stopped; the same command goes on.\n"
    assert (done.returncode, done.stdout, done.stderr) == (75, "", said)


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
