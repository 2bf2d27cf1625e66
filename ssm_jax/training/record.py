"""record.json: all that another person needs to know to make a run's numbers again.

It names no machine: no host, no user and no absolute path, so that it can be published as it is.
"""

import json
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
from ssm_jax import config as config_lib
from ssm_jax import outside
from ssm_jax.data.prepare import cpu_count
from ssm_jax.files import parse_json, write_json
from ssm_jax.layers import LAYERS
from ssm_jax.progress import warn
from ssm_jax.tasks import TASKS, find_task
from ssm_jax.training.checkpoint.manifest import Identity
from ssm_jax.training.workdir import document_checksum

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
CODE = ("ssm_jax", "configs", "scripts")  # a change here makes a checkout dirty; notes do not

# Where a run's numbers come from, as its record says
PROVENANCE = (
    "seed", "config_digest", "setup_digest", "data", "git", "versions", "devices", "command",
    "started",
)  # fmt: skip


def made_by(argv: Sequence[str]) -> dict[str, Any]:
    """The origin of numbers that a command makes now; absolute paths in `argv` are shortened."""
    devices = jax.devices()
    commit, dirty = git_state(Path(ssm_jax.__file__).parents[1])
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [_short(word) for word in argv],
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


def write_result(path: Path, found: Mapping[str, Any], argv: Sequence[str]) -> None:
    """Write what a command found as JSON, with where it comes from; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**found, **made_by(argv)})


def run_record(
    cfg: Any, data: Mapping[str, Any], argv: Sequence[str], folder: Path
) -> dict[str, Any]:
    """All that the numbers of the run in a folder depend on; `data` are what names its data."""
    record = {
        **made_by(argv),
        "config": config_lib.flatten(cfg),  # the rules of optim.groups only look like paths
        "config_digest": config_lib.digest(cfg),
        "setup_digest": setup_digest(cfg),
        "seed": cfg.seed,
        "data": without_folders(data),
    }
    sources = sources_of(cfg, folder)
    return record | {"sources": sources} if sources else record


def setup_digest(cfg: Any) -> str:
    """The config's digest at seed 0: one name for all seeds of an experiment."""
    return config_lib.digest(config_lib.altered(cfg, {"seed": 0}))


def identity_of(cfg: Any, fingerprint: str) -> Identity:
    """That of the checkpoints of a run, by its config and the fingerprint of its data."""
    options = json.loads(json.dumps(config_lib.identity(cfg)))  # tuples are lists there
    usual = {key: row.default for key, row in config_lib.rows(cfg).items() if row.since}
    return Identity(options, fingerprint, json.loads(json.dumps(usual)))


def read_record(path: Path) -> dict[str, Any]:
    """The record of a run; FileNotFoundError if there is none, ValueError if it is damaged."""
    again = "give the command that trained the run once more, which writes it again"
    if not path.is_file():
        if (path.parent / "checkpoints").is_dir():
            raise FileNotFoundError(f"{path} is missing; bring it back, or {again}.")
        raise FileNotFoundError(
            f"{path.parent} holds no run, as it has no {path.name}; give the --workdir of one."
        )
    again = f"bring the run's own record back, or {again}"
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        lacking = ", ".join(key for key in (*PROVENANCE, "config") if key not in record)
    except (ValueError, TypeError):
        raise ValueError(f"{path} is not JSON of a run; {again}.") from None
    if lacking:
        raise ValueError(f"{path} lacks {lacking}; evaluate with the version that wrote it.")
    kinds = {"config": dict, "data": dict, "git": dict, "config_digest": str}
    if (
        any(not isinstance(record[key], kind) for key, kind in kinds.items())
        or {"fingerprint", "detail"} - record["data"].keys()
        or "commit" not in record["git"]
        or record.get("crc32", document_checksum(record)) != document_checksum(record)
    ):
        raise ValueError(f"{path} was changed after it was written; {again}.")
    return record


