"""How far a sweep is, told from the folders of its runs while they go on."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import played_search
import pytest

from ssm_jax.commands.sweep import sweep
from ssm_jax.config.load import load_config
from ssm_jax.lock import Held, Lock, holder_of
from ssm_jax.sweep import runs_of
from ssm_jax.sweep.standing import line_of, progress_of

KINDS = ("running", "stopped", "failed", "finished", "diverged", "pruned", "waiting")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A sweep with a run of each kind; the one that runs is this process's."""
    monkeypatch.chdir(tmp_path)
    played_search.play(monkeypatch.setattr)
    sweeps = "\ndef sweep():\n    return [{'model.alpha': float(a)} for a in range(1, 8)]\n"
    (tmp_path / "e.py").write_text(played_search.CONFIG + sweeps)
    cfg = load_config("e.py")
    out = tmp_path / "out"
    for number, run in enumerate(runs_of([{"model.alpha": float(a)} for a in range(1, 7)], [0])):
        path = out / run.name
        path.mkdir(parents=True)
        played_search.train(played_search.build(run.config(cfg)), path, SimpleNamespace(watch=None))
        began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=90)
        record = {"config": {"model.alpha": number + 1.0}, "seed": 0, "started": str(began)}
        (path / "record.json").write_text(json.dumps(record))
        mark = json.loads((path / "summary.json").read_text()) | {"error": "as <played>"}
        if number != 3:
            (path / "DONE").unlink()
        log = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
        (path / "metrics.jsonl").write_text("".join(log[: 3 if number < 2 else 9]))
        if KINDS[number] in ("failed", "diverged", "pruned"):
            (path / f"{KINDS[number]}.json").write_text(json.dumps(mark))
    lock = Lock(out / "alpha=1,seed=0" / "LOCK")
    lock.acquire()
    yield out
    lock.release()


class Rows(HTMLParser):
    """The texts of the cells of each row of a page, and what it fetches."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.fetched = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.fetched += [v for k, v in attrs if k in ("src", "href") and v[:5] != "data:"]

    def handle_data(self, data):
        if self.rows and self.rows[-1] and self.lasttag in ("td", "th", "span", "strong"):
            self.rows[-1][-1] += data.strip()


def test_each_run_is_told_as_it_is(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert sweep(["--config=e.py", "--folder=out", "--status"]) == 0
    line, *table = capsys.readouterr().out.splitlines()
    counts = ", ".join(f"1 {kind}" for kind in KINDS)
    assert line.startswith(f"7 runs: {counts}; ETA 0:")
    assert line.endswith("; best alpha=1,seed=0, val accuracy 0.54")
    assert [word for row in table for word in KINDS if f" {word} " in row] == list(KINDS)
    page = (folder / "progress.html").read_text()
    found = Rows(page)
    assert found.rows[0][:3] == ["alpha", "seed", "status"] and not found.fetched
    assert [row[2] for row in found.rows[1:]] == list(KINDS)
    assert found.rows[1][3] == "3 of 9" and "0.54 (step 3)" in found.rows[1][4]
    assert f"process {os.getpid()}, since 20" in found.rows[1][-1]
    assert found.rows[3][-1] == "as <played>", "as text, whatever it holds"
    assert "data:image/png;base64," in page and "<script>" in page
    waiting = page[page.rindex("<tr>") :]
    assert waiting.count('data-sort=""') == 4, "what is empty stays below, whatever it is sorted by"


def test_a_narrow_terminal_has_a_line_for_each_reason(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    why = "loss is nan at step 7; " + "the gradient of every layer is " * 20
    for path in folder.glob("*/diverged.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"error": why}))
    assert sweep(["--config=e.py", "--folder=out", "--status"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 25 and max(map(len, shown.splitlines()[1:])) <= 80
    assert "\nalpha=5,seed=0: loss is nan at step 7; the gradient" in shown
    assert "\nalpha=3,seed=0: as <played>" in shown
    assert why.strip() in (folder / "progress.html").read_text()


def test_brackets_in_a_reason_are_no_markup(folder, capsys, monkeypatch):
    """Nor in the value of an option, such as an expression of parameters."""
    monkeypatch.setenv("COLUMNS", "200")
    why = "group [a-z] of [/blocks] :fire: matches nothing"
    path = folder / "alpha=3,seed=0/failed.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"error": why}))
    assert sweep(["--config=e.py", "--folder=out", "--status"]) == 0
    assert why in capsys.readouterr().out


def test_the_time_to_the_end_is_that_of_the_runs_so_far(folder):
    cfg = load_config("e.py")
    progress = progress_of(
        runs_of([{"model.alpha": float(a)} for a in range(1, 8)], [0]), folder, cfg
    )
    seconds = {run.status: run.seconds for run in progress.runs}
    assert seconds["missing"] is None and seconds["finished"] == pytest.approx(90, abs=30)
    took = [seconds[end] for end in ("finished", "diverged", "pruned", "failed")]
    took.append(seconds["running"] * 9 / 3)
    left = 2 / 3 + 2 / 3 + 1  # running, stopped and waiting
    assert progress.eta_s == pytest.approx(sum(took) / 5 * left)
    searched = progress_of([], folder, cfg, to_come=4)
    assert line_of(searched) == "4 runs: 4 waiting"


def test_a_folder_knows_its_command(folder, tmp_path, capsys, monkeypatch):
    argv = ["--config=e.py", "--sampler=optuna:grid", "--search.model.alpha=1,2", "--pruner=none"]
    assert sweep([*argv, "--folder=searched", "--trials=2"]) == 0
    known = json.loads((tmp_path / "searched/command.json").read_text())
    assert known["argv"][0] == "--config=e.py" and known["cwd"] == str(tmp_path)
    (tmp_path / "one/command.json").parent.mkdir()
    (tmp_path / "one/command.json").write_text('{"argv": [')  # damaged
    assert sweep(["--config=e.py", "--folder=one", "--run", "1"]) == 0
    monkeypatch.chdir("/")
    assert sweep(["--status", f"--folder={tmp_path / 'one'}"]) == 0
    capsys.readouterr()
    assert sweep(["--status", f"--folder={tmp_path / 'searched'}"]) == 0
    assert capsys.readouterr().out.startswith("2 runs: 2 finished; best alpha=1,seed=0, val acc")
    with pytest.raises(ValueError, match="nosuch does not exist"):
        sweep(["--status", f"--folder={tmp_path / 'nosuch'}"])
    with pytest.raises(ValueError, match="does not say by which command"):
        sweep(["--status", f"--folder={folder}"])


def test_to_ask_who_has_a_lock_takes_nothing(tmp_path):
    path = tmp_path / "LOCK"
    assert holder_of(path) is None
    with pytest.raises(Held):
        program = "from ssm_jax.lock import *; Lock(Path(sys.argv[1])).acquire(); "
        program = f"import sys; {program} print(1, flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", program, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other:
            other.stdout.readline()
            try:
                assert holder_of(path)["pid"] == other.pid
                Lock(path).acquire()
            finally:
                other.kill()
    assert re.search("pid", path.read_text()), "what it wrote is still there"
    assert holder_of(path) is None, "the kernel says that it is gone"
    lock = Lock(path)
    lock.acquire()
    lock.release()
