"""The run record says what the numbers depend on, and nothing about the machine's folders."""

import json
import os
import platform
import re
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jax
import numpy as np
import pytest

import ssm_jax
from ssm_jax import config
from ssm_jax.data.prepare import cpu_count
from ssm_jax.training.record import cpu_model, git_state, run_record

ARGV = ["/home/me/code/scripts/train.py", "--config=configs/lra/listops.py:smoke"]


def record(argv=ARGV, data=None):
    cfg = config.default()
    cfg.seed = 3
    return run_record(cfg, data or {"fingerprint": "f"}, argv, Path())


def test_the_record_survives_json_and_holds_what_was_given():
    cfg = config.default()
    cfg.seed = 3
    data = {"fingerprint": "ab12", "provenance": {"source": "generated", "sha256": "00"}}
    made = record(data=data)
    assert json.loads(json.dumps(made)) == made
    assert made["config"] == config.flatten(cfg) and made["config_digest"] == config.digest(cfg)
    assert made["seed"] == 3 and made["data"] == data
    assert made["command"] == [".../train.py", "--config=configs/lra/listops.py:smoke"]


def test_the_record_names_software_and_hardware():
    made = record()
    versions, devices = made["versions"], made["devices"]
    assert versions["python"] == platform.python_version()
    assert versions["ssm_jax"] == ssm_jax.__version__
    assert versions["jax"] == jax.__version__ and versions["numpy"] == np.__version__
    assert {"jaxlib", "flax", "optax", "orbax-checkpoint"} < set(versions)
    assert devices["count"] == jax.device_count() and devices["platform"] == jax.default_backend()
    assert devices["kind"] == jax.devices()[0].device_kind and devices["processes"] == 1
    assert 1 <= devices["cpu_cores"] == cpu_count() <= os.cpu_count()
    assert devices["cpu"] is None or (devices["cpu"] == cpu_model() and "/" not in devices["cpu"])
    started = datetime.fromisoformat(made["started"])
    assert timedelta(0) <= datetime.now(UTC) - started < timedelta(minutes=1)


def texts(value):
    if isinstance(value, dict):
        return [t for item in value.items() for part in item for t in texts(part)]
    if isinstance(value, list):
        return [t for part in value for t in texts(part)]
    return [value] if isinstance(value, str) else []


def test_the_record_names_no_folder_and_no_host_of_the_machine():
    data = {
        "detail": "official release, read from /scratch/me/lra/listops (3/4 of it), see https://a.b/c",
        "files": ["/scratch/me/x.tsv", Path("/scratch/me/y.tsv")],
        "note": "cache='~/me/cache/',/scratch/me",
    }
    argv = [
        *ARGV,
        "--workdir=/scratch/me/my runs/a",
        "--data_dir=~/me/data",
        "--seed",
        "/scratch/me",
    ]
    made = record([*argv, r"--workdir=C:\Users\me\runs\b"], data)
    assert made["command"][2:] == [
        "--workdir=.../a",
        "--data_dir=.../data",
        "--seed",
        ".../me",
        "--workdir=.../b",
    ]
    assert made["data"] == {
        "detail": "official release, read from .../listops (3/4 of it), see https://a.b/c",
        "files": [".../x.tsv", ".../y.tsv"],
        "note": "cache='.../cache',.../me",
    }
    del made["config"]  # the rules of optim.groups begin with a slash
    for text in texts(made):
        assert not re.search(r"scratch|/home|Users|\.venv", text)
        assert not Path(text).is_absolute() and str(Path.cwd()) not in text
    assert socket.gethostname() not in texts(made)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit of a package ssm_jax."""
    (tmp_path / "ssm_jax").mkdir()
    (tmp_path / "ssm_jax" / "__init__.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b.c")

    def git(*words):
        command = ["git", "-C", tmp_path, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return tmp_path, git


def test_a_clean_checkout_has_its_commit(checkout):
    root, git = checkout
    assert git_state(root) == (git("rev-parse", "HEAD"), False)


def test_only_a_change_of_code_makes_a_checkout_dirty(checkout):
    root, _ = checkout
    (root / "notes.txt").write_text("changed")
    (root / "runs").mkdir()
    (root / "runs" / "metrics.jsonl").write_text("")
    assert git_state(root)[1] is False
    (root / "configs").mkdir()
    (root / "configs" / "new.py").write_text("")
    assert git_state(root)[1] is True
    (root / "configs" / "new.py").unlink()
    (root / "ssm_jax" / "__init__.py").write_text("x = 1")
    assert git_state(root)[1] is True


def test_a_package_that_is_no_checkout_has_no_commit(checkout, tmp_path_factory):
    root, _ = checkout
    installed = root / ".venv" / "lib"
    (installed / "ssm_jax").mkdir(parents=True)
    (installed / "ssm_jax" / "__init__.py").write_text("")
    assert git_state(installed) == (None, None)
    assert git_state(tmp_path_factory.mktemp("plain")) == (None, None)


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout[0]) == (None, None)


def test_a_hook_of_another_repository_does_not_mislead(checkout, monkeypatch, tmp_path):
    root, git = checkout
    commit = git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert git_state(root) == (commit, False)
