"""The command line that all scripts share: ml_collections' syntax, with every fault named.

    script.py --config=FILE.py[:ARG] --config.KEY=VALUE ... --FLAG=VALUE ...

Order is free and the last of a repeated option counts. `--key value`, `--flag` and `--noflag` (also
`--noconfig.key`) work where absl has them. Every fault is one line on stderr; the exit code is 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax.config_check import check
from ssm_jax.config_file import load_config, one_line, ours
from ssm_jax.options import Flag, parse, print_config, print_help

WORKDIR = Flag("workdir", "folder of the run; the same command goes on where it stopped", kind=Path)
DATA_DIR = Flag("data_dir", "folder of prepared data", default=Path("data"), kind=Path)
FROM = Flag("from", "official files: an archive or a folder; sets data.source", kind=Path)
WANDB = Flag(
    "wandb", "also log to Weights & Biases", "disabled", choices=("offline", "online", "disabled")
)
DRY_RUN = Flag("dry_run", "show shapes, parameters and memory; do not train", False, bool)

HELP = Flag("help", "show this text and end", False, bool)
PRINT_CONFIG = Flag("print_config", "show every option of the experiment and end", False, bool)


class Command(NamedTuple):
    """A command line: the locked config, the flags and --config by name, the overrides by key."""

    cfg: ConfigDict
    values: dict[str, Any]
    overrides: dict[str, Any]


def fail(message: str) -> NoReturn:
    """End the script with code 2 and one line on stderr for each line of `message`."""
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    raise SystemExit(2)


def run_main(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Run `main(argv)` and exit with its code; an error of the user's is one line and code 2.

    The user's are: a ValueError or OSError made by a raise statement of this package or of the
    script (the checks at the borders), and a path that is missing or closed to us. A RuntimeError
    or FloatingPointError made so (a workdir in use, a loss that is nan) is one line and code 1.
    Ctrl-C is code 130, a reader of our output that went away 141. All else, so also a ValueError
    out of NumPy or JAX, is a bug and keeps its traceback.
    """
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `script.py --help | head`: who reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError) as error:
        fail(one_line(error))
    except (ValueError, OSError) as error:
        if not ours(error):
            raise
        fail(str(error))
    except (RuntimeError, FloatingPointError) as error:
        if not ours(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        code = 1
    raise SystemExit(code)


def load(argv: Sequence[str], *, flags: Sequence[Flag], about: str) -> Command:
    """Read a command line with a config; `--help` and `--print_config` are answered here.

    Args:
      argv: the arguments, without the script's name.
      flags: the script's own flags.
      about: what the script does, the head of `--help`.

    Raises:
      SystemExit: code 2 and one line per fault, or code 0 after `--help` and `--print_config`.
    """
    flags = (*flags, PRINT_CONFIG, HELP)
    defaults = config_lib.flatten(config_lib.default())
    if not {"--help", "-h"}.isdisjoint(argv):
        print_help(about, (_CONFIG, *flags), with_config=True)
        raise SystemExit(0)
    kinds = {"config": str} | {f"config.{k}": type(v) for k, v in defaults.items()}
    given, faults = parse(argv, kinds, flags)
    overrides = {k.partition(".")[2]: v for k, v in given.items() if k.startswith("config.")}
    try:
        cfg = load_config(given.get("config", "")).lock()
        if not faults:
            cfg.update_from_flattened_dict(overrides)
            check(cfg)
    except ValueError as error:
        faults += str(error).splitlines()
    if faults:
        fail("\n".join(faults))
    values = _with_defaults(given, (_CONFIG, *flags))
    if values.pop("print_config"):
        print_config(cfg)
        raise SystemExit(0)
    return Command(cfg, values, overrides)


def load_flags(
    argv: Sequence[str], *, flags: Sequence[Flag], about: str, words: Flag | None = None
) -> dict[str, Any]:
    """As `load`, for a script without a config: the value of each flag by name.

    Args:
      argv, flags, about: as in `load`.
      words: what arguments without dashes are; their values are a list, of at least one, under this
        name. None: the script takes no such arguments.
    """
    flags = (*flags, HELP)
    if not {"--help", "-h"}.isdisjoint(argv):
        print_help(about, flags, with_config=False, words=words)
        raise SystemExit(0)
    given, faults = parse(argv, {}, flags, words)
    if words is not None and not faults and words.name not in given:
        faults.append(f"no {words.name} given; give {words.help}.")
    if faults:
        fail("\n".join(faults))
    values = _with_defaults(given, flags)
    return values if words is None else {**values, words.name: given[words.name]}


_CONFIG = Flag("config", "the experiment: FILE.py, or FILE.py:ARG where the file takes an argument")


def _with_defaults(given: Mapping[str, Any], flags: Sequence[Flag]) -> dict[str, Any]:
    return {flag.name: given.get(flag.name, flag.default) for flag in flags if flag is not HELP}