def config_of(record: Mapping[str, Any], where: Path) -> Any:
    """The locked config of a run, from its record, which is the file `where`.

    Options that the record lacks get their defaults, and a line says so. ValueError if it has an
    option that this version lacks, or was changed since.
    """
    sources = record.get("sources", {})
    names = [str(record["config"].get(key)) for key in config_lib.CHOSEN]
    task, layer = (
        outside.recall(kind, name, sources[name], where.parent) if name in sources else name
        for kind, name in zip(("task", "layer"), names, strict=True)
    )
    cfg = config_lib.default(task, layer=layer)
    known = config_lib.flatten(cfg) | dict(zip(config_lib.CHOSEN, names, strict=True))
    given = {key: _without_lists(value) for key, value in record["config"].items()}
    faults = [f"{key} is unknown here" for key in sorted(given.keys() - known.keys())]
    faults += [
        f"{key}={given[key]!r} is no {type(value).__name__}"
        for key, value in known.items()
        if key in given and type(given[key]) is not type(value)
    ]
    if faults:
        listed = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if faults[5:] else "")
        commit = record["git"]["commit"]
        raise ValueError(
            f"the options in {where} are not those of this version of ssm_jax: {listed}. "
            f"Evaluate with the version of the run{f', commit {commit}' if commit else ''}."
        )
    for key in config_lib.CHOSEN:
        given.pop(key, None)
    cfg.update_from_flattened_dict(given)
    if (digest := config_lib.digest(cfg)) != record["config_digest"]:
        raise ValueError(
            f"the options in {where} have been changed: their digest is {digest}, that of the run "
            f"{record['config_digest']}; bring the run's own record back."
        )
    say_new_options(cfg, record, where)
    return cfg.lock()


def _without_lists(value: Any) -> Any:
    """JSON has no tuples, and a config has no lists."""
    return tuple(map(_without_lists, value)) if isinstance(value, list) else value


def say_new_options(cfg: Any, record: Mapping[str, Any], where: Path) -> None:
    """Say in one line which options of a config its record lacks, those of other tasks left out."""
    others = {key for name in TASKS for key in find_task(name).options}
    others -= find_task(cfg.task).options.keys()
    known = others | record["config"].keys()
    if newer := [key for key in config_lib.flatten(cfg) if key not in known]:
        warn(
            f"{where.parent} was recorded before these options existed; they have their defaults: "
            f"{', '.join(newer)}."
        )


def sources_of(cfg: Any, folder: Path) -> dict[str, Any]:
    """Where the task and the layer of a config are from, if they are not built in, by name."""
    named = (("task", cfg.task, TASKS), ("layer", cfg.model.layer, LAYERS))
    return {n: outside.describe(kind, n, folder) for kind, n, known in named if n not in known}


def check_sources(cfg: Any, folder: Path) -> None:
    """Refuse, with a ValueError of one line, to continue a run whose task or layer has changed."""
    try:
        sources = read_record(folder / "record.json").get("sources", {})
    except (OSError, ValueError):
        return  # there is none, or it is made again
    for kind, name in (("task", cfg.task), ("layer", cfg.model.layer)):
        if name in sources:
            outside.check_unchanged(kind, name, sources[name], folder)


def cpu_model() -> str | None:
    """The name of the processor, or None where the system does not say: ratios depend on it."""
    listed = Path("/proc/cpuinfo")
    text = listed.read_text() if listed.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """(commit, whether code differs from it) of the checkout at `root`, or (None, None).

    An installed package inside somebody else's checkout (a .venv there) is none: git must know the
    file ssm_jax/__init__.py. Nor is there one where git is missing or hangs.
    """
    # GIT_DIR and its kin, set while git runs a hook, would name another repository.
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        output = subprocess.check_output(
            command, stderr=subprocess.DEVNULL, text=True, timeout=20, env=env
        )
        return output.strip()

    try:
        git("ls-files", "--error-unmatch", "ssm_jax/__init__.py")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", *CODE))
    except (OSError, subprocess.SubprocessError):
        return None, None


def without_folders(value: Any) -> Any:
    """The value as JSON reads it back, with the absolute paths in its texts shortened."""
    if isinstance(value, Mapping):
        return {str(k): without_folders(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(v) for v in value]
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
