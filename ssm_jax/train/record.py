"""The record of a run: all that another person needs to know to make its numbers again.

It names no machine: no host, no user and no absolute path, so that it can be published as it is.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import jax

import ssm_jax
from ssm_jax.data.prepare import cpu_count

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
CODE = ("ssm_jax", "configs", "scripts")  # a change here makes a checkout dirty; notes do not


def run_record(
    config: Mapping[str, Any],
    digest: str,
    seed: int,
    data: Mapping[str, Any],
    argv: Sequence[str],
) -> dict[str, Any]:
    """Everything a run's numbers depend on, as JSON can hold it.

    Args:
      config: every option by dotted key (config.flatten).
      digest: config.digest of the same.
      seed: of parameters, dropout and the order of the data.
      data: fingerprint and provenance of the data, flat or nested.
      argv: the command, sys.argv; of absolute paths only the last part is kept.
    """
    devices = jax.devices()
    commit, dirty = git_state(Path(ssm_jax.__file__).parents[1])
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [_short(word) for word in argv],
        "config": dict(config),  # as it is: the rules of optim.groups only look like paths
        "config_digest": digest,
        "seed": seed,
        "data": published(data),
        "git": {"commit": commit, "dirty": dirty},
        "versions": {
            "python": platform.python_version(),
            "ssm_jax": ssm_jax.__version__,
            **{name: metadata.version(name) for name in PACKAGES},
        },
        "devices": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "processes": jax.process_count(),
            "cpu_cores": cpu_count(),
            "cpu": cpu_model(),
        },
    }


def cpu_model() -> str | None:
    """The name of the processor, or None where the system does not say: ratios depend on it."""
    listed = Path("/proc/cpuinfo")
    text = listed.read_text() if listed.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """(commit, whether code differs from it) of the checkout at `root`; (None, None) if it is none.

    An installed package inside somebody else's checkout (a .venv there) is none: git must know the
    file ssm_jax/__init__.py.
    """
    if _git(root, "ls-files", "--error-unmatch", "ssm_jax/__init__.py") is None:
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", *CODE)
    if commit is None or changes is None:
        return None, None
    return commit.strip(), bool(changes.strip())


def _git(root: Path, *words: str) -> str | None:
    """What git prints, or None if it fails, is missing or hangs."""
    # GIT_DIR and its kin, set while git runs a hook, would name another repository.
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True, env=env
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def published(value: Any) -> Any:
    """The value as JSON reads it back, with the absolute paths in its texts shortened."""
    if isinstance(value, Mapping):
        return {str(k): published(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [published(v) for v in value]
    if isinstance(value, os.PathLike):
        return _short(os.fspath(value))
    return _PATH.sub(r"\1.../\2", value) if isinstance(value, str) else value


# A slash or ~/ that begins a word, the folders, and the last part: "see /home/me/x.tsv" has one,
# while "3/4" and "https://host/x" have none.
_PATH = re.compile(r"""(^|[\s"'=(\[{,;])~?/(?:[^\s/"']+/)*([^\s/"']+)/?""")


def _short(word: str) -> str:
    """A word of the command line with the folders of an absolute path left out."""
    name, equals, text = word.partition("=")
    if not equals:
        name, text = "", word
    for flavour in (PurePosixPath, PureWindowsPath):
        if flavour(text).is_absolute() or text.startswith("~"):
            text = f".../{flavour(text).name}"
    return name + equals + text
