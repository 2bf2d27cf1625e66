"""The command line that all scripts share: ml_collections' syntax, with every fault named.

    script.py --config=FILE.py[:ARG] --config.KEY=VALUE ... --FLAG=VALUE ...

Order is free and the last of a repeated option counts. `--key value`, `--flag` and `--noflag` (also
`--noconfig.key`) work where absl has them. Every fault is one line on stderr; the exit code is 2.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ml_collections import ConfigDict

from ssm_jax import config as config_lib
from ssm_jax import stop
from ssm_jax.config.argv import Flag, parse, show_config, show_help
from ssm_jax.config.check import check
from ssm_jax.config.load import beside, read_config
from ssm_jax.files import check_writable, default_data_dir, local_path, os_fault, printable
from ssm_jax.options.rows import Option
from ssm_jax.outside import one_line, ours

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

EXIT_GONE = 141  # 128 + SIGPIPE, as shells say it
STDOUT = "standard output"


class Command(NamedTuple):
    """A command line: the locked config, the flags and --config by name, the overrides by key."""

    cfg: ConfigDict
    values: dict[str, Any]
    overrides: dict[str, Any]


class _Stream(io.FileIO):
    """A standard stream: errors of stdout name it, those of stderr stop nothing."""

    def write(self, content: Any) -> int:
        try:
            written: int | None = super().write(content)
        except OSError as error:
            if self.fileno() == 1:
                error.filename = STDOUT
                raise
            written = None
        if written is None and self.fileno() == 1:  # it does not block, and is full
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), STDOUT)
        return memoryview(content).nbytes if written is None else written


def steady_streams() -> None:
    """Make stdout and stderr fit for every text and every terminal, also where they are closed.

    What their encoding lacks is written as an escape. A closed stderr is as /dev/null: otherwise
    the next file opened would get its number, and warnings with it. A closed stdout is an error.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free
    for number, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        if old is not getattr(sys, f"__{name}__"):
            continue  # a test's
        raw = _Stream(number, "w", closefd=False)
        if old is not None:
            with contextlib.suppress(OSError):
                old.flush()
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=old.encoding if old is not None else "utf-8",
            errors="backslashreplace",
            line_buffering=number == 2 or raw.isatty(),
        )
        setattr(sys, name, stream)


def fail(message: str) -> NoReturn:
    """End the script with code 2 and one line on stderr for each line of `message`."""
    _error(message)
    raise SystemExit(2)


def _error(message: str) -> None:
    for word in sys.argv:  # a name with a line break in it is no new line
        name = word.partition("=")[2] if word.startswith("-") else word
        if len(name.splitlines()) > 1:
            message = message.replace(name, printable(name))
    for line in message.splitlines():
        of = f"process {stop.Process.index}: " if stop.Process.index else ""
        print(f"{of}error: {printable(line)}", file=sys.stderr)


def run_main(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Run `main(argv)` and exit with its code; an error of the user's is one line and code 2.

    The user's are a ValueError of our own raise statements (`outside.ours`), every OSError, and a
    platform on which JAX cannot start. Once a run has begun, an OSError that is no check of ours
    has code 74: the storage failed or is full, what was saved is kept. Our RuntimeError or
    FloatingPointError (a workdir in use, a loss that is nan) is one line and code 1, or its own
    `exit_code`. Too little memory is two lines and code 1. Ctrl-C is code 130, a reader of our
    output that went away 141. All else is a bug, also a ValueError out of NumPy or JAX, and keeps
    its traceback.
    """
    steady_streams()
    try:
        code = _ended(main)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        code = stop.EXIT_INTERRUPTED
    except OSError as error:
        of_stdout = error.filename == STDOUT
        if of_stdout:  # what is left in its buffer has nowhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if of_stdout and error.errno == errno.EPIPE:  # `script.py --help | head` has read enough
            code = EXIT_GONE
        else:
            check = ours(error) and error.errno is None
            storage = stop.Process.begun and not (of_stdout or check)
            code = stop.EXIT_STORAGE if storage else 2
            _error(os_fault(error))
    except Exception as error:
        full = is_out_of_memory(error)
        ended = ValueError | RuntimeError | FloatingPointError
        known = not full and isinstance(error, ended) and ours(error)
        fault = None if known or full else missing_platform()
        if not (known or full or fault):
            raise
        code = 2 if fault or isinstance(error, ValueError) else getattr(error, "exit_code", 1)
        said = str(error) if code == 2 else one_line(error)
        _error(fault or (f"out of memory: {said}\n{LESS_MEMORY}" if full else said))
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    stop.end(code)


LESS_MEMORY = (
    "take less of it: --config.train.accumulate=N computes a batch in parts, "
    "--config.model.remat=true and --config.model.activations=bfloat16 keep less, and so does a "
    "smaller --config.batch_size; train --dry_run says what a step needs."
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a device or of the machine did not suffice: Python's, NumPy's or
    JAX's error."""
    named = "jaxlib" in type(error).__module__ or "jax" in type(error).__module__.split(".")
    return isinstance(error, MemoryError) or (
        named and any(word in str(error) for word in ("RESOURCE_EXHAUSTED", "Out of memory"))
    )


def missing_platform() -> str | None:
    """One line, if JAX cannot start on the platforms that its environment names."""
    asked = [f"{k}={v}" for k in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if (v := os.environ.get(k))]
    if not asked:
        return None  # it takes what there is
    import jax

    try:
        jax.devices()
    except Exception as error:  # of any kind: without a GPU, cuda is a failed assertion
        why = one_line(error) if str(error) else "its plugin or its hardware is missing"
        return f"{' '.join(asked)}: JAX cannot start on it ({why}); unset it, or set it to cpu."
    return None


def _ended(main: Callable[[list[str]], int | None]) -> int:
    """The code of `main(argv)`, with all that it has printed written out."""
    try:
        code = main(sys.argv[1:]) or 0
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich ends the process with code 1 then
            raise end.__context__ from None
        if isinstance(end.code, str):
            _error(end.code)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    return code


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
    cfg = None
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
            if given.get("from") is not None and cfg.data.source in ("generated", "photographs"):
                cfg.data.source = "official"
        if not (faults or _asks_help(argv)):  # the check imports JAX
            check(cfg)
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
            choices = f"{', '.join(flag.endings[:-1])} or {flag.endings[-1]}"
            fail(f"--{flag.name}={value} does not fit: it must end in {choices}.")
        if flag.writes and value is not None:
            try:
                check_writable(value, flag.writes)
            except IsADirectoryError:
                fail(f"--{flag.name}={value} is a folder; give a file.")
            except OSError as error:
                fail(f"--{flag.name}: {os_fault(error)}")
    return values
