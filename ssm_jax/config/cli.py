"""The command line that all scripts share: ml_collections' syntax, with every fault named.

    script.py --config=FILE.py[:ARG] --config.KEY=VALUE ... --FLAG=VALUE ...

Order is free and the last of a repeated option counts. `--key value`, `--flag` and `--noflag` (also
`--noconfig.key`) work where absl has them.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config.argv import Flag, parse, show_config, show_help
from ssm_jax.config.check import check
from ssm_jax.config.ending import fail as fail
from ssm_jax.config.load import beside, read_config
from ssm_jax.files import check_writable, default_data_dir, local_path, os_fault
from ssm_jax.options.rows import Option
from ssm_jax.progress import say

WORKDIR = Flag("workdir", "folder of the run; the same command resumes it", kind=Path)
DATA_DIR = Flag("data_dir", "folder of prepared data", default=default_data_dir(), kind=Path)
FROM = Flag("from", "official files: an archive or a folder; sets data.source", kind=Path)
WANDB = Flag(
    "wandb", "also log to Weights & Biases", "disabled", choices=("offline", "online", "disabled")
)
FIGURE = Flag(
    "figure", "file for the figure: .png, .pdf or .svg", kind=Path, writes="file",
    endings=(".png", ".pdf", ".svg"),
)  # fmt: skip
DRY_RUN = Flag(
    "dry_run", "show shapes, parameters and memory; prepare and write nothing", False, bool
)
COMPILED = Flag("compiled", "folder that keeps compiled programs, or off; else the user's cache")
CONFIG = Flag("config", "FILE.py or a shipped name (lra/listops), and :ARG where it takes one")
HELP = Flag("help", "show this text and end", False, bool)
PRINT_CONFIG = Flag("print_config", "show every option of the experiment and end", False, bool)


class Command(NamedTuple):
    """A command line: the locked config, the flags and --config by name, the overrides by key."""

    cfg: ConfigDict
    values: dict[str, Any]
    overrides: dict[str, Any]


def load(
    argv: Sequence[str],
    *,
    flags: Sequence[Flag],
    about: str | None,
    base: Callable[[Mapping[str, Any]], ConfigDict | None] = lambda given: None,
    group: str = "",
) -> Command:
    """Read a command line with a config; `--help` and `--print_config` end the process here.

    `argv` is without the script's name, `flags` are its own; `about` is the head of `--help`.
    Without --config it is what `base` makes of the flags that are given, if that is not None. The
    flags may have a text for every option, `--GROUP.KEY=TEXT`: those of `group` are a dict among
    the values.
    """
    flags = (*flags, PRINT_CONFIG, HELP)
    group = group if any(word.startswith(f"--{group}.") for word in argv) else ""
    given, faults = parse(argv, (*_options(config_lib.rows(), group), *flags))
    cfg, line = None, ""
    try:
        spec = given.get("config", "")
        cfg = (None if spec else base(given)) or read_config(spec)
        before = config_lib.flatten(cfg)
        chosen = [key for key in config_lib.CHOSEN if f"config.{key}" in given]
        with beside(spec):  # they may bring options along
            config_lib.override(cfg, {key: given[f"config.{key}"] for key in chosen})
        given, faults = parse(argv, (*_options(config_lib.rows(cfg), group), *flags))
        overrides = {k.partition(".")[2]: v for k, v in given.items() if k.startswith("config.")}
        overrides |= {key: config_lib.flatten(cfg)[key] for key in chosen}
        if not faults:
            _note(cfg, before, overrides)
            config_lib.override(cfg, overrides)
            line = config_lib.given_up(before, cfg, overrides)
            own = cfg.data.source in ("generated", "photographs") and "data.source" not in overrides
            if given.get("from") is not None and own:
                config_lib.override(cfg, {"data.source": "official"}, overrides)
        if not (faults or _asks_help(argv)):  # the check imports JAX
            check(cfg)
            if line:
                say(line)
    except ValueError as error:
        faults += str(error).splitlines()
    if _asks_help(argv):
        show_help(about, (CONFIG, *flags), config_lib.rows(cfg))
    if cfg is None or faults:
        fail("\n".join(faults))
    if given.get("print_config"):
        show_config(cfg)
    values = _values(given, (CONFIG, *flags))
    if group:
        head = f"{group}."
        values[group] = {k.removeprefix(head): v for k, v in given.items() if k.startswith(head)}
    return Command(cfg, values, overrides)


def _options(rows: Mapping[str, Option], group: str = "") -> list[Flag]:
    """The options of an experiment, and --config itself, as flags of a command line; as texts of a
    `group` too, if there is one."""
    own = [Flag(f"config.{k}", row.help, kind=type(row.default)) for k, row in rows.items()]
    return [CONFIG, *own, *(Flag(f"{group}.{k}", row.help) for k, row in rows.items() if group)]


def _asks_help(argv: Sequence[str]) -> bool:
    return not {"--help", "-h"}.isdisjoint(argv)


def _note(cfg: ConfigDict, before: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """Add what a command changes to the name and the notes, which are of the file."""
    cosmetic = (*config_lib.COSMETIC, "seed")
    changed = {
        key: value
        for key, value in sorted(overrides.items())
        if before.get(key) != value and key.split(".")[0] not in cosmetic and key != "data.source"
    }
    config_lib.note_changes(cfg, changed)
    if cfg.notes and changed:
        listed = ", ".join(f"{key}={value}" for key, value in changed.items())
        cfg.notes += f" Changed by the command: {listed}."


def load_flags(argv: Sequence[str], *, flags: Sequence[Flag], about: str | None) -> dict[str, Any]:
    """As `load`, for a script without a config: the value of each flag by name.

    Of the arguments without dashes there must be one at least, unless their flag has a default.
    """
    flags = (*flags, HELP)
    if _asks_help(argv):
        show_help(about, flags)
    given, faults = parse(argv, flags)
    for flag in flags:
        if flag.words and flag.default is None and not faults and flag.name not in given:
            faults.append(f"no {flag.name} given; give {flag.help}.")
    if faults:
        fail("\n".join(faults))
    return _values(given, flags)


def _values(given: Mapping[str, Any], flags: Sequence[Flag]) -> dict[str, Any]:
    """The value of each flag by name; end where one is too small or cannot be written to."""
    if "data_dir" not in given and any(flag.name == "data_dir" for flag in flags):
        usual = os.environ.get("SSM_JAX_DATA_DIR", "")
        try:
            local_path(usual)
        except ValueError as error:
            fail(f"$SSM_JAX_DATA_DIR={usual} does not fit: {error}.")
    asides = (HELP, PRINT_CONFIG)
    values = {flag.name: given.get(flag.name, flag.default) for flag in flags if flag not in asides}
    for flag in flags:
        value = values.get(flag.name)
        if flag.least is not None and value is not None and value < flag.least:
            fail(f"--{flag.name}={value} must be at least {flag.least}.")
        if flag.endings and value is not None and value.suffix.lower() not in flag.endings:
            *others, last = flag.endings
            choices = f"{', '.join(others)} or {last}" if others else last
            fail(f"--{flag.name}={value} does not fit: it must end in {choices}.")
        if flag.writes and value is not None:
            try:
                check_writable(value, flag.writes)
            except IsADirectoryError:
                fail(f"--{flag.name}={value} is a folder; give a file.")
            except OSError as error:
                fail(f"--{flag.name}: {os_fault(error)}")
    return values
