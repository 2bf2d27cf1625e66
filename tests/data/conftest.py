"""A small ListOps store that the data tests share, and starters of `scripts/prepare_data.py`."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from small_listops import SMALL, generated

from ssm_jax.data.prepare import prepare

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


@pytest.fixture(scope="session")
def script() -> ModuleType:
    """`scripts/prepare_data.py` as a module."""
    path = ROOT / "scripts" / "prepare_data.py"
    spec = importlib.util.spec_from_file_location("prepare_data_script", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_script(script, capsys):
    """Run it in this process, which saves its start; returns (code, stdout, lines of stderr)."""

    def run(*arguments: object) -> tuple[int, str, list[str]]:
        capsys.readouterr()
        try:
            code = script.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run
