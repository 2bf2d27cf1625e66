"""Progress goes to standard error: a bar on a terminal, lines elsewhere."""

import io
import sys

from ssm_jax import progress


def test_without_a_terminal_there_is_a_line_now_and_then_and_one_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    with progress.stage("reading", 1_500, "rows") as advance:
        advance(1_000)
        advance(1_000)  # more than the total is not shown
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[:2] == ["reading: 1,000 of 1,500 rows", "reading: 1,500 of 1,500 rows"]
    assert lines[2].startswith("reading: 1,500 rows in ") and len(lines) == 3


def test_on_a_terminal_there_is_a_bar_that_shows_names_as_they_are(monkeypatch):
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
