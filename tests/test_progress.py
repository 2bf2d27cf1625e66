"""Progress: lines without a terminal, a bar with one, silence from all processes but the first."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import ssm_jax
from ssm_jax import progress
from ssm_jax.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_without_a_terminal_there_is_a_line_every_ten_seconds_and_at_the_end(clock, capsys):
    with Progress("train", 100) as bar:
        for step in range(1, 101):
            clock.now += 0.25
            bar.update(step, loss=1 / step if step % 10 == 0 else None, value=0.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "train 40/100  loss 0.0250  accuracy 0.5000  4 steps/s  ETA 0:00:15",
        "train 80/100  loss 0.0125  accuracy 0.5000  4 steps/s  ETA 0:00:05",
        "train 100/100  loss 0.0100  accuracy 0.5000  4 steps/s",
    ]


def test_what_is_redirected_is_relayed_with_the_name_of_its_run(clock, capsys):
    """A run of a sweep writes into its log, and somebody waits at the terminal."""
    log = io.StringIO()
    with (
        progress.relayed("alpha=1,seed=0"),
        contextlib.redirect_stderr(log),
        Progress("train", 100) as bar,
    ):
        for step in range(1, 101):
            clock.now += 0.25
            bar.update(step)
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "alpha=1,seed=0: train 40/100  4 steps/s  ETA 0:00:15",
        "alpha=1,seed=0: train 80/100  4 steps/s  ETA 0:00:05",
    ]
    said = [f"alpha=1,seed=0: {line}" for line in log.getvalue().splitlines()]
    assert said[:2] == shown and len(said) == 3
    assert Progress.relay is None


def test_the_rate_leaves_out_the_compilation_and_follows_a_change(clock):
    bar = Progress("train", 10_000)
    clock.now += 60  # the first step compiles
    bar.update(1)
    assert bar.steps_per_second() is None
    for step in range(2, 102):
        clock.now += 0.1
        bar.update(step)
    assert bar.steps_per_second() == pytest.approx(10)
    for step in range(102, 202):
        clock.now += 1.0
        bar.update(step)
    assert bar.steps_per_second() == pytest.approx(1)


def test_a_resumed_run_counts_its_own_steps_only(clock, capsys):
    with Progress("train", 1000, start=900) as bar:
        for step in (901, 902):
            clock.now += 1
            bar.update(step)
    assert capsys.readouterr().err == "train 902/1000  1 steps/s  ETA 0:01:38\n"


def test_an_interrupted_run_tells_where_it_was(clock, capsys):
    with pytest.raises(KeyboardInterrupt), Progress("train", 10) as bar:
        bar.update(3, loss=2.0)
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "train 3/10  loss 2.0000\n"


def test_only_the_first_process_speaks(clock, capsys, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with Progress("train", 10) as bar:
        clock.now += 60
        bar.update(1)
    assert capsys.readouterr() == ("", "")


SCRIPT = """
import time
from ssm_jax.progress import Progress
with Progress("train", 4) as train:
    for step in range(1, 5):
        time.sleep(0.2)
        train.update(step, loss=0.25)
        if step == 2:
            with Progress("val", 3) as val:
                for batch in (1, 2, 3):
                    time.sleep(0.2)
                    val.update(batch, value=0.75)
assert Progress._bars is None
print("done")
"""


def test_on_a_terminal_bars_stand_together_and_go_away():
    reader, writer = os.openpty()
    root = str(Path(ssm_jax.__file__).parents[1])
    env = {"PYTHONPATH": root, "TERM": "xterm", "COLUMNS": "100", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=writer) as script:
        os.close(writer)
        shown = b""
        try:
            while chunk := os.read(reader, 65536):
                shown += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(reader)
        assert script.stdout.read() == b"done\n" and script.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "━" in text
    assert re.search(r"train [━╺╸ ]+ +2/4  loss 0\.2500.*\n?\r?.*val [━╺╸ ]+", text)
    assert "val 3/3  accuracy 0.7500" in text
    assert re.search(r"\rtrain 4/4  loss 0\.2500  [\d.]+ steps/s\s*$", text)
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h")  # the cursor is back


def test_a_stage_without_a_terminal_is_a_line_now_and_then_and_one_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    with progress.stage("reading", 1_500, "rows") as advance:
        advance(1_000)
        advance(1_000)  # more than the total is not shown
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[:2] == ["reading: 1,000 of 1,500 rows", "reading: 1,500 of 1,500 rows"]
    assert lines[2].startswith("reading: 1,500 rows in ") and len(lines) == 3


def test_a_stage_on_a_terminal_is_a_bar_that_shows_names_as_they_are(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress.stage("reading a[b].tar", 10, "bytes") as advance:
        advance(7)
    shown = terminal.getvalue()
    assert "reading a[b].tar" in shown and "7 of 10 bytes" in shown
    assert "reading a[b].tar: 10 bytes in " in shown.splitlines()[-1]
