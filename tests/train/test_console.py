"""Progress: lines without a terminal, a bar with one, silence from all processes but the first."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import ssm_jax
from ssm_jax.train import console
from ssm_jax.train.console import Progress, parameter_table
from ssm_jax.train.optim import Group, GroupRow


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def test_without_a_terminal_there_is_a_line_every_ten_seconds_and_at_the_end(clock, capsys):
    with Progress("train", 100) as progress:
        for step in range(1, 101):
            clock.now += 0.25
            progress.update(step, loss=1 / step if step % 10 == 0 else None, value=0.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "train 40/100  loss 0.0250  accuracy 0.5000  4 steps/s  ETA 0:00:15",
        "train 80/100  loss 0.0125  accuracy 0.5000  4 steps/s  ETA 0:00:05",
        "train 100/100  loss 0.0100  accuracy 0.5000  4 steps/s",
    ]


def test_the_rate_leaves_out_the_compilation_and_follows_a_change(clock):
    progress = Progress("train", 10_000)
    clock.now += 60  # the first step compiles
    progress.update(1)
    assert progress.steps_per_second() is None
    for step in range(2, 102):
        clock.now += 0.1
        progress.update(step)
    assert progress.steps_per_second() == pytest.approx(10)
    for step in range(102, 202):
        clock.now += 1.0
        progress.update(step)
    assert progress.steps_per_second() == pytest.approx(1)


def test_a_resumed_run_counts_its_own_steps_only(clock, capsys):
    with Progress("train", 1000, start=900) as progress:
        for step in (901, 902):
            clock.now += 1
            progress.update(step)
    assert capsys.readouterr().err == "train 902/1000  1 steps/s  ETA 0:01:38\n"


def test_an_interrupted_run_tells_where_it_was(clock, capsys):
    with pytest.raises(KeyboardInterrupt), Progress("train", 10) as progress:
        progress.update(3, loss=2.0)
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "train 3/10  loss 2.0000\n"


def test_only_the_first_process_speaks(clock, capsys, monkeypatch):
    monkeypatch.setattr(console.jax, "process_index", lambda: 1)
    with Progress("train", 10) as progress:
        clock.now += 60
        progress.update(1)
    assert capsys.readouterr() == ("", "")


SCRIPT = """
import time
from ssm_jax.train.console import Progress
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


def test_the_parameter_table_has_a_line_per_group_and_their_sum():
    rows = [
        GroupRow(Group("A", "x", 1e-3, 0.0, "cosine"), ("a", "b"), 1280),
        GroupRow(Group("rest", "", 4e-3, 0.05, "constant"), ("c",), 401_930),
    ]
    screen = Console(width=100)
    with screen.capture() as capture:
        screen.print(parameter_table(rows))
    lines = [re.findall(r"[^\s│┃]+", line) for line in capture.get().splitlines()]
    assert ["A", "2", "1,280", "0.001", "0", "cosine"] in lines
    assert ["rest", "1", "401,930", "0.004", "0.05", "constant"] in lines
    assert ["all", "3", "403,210"] in lines
