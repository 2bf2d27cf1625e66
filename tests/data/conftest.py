"""A small ListOps store that the data tests share, and starters of `scripts/prepare_data.py`."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssm_jax.commands import data as commands
from ssm_jax.data.prepare import prepare
from tests.data.small_listops import SMALL, generated

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def small_data_dir(tmp_path_factory):
    """A data folder in which SMALL is prepared."""
    data_dir = tmp_path_factory.mktemp("data")
    prepare(generated(SMALL, data_dir), data_dir)
    return data_dir


@pytest.fixture(scope="session")
def start_script():
    """Start `scripts/prepare_data.py` with some arguments; returns the process."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        # A shell starts background jobs deaf to Ctrl-C, and their children inherit that.
        handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            return subprocess.Popen(
                [sys.executable, "scripts/prepare_data.py", *map(str, arguments)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            signal.signal(signal.SIGINT, handler)

    return start


@pytest.fixture
def run_script(capsys):
    """Run it in this process, which saves its start; returns (code, stdout, lines of stderr)."""

    def run(*arguments: object) -> tuple[int, str, list[str]]:
        capsys.readouterr()
        try:
            words = [str(argument) for argument in arguments]
            code = commands.prepare(words, ["scripts/prepare_data.py"])
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run
